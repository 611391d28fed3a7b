"""The interval of a mean by resampling items, or clusters of items."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import stats

from tunescope.errors import InputError

DRAWS = 2000
FEW = 10  # fewer items than this off the median: resampling sees too little of the spread, and Student's t stands in where it is wider
_CELLS = 1_000_000  # drawn indices in memory at a time


def mean_intervals(
    columns: np.ndarray, *, clusters: np.ndarray | None = None, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> list[tuple[float, float]]:
    """Two-sided intervals of the means of k columns of the same n items, by the symmetric studentised bootstrap.

    mean ± q·se, q the `level` quantile of |mean* − mean| / se* over the draws. Every se², of the data and of a draw, counts one item
    more, of the mean square distance from the median of the items that are not at it: where nearly all values are alike, a draw may
    hold none of the others and would have no spread. Chosen by coverage: where most differences are 0 the percentile, BCa and
    equal-tailed studentised bootstrap cover 87–94% at 30 items; this one covers 93–97% from about ten items off the median on. Fewer
    are too few to know: with two or three it may cover 88%. A long tail needs hundreds: log-normal values, σ = 1, are covered 90% at 30
    items, 92% at 100 and 94% at 300; paired differences of such losses have shorter tails and are covered from 30 on.

    Args:
        columns: (k, n) finite values.
        clusters: (n,) cluster of each item; whole clusters are drawn, and the mean stays that of items.
        draws: resamples; seed: of the draws, which all columns share.

    Returns: (low, high) per column, in the units of the values.

    Raises: InputError for fewer than two items or clusters.

    Reference: Hall 1988, On symmetric bootstrap confidence intervals (https://doi.org/10.1111/j.2517-6161.1988.tb01707.x).
    """
    columns = np.atleast_2d(np.asarray(columns, dtype=np.float64))
    sums, sizes = grouped(columns, clusters)
    groups = len(sizes)
    if groups < 2:
        raise InputError(f"an interval needs at least two items or clusters, got {groups}")
    means = sums.sum(1) / sizes.sum()
    medians = np.median(sums / sizes, axis=1)
    away = (sums - medians[:, None] * sizes) ** 2
    off = (away > 0).sum(1)
    extra = away.sum(1) / np.maximum(off, 1)
    spread = np.sqrt(((sums - means[:, None] * sizes) ** 2).sum(1) + extra)
    ratios = np.concatenate(list(_ratios(sums, sizes, means, extra, draws=draws, seed=seed)), axis=1)
    reach = np.quantile(ratios, level, axis=1) * spread
    student = stats.t.ppf(0.5 + level / 2, groups - 1) * np.sqrt(groups / (groups - 1)) / sizes.sum() * spread
    reach = np.where(off < FEW, np.maximum(reach, student), reach)
    return [(float(mean - width), float(mean + width)) for mean, width in zip(means, reach, strict=True)]


def grouped(columns: np.ndarray, clusters: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Sums (k, g) over the clusters of (k, n) columns, and the clusters' sizes (g,); without clusters every item is one."""
    if clusters is None:
        return columns, np.ones(columns.shape[1])
    _, labels = np.unique(clusters, return_inverse=True)
    return np.stack([np.bincount(labels, weights=column) for column in columns]), np.bincount(labels).astype(np.float64)


def standard_error(values: np.ndarray, clusters: np.ndarray | None = None) -> tuple[float, int]:
    """Standard error of the mean of (n,) values and its degrees of freedom: s/√n, or from the clusters' residual sums. n or g ≥ 2."""
    sums, sizes = grouped(values[None], clusters)
    groups = len(sizes)
    residuals = sums[0] - values.mean() * sizes
    return float(np.sqrt(groups / (groups - 1) * np.sum(residuals**2)) / len(values)), groups - 1


def _ratios(sums: np.ndarray, sizes: np.ndarray, means: np.ndarray, extra: np.ndarray, *, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks (k, b) of |mean* − mean| over the root of the drawn square residuals."""
    rng = np.random.default_rng(seed)
    groups, alike = len(sizes), bool((sizes == sizes[0]).all())
    block = max(1, _CELLS // groups)
    for start in range(0, draws, block):
        picked = rng.integers(0, groups, (min(block, draws - start), groups), dtype=np.int32)
        size = np.float64(sizes[0]) if alike else sizes[picked]
        total = size * groups if alike else size.sum(1)
        rows = []
        for column, mean, more in zip(sums, means, extra, strict=True):
            residuals = column[picked] - mean * size
            drift = residuals.sum(1) / total  # mean* − mean
            residuals -= drift[:, None] * size
            spread = np.sqrt(np.einsum("ij,ij->i", residuals, residuals) + more)
            rows.append(np.divide(np.abs(drift), spread, out=np.zeros_like(drift), where=spread > 0))
        yield np.stack(rows)
