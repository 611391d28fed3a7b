"""The same items through two models: the mean difference, its interval, its tests and its verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tunescope.errors import AlignmentError, InputError
from tunescope.stats.bootstrap import FEW, grouped, mean_intervals, standard_error
from tunescope.stats.detectable import detectable_effect
from tunescope.stats.exact import paired_permutation

VERDICTS = ("better", "worse", "equivalent", "no difference shown", "not evaluable")
LEVEL = 0.05
SLIGHT = 0.1  # of the margin: a smaller change is none, where rare large ones are looked for


@dataclass(frozen=True)
class Paired:
    """A paired comparison of n items.

    base, tuned: means. delta: tuned − base, low and high its 95% interval. p: of the paired randomisation test. sd: of the differences.
    equivalence_p: the larger p of the two one-sided tests against ±margin. detectable: the smallest true difference that n items show
    with 80% power. base_low … tuned_high: the intervals of each side alone; disjoint: whether they do not touch (the weaker test).
    left_out: items undefined on a side, which n does not count.
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
    left_out: int = 0


@dataclass(frozen=True)
class McNemar:
    """Items right before and wrong after (broken), the reverse (mended), and the exact two-sided p that both are as likely."""

    broken: int
    mended: int
    n: int
    p: float


def paired(
    base: np.ndarray,
    tuned: np.ndarray,
    *,
    margin: float,
    higher_is_better: bool = True,
    clusters: np.ndarray | None = None,
    seed: int = 0,
) -> Paired:
    """Compare per-item scores of the same items.

    low, high: symmetric studentised bootstrap (`mean_intervals`). p: random signs (`paired_permutation`). Verdict: "equivalent" when both
    one-sided tests at 5% place the difference inside ±margin; else "better" or "worse" when the interval excludes 0 and p is at most .05;
    else "no difference shown". Items that are all alike make delta 0 and p 1; their interval reaches as far as n items leave open
    (`unseen`), and they are equivalent only if there are enough of them (`equivalence_p`).

    Args:
        base, tuned: (n,) scores; an item that is NaN on a side is left out of everything and counted in `left_out`.
        margin: the difference that would not matter, in the units of the scores; 0 asks for no test of equivalence.
        clusters: (n,) cluster of each item, when items of one text or source belong together: clusters are drawn and flipped whole.
        seed: of the draws.

    Raises: AlignmentError when the lengths differ; InputError for a margin below 0 or an infinite score.
    """
    base, tuned, clusters = _aligned(base, tuned, clusters)
    if not (margin >= 0 and math.isfinite(margin)):
        raise InputError(f"margin {margin} asked for; give the difference that would not matter, 0 or more")
    defined = ~(np.isnan(base) | np.isnan(tuned))
    left_out = int((~defined).sum())
    base, tuned, clusters = base[defined], tuned[defined], None if clusters is None else clusters[defined]
    d = tuned - base
    if len(d if clusters is None else np.unique(clusters)) < 2:
        return _not_evaluable(base, tuned, margin, higher_is_better, left_out)
    (low, high), (base_low, base_high), (tuned_low, tuned_high) = mean_intervals(
        np.stack([d, base, tuned]), clusters=clusters, level=1 - LEVEL, seed=seed
    )
    if not np.any(d):
        high = unseen(base, clusters=clusters)
        low = -high
    p = paired_permutation(d, clusters=clusters, seed=seed)
    equivalence_p = equivalence(base, tuned, margin=margin, clusters=clusters) if margin > 0 else None
    return Paired(
        base=float(base.mean()),
        tuned=float(tuned.mean()),
        delta=float(d.mean()),
        low=low,
        high=high,
        p=p,
        n=len(d),
        sd=float(d.std(ddof=1)),
        margin=margin,
        higher_is_better=higher_is_better,
        equivalence_p=equivalence_p,
        detectable=_detectable(d, clusters),
        base_low=base_low,
        base_high=base_high,
        tuned_low=tuned_low,
        tuned_high=tuned_high,
        disjoint=bool(base_high < tuned_low or tuned_high < base_low),
        verdict=_verdict(low, high, p, equivalence_p, higher_is_better),
        left_out=left_out,
    )


def equivalence(base: np.ndarray, tuned: np.ndarray, *, margin: float, clusters: np.ndarray | None = None) -> float:
    """The larger p of two one-sided tests: that the mean difference is −margin or less, and that it is margin or more.

    Student's t at (margin − |mean|)/se. Where fewer than ten items (or clusters) differ by more than a tenth of the margin, se says little
    of rare large changes, and the two hypotheses are tested by counting instead: no item can change by more than R, the range of all
    scores, so a mean of −margin needs a share margin/R of items to fall (.9·margin/R, to fall by more than that tenth, where others change
    by less); p = P(Binomial(n, share) ≤ those that fell), and the same for those that rose. So n items that are all alike have
    p = (1 − margin/R)ⁿ: 299 of them for 5% at a hundredth of the range.

    Args:
        base, tuned: (n,) finite scores. margin: above 0.

    Reference: Schuirmann 1987 (https://doi.org/10.1007/BF01068419).
    """
    d = tuned - base
    sums, sizes = grouped(d[None], clusters)
    slight = SLIGHT * margin
    if not np.any((sums != 0) & (np.abs(sums) <= slight * sizes)):
        slight = 0.0
    fell, rose = sums < -slight * sizes, sums > slight * sizes
    if np.count_nonzero(fell | rose) >= FEW:
        se, df = standard_error(d, clusters)
        tails = stats.t.sf((margin + np.array([1, -1]) * d.mean()) / se, df) if se else np.where(abs(d.mean()) < margin, [0.0], [1.0])
        return float(np.max(tails))
    reach, moved = _reach(base, tuned), [int(fell.sum()), int(rose.sum())]
    if not reach or abs(d.mean()) >= margin:
        return 1.0
    share = min(1.0, (margin - slight) / reach * len(d) / (len(sizes) * float(sizes.max())))  # of clusters, were the largest ones to fall
    return float(np.max(stats.binom.cdf(moved, len(sizes), share)))


def unseen(scores: np.ndarray, *, clusters: np.ndarray | None = None) -> float:
    """How far from 0 the mean difference of items that are all alike, (n,) scores on both sides, may lie at 95%: R·(1 − .05^(1/n)), about
    3R/n, with R the range of the scores: a larger share of changed items would have shown one (the rule of three)."""
    groups = len(scores) if clusters is None else len(np.unique(clusters))
    return _reach(scores, scores) * (1 - LEVEL ** (1 / groups))


def _reach(base: np.ndarray, tuned: np.ndarray) -> float:
    """The most a score can change: the range of all of them, or their size where they are all one."""
    scores = np.concatenate([base, tuned])
    return float(np.ptp(scores)) or float(np.abs(scores).max())


def mcnemar(base_right: np.ndarray, tuned_right: np.ndarray) -> McNemar:
    """Exact McNemar test of (n,) booleans: of the items right on one side only, is either side the more frequent?

    p: two-sided binomial of the smaller count at ½; 1 where no item differs.

    Raises: AlignmentError when the lengths differ; InputError for values other than true and false.
    """
    base, tuned = np.asarray(base_right), np.asarray(tuned_right)
    if base.shape != tuned.shape or base.ndim != 1:
        raise AlignmentError(f"base has shape {base.shape} and tuned {tuned.shape}; give one row each, of the same items in the same order")
    if not (np.isin(base, (0, 1)).all() and np.isin(tuned, (0, 1)).all()):
        raise InputError("right and wrong are true and false (or 1 and 0); for other scores use paired")
    base, tuned = base.astype(bool), tuned.astype(bool)
    broken, mended = int((base & ~tuned).sum()), int((~base & tuned).sum())
    p = float(stats.binomtest(broken, broken + mended).pvalue) if broken + mended else 1.0
    return McNemar(broken, mended, len(base), p)


def _aligned(base: np.ndarray, tuned: np.ndarray, clusters: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    base, tuned = np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    if base.shape != tuned.shape or base.ndim != 1:
        raise AlignmentError(f"base has shape {base.shape} and tuned {tuned.shape}; give one row each, of the same items in the same order")
    for name, side in (("base", base), ("tuned", tuned)):
        if np.isinf(side).any():
            at = int(np.isinf(side).argmax())
            raise InputError(f"{name} has an infinite score at item {at}, which has no mean; NaN leaves an item out")
    if clusters is None:
        return base, tuned, None
    clusters = np.asarray(clusters)
    if clusters.shape != base.shape:
        raise AlignmentError(f"clusters has shape {clusters.shape} and the scores {base.shape}; name one cluster an item")
    return base, tuned, clusters


def _detectable(d: np.ndarray, clusters: np.ndarray | None) -> float | None:
    se, df = standard_error(d, clusters)
    return detectable_effect(sd=se * math.sqrt(df + 1), n=df + 1) if se else None


def _verdict(low: float, high: float, p: float, equivalence_p: float | None, higher_is_better: bool) -> str:
    if equivalence_p is not None and equivalence_p <= LEVEL:
        return "equivalent"
    if low <= 0 <= high or p > LEVEL:
        return "no difference shown"
    return "better" if (low > 0) == higher_is_better else "worse"


def _not_evaluable(base: np.ndarray, tuned: np.ndarray, margin: float, higher_is_better: bool, left_out: int) -> Paired:
    """Too few items for any statement: the means stand where there is an item, nothing else does."""
    return Paired(
        base=float(base.mean()) if len(base) else math.nan,
        tuned=float(tuned.mean()) if len(base) else math.nan,
        delta=float((tuned - base).mean()) if len(base) else math.nan,
        low=None,
        high=None,
        p=None,
        n=len(base),
        sd=None,
        margin=margin,
        higher_is_better=higher_is_better,
        equivalence_p=None,
        detectable=None,
        base_low=None,
        base_high=None,
        tuned_low=None,
        tuned_high=None,
        disjoint=None,
        verdict="not evaluable",
        left_out=left_out,
    )
