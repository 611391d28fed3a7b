"""Pieces that run beside each other: in order, on one thread each when small, and the setting put back whatever happens."""

from __future__ import annotations

import threading

import pytest
import torch

from tunescope.geometry.threads import SMALL, side_by_side, threads_for


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_small_pieces_run_beside_each_other_in_order():
    together = threading.Barrier(2, timeout=20)  # passes only when two pieces are under way at once

    def square(x: int) -> tuple[int, int]:
        together.wait()
        return x * x, torch.get_num_threads()

    assert list(side_by_side(square, range(6), work=1)) == [(x * x, 1) for x in range(6)]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_large_pieces_run_one_after_the_other_on_all_threads():
    seen = list(side_by_side(lambda _: (torch.get_num_threads(), threading.current_thread()), range(3), work=SMALL))
    assert seen == [(2, threading.main_thread())] * 3


@pytest.mark.usefixtures("two_threads")
def test_an_error_stops_the_rest_and_puts_the_threads_back():
    begun = []

    def work(x: int) -> None:
        begun.append(x)
        raise ValueError(f"piece {x}")

    with pytest.raises(ValueError, match="piece 0"):
        list(side_by_side(work, range(100), work=1))
    assert len(begun) < 100
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_threads_are_put_back_after_an_error():
    with pytest.raises(ZeroDivisionError), threads_for(1):
        _ = torch.get_num_threads() / 0
    assert torch.get_num_threads() == 2
