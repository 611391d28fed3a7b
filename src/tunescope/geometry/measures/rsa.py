"""Representational similarity analysis: do the two sides order their dissimilarities alike?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from tunescope.errors import Degenerate, UnknownName
from tunescope.geometry.measures.base import Measure, from_each, from_groups
from tunescope.geometry.moments import column_means
from tunescope.geometry.null import Null, from_draws, mantel_sd
from tunescope.geometry.rows import Rows, sampled
from tunescope.stats import Spread

COMPARISONS = ("kendall", "pearson", "spearman")
DISSIMILARITIES = ("correlation", "cosine", "euclidean")
TIED = 13  # decimals; float64 products are good to 15


@dataclass(frozen=True)
class RSA(Measure):
    """Correlation of the upper triangles of the two dissimilarity matrices.

    Above 4,000 rows it works on a seeded choice of 4,000 of them, the same for every layer. The default dissimilarity, 1 − Pearson
    correlation of two rows, is *not* invariant to rotation; `euclidean` is.

    Args:
        comparison: spearman (default), pearson, kendall (τ-b).
        dissimilarity: correlation (default), cosine, euclidean.
    """

    comparison: str = "spearman"
    dissimilarity: str = "correlation"

    name: ClassVar[str] = "rsa"
    title: ClassVar[str] = "RSA (Spearman, correlation distance)"
    reads: ClassVar[str] = "self"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    change_formula: ClassVar[str] = "1 − value"
    interval: ClassVar[str] = "delete-one jackknife over rows with the ranks held fixed, 95%"
    chance_method: ClassVar[str] = "row permutation, closed form (Mantel); ten draws for Kendall"
    reference: ClassVar[str] = "Kriegeskorte et al. 2008, https://doi.org/10.3389/neuro.06.004.2008"

    def __post_init__(self) -> None:
        if self.comparison not in COMPARISONS:
            raise UnknownName("comparison", self.comparison, COMPARISONS)
        if self.dissimilarity not in DISSIMILARITIES:
            raise UnknownName("dissimilarity", self.dissimilarity, DISSIMILARITIES)

    @property
    def invariances(self) -> frozenset[str]:  # type: ignore[override]
        common = {"isotropic scale", "feature permutation"}
        return frozenset(
            common | {"euclidean": {"rotation", "translation"}, "cosine": {"rotation"}, "correlation": set()}[self.dissimilarity]
        )

    def view(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The two (m, m) matrices whose off-diagonals are correlated: dissimilarities, or their ranks for Spearman."""
        rows.require_spread()
        cache = rows.__dict__.setdefault("_rsa", {})
        if self not in cache:
            cache[self] = tuple(self._matrix(side) for side in (rows.x, rows.y))
        return cache[self]

    def _matrix(self, x: Tensor) -> Tensor:
        x = x[sampled(len(x)).to(x.device)]
        matrix = dissimilarities(x, self.dissimilarity)
        if self.comparison != "spearman":
            return matrix
        upper = torch.triu_indices(len(matrix), len(matrix), offset=1)
        ranks = torch.zeros_like(matrix)
        ranks[upper[0], upper[1]] = torch.from_numpy(stats.rankdata(matrix[upper[0], upper[1]].numpy(force=True))).to(matrix)
        return ranks + ranks.T

    def value(self, view: tuple[Tensor, Tensor]) -> float:
        upper = torch.triu_indices(len(view[0]), len(view[0]), offset=1)
        a, b = (m[upper[0], upper[1]] for m in view)
        if self.comparison == "kendall":
            return float(stats.kendalltau(a.numpy(force=True), b.numpy(force=True)).statistic)
        if a.max() == a.min() or b.max() == b.min():
            raise Degenerate("rsa is not defined: all dissimilarities of one side are equal")
        a, b = a - a.mean(), b - b.mean()
        return float((a @ b) / (a.norm() * b.norm()))

    def spread(self, rows: Rows) -> Spread:
        if self.comparison == "kendall":
            return from_groups(rows, self)
        value, each = self.of_rows(rows), self.without_each(rows)
        if rows.groups is not None:
            kept = sampled(len(rows)).to(rows.x.device)
            rows = Rows(rows.x[kept], rows.y[kept], rows.groups.to(rows.x.device)[kept])
        return from_each(rows, value, each)

    def without_each(self, rows: Rows) -> Tensor:
        """(m,) the correlation with each sampled row left out: exact for Pearson, ranks held fixed for Spearman."""
        a, b = self.view(rows)
        m = len(a)
        a, b = _grand_centred(a), _grand_centred(b)
        pairs = m * (m - 1) / 2 - (m - 1)

        def rest(product: Tensor) -> Tensor:  # sum over the pairs without row i
            return product.sum() / 2 - product.sum(1)

        sa, sb = rest(a), rest(b)
        covariance = rest(a * b) - sa * sb / pairs
        spread = (rest(a * a) - sa**2 / pairs) * (rest(b * b) - sb**2 / pairs)
        return covariance / spread.sqrt()

    def chance(self, rows: Rows, *, seed: int) -> Null:
        a, b = self.view(rows)
        if self.comparison == "kendall":
            return from_draws(lambda order: self.value((a, b[order][:, order])), len(a), seed=seed)
        return Null(0.0, mantel_sd(a, b))


def dissimilarities(x: Tensor, kind: str) -> Tensor:
    """(m, m) dissimilarities in float64 with an exact zero diagonal; cosines that agree to 13 decimals tie."""
    x = x.double()
    if kind == "euclidean":
        return torch.cdist(x - column_means(x), x - column_means(x), compute_mode="donot_use_mm_for_euclid_dist")
    x = x - x.mean(1, keepdim=True) if kind == "correlation" else x
    unit = x / x.norm(dim=1, keepdim=True).clamp_min(np.finfo(np.float64).tiny)
    # a product of matrices gives equal pairs values that differ in the last digits, and ranks would take that noise for an order
    return (1 - unit @ unit.T).round(decimals=TIED).fill_diagonal_(0)


def _grand_centred(a: Tensor) -> Tensor:
    m = len(a)
    return (a - a.sum() / (m * (m - 1))).fill_diagonal_(0)
