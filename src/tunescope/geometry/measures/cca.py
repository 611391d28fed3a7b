"""Linear maps between the two sides: canonical correlations and regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tunescope.errors import Degenerate
from tunescope.geometry.measures.base import Measure, from_groups
from tunescope.geometry.moments import Moments, centred_blocks
from tunescope.geometry.null import DRAWS, Null, from_draws, from_values
from tunescope.geometry.rows import Rows
from tunescope.geometry.stream import gaussian_crosses
from tunescope.stats import Spread

DEAD = 1e-10  # a feature this small beside the largest is rounding, and stays small


class LinearFit(Measure):
    """What SVCCA, PWCCA and regression share: they read moments, and every left-out or shuffled value needs a new decomposition."""

    reads = "moments"
    bounds = (0.0, 1.0)
    change_formula = "1 − value"
    streams = True
    ideal_floor = 0.0
    interval = "jackknife over ten groups of rows (sums of moments), 95%"
    chance_method = "ten row permutations"

    def spread(self, rows: Rows) -> Spread:
        return from_groups(rows, self)

    def chance(self, rows: Rows, *, seed: int) -> Null:
        m = self.view(rows)
        if rows.passed:
            return from_values(self.value(m.with_cross(xy)) for xy in gaussian_crosses(m, seed=seed, draws=DRAWS))
        x, y = rows.sides(self.reads)

        def shuffled(order: Tensor) -> float:
            xy = torch.zeros_like(m.xy)
            for xb, yb in zip(centred_blocks(x, m.mean_x), centred_blocks(y, m.mean_y, order), strict=True):
                xy.addmm_(xb.T, yb)
            return self.value(m.with_cross(xy))

        return from_draws(shuffled, len(rows), seed=seed)


def _basis(square: Tensor, *, share: float = 1.0) -> Tensor:
    """Columns that whiten a side, over the directions that carry `share` of its variance and are above rounding (dead columns go).

    With all of the variance wanted, features are first brought to one scale: what is rounding beside a massive dimension need not be
    rounding in its own. Raises: Degenerate, for a side that does not vary.
    """
    if not square.diagonal().max() > 0:
        raise Degenerate("one side does not vary, so nothing correlates with it")
    if share == 1:
        size = square.diagonal().sqrt()
        size = torch.where(size > size.max() * DEAD, size, size.max())
        return _whitened(square / torch.outer(size, size), share) / size[:, None]
    return _whitened(square, share)


def _whitened(square: Tensor, share: float) -> Tensor:
    values, vectors = torch.linalg.eigh(square)
    values, vectors = values.flip(0), vectors.flip(1)
    alive = values > values[0] * 1e-10
    if share < 1:
        before = torch.cat([values.new_zeros(1), values.clamp_min(0).cumsum(0)[:-1]]) / values.clamp_min(0).sum()
        alive &= before < share
    return vectors[:, alive] / values[alive].sqrt()


def canonical_correlations(m: Moments, *, share: float = 1.0) -> tuple[Tensor, Tensor]:
    """Correlations (descending) and the x-side canonical directions, as columns in feature coordinates."""
    bx, by = _basis(m.xx, share=share), _basis(m.yy, share=share)
    u, s, _ = torch.linalg.svd(bx.T @ m.xy @ by, full_matrices=False)
    return s.clamp(max=1.0), bx @ u


@dataclass(frozen=True)
class SVCCA(LinearFit):
    """Mean canonical correlation of the directions with `share` (.99) of each side's variance. Unrelated data read high when n is small."""

    share: float = 0.99

    name: ClassVar[str] = "svcca"
    title: ClassVar[str] = "SVCCA"
    invariances: ClassVar[frozenset[str]] = frozenset({"rotation", "isotropic scale", "translation", "feature permutation"})
    reference: ClassVar[str] = "Raghu et al. 2017, https://arxiv.org/abs/1706.05806"

    def value(self, view: Moments) -> float:
        return float(canonical_correlations(view, share=self.share)[0].mean())


@dataclass(frozen=True)
class CCA(LinearFit):
    """Mean squared canonical correlation, over min(rank x, rank y). 1 whatever the data when n ≤ features: see its null."""

    name: ClassVar[str] = "cca"
    title: ClassVar[str] = "Mean squared CCA"
    invariances: ClassVar[frozenset[str]] = frozenset(
        {"rotation", "isotropic scale", "translation", "feature permutation", "invertible linear map"}
    )
    reference: ClassVar[str] = "Hotelling 1936, https://doi.org/10.1093/biomet/28.3-4.321"

    def value(self, view: Moments) -> float:
        return float(canonical_correlations(view)[0].square().mean())


@dataclass(frozen=True)
class PWCCA(LinearFit):
    """Canonical correlations weighted by how much of x each canonical direction accounts for: Σ αᵢρᵢ/Σ αᵢ, αᵢ = Σⱼ|⟨hᵢ, x̃ⱼ⟩|.

    Below n = d + e several correlations are 1 and their directions arbitrary among themselves: the weights, and the value in its fourth
    digit, then depend on rounding.
    """

    name: ClassVar[str] = "pwcca"
    title: ClassVar[str] = "PWCCA"
    invariances: ClassVar[frozenset[str]] = frozenset({"isotropic scale", "translation", "feature permutation"})
    reference: ClassVar[str] = "Morcos et al. 2018, https://arxiv.org/abs/1806.05759"
    reads: ClassVar[str] = "features"  # the weights sum over the features as they are

    def value(self, view: Moments) -> float:
        correlations, directions = canonical_correlations(view)
        weights = (directions.T @ view.xx).abs().sum(1)
        return float((weights * correlations).sum() / weights.sum())


@dataclass(frozen=True)
class LinearR2(LinearFit):
    """Share of the variance of y that a linear map of x explains: |Q_xᵀỹ|²/|ỹ|². 1 whatever the data when n ≤ features."""

    name: ClassVar[str] = "linear_r2"
    title: ClassVar[str] = "Linear regression R²"
    invariances: ClassVar[frozenset[str]] = frozenset({"rotation", "isotropic scale", "translation", "feature permutation"})
    reference: ClassVar[str] = "Kornblith et al. 2019, https://arxiv.org/abs/1905.00414"

    def value(self, view: Moments) -> float:
        return float((_basis(view.xx).T @ view.xy).square().sum() / view.yy.trace())
