"""Rows in a shuffled order that a disk can keep up with: blocks shuffled, rows shuffled within a window of blocks, each block read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.errors import ActivationError, InputError, NotEnoughRows
from tunescope.features.delta_norms import root_mean_square


class DeltaRows(Protocol):
    """What a dictionary is trained on: Δ rows (rows, width), their mean and size, and batches of them in a shuffled order.

    mean (d,) float64 and rms = √(E|Δ − mean|² / d) are of all rows. `batches` gives full batches (batch_size, d) in float32 on the CPU,
    every row at most once an epoch (the last rows % batch_size are left out), in an order that is a function of (seed, epoch) alone.
    skip: begin at that batch, without reading what is before it.
    """

    @property
    def rows(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def mean(self) -> Tensor: ...
    @property
    def rms(self) -> float: ...
    def batches(self, batch_size: int, *, seed: int, epoch: int, skip: int = 0) -> Iterator[Tensor]: ...


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows in memory: one window, so every order is equally likely. Make it with `of`."""

    array: Float[Tensor, "rows d"]
    mean: Float[Tensor, " d"]
    rms: float

    @classmethod
    def of(cls, array: Tensor | np.ndarray) -> ArrayRows:
        """The rows, of any floating type, left where they are. Raises InputError unless (rows, d), ActivationError for NaN or Inf."""
        rows = torch.as_tensor(array)
        if rows.dim() != 2 or not len(rows) or not rows.is_floating_point():
            raise InputError(f"rows of shape {tuple(rows.shape)} and type {rows.dtype} given; floating (rows, features) are needed")
        total, squares = sums_of(rows)
        if not torch.isfinite(total).all():
            bad = int((~torch.isfinite(rows)).any(dim=1).nonzero()[0])
            raise ActivationError(f"row {bad:,} of the rows given holds NaN or Inf; take it out, or find out where it comes from")
        mean = total / len(rows)
        return cls(rows, mean, root_mean_square(len(rows), squares, mean))

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.array)

    @property
    def width(self) -> int:
        """Features of a row."""
        return self.array.shape[1]

    def batches(self, batch_size: int, *, seed: int, epoch: int, skip: int = 0) -> Iterator[Tensor]:
        """See `DeltaRows`."""
        check_batches(self.rows, batch_size, skip)
        order = torch.from_numpy(_draw(seed, epoch, 0).permutation(self.rows))
        for start in range(skip * batch_size, self.rows - batch_size + 1, batch_size):
            yield self.array[order[start : start + batch_size]].float()


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
    for block in blocks:
        read(int(block), held[start : start + sizes[block]])
        start += sizes[block]


def _draw(seed: int, epoch: int, number: int) -> np.random.Generator:
    return np.random.default_rng((seed, epoch, number))
