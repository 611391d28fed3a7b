"""Paired comparisons: formulas and enumerations of others, planted verdicts, and (slow) whether 95% is 95% and 5% is 5%."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from tunescope.errors import AlignmentError, InputError
from tunescope.stats import mcnemar, mean_intervals, paired, paired_permutation, paired_power

GAINS = np.array([1, 0.6309, 0.5, 0.4307, 0.3869, 0.3562, 0.3333, 0.3155, 0.301, 0.2891, 0])  # of one relevant passage at ranks 1 … 10
PLACES = np.array([0.5, 0.1, 0.06, 0.04, 0.03, 0.03, 0.02, 0.02, 0.02, 0.02, 0.16])


def planted(n: int, difference: float, *, sd: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose mean difference and sd are exactly these."""
    rng = np.random.default_rng(seed)
    base, noise = rng.random(n), rng.normal(size=n)
    return base, base + difference + sd * (noise - noise.mean()) / noise.std(ddof=1)


def test_the_numbers_are_those_of_numpy_and_scipy():
    base, tuned = planted(200, 0.03)
    found = paired(base, tuned, margin=0.05)
    assert (found.base, found.tuned) == pytest.approx((base.mean(), tuned.mean()))
    assert (found.delta, found.sd, found.n) == (pytest.approx(0.03), pytest.approx(0.1), 200)
    t = stats.ttest_rel(tuned, base)
    assert found.p == pytest.approx(t.pvalue, abs=3 * math.sqrt(t.pvalue / 10_000) + 1e-4)  # of 10,000 draws
    reach = stats.t.ppf(0.975, 199) * 0.1 / math.sqrt(200)
    assert (found.low, found.high) == pytest.approx((0.03 - reach, 0.03 + reach), rel=0.08)  # normal differences, 2,000 draws
    below = stats.ttest_1samp(tuned - base, 0.05, alternative="less").pvalue
    above = stats.ttest_1samp(tuned - base, -0.05, alternative="greater").pvalue
    assert found.equivalence_p == pytest.approx(max(below, above), rel=1e-9)
    assert paired_power(found.detectable, sd=0.1, n=200) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(
    ("difference", "margin", "higher", "verdict"),
    [
        (0.05, 0.02, True, "better"),
        (0.05, 0.02, False, "worse"),
        (-0.05, 0.02, True, "worse"),
        (-0.05, 0.02, False, "better"),
        (0.0, 0.02, True, "equivalent"),
        (0.012, 0.03, True, "equivalent"),  # a difference that is there and does not matter
        (0.012, 0, True, "better"),
        (0.0, 0.008, True, "no difference shown"),
        (0.0, 0, True, "no difference shown"),
    ],
)
def test_verdicts(difference, margin, higher, verdict):
    found = paired(*planted(300, difference), margin=margin, higher_is_better=higher)
    assert found.verdict == verdict
    assert (found.equivalence_p is None) == (margin == 0)


def test_sides_have_intervals_of_their_own_which_show_less():
    """A difference of a tenth of a standard deviation between the sides, the same on every item but for a little noise."""
    base = np.random.default_rng(0).normal(size=400)
    found = paired(base, base + 0.1 + 0.01 * np.random.default_rng(1).normal(size=400), margin=0)
    assert found.verdict == "better"
    assert found.disjoint is False
    assert (found.base_low, found.base_high) == pytest.approx(stats.t.interval(0.95, 399, base.mean(), stats.sem(base)), abs=0.01)
    apart = paired(base, base + 1, margin=0)
    assert apart.disjoint is True


@pytest.mark.parametrize(("n", "verdict"), [(3, "no difference shown"), (298, "no difference shown"), (299, "equivalent")])
def test_items_all_alike_are_equivalent_only_if_there_are_enough(n, verdict):
    """The rule of three: n items without a change leave up to 1 − .05^(1/n) of all items free to change."""
    scores = np.arange(n) % 2
    found = paired(scores, scores, margin=0.01)
    assert (found.delta, found.p, found.sd) == (0, 1, 0)
    assert (-found.low, found.high) == pytest.approx((1 - 0.05 ** (1 / n),) * 2)
    assert found.equivalence_p == pytest.approx(0.99**n)
    assert (found.verdict, found.detectable, found.disjoint) == (verdict, None, False)


@pytest.mark.parametrize(("broken", "mended", "n"), [(1, 0, 300), (4, 0, 1000), (2, 3, 700)])
def test_equivalence_of_a_few_changed_items_is_counted(broken, mended, n):
    base = np.tile([0.0, 1.0], n // 2)
    tuned = base.copy()
    tuned[1 : 1 + 2 * broken : 2] = 0
    tuned[0 : 2 * mended : 2] = 1
    expected = max(sum(math.comb(n, k) * 0.02**k * 0.98 ** (n - k) for k in range(count + 1)) for count in (broken, mended))
    assert paired(base, tuned, margin=0.02).equivalence_p == pytest.approx(expected, rel=1e-9)


def test_rare_large_drops_are_looked_for_under_slight_changes():
    """A share of items as large as the margin drops by 1, which is a mean of −margin: at most 5% of data sets may call it equivalent."""
    called = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        base = draw.random(300)
        d = -(draw.random(300) < 0.01).astype(float) + 1e-4 * draw.normal(size=300)
        called += paired(base, base + d, margin=0.01).verdict == "equivalent"
    assert called / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize(("broken", "mended", "verdict"), [(0, 5, 0), (0, 6, 1), (0, 12, 1), (2, 9, 0), (2, 12, 1)])
def test_a_difference_is_shown_only_where_interval_and_exact_test_agree(broken, mended, verdict):
    base = np.tile([0.0, 1.0], 150)
    tuned = base.copy()
    tuned[1 : 1 + 2 * broken : 2], tuned[0 : 2 * mended : 2] = 0, 1
    found = paired(base, tuned, margin=0)
    assert found.p == pytest.approx(stats.binomtest(broken, broken + mended).pvalue)
    assert found.verdict == ("better" if found.p <= 0.05 and found.low > 0 else "no difference shown")
    assert verdict or found.verdict == "no difference shown"


def test_nothing_but_zeros_has_no_scale_and_is_no_proof():
    assert paired(np.zeros(1000), np.zeros(1000), margin=0.5).verdict == "no difference shown"
    assert paired(np.ones(1000), np.ones(1000), margin=0.01).verdict == "equivalent"


def test_undefined_items_are_left_out_and_counted():
    base, tuned = planted(60, 0.1)
    holed = [np.insert(side, [3, 40], values) for side, values in ((base, [np.nan, 1]), (tuned, [1, np.nan]))]
    found, plain = paired(*holed, margin=0.01), paired(base, tuned, margin=0.01)
    assert (found.n, found.left_out) == (60, 2)
    assert (found.delta, found.low, found.p) == (plain.delta, plain.low, plain.p)


@pytest.mark.parametrize(("base", "tuned"), [([], []), ([np.nan, np.nan], [1, 2]), ([0.5], [0.75]), ([0.5, np.nan], [0.75, 1])])
def test_fewer_than_two_items_are_not_evaluable(base, tuned):
    found = paired(np.array(base), np.array(tuned), margin=0.01)
    assert found.verdict == "not evaluable"
    assert (found.low, found.high, found.p, found.equivalence_p, found.detectable) == (None,) * 5
    assert found.delta == 0.25 if found.n else math.isnan(found.delta)


def test_one_cluster_is_one_item():
    assert paired(*planted(50, 1), margin=0.01, clusters=np.zeros(50)).verdict == "not evaluable"


def test_repeated_items_in_clusters_are_not_believed_twice():
    """Every item five times: the clustered interval is that of the distinct items; without clusters it is √5 too narrow."""
    base, tuned = planted(60, 0.02)
    five = [np.repeat(side, 5) for side in (base, tuned)]
    once, clustered, naive = (
        paired(base, tuned, margin=0.05),
        paired(*five, margin=0.05, clusters=np.repeat(np.arange(60), 5)),
        paired(*five, margin=0.05),
    )
    assert (clustered.low, clustered.high) == pytest.approx((once.low, once.high))
    assert (clustered.p, clustered.equivalence_p) == pytest.approx((once.p, once.equivalence_p))
    assert clustered.detectable == pytest.approx(once.detectable)
    assert naive.high - naive.low == pytest.approx((once.high - once.low) / math.sqrt(5), rel=0.1)  # other draws


def test_a_seed_gives_the_same_numbers_and_another_seed_nearly_the_same():
    sides = planted(200, 0.02)
    first, again, other = (paired(*sides, margin=0.01, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.low != other.low
    assert first.low == pytest.approx(other.low, abs=0.1 * (first.high - first.low))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1, 2], [1, 2, 3], {"margin": 0}), AlignmentError, r"base has shape \(2,\) and tuned \(3,\)"),
        (([[1, 2]], [[1, 2]], {"margin": 0}), AlignmentError, "give one row each"),
        (([1, 2], [1, 2], {"margin": -0.1}), InputError, "margin -0.1 asked for"),
        (([1, 2], [1, 2], {"margin": math.nan}), InputError, "margin nan asked for"),
        (([1, 2], [1, math.inf], {"margin": 0}), InputError, "tuned has an infinite score at item 1"),
        (([1, 2], [1, 2], {"margin": 0, "clusters": [1]}), AlignmentError, r"clusters has shape \(1,\)"),
    ],
)
def test_refusals(arguments, error, message):
    base, tuned, options = arguments
    with pytest.raises(error, match=message):
        paired(base, tuned, **options)


# ---------------------------------------------------------------- the interval


def test_an_interval_is_the_studentised_bootstrap_written_out():
    """Every one of the 4⁴ resamples of four values by hand, against many draws; the quantile lies between two of few values."""
    values = np.array([0.0, 1.0, 3.0, 7.0])
    extra = np.mean([(v - 2.0) ** 2 for v in values])  # the median is 2, and nothing lies at it
    ratios = []
    for drawn in product(values, repeat=4):
        mean = np.mean(drawn)
        ratios.append(abs(mean - 2.75) / math.sqrt(sum((v - mean) ** 2 for v in drawn) + extra))
    reach = np.quantile(ratios, 0.6) * math.sqrt(sum((v - 2.75) ** 2 for v in values) + extra)
    student = stats.t.ppf(0.8, 3) * math.sqrt((sum((v - 2.75) ** 2 for v in values) + extra) / 3 / 4)
    ((low, high),) = mean_intervals(values, level=0.6, draws=100_000)
    assert high - 2.75 == pytest.approx(max(reach, student), rel=0.02)
    assert 2.75 - low == pytest.approx(high - 2.75)


def test_a_shift_and_a_scale_of_the_values_are_those_of_the_interval():
    values = np.random.default_rng(0).exponential(size=80)
    (plain, moved) = mean_intervals(np.stack([values, 5 - 3 * values]))
    assert moved == pytest.approx((5 - 3 * plain[1], 5 - 3 * plain[0]))


def test_clusters_of_different_sizes_make_a_ratio_estimate():
    """The width against Cochran's standard error of a ratio, at 400 clusters."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 8, 400)
    labels = np.repeat(np.arange(400), sizes)
    values = rng.normal(size=400)[labels] + rng.normal(size=len(labels))
    sums = np.bincount(labels, weights=values)
    se = math.sqrt(np.sum((sums - values.mean() * sizes) ** 2) * 400 / 399) / sizes.sum()
    ((low, high),) = mean_intervals(values, clusters=labels)
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.966 * se, rel=0.05)


def test_an_interval_needs_two():
    with pytest.raises(InputError, match="at least two items or clusters, got 1"):
        mean_intervals(np.ones(1))


# ---------------------------------------------------------------- McNemar


@pytest.mark.parametrize(("broken", "mended", "same"), [(3, 9, 20), (0, 6, 10), (5, 5, 0), (0, 0, 7), (40, 71, 900)])
def test_mcnemar_is_the_binomial_tail_doubled(broken, mended, same):
    base = np.array([1] * broken + [0] * mended + [1] * same, dtype=bool)
    tuned = np.array([0] * broken + [1] * mended + [1] * same, dtype=bool)
    differing = broken + mended
    tail = sum(math.comb(differing, k) for k in range(min(broken, mended) + 1)) / 2**differing
    found = mcnemar(base, tuned)
    assert (found.broken, found.mended, found.n) == (broken, mended, len(base))
    assert found.p == pytest.approx(min(1, 2 * tail))


def test_mcnemar_and_random_signs_are_one_test():
    base = np.array([1] * 4 + [0] * 11 + [1] * 30)
    tuned = np.array([0] * 4 + [1] * 11 + [1] * 30)
    assert mcnemar(base, tuned).p == pytest.approx(paired_permutation(tuned - base))


def test_mcnemar_refusals():
    with pytest.raises(InputError, match="right and wrong are true and false"):
        mcnemar([0.5, 1], [1, 1])
    with pytest.raises(AlignmentError, match=r"base has shape \(1,\)"):
        mcnemar([1], [1, 1])


# ---------------------------------------------------------------- slow: coverage and level


def ndcg_differences(rng, n, change, *, worse):
    """nDCG@10 with one relevant passage: most queries keep their rank, the others draw one, the missed `worse` times as often."""
    places = PLACES * np.where(GAINS == 0, worse, 1)
    base, again = rng.choice(GAINS, n, p=PLACES / PLACES.sum()), rng.choice(GAINS, n, p=places / places.sum())
    mean = change * (places / places.sum() - PLACES / PLACES.sum()) @ GAINS
    return np.where(rng.random(n) < change, again - base, 0), mean, None


def accuracy_differences(rng, n, mended, broken):
    u = rng.random(n)
    return (u < mended) * 1.0 - (u > 1 - broken), mended - broken, None


def loss_differences(rng, n, spread):
    """A log-normal loss times a log-normal ratio, less the loss."""
    base, ratio = np.exp(1 + 0.5 * rng.normal(size=n)), np.exp(-0.05 + spread * rng.normal(size=n))
    return base * (ratio - 1), math.exp(1.125) * (math.exp(-0.05 + spread**2 / 2) - 1), None


def clustered_differences(rng, n, share):
    """Items in clusters of 1 to 9, `share` of their variance between the clusters."""
    sizes = rng.integers(1, 10, n)
    labels = np.repeat(np.arange(n), sizes)
    return math.sqrt(share) * rng.normal(size=n)[labels] + math.sqrt(1 - share) * rng.normal(size=len(labels)), 0.0, labels


SETTINGS = {
    "ndcg, a quarter change, n = 80": (ndcg_differences, 80, {"change": 0.25, "worse": 1}),
    "ndcg, a quarter change, n = 300": (ndcg_differences, 300, {"change": 0.25, "worse": 1}),
    "ndcg, worse, n = 100": (ndcg_differences, 100, {"change": 0.25, "worse": 4}),
    "ndcg, a tenth change and get worse, n = 300": (ndcg_differences, 300, {"change": 0.1, "worse": 4}),
    "ndcg, a tenth change and get worse, n = 1000": (ndcg_differences, 1000, {"change": 0.1, "worse": 4}),
    "accuracy, n = 50": (accuracy_differences, 50, {"mended": 0.15, "broken": 0.05}),
    "accuracy, n = 150": (accuracy_differences, 150, {"mended": 0.06, "broken": 0.03}),
    "accuracy, n = 300": (accuracy_differences, 300, {"mended": 0.03, "broken": 0.01}),
    "accuracy, n = 1000": (accuracy_differences, 1000, {"mended": 0.03, "broken": 0.01}),
    "loss, n = 30": (loss_differences, 30, {"spread": 0.15}),
    "loss, n = 100": (loss_differences, 100, {"spread": 0.5}),
    "loss, n = 1000": (loss_differences, 1000, {"spread": 0.5}),
    "40 clusters": (clustered_differences, 40, {"share": 0.5}),
    "100 clusters": (clustered_differences, 100, {"share": 0.9}),
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_intervals_cover_as_often_as_they_say(setting):
    """3,000 data sets (1,000 of a thousand items): the share that covers is known to ±.8 (1.4) points, two standard errors."""
    draw, n, options = SETTINGS[setting]
    rng, covered, count = np.random.default_rng(0), 0, 1000 if n == 1000 else 3000
    for seed in range(count):
        values, mean, clusters = draw(rng, n, **options)
        ((low, high),) = mean_intervals(values, clusters=clusters, draws=1000, seed=seed)
        covered += low <= mean <= high
    assert 0.93 <= covered / count <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "sparse", "accuracy", "clusters", "few"])
def test_random_signs_hold_their_level(kind):
    """Differences as likely up as down: p ≤ .05 in at most 5% of 2,000 data sets, and three standard errors."""
    rng, rejected, count = np.random.default_rng(0), 0, 2000
    for seed in range(count):
        if kind == "few":
            values, labels = rng.laplace(size=9), None
        elif kind == "clusters":
            values, _, labels = clustered_differences(rng, 30, share=0.9)
        else:
            size = rng.standard_t(3, size=80) if kind == "normal" else rng.choice([-1.0, 1.0], 80)
            values, labels = size * (1 if kind == "normal" else rng.random(80) < (0.2 if kind == "sparse" else 0.6)), None
        rejected += paired_permutation(values, clusters=labels, draws=999, seed=seed) <= 0.05
    assert rejected / count <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / count)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mended", "broken", "n"), [(0, 0.02, 300), (0.005, 0.015, 300), (0, 0.01, 1000), (0.02, 0.04, 1000), (0.1, 0.12, 2000)]
)
def test_equivalence_is_not_claimed_at_its_margin(mended, broken, n):
    """The true difference is the margin. Counts are few and the t test of many is approximate: at most 7% of 3,000 data sets are wrong."""
    rng, wrong, count = np.random.default_rng(0), 0, 3000
    from tunescope.stats.paired import equivalence

    for _ in range(count):
        d, _, _ = accuracy_differences(rng, n, mended, broken)
        base = np.where(d < 0, 1.0, np.where(d > 0, 0.0, np.arange(n) % 2))
        wrong += equivalence(base, base + d, margin=broken - mended) <= 0.05
    assert wrong / count <= 0.07
