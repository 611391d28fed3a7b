"""How many threads a piece of linear algebra is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 1e9  # multiply-adds that one thread does in well under a second


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
        yield
    finally:
        torch.set_num_threads(threads)
