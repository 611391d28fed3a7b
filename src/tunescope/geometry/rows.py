"""Paired rows kept in memory, and the views of them that measures read: each view is made once and shared by all measures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from tunescope.errors import ActivationError, AlignmentError, Degenerate
from tunescope.geometry.hsic import HsicTriple
from tunescope.geometry.moments import Moments, centred_blocks, column_means, resolution, row_space
from tunescope.geometry.neighbours import Graph, nearest
from tunescope.geometry.row_means import RowMeans

ROW_CAP = 4000


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows of base (x) and tuned (y), row i of both being the same text (or token); `groups` ties the tokens of one text.

    `+` appends rows. The kept rows serve every measure; those that stream read only `moments`, `change` or `row_means`, which have a
    `+` of their own.
    """

    x: Shaped[Tensor, "n d"]
    y: Shaped[Tensor, "n e"]
    groups: Int[Tensor, " n"] | None = None

    @classmethod
    def of(cls, x: Any, y: Any, groups: Any = None) -> Rows:
        """Check and wrap two arrays (torch or numpy, floating, on any one device).

        Raises:
            AlignmentError: not two-dimensional, different numbers of rows, or not a group for each.
            ActivationError: NaN or Inf; names the side and the row.
        """
        x, y = as_array(x, "x"), as_array(y, "y")
        if len(x) != len(y):
            raise AlignmentError(f"x has {len(x):,} rows and y has {len(y):,}; row i of both must be the same text")
        groups = None if groups is None else torch.as_tensor(groups)
        if groups is not None and len(groups) != len(x):
            raise AlignmentError(f"groups has {len(groups):,} entries for {len(x):,} rows; each row belongs to one text")
        return cls(x, y, groups)

    def __add__(self, other: Rows) -> Rows:
        groups = None if self.groups is None or other.groups is None else torch.cat([self.groups, other.groups])
        return Rows(torch.cat([self.x, other.x]), torch.cat([self.y, other.y]), groups)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def passed(self) -> bool:
        """Whether the rows went by in a stream, leaving sums and a sample of themselves."""
        return False

    @property
    def effects_weights(self) -> Tensor | None:
        """How many rows each row of x stands for in a sum over all of them; None: for itself."""
        return None

    @property
    def drawn(self) -> Rows:
        """Rows that are a fair sample of all: these."""
        return self

    def parts(self, view: str) -> list[Moments]:
        """Moments of the groups of `deal`, in the named view."""
        deal, (x, y) = self.deal(), self.sides(view)
        return [Moments.of(x[deal == g], y[deal == g]) for g in range(int(deal.max()) + 1)]

    def deal(self) -> Int[Tensor, " n"]:
        """A group for each row, ten in all, dealt in the order of a seeded shuffle; the rows of one text stay together."""
        units = torch.arange(len(self)) if self.groups is None else self.groups.unique(return_inverse=True)[1]
        count = int(units.max()) + 1
        return (torch.randperm(count, generator=torch.Generator().manual_seed(0))[units] % min(10, count)).to(self.x.device)

    def permuted(self, order: Int[Tensor, " n"]) -> Rows:
        """The same x against y in another order: a draw from chance."""
        return Rows(self.x, self.y[order])

    @cached_property
    def same(self) -> bool:
        """Bit for bit the same on both sides."""
        return self.x.shape == self.y.shape and torch.equal(self.x, self.y)

    @property
    def aligned(self) -> bool:
        """Whether both sides share their features, so that y − x means something."""
        return self.x.shape == self.y.shape

    @cached_property
    def coordinates(self) -> tuple[Tensor, Tensor]:
        """Both sides in their own row spaces when n < features (exact for rotation-invariant measures), else as they are."""
        return row_space(self.x), row_space(self.y)

    @cached_property
    def moments(self) -> Moments:
        """Moments in `coordinates`; what every rotation-invariant measure reads."""
        self.require_spread()
        return Moments.of(*self.coordinates)

    @cached_property
    def hsic(self) -> HsicTriple:
        return HsicTriple.of(self.moments)

    @cached_property
    def hsic_without_each(self) -> HsicTriple:
        each = HsicTriple.without_each(self.moments, *self.coordinates)
        for row in self.heavy:
            each = each.with_entry(row, self.without(row).hsic)
        return each

    @cached_property
    def heavy(self) -> list[int]:
        """Rows that alone carry over half of a side's spread (at most one a side): what is left without them drowns in rounding when it is
        got by subtraction or from a derivative, and is computed anew."""
        m, found = self.moments, set()
        for x, mean, square in zip(self.coordinates, (m.mean_x, m.mean_y), (m.xx, m.yy), strict=True):
            norms = torch.cat([block.square().sum(1) for block in centred_blocks(x, mean)])
            found |= set((norms > square.trace() / 2).nonzero().flatten().tolist())
        return sorted(found)

    def without(self, row: int) -> Rows:
        kept = torch.arange(len(self), device=self.x.device) != row
        return Rows(self.x[kept], self.y[kept])

    @cached_property
    def decomposition(self) -> tuple[Tensor, Tensor, Tensor]:
        """U, S, Vᵀ of the cross-moment xy; one SVD serves the Procrustes value, its interval and the aligned residuals."""
        return torch.linalg.svd(self.moments.xy, full_matrices=False)

    @cached_property
    def features(self) -> Moments:
        """Moments in the features themselves, for measures that are not rotation-invariant."""
        return self.moments if len(self) >= max(self.x.shape[1], self.y.shape[1]) else Moments.of(self.x, self.y)

    @cached_property
    def change(self) -> Moments:
        """Moments of (x, y − x): the change is differenced row by row, never as a difference of moments."""
        self.require_aligned("y − x")
        return Moments.of(self.x, self.y.double() - self.x.double())

    @cached_property
    def row_means(self) -> RowMeans:
        self.require_aligned("row-by-row change")
        return RowMeans.of(self.x, self.y)

    def sides(self, view: str) -> tuple[Tensor, Tensor]:
        """The two arrays whose moments the named view (moments, features, change) holds."""
        if view == "moments":
            return self.coordinates
        return (self.x, self.y) if view == "features" else (self.x, self.y.double() - self.x.double())

    def graphs(self, k: int, metric: str) -> tuple[Graph, Graph]:
        """The k nearest neighbours of every row on both sides, made once at the largest k asked for."""
        self.require_spread()
        cache = self.__dict__.setdefault("_graphs", {})
        if metric not in cache or cache[metric][0].shape[1] < k:
            cache[metric] = (nearest(self.x, k, metric=metric), nearest(self.y, k, metric=metric))
        left, right = cache[metric]
        return left[:, :k], right[:, :k]

    @cached_property
    def repeated(self) -> int:
        """How often the most frequent row of either side stands there."""
        return max(int(side.unique(dim=0, return_counts=True)[1].max()) for side in (self.x, self.y))

    @cached_property
    def constant(self) -> str | None:
        """The side (x or y) whose rows are all the same, to rounding; None when both vary."""
        return next((side for side, rows in (("x", self.x), ("y", self.y)) if not _varies(rows)), None)

    def require_spread(self) -> None:
        if self.constant:
            raise Degenerate(f"all {len(self):,} rows of {self.constant} are the same, so there is no geometry to compare")

    def require_aligned(self, what: str) -> None:
        if not self.aligned:
            raise Degenerate(f"{what} needs the same features on both sides; x has {self.x.shape[1]} and y has {self.y.shape[1]}")


def sampled(n: int) -> Int[Tensor, " m"]:
    """The rows that measures quadratic in n with sorting work on: all up to `ROW_CAP`, above it a seeded choice, in order."""
    if n <= ROW_CAP:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))[:ROW_CAP].sort().values


def as_array(x: Any, name: str = "x") -> Shaped[Tensor, "n d"]:
    """A two-dimensional, finite, floating tensor of at least float32.

    Raises: AlignmentError (no numbers, or another shape), ActivationError (NaN or Inf, naming the first row).
    """
    if isinstance(x, Tensor) and x.layout != torch.strided:
        raise AlignmentError(f"{name} is a sparse tensor; give it dense (x.to_dense())")
    x = x.detach() if isinstance(x, Tensor) else _tensor(x, name)
    if x.is_complex():
        raise AlignmentError(f"{name} is complex; measures are of real rows")
    if x.ndim != 2:
        raise AlignmentError(f"{name} has shape {tuple(x.shape)}; expected two dimensions (rows, features)")
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x.double()
    # a finite sum proves every entry finite; one that overflows is looked at again
    if not torch.isfinite(column_means(x)).all() and not all(torch.isfinite(block).all() for block in x.split(1024)):
        row = int((~torch.isfinite(x).all(1)).nonzero()[0])
        raise ActivationError(f"{name} has NaN or Inf, first in row {row:,}; a measure of it would mean nothing")
    return x


def _tensor(x: Any, name: str) -> Tensor:
    """A numpy array, or what numpy makes one of, as a tensor; copied where torch could not share it (byte order, read-only)."""
    try:
        array = np.ascontiguousarray(x)
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(native if native.flags.writeable else native.copy())
    except (TypeError, ValueError) as error:
        raise AlignmentError(f"{name} is a {type(x).__name__} that is no array of numbers ({error}); give numpy or torch arrays") from None


def _varies(x: Shaped[Tensor, "n d"]) -> bool:
    mean = column_means(x)
    return sum(float(block.square().sum()) for block in centred_blocks(x, mean)) > resolution(x, mean)
