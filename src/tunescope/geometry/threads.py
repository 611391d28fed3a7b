"""How many threads a piece of linear algebra is worth."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

SMALL = 1e9  # multiply-adds that one thread does in well under a second
WORKERS = 8  # pieces in memory at a time, at most

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Piece], Result], pieces: Sequence[Piece], *, work: float) -> Iterator[Result]:
    """`function` of every piece, in order. Pieces of small `work` (multiply-adds) run beside each other on one thread each; large ones
    one after the other, on all threads."""
    workers = min(torch.get_num_threads(), WORKERS, len(pieces))
    with threads_for(work):
        if workers < 2 or torch.get_num_threads() > 1:
            yield from map(function, pieces)
            return
        pool = ThreadPoolExecutor(workers)
        try:
            yield from pool.map(function, pieces)
        finally:  # after an error or Ctrl-C, what has not begun never does
            pool.shutdown(cancel_futures=True)


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def threads_for(work: float) -> Iterator[None]:
    """One thread inside the block when `work` (multiply-adds a layer) is small; put back afterwards.

    Small factorisations gain nothing from a second thread, and where something else wants the core the threads wait for each other at
    every step: measured on two busy cores, a 384×384 SVD took 9.5 s on two threads and .08 s on one.
    """
    threads = torch.get_num_threads()
    if work >= SMALL or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        with _controller().limit(limits=1, user_api="blas"):  # numpy's and scipy's libraries have threads of their own
            yield
    finally:
        torch.set_num_threads(threads)
