"""Paired rows that have passed by: what measures that stream need of them, mergeable and in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from tunescope.errors import Degenerate, InputError
from tunescope.geometry.moments import Moments, centre_resolution
from tunescope.geometry.row_means import RowMeans
from tunescope.geometry.rows import Rows


@dataclass(frozen=True, eq=False)
class Passage:
    """Sums over the n paired rows of a stream, and the few rows of it that are kept for the intervals.

    x, y: the kept rows, in the order they came. same: every row so far was bit for bit the same on both sides. change and row_means are
    None where the two sides do not share their features.
    """

    moments: Moments
    change: Moments | None
    row_means: RowMeans | None
    x: Float[Tensor, "m d"]
    y: Float[Tensor, "m e"]
    same: bool = True

    @classmethod
    def of(cls, x: Shaped[Tensor, "n d"], y: Shaped[Tensor, "n e"], *, keep: Int[Tensor, " m"], change: bool = False) -> Passage:
        """One piece of the stream. keep: which of its rows to keep. change: sum the moments of y − x too, which few measures read."""
        aligned = x.shape == y.shape
        return cls(
            Moments.of(x, y),
            Moments.of(x, y.double() - x.double()) if aligned and change else None,
            RowMeans.of(x, y) if aligned else None,
            x[keep],
            y[keep],
            aligned and torch.equal(x, y),
        )

    def __add__(self, other: Passage) -> Passage:
        return Passage(
            self.moments + other.moments,
            None if self.change is None or other.change is None else self.change + other.change,
            None if self.row_means is None or other.row_means is None else self.row_means + other.row_means,
            torch.cat([self.x, other.x]),
            torch.cat([self.y, other.y]),
            self.same and other.same,
        )

    def all_reduce(self) -> Passage:
        """The sum over all ranks of the default process group (torch.distributed), by SUM alone; kept rows in the order of the ranks."""
        return Passage(
            self.moments.all_reduce(),
            None if self.change is None else self.change.all_reduce(),
            None if self.row_means is None else self.row_means.all_reduce(),
            _joined(self.x),
            _joined(self.y),
            _count(int(not self.same)) == 0,
        )


def _count(number: int) -> int:
    total = torch.tensor([number])
    torch.distributed.all_reduce(total)
    return int(total)


def _joined(rows: Float[Tensor, "m d"]) -> Float[Tensor, "s d"]:
    """The rows of all ranks, one rank after the other: each writes its own into zeros, and SUM brings them together."""
    ranks, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    counts = torch.zeros(ranks, dtype=torch.int64)
    counts[rank] = len(rows)
    torch.distributed.all_reduce(counts)
    starts = counts.cumsum(0) - counts
    joined = rows.new_zeros(int(counts.sum()), rows.shape[1])
    joined[int(starts[rank]) : int(starts[rank]) + len(rows)] = rows
    torch.distributed.all_reduce(joined)
    return joined


class PassedRows(Rows):
    """A whole passage where `Rows` are asked for: values from its sums, intervals from the kept rows, no neighbours.

    A delete-one effect needs the sums of all rows and the row itself, so the kept rows, chosen by hash, give the jackknife's standard
    error of all n up to the sampling error of a variance.
    """

    passage: Passage

    def __init__(self, passage: Passage):
        super().__init__(passage.x, passage.y)
        self.__dict__["passage"] = passage  # Rows are frozen

    def __len__(self) -> int:
        return self.passage.moments.n

    @property
    def effects_weight(self) -> float:
        return (len(self) - 1) / (len(self.x) - 1) if len(self.x) > 1 else float("nan")

    @property
    def passed(self) -> bool:
        return True

    @property
    def same(self) -> bool:
        return self.passage.same

    @property
    def coordinates(self) -> tuple[Tensor, Tensor]:
        return self.x, self.y

    @cached_property
    def constant(self) -> str | None:
        m = self.passage.moments
        pairs = zip(("x", "y"), (self.x, self.y), (m.mean_x, m.mean_y), m.traces, strict=True)
        return next((side for side, rows, mean, trace in pairs if float(trace) <= centre_resolution(m.n, mean, rows.dtype)), None)

    @cached_property
    def moments(self) -> Moments:
        self.require_spread()
        return self.passage.moments

    @property
    def features(self) -> Moments:
        return self.moments

    @cached_property
    def change(self) -> Moments:
        self.require_aligned("y − x")
        if self.passage.change is None:
            raise Degenerate("the moments of y − x were not summed while the rows passed")
        return self.passage.change

    @cached_property
    def row_means(self) -> RowMeans:
        self.require_aligned("row-by-row change")
        return self.passage.row_means  # type: ignore[return-value]  # aligned rows have them

    @property
    def heavy(self) -> list[int]:
        return []  # leaving a row out anew would need all the others

    def parts(self, view: str) -> list[Moments]:
        raise Degenerate("its interval leaves out groups of rows, and the rows of a stream are gone")

    def graphs(self, k: int, metric: str) -> tuple[Tensor, Tensor]:
        raise InputError("neighbours need all rows at once, and a stream keeps none; use the exact method")


def gaussian_crosses(m: Moments, *, seed: int, draws: int) -> Iterator[Float[Tensor, "d e"]]:
    """Cross-moments as shuffling one side would give them, without its rows: X̃ᵀPỸ over random P has mean 0 and covariance
    xx ⊗ yy/(n−1) exactly, and tends to a Gaussian matrix; so xx^½ G yy^½/√(n−1) with G white."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (_root(square) for square in (m.xx, m.yy))
    for _ in range(draws):
        white = torch.randn(len(left), len(right), generator=generator, dtype=torch.float64).to(left.device)
        yield left @ white @ right / (m.n - 1) ** 0.5


def _root(square: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    values, vectors = torch.linalg.eigh(square)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
