"""What happened in the features themselves: for a base and a tuned model that share their coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.errors import Degenerate
from tunescope.geometry import null
from tunescope.geometry.measures.base import Measure, from_each, from_groups
from tunescope.geometry.moments import Moments
from tunescope.geometry.null import Null, from_draws
from tunescope.geometry.row_means import RowMeans, per_row
from tunescope.geometry.rows import Rows
from tunescope.geometry.spectrum import effective_rank, singular_of_gram
from tunescope.stats import Spread


class PerRow(Measure):
    """A mean over rows of a number of each row."""

    reads = "row_means"
    streams = True
    interval = "jackknife over rows (the standard error of a mean), 95%"
    chance_method = "ten row permutations"

    def rows(self, rows: Rows) -> Tensor:
        raise NotImplementedError

    def spread(self, rows: Rows) -> Spread:
        values = self.rows(rows)
        mean = values.mean()
        return from_each(rows, float(mean), mean - (values - mean) / (len(rows) - 1))

    def chance(self, rows: Rows, *, seed: int) -> Null:
        rows.require_aligned(self.name)
        some = rows.drawn
        floor = from_draws(lambda order: float(self.rows(some.permuted(order)).mean()), len(some), seed=seed)
        return Null(floor.mean, floor.sd and floor.sd * (len(some) / len(rows)) ** 0.5)  # of a mean of n rows, drawn from those kept


@dataclass(frozen=True)
class RelativeDrift(PerRow):
    """Mean of |y − x|/|x| over rows."""

    name: ClassVar[str] = "relative_drift"
    title: ClassVar[str] = "Relative drift"
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    identity: ClassVar[float] = 0.0
    higher_is_closer: ClassVar[bool] = False
    change_formula: ClassVar[str] = "value"
    invariances: ClassVar[frozenset[str]] = frozenset({"feature permutation"})
    reference: ClassVar[str] = "mean |y − x| / |x|"

    def value(self, view: RowMeans) -> float:
        return view.drift

    def rows(self, rows: Rows) -> Tensor:
        return per_row(rows.x, rows.y)[0]


@dataclass(frozen=True)
class RowCosine(PerRow):
    """Mean over rows of the cosine between a row and itself after tuning."""

    name: ClassVar[str] = "row_cosine"
    title: ClassVar[str] = "Cosine to itself"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    change_formula: ClassVar[str] = "1 − value"
    invariances: ClassVar[frozenset[str]] = frozenset({"isotropic scale", "feature permutation"})
    reference: ClassVar[str] = "mean x·y / (|x||y|)"

    def value(self, view: RowMeans) -> float:
        return view.cosine

    def rows(self, rows: Rows) -> Tensor:
        return per_row(rows.x, rows.y)[1]


def principal_angles(x: Any, y: Any, *, m: int = 10) -> Tensor:
    """The m principal angles, in radians ascending, between the spans of the top-m principal directions of x and y, (n, d) each."""
    return _angles(Rows.of(x, y).features, m)


def _angles(moments: Moments, m: int) -> Tensor:
    return angles_between(*(torch.linalg.eigh(square).eigenvectors[:, -m:] for square in (moments.xx, moments.yy)))


def angles_between(p: Float[Tensor, "d m"], q: Float[Tensor, "d m"]) -> Float[Tensor, " m"]:
    """Principal angles, in radians ascending, between the spans of two sets of orthonormal columns, float64."""
    cosines = torch.linalg.svdvals(p.T @ q).clamp(max=1.0)
    # sines are exact where the cosine is not: near angle 0
    sines = torch.linalg.svdvals(q - p @ (p.T @ q)).flip(0).clamp(max=1.0)
    return torch.where(cosines**2 > 0.5, sines.asin(), cosines.acos())


@dataclass(frozen=True)
class SubspaceOverlap(Measure):
    """Mean squared cosine of the principal angles between the top-m principal subspaces (m = 10): 1 the same, about m/d for random ones."""

    m: int = 10

    name: ClassVar[str] = "subspace_overlap"
    title: ClassVar[str] = "Top-subspace overlap"
    reads: ClassVar[str] = "features"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    change_formula: ClassVar[str] = "1 − value"
    invariances: ClassVar[frozenset[str]] = frozenset({"isotropic scale", "translation", "feature permutation"})
    streams: ClassVar[bool] = True
    interval: ClassVar[str] = "jackknife over ten groups of rows (sums of moments), 95%"
    chance_method: ClassVar[str] = "none: shuffling rows leaves each subspace as it is"
    reference: ClassVar[str] = "Björck and Golub 1973, https://doi.org/10.2307/2005662"

    @property
    def minimum_rows(self) -> int:
        return self.m + 2

    def view(self, rows: Rows) -> Moments:
        rows.require_aligned(self.name)
        rows.require_spread()
        return rows.features

    def value(self, view: Moments) -> float:
        m = min(self.m, len(view.mean_x))
        for side, square in (("x", view.xx), ("y", view.yy)):
            values = torch.linalg.eigvalsh(square)
            if values[-m] <= values[-1] * 1e-13:
                raise Degenerate(f"{self.name} is not defined: {side} varies in fewer than {m} directions")
        return float(_angles(view, m).cos().square().mean())

    def spread(self, rows: Rows) -> Spread:
        return from_groups(rows, self)

    def chance(self, rows: Rows, *, seed: int) -> Null:
        return null.none("shuffling rows leaves each side's principal subspace as it is")


@dataclass(frozen=True)
class ChangeRank(Measure):
    """Effective rank of the change y − x: exp of the entropy of its normalised singular values, centred. How many directions moved."""

    name: ClassVar[str] = "change_rank"
    title: ClassVar[str] = "Effective rank of the change"
    saturates: ClassVar[bool] = False  # a number of directions, not a closeness
    reads: ClassVar[str] = "change"
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    identity: ClassVar[float] = 0.0
    higher_is_closer: ClassVar[bool] = False
    change_formula: ClassVar[str] = "value"
    invariances: ClassVar[frozenset[str]] = frozenset({"translation", "feature permutation"})
    streams: ClassVar[bool] = True
    interval: ClassVar[str] = "jackknife over ten groups of rows (sums of moments), 95%"
    chance_method: ClassVar[str] = "ten row permutations"
    reference: ClassVar[str] = "Roy and Vetterli 2007, https://ieeexplore.ieee.org/document/7098875"

    def value(self, view: Moments) -> float:
        return effective_rank(singular_of_gram(view.yy))

    def spread(self, rows: Rows) -> Spread:
        return from_groups(rows, self)

    def chance(self, rows: Rows, *, seed: int) -> Null:
        if rows.passed:
            return null.none("shuffling needs all rows at once, and a stream keeps none")
        return from_draws(lambda order: self.value(rows.permuted(order).change), len(rows), seed=seed)
