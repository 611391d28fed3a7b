"""Paired rows that have passed by: what measures that stream need of them, mergeable and in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from tunescope.errors import Degenerate, InputError
from tunescope.geometry.moments import Moments, centre_resolution, centred_blocks
from tunescope.geometry.row_means import RowMeans
from tunescope.geometry.rows import Rows

HEAVY = 1000  # rows of largest weight that are kept beside the chosen ones


@dataclass(frozen=True, eq=False)
class Passage:
    """Sums over the n paired rows of a stream, and the few rows of it that are kept for the intervals.

    x, y: the kept rows, in the order they came; weight: |x̃|²|ỹ|² of each, about the means of its piece. heavy: the same three of the
    `HEAVY` rows of largest weight, which a sample so small would miss and an interval must not. same: every row so far was bit for bit
    the same on both sides. change and row_means are None where the two sides do not share their features.
    """

    moments: Moments
    change: Moments | None
    row_means: RowMeans | None
    x: Float[Tensor, "m d"]
    y: Float[Tensor, "m e"]
    weight: Float[Tensor, " m"]
    heavy: tuple[Float[Tensor, "h d"], Float[Tensor, "h e"], Float[Tensor, " h"]]
    same: bool = True

    @classmethod
    def of(cls, x: Shaped[Tensor, "n d"], y: Shaped[Tensor, "n e"], *, keep: Int[Tensor, " m"], change: bool = False) -> Passage:
        """One piece of the stream. keep: which of its rows to keep. change: sum the moments of y − x too, which few measures read."""
        aligned, moments = x.shape == y.shape, Moments.of(x, y)
        weight = _weights(x, moments.mean_x) * _weights(y, moments.mean_y)
        return cls(
            moments,
            Moments.of(x, y.double() - x.double()) if aligned and change else None,
            RowMeans.of(x, y) if aligned else None,
            x[keep],
            y[keep],
            weight[keep],
            _heaviest(x, y, weight),
            aligned and torch.equal(x, y),
        )

    def __add__(self, other: Passage) -> Passage:
        return Passage(
            self.moments + other.moments,
            None if self.change is None or other.change is None else self.change + other.change,
            None if self.row_means is None or other.row_means is None else self.row_means + other.row_means,
            torch.cat([self.x, other.x]),
            torch.cat([self.y, other.y]),
            torch.cat([self.weight, other.weight]),
            _heaviest(*(torch.cat(both) for both in zip(self.heavy, other.heavy, strict=True))),
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
            _joined(self.weight[:, None])[:, 0],
            _heaviest(_joined(self.heavy[0]), _joined(self.heavy[1]), _joined(self.heavy[2][:, None])[:, 0]),
            _count(int(not self.same)) == 0,
        )


def _weights(x: Shaped[Tensor, "n d"], mean: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
    return torch.cat([block.square().sum(1) for block in centred_blocks(x, mean)])


def _heaviest(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    top = weight.topk(min(HEAVY, len(weight))).indices
    return x[top], y[top], weight[top]


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

    A delete-one effect needs the sums of all rows and the row itself. So the jackknife's sum of squared effects is exact for the heaviest
    rows, and for all others that of the kept ones, chosen by hash, times how many they stand for.
    """

    passage: Passage

    def __init__(self, passage: Passage):
        super().__init__(torch.cat([passage.x, passage.heavy[0]]), torch.cat([passage.y, passage.heavy[1]]))
        self.__dict__["passage"] = passage  # Rows are frozen

    def __len__(self) -> int:
        return self.passage.moments.n

    @cached_property
    def effects_weights(self) -> Tensor:
        """How many rows each of x and y stands for: the heavy ones for themselves, kept ones among these for none."""
        p, heavy = self.passage, len(self.passage.heavy[2])
        light = (p.weight < p.heavy[2].min()) if heavy else torch.ones_like(p.weight, dtype=torch.bool)
        rest, count = len(self) - heavy, int(light.sum())
        if rest and not count:
            raise Degenerate("no row of the many is among the kept ones")
        return torch.cat([light * (rest / max(count, 1)), torch.ones(heavy, device=light.device)]).double()

    @property
    def drawn(self) -> Rows:
        return Rows(self.passage.x, self.passage.y)

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
