"""Training seeds as a level of their own: few of them, and each the same items again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tunescope.errors import Degenerate, InputError, NotEnoughRows

DRAWS = 2000
ROUGH = 5  # seeds below which an interval over seeds is no more than an order of size
_CELLS = 2_000_000


@dataclass(frozen=True)
class Welch:
    """Difference of two means (b − a), its interval, and Welch's t, degrees of freedom and two-sided p."""

    difference: float
    low: float
    high: float
    t: float
    df: float
    p: float


@dataclass(frozen=True)
class SeedSummary:
    """Mean ± sd over seeds, and an interval of the mean over seeds and items; rough: fewer than twenty seeds."""

    mean: float
    sd: float
    seeds: int
    items: int
    low: float
    high: float
    rough: bool


def welch(mean_a: float, sd_a: float, n_a: int, mean_b: float, sd_b: float, n_b: int, *, level: float = 0.95) -> Welch:
    """Welch's test from mean ± sd, as papers print them: t = (b − a)/√(sd_a²/n_a + sd_b²/n_b), degrees of freedom by Satterthwaite.

    sd is the sample's (divided by n − 1). With three seeds and one sd on both sides, a difference reaches 5% at 2.3 sd.

    Raises: NotEnoughRows below 2 on a side; InputError for a number that is not finite or a negative sd; Degenerate when both sd are 0.
    """
    if min(n_a, n_b) < 2:
        raise NotEnoughRows(f"Welch's test needs at least 2 values a side, got {n_a} and {n_b}")
    if not all(map(math.isfinite, (mean_a, sd_a, mean_b, sd_b))) or min(sd_a, sd_b) < 0:
        raise InputError(f"{mean_a} ± {sd_a} and {mean_b} ± {sd_b} given; means are finite and an sd is 0 or more")
    a, b = sd_a**2 / n_a, sd_b**2 / n_b
    if a + b == 0:
        raise Degenerate("both sd are 0: without a spread there is no test of the difference")
    se, df = math.sqrt(a + b), (a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1))
    difference, reach = mean_b - mean_a, float(stats.t.ppf(0.5 + level / 2, df)) * se
    p = 2 * float(stats.t.sf(abs(difference) / se, df))
    return Welch(difference, difference - reach, difference + reach, difference / se, df, p)


def seed_summary(scores: np.ndarray, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0) -> SeedSummary:
    """Mean ± sd over seeds and a hierarchical bootstrap interval of the mean: seeds drawn with replacement, then items.

    The items are the same under every seed and are drawn together; drawn anew in each, an item that is hard for all would count as many.
    The quantiles of drawn means are set wider by √(s/(s − 1)) about the mean, which draws of s seeds lack. Below twenty seeds the
    interval is rough: where seeds vary more than items it covers 86% of the time with five of them and 92% with twenty.

    Args:
        scores: (s, n) score, or difference, of item j under seed i.

    Raises: NotEnoughRows below 2 seeds or 1 item, InputError for a value that is not finite.

    Reference: Bouthillier et al. 2021, Accounting for variance in machine learning benchmarks (https://arxiv.org/abs/2103.03098).
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise InputError(f"scores must be finite and of shape (seeds, items); got shape {scores.shape}")
    count, items = scores.shape
    if count < 2 or items < 1:
        raise NotEnoughRows(f"a spread over seeds needs at least 2 seeds and an item, got {count} and {items}")
    rng, means = np.random.default_rng(seed), []
    block = max(1, _CELLS // max(items, count))
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        chosen = rng.multinomial(count, np.full(count, 1 / count), rows) @ scores / count
        picked = rng.integers(0, items, (rows, items))
        means.append(np.take_along_axis(chosen, picked, axis=1).mean(1))
    mean = float(scores.mean())
    low, high = mean + math.sqrt(count / (count - 1)) * (np.quantile(np.concatenate(means), [0.5 - level / 2, 0.5 + level / 2]) - mean)
    return SeedSummary(mean, float(scores.mean(1).std(ddof=1)), count, items, float(low), float(high), count < ROUGH)
