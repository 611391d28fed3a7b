"""Rows in a shuffled order that a disk can keep up with: blocks shuffled, rows shuffled within a window of blocks, each block read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from tunescope.errors import InputError, NotEnoughRows


def windowed_batches(
    sizes: Sequence[int],
    read: Callable[[int, Tensor], None],
    *,
    width: int,
    dtype: torch.dtype,
    window: int,
    batch_size: int,
    seed: int,
    epoch: int,
    skip: int = 0,
) -> Iterator[Tensor]:
    """Full batches (batch_size, width) float32 over blocks of `sizes` rows: the blocks in a random order, `window` of them in memory at a
    time, their rows in a random order. A batch may begin in one window and end in the next.

    read(block, out): writes the rows of a block into out (rows, width); it is called once a block and epoch, and not for blocks before
    batch `skip`. Memory: the rows of one window in `dtype`, and a batch.
    """
    check_batches(sum(sizes), batch_size, skip)
    order = _draw(seed, epoch, 0).permutation(len(sizes))
    windows = [order[start : start + window] for start in range(0, len(order), window)]
    held = torch.empty(max(sum(sizes[block] for block in blocks) for blocks in windows), width, dtype=dtype)
    first, seen, rest = skip * batch_size, 0, torch.empty(0, width)
    for number, blocks in enumerate(windows):
        rows = sum(sizes[block] for block in blocks)
        before, seen = seen, seen + rows
        if seen <= first:
            continue
        _fill(held, blocks, sizes, read)
        chosen = torch.from_numpy(_draw(seed, epoch, number + 1).permutation(rows))[max(first - before, 0) :]
        for piece in _pieces(chosen, batch_size, len(rest)):
            rest = torch.cat([rest, held.index_select(0, piece).float()]) if len(rest) else held.index_select(0, piece).float()
            if len(rest) == batch_size:
                yield rest
                rest = rest[:0]


def sums_of(rows: Tensor) -> tuple[Tensor, float]:
    """Σ row (d,) and Σ |row|² in float64, in blocks that bound the memory."""
    total, squares = torch.zeros(rows.shape[1], dtype=torch.float64), 0.0
    for block in rows.split(1024):
        wide = block.double().cpu()
        total += wide.sum(dim=0)
        squares += float(wide.square().sum())
    return total, squares


def check_batches(rows: int, batch_size: int, skip: int) -> None:
    """Raises InputError for a size or skip that is none, NotEnoughRows when not one batch is full."""
    if batch_size < 1 or skip < 0:
        raise InputError(f"batch_size={batch_size}, skip={skip} asked for; a batch holds at least 1 row, and skip is 0 or more")
    if rows < batch_size:
        raise NotEnoughRows(f"{rows:,} rows are there and a batch of {batch_size:,} was asked for; give more texts, or a smaller batch")


def _pieces(chosen: Tensor, batch_size: int, waiting: int) -> Iterator[Tensor]:
    """`chosen` cut so that the first piece completes the batch of which `waiting` rows are there."""
    first = (batch_size - waiting) % batch_size
    for piece in (chosen[:first], *chosen[first:].split(batch_size)):
        if len(piece):
            yield piece


def _fill(held: Tensor, blocks: np.ndarray, sizes: Sequence[int], read: Callable[[int, Tensor], None]) -> None:
    start = 0
    for block in (block for block in blocks if sizes[block]):
        read(int(block), held[start : start + sizes[block]])
        start += sizes[block]


def _draw(seed: int, epoch: int, number: int) -> np.random.Generator:
    return np.random.default_rng((seed, epoch, number))
