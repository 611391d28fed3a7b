"""The standard error of an estimate from delete-one values, and the interval it makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from tunescope.errors import Degenerate


@dataclass(frozen=True)
class Spread:
    """A standard error, in the units of the value, and its degrees of freedom."""

    se: float
    df: int


def jackknife(
    deletions: np.ndarray, value: float, *, groups: np.ndarray | None = None, weights: np.ndarray | None = None
) -> Spread:
    """Standard error from delete-one (or delete-a-group) values: se² = (g−1)/g · Σ(θ₍₋ᵢ₎ − mean)² (Efron and Stein 1981).

    The bootstrap is not used: drawing rows with replacement duplicates them, which biases every neighbour and Gram measure.

    Args:
        deletions: (g,) the estimate without row (or group) i.
        value: the estimate on all rows.
        groups: (n,) group of each row, when rows of one text belong together; their first-order effects are summed.
        weights: (g,) how many rows each one stands for, when only some of all rows were left out in turn.

    Raises:
        Degenerate: fewer than two deletions.
    """
    effects = np.asarray(deletions, dtype=np.float64) - value
    if groups is not None:
        _, labels = np.unique(groups, return_inverse=True)
        effects = np.bincount(labels, weights=effects).astype(np.float64)
    g = len(effects)
    if g < 2:
        raise Degenerate(f"an interval needs at least two rows or groups, got {g}")
    if weights is not None:
        total = float(weights.sum())
        centred = effects - np.average(effects, weights=weights)
        return Spread(float(np.sqrt((total - 1) / total * np.sum(weights * centred**2))), max(1, int((weights > 0).sum()) - 1))
    return Spread(float(np.sqrt((g - 1) / g * np.sum((effects - effects.mean()) ** 2))), g - 1)


def t_interval(
    value: float, spread: Spread, *, bounds: tuple[float, float] = (-np.inf, np.inf), level: float = 0.95
) -> tuple[float, float]:
    """Two-sided Student-t interval, cut at the range of the value."""
    reach = float(stats.t.ppf(0.5 + level / 2, spread.df)) * spread.se
    return max(bounds[0], value - reach), min(bounds[1], value + reach)
