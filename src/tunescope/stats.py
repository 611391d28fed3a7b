"""Intervals and exact tests on plain arrays.

Axis legend of the package: n rows (texts or tokens), d / e features of base / tuned, g groups, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A two-sided interval and its standard error, in the units of the value."""

    low: float
    high: float
    se: float


def jackknife_interval(
    value: float,
    deletions: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    level: float = 0.95,
) -> Interval:
    """Student-t interval from delete-one (or delete-a-group) values.

    se² = (g−1)/g · Σ(θ₍₋ᵢ₎ − mean)², with g−1 degrees of freedom (Efron and Stein 1981). The bootstrap is not used: drawing rows
    with replacement duplicates them, which biases every neighbour and Gram measure.

    Args:
        value: the estimate on all rows.
        deletions: (g,) the estimate without row (or group) i.
        groups: (n,) group of each row, when rows of one text belong together; their first-order effects are summed.
        bounds: the measure's range; the interval is cut there.

    Raises:
        ValueError: fewer than two deletions.
    """
    effects = np.asarray(deletions, dtype=np.float64) - value
    if groups is not None:
        _, labels = np.unique(groups, return_inverse=True)
        effects = np.bincount(labels, weights=effects)
    g = len(effects)
    if g < 2:
        raise ValueError(f"an interval needs at least two rows or groups, got {g}")
    se = float(np.sqrt((g - 1) / g * np.sum((effects - effects.mean()) ** 2)))
    reach = float(stats.t.ppf(0.5 + level / 2, g - 1)) * se
    return Interval(low=max(bounds[0], value - reach), high=min(bounds[1], value + reach), se=se)
