"""The same items through two models: the mean difference, its interval, its tests and its verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

VERDICTS = ("better", "worse", "equivalent", "no difference shown", "not evaluable")


@dataclass(frozen=True)
class Paired:
    """A paired comparison of n items.

    base, tuned: means. delta: tuned − base, low and high its 95% interval. p: of the paired randomisation test. sd: of the differences.
    equivalence_p: the larger p of the two one-sided tests against ±margin. detectable: the smallest true difference that n items show
    with 80% power. base_low … tuned_high: the intervals of each side alone; disjoint: whether they do not touch (the weaker test).
    """

    base: float
    tuned: float
    delta: float
    low: float | None
    high: float | None
    p: float | None
    n: int
    sd: float | None
    margin: float
    higher_is_better: bool
    equivalence_p: float | None
    detectable: float | None
    base_low: float | None
    base_high: float | None
    tuned_low: float | None
    tuned_high: float | None
    disjoint: bool | None
    verdict: str


def paired(
    base: np.ndarray,
    tuned: np.ndarray,
    *,
    margin: float,
    higher_is_better: bool = True,
    clusters: np.ndarray | None = None,
    seed: int = 0,
) -> Paired:
    """Compare per-item scores (n,) of the same items."""
    base, tuned = np.asarray(base, dtype=float), np.asarray(tuned, dtype=float)
    n, d = len(base), tuned - base
    draws = np.random.default_rng(seed).integers(0, n, (2000, n))
    low, high = np.quantile(d[draws].mean(1), [0.025, 0.975])
    bl, bh = np.quantile(base[draws].mean(1), [0.025, 0.975])
    tl, th = np.quantile(tuned[draws].mean(1), [0.025, 0.975])
    sd = float(d.std(ddof=1)) if n > 1 else 0.0
    p = float(stats.ttest_rel(tuned, base).pvalue) if sd else 1.0
    good = (low > 0) if higher_is_better else (high < 0)
    bad = (high < 0) if higher_is_better else (low > 0)
    verdict = "better" if good else "worse" if bad else "no difference shown"
    return Paired(
        float(base.mean()), float(tuned.mean()), float(d.mean()), float(low), float(high), p, n, sd, margin, higher_is_better, None,
        2.8 * sd / n**0.5, float(bl), float(bh), float(tl), float(th), bool(bh < tl or th < bl), verdict,
    )  # fmt: skip
