"""Exact tests, correlations, Holm's correction, seeds and power: against scipy, enumeration, printed numbers and simulation."""

from __future__ import annotations

import math
from itertools import combinations, permutations, product

import numpy as np
import pytest
from scipy import stats

from tunescope import stats as ours
from tunescope.errors import AlignmentError, Degenerate, InputError, NotEnoughRows
from tunescope.reference import table
from tunescope.stats import (
    association,
    detectable_effect,
    discordant_power,
    discordant_sample_size,
    holm,
    paired_permutation,
    paired_power,
    paired_sample_size,
    partial_pearson,
    partial_spearman,
    pearson,
    seed_summary,
    sign_test,
    spearman,
    two_sample_permutation,
    welch,
)


def test_public_names_are_sorted_and_there():
    assert ours.__all__ == sorted(ours.__all__)
    assert [name for name in ours.__all__ if not hasattr(ours, name)] == []


# ---------------------------------------------------------------- exact tests


@pytest.mark.parametrize(("up", "down", "zero"), [(7, 1, 0), (3, 3, 4), (0, 5, 2), (0, 0, 3), (61, 40, 9)])
def test_sign_test_is_a_binomial_tail(up, down, zero):
    n = up + down
    tail = sum(math.comb(n, k) for k in range(min(up, down) + 1)) / 2**n
    assert sign_test(np.array([2.5] * up + [-0.1] * down + [0] * zero)) == pytest.approx(min(1, 2 * tail))


@pytest.mark.parametrize("n", [2, 5, 10, 14])
def test_random_signs_of_few_differences_are_enumerated(n):
    d = np.round(np.random.default_rng(n).normal(0.4, 1, n), 1) + 0.05
    expected = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert paired_permutation(d) == pytest.approx(expected)
    assert paired_permutation(np.concatenate([d, np.zeros(50)])) == pytest.approx(expected)  # zeros change nothing


def test_random_signs_count_ties_in_spite_of_rounding():
    """.1 + .2 and .3 differ in the last bit; by hand, of the signs of (.1, .2, −.3) six sums are as large as 0 and all others are."""
    assert paired_permutation(np.array([0.1, 0.2, 0.3])) == 0.25
    assert paired_permutation(np.array([0.1, 0.2, -0.3])) == 1


def test_random_signs_of_many_are_drawn():
    signs = np.random.default_rng(0).choice([-1.0, 1.0], 60, p=[0.38, 0.62])
    exact = stats.binomtest(int((signs > 0).sum()), 60).pvalue
    assert paired_permutation(signs) == pytest.approx(exact)  # of one size: counted
    nearly = signs * (1 + 1e-6 * np.arange(60))
    assert paired_permutation(nearly) == pytest.approx(exact, abs=4 * math.sqrt(exact / 10_000) + 0.05)  # ties of the sum are broken
    assert paired_permutation(np.arange(1.0, 201.0)) == 1 / 10_001
    assert paired_permutation(np.ones(1)) == paired_permutation(np.zeros(9)) == 1
    assert paired_permutation(np.ones(16)) == 2 / 2**16


def test_clusters_flip_together():
    d, labels = np.array([1.0, 2, 3, 1, 1, 4]), np.array(list("aabbcc"))
    sums = [3, 4, 5]
    expected = np.mean([abs(np.dot(signs, sums)) >= 12 for signs in product((1, -1), repeat=3)])
    assert paired_permutation(d, clusters=labels) == expected == 0.25


def test_blocks_of_draws_are_one_test(monkeypatch):
    from tunescope.stats import exact

    d = np.random.default_rng(3).normal(0.1, 1, 100)
    whole = paired_permutation(d)
    monkeypatch.setattr(exact, "_CELLS", 5000)
    assert paired_permutation(d) == pytest.approx(whole, abs=0.02)  # the last bits of a row's last byte are unused: other draws


@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 7), (1, 5), (8, 8)])
def test_two_samples_are_enumerated(n, m):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=n).round(1), rng.normal(0.8, 1, m).round(1)

    def size(x, y, axis):
        return np.abs(np.mean(x, axis=axis) - np.mean(y, axis=axis))

    pooled = np.concatenate([a, b])
    sizes = []
    for chosen in combinations(range(n + m), n):
        mask = np.isin(np.arange(n + m), chosen)
        sizes.append(size(pooled[mask], pooled[~mask], 0))
    assert two_sample_permutation(a, b) == pytest.approx(np.mean(np.array(sizes) >= size(a, b, 0) - 1e-12))


def test_two_samples_of_many_are_drawn():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=60), rng.normal(0.4, 1, 70)
    expected = stats.ttest_ind(a, b).pvalue
    assert two_sample_permutation(a, b) == pytest.approx(expected, abs=4 * math.sqrt(expected / 10_000))


@pytest.mark.parametrize("call", [sign_test, paired_permutation])
def test_exact_tests_refuse_what_is_not_finite(call):
    with pytest.raises(InputError, match=r"one row of finite numbers; got shape \(2,\), 1 of them not finite"):
        call(np.array([1, np.nan]))
    with pytest.raises(NotEnoughRows, match="values on both sides, got 0 and 1"):
        two_sample_permutation([], [1.0])


# ---------------------------------------------------------------- seeds


@pytest.mark.parametrize(
    "numbers", [(0.812, 0.004, 3, 0.821, 0.006, 3), (10, 2, 5, 7, 0.001, 4), (0, 1, 30, 0.1, 1.5, 12)], ids=["seeds", "unequal", "many"]
)
def test_welch_is_scipy(numbers):
    mean_a, sd_a, n_a, mean_b, sd_b, n_b = numbers
    expected = stats.ttest_ind_from_stats(mean_b, sd_b, n_b, mean_a, sd_a, n_a, equal_var=False)
    found = welch(*numbers)
    assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    rng = np.random.default_rng(0)

    def sample(mean, sd, n):
        noise = rng.normal(size=n)
        return mean + sd * (noise - noise.mean()) / noise.std(ddof=1)

    full = stats.ttest_ind(sample(mean_b, sd_b, n_b), sample(mean_a, sd_a, n_a), equal_var=False)
    interval = full.confidence_interval()
    assert (found.df, found.low, found.high) == pytest.approx((full.df, interval.low, interval.high))


def test_welch_refusals():
    with pytest.raises(NotEnoughRows, match="at least 2 values a side, got 1 and 3"):
        welch(0, 1, 1, 0, 1, 3)
    with pytest.raises(Degenerate, match="both sd are 0"):
        welch(0, 0, 3, 1, 0, 3)
    with pytest.raises(InputError, match="an sd is 0 or more"):
        welch(0, -1, 3, 1, 0, 3)


def test_seeds_have_a_mean_a_spread_and_an_interval_of_both_levels():
    """Crossed effects of known size: the interval's half width is 1.96·√(σ_s²/s + σ_i²/n), as in an analysis of variance."""
    rng = np.random.default_rng(0)
    seeds, items = rng.normal(size=40), rng.normal(size=100)
    scores = 0.3 * (seeds - seeds.mean())[:, None] / seeds.std() + 2 * (items - items.mean()) / items.std() + 5
    found = seed_summary(scores)
    assert (found.mean, found.sd) == (pytest.approx(5), pytest.approx(scores.mean(1).std(ddof=1)))
    assert (found.seeds, found.items, found.rough) == (40, 100, False)
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(0.09 / 40 + 4 / 100), rel=0.06)  # 2,000 draws
    assert seed_summary(scores[:3]).rough is True


def test_seed_refusals():
    with pytest.raises(NotEnoughRows, match="at least 2 seeds and an item, got 1 and 4"):
        seed_summary(np.ones((1, 4)))
    with pytest.raises(InputError, match=r"shape \(seeds, items\); got shape \(4,\)"):
        seed_summary(np.ones(4))


# ---------------------------------------------------------------- correlations


def every_order(x, y) -> float:
    x, y = ((side - np.mean(side)) / np.linalg.norm(side - np.mean(side)) for side in map(np.asarray, (x, y)))
    return float(np.mean(np.abs(np.array(list(permutations(y))) @ x) >= abs(x @ y) - 1e-12))


@pytest.mark.parametrize("tied", [False, True])
def test_correlations_of_few_points_are_enumerated(tied):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 6))
    if tied:
        x, y = np.round(x), np.round(y)
    by_value, by_rank = pearson(x, y), spearman(x, y)
    assert by_value.value == pytest.approx(stats.pearsonr(x, y).statistic)
    assert by_rank.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert by_value.p == pytest.approx(every_order(x, y))
    assert by_rank.p == pytest.approx(every_order(stats.rankdata(x), stats.rankdata(y)))
    assert (by_value.method, by_value.n) == ("enumerated", 6)


def test_correlations_of_many_points_are_drawn():
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = 0.25 * x + rng.normal(size=60)
    expected = stats.pearsonr(x, y)
    found = pearson(x, y)
    assert (found.value, found.method) == (pytest.approx(expected.statistic), "drawn")
    assert found.p == pytest.approx(expected.pvalue, abs=4 * math.sqrt(expected.pvalue / 10_000))


def test_partial_correlation_is_that_of_regression_residuals():
    rng = np.random.default_rng(0)
    z = rng.normal(size=6)
    x, y = z + rng.normal(size=6), 2 * z + 3 * rng.normal(size=6)
    design = np.column_stack([np.ones(6), z])

    def rest(values):
        return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]

    value = stats.pearsonr(rest(x), rest(y)).statistic
    orders = [np.corrcoef(rest(x), rest(np.array(order)))[0, 1] for order in permutations(rest(y))]
    found = partial_pearson(x, y, z)
    assert found.value == pytest.approx(value)
    assert found.p == pytest.approx(np.mean(np.abs(orders) >= abs(value) - 1e-12))
    r = np.corrcoef([x, y, z])  # and the textbook's formula
    assert value == pytest.approx((r[0, 1] - r[0, 2] * r[1, 2]) / math.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2)))
    ranked = np.corrcoef([stats.rankdata(v) for v in (x, y, z)])
    by_rank = (ranked[0, 1] - ranked[0, 2] * ranked[1, 2]) / math.sqrt((1 - ranked[0, 2] ** 2) * (1 - ranked[1, 2] ** 2))
    assert partial_spearman(x, y, z).value == pytest.approx(by_rank)


def test_the_published_layers_say_less_than_they_seem_to():
    """Where Fine-Tuning Rewrites DistilBERT: −.93 with an exact p of .007, and nothing but depth behind it."""
    printed = table("distilbert_imdb")
    found = association(*(printed[name].to_numpy() for name in ("cka", "delta_accuracy", "layer")))
    assert found.spearman.value == pytest.approx(-0.93, abs=0.005)
    assert found.spearman.p == pytest.approx(0.007, abs=0.0005)
    assert found.spearman.p == pytest.approx(every_order(*(stats.rankdata(printed[name]) for name in ("cka", "delta_accuracy"))))
    assert found.partial.value == pytest.approx(0.52, abs=0.005)
    assert (found.rank_partial.value, found.rank_partial.p, found.rank_partial.reason) == (None, None, "collinear with depth")
    assert found.pearson.value == pytest.approx(stats.pearsonr(printed["cka"], printed["delta_accuracy"]).statistic)


def test_constants_and_covariates_that_explain_all_have_no_correlation():
    x, y = np.arange(6.0), np.array([3.0, 1, 2, 5, 0, 4])
    assert pearson(np.ones(6), y).reason == "one variable is constant"
    assert spearman(x, np.ones(6)).value is None
    assert partial_pearson(2 * x + 1, y, x, covariate_name="layer").reason == "collinear with layer"
    assert partial_pearson(x, y, np.ones(6)).value == pytest.approx(stats.pearsonr(x, y).statistic)  # a constant explains nothing


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        ([1, 2, 3], [1, 2], AlignmentError, r"x has shape \(3,\), y has shape \(2,\)"),
        ([1, 2], [1, 2], NotEnoughRows, "at least 3 points, got 2"),
        ([1, 2, 3], [1, 2, math.nan], InputError, "y has 1 values that are not finite"),
    ],
)
def test_correlation_refusals(x, y, error, message):
    for call in (pearson, spearman):
        with pytest.raises(error, match=message):
            call(np.array(x), np.array(y))
    with pytest.raises(NotEnoughRows, match="at least 4 points, got 3"):
        partial_pearson([1, 2, 3], [3, 1, 2], [1, 3, 2])


# ---------------------------------------------------------------- Holm


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # worked by hand; R's p.adjust(method = "holm") prints the same
        ([0.5, 0.9], [1, 1]),
        ([0.02], [0.02]),
        ([], []),
        ([0.03, None, 0.01], [0.03, None, 0.02]),
    ],
)
def test_holm_by_hand(p, adjusted):
    assert holm(p) == [None if value is None else pytest.approx(value) for value in adjusted]


def test_holm_is_the_closed_test_of_bonferroni():
    """Marcus, Peritz and Gabriel: an adjusted p is the largest Bonferroni p of the intersections that hold the hypothesis."""
    p = np.random.default_rng(0).uniform(0, 0.2, 6)
    for index, value in enumerate(holm(p)):
        sets = [s for size in range(1, 7) for s in combinations(range(6), size) if index in s]
        assert value == pytest.approx(max(min(1, len(s) * p[list(s)].min()) for s in sets))


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(InputError, match="between 0 and 1; got 1.5"):
        holm([0.5, 1.5])
    with pytest.raises(InputError, match="got nan"):
        holm([math.nan])


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_holm_controls_the_family_error(correlation):
    """Three of ten hypotheses are false; 20,000 families, and three standard errors."""
    rng, families = np.random.default_rng(0), 20_000
    z = math.sqrt(correlation) * rng.normal(size=(families, 1)) + math.sqrt(1 - correlation) * rng.normal(size=(families, 10))
    z[:, :3] += 4
    wrong = np.mean([min(holm(row)[3:]) <= 0.05 for row in 2 * stats.norm.sf(np.abs(z))])
    assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / families)
    assert wrong >= (0.03 if correlation == 0 else 0.01)  # not by refusing everything


# ---------------------------------------------------------------- power


@pytest.mark.parametrize(("effect", "n"), [(0.2, 50), (0.5, 20), (-0.5, 20), (1.5, 5), (0.02, 4000)])
def test_power_is_that_of_the_noncentral_t(effect, n):
    edge, centre = stats.t.ppf(0.975, n - 1), abs(effect) * math.sqrt(n) / 0.7
    expected = stats.nct.sf(edge, n - 1, centre) + stats.nct.cdf(-edge, n - 1, centre)
    assert paired_power(effect, sd=0.7, n=n) == pytest.approx(expected, rel=1e-6)


def test_power_where_the_noncentral_t_has_none():
    """Two items and a noncentrality of 8, where scipy's nct is NaN: by integrating over the drawn variance."""
    u = (np.arange(200_000) + 0.5) / 200_000
    s, edge = np.sqrt(stats.chi2.ppf(u, 1)), stats.t.ppf(0.975, 1)
    expected = 1 - np.mean(stats.norm.cdf(edge * s - 8) - stats.norm.cdf(-edge * s - 8))
    assert paired_power(8 / math.sqrt(2), sd=1, n=2) == pytest.approx(expected, abs=1e-5)
    assert paired_power(1e6, sd=1, n=2) == pytest.approx(1)
    assert paired_power(0, sd=1, n=10) == pytest.approx(0.05)


def test_power_is_how_often_a_t_test_finds_it():
    rng = np.random.default_rng(0)
    found = stats.ttest_1samp(rng.normal(0.3, 1, (4000, 60)), 0, axis=1).pvalue <= 0.05
    assert paired_power(0.3, sd=1, n=60) == pytest.approx(found.mean(), abs=0.025)  # three standard errors


def test_the_printed_sample_sizes():
    """Cohen's d of .2, .5 and .8 for a one-sample or paired t test, as G*Power prints them: 199, 34 and 15."""
    assert [paired_sample_size(d, sd=1) for d in (0.2, 0.5, 0.8)] == [199, 34, 15]


@pytest.mark.parametrize("n", [2, 3, 30, 1000, 10**7])
def test_what_n_detects_needs_n(n):
    effect = detectable_effect(sd=0.25, n=n)
    assert paired_power(effect, sd=0.25, n=n) == pytest.approx(0.8, abs=1e-6)
    assert abs(paired_sample_size(effect * (1 + 1e-9), sd=0.25) - n) <= max(1, 1e-6 * n)


def test_a_large_n_is_the_normal_formula():
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert detectable_effect(sd=1, n=10**6) == pytest.approx(z / 1000, rel=1e-5)
    assert paired_sample_size(0.001, sd=1, power=0.9) == pytest.approx(
        ((stats.norm.ppf(0.975) + stats.norm.ppf(0.9)) / 0.001) ** 2, rel=1e-5
    )


def test_discordant_sample_size_by_hand():
    """Connor's formula at ψ = .3, difference .1: ((1.959964·√.3 + .841621·√.29)/.1)² = 233.1."""
    assert discordant_sample_size(0.1, discordance=0.3) == 234


@pytest.mark.parametrize(("effect", "discordance", "n"), [(0.1, 0.3, 234), (0.02, 0.06, 600), (-0.05, 0.2, 800)])
def test_discordant_power_is_how_often_mcnemar_finds_it(effect, discordance, n):
    """The exact test is a little more careful than the formula: within .05 below it."""
    rng = np.random.default_rng(0)
    chances = [(discordance + effect) / 2, (discordance - effect) / 2, 1 - discordance]
    counts, times = np.unique(rng.multinomial(n, chances, 4000)[:, :2], axis=0, return_counts=True)
    found = sum(
        many * (stats.binomtest(int(up), int(up + down)).pvalue <= 0.05)
        for (up, down), many in zip(counts, times, strict=True)
        if up + down
    )
    formula = discordant_power(effect, discordance=discordance, n=n)
    assert formula - 0.06 <= found / 4000 <= formula + 0.03


def test_discordance_equal_to_the_effect_is_all_one_way():
    assert discordant_power(0.05, discordance=0.05, n=1000) > 0.99
    assert discordant_power(1, discordance=1, n=10) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_sample_size(0, sd=1), "effect 0 asked for"),
        (lambda: paired_sample_size(0.1, sd=-1), "sd -1 given"),
        (lambda: paired_sample_size(0.1, sd=1, power=1), "power 1 asked for"),
        (lambda: paired_sample_size(1e-9, sd=1), "more than 1e[+]12 items"),
        (lambda: paired_power(0.1, sd=1, n=1), "n 1 given"),
        (lambda: paired_power(math.inf, sd=1, n=5), "effect inf asked for"),
        (lambda: detectable_effect(sd=1, n=5, level=0), "level 0 asked for"),
        (lambda: detectable_effect(sd=1, n=5, power=0.01), "power 0.01 asked for at level 0.05"),
        (lambda: discordant_power(0.1, discordance=0.05, n=9), "effect 0.1 with discordance 0.05"),
        (lambda: discordant_sample_size(0, discordance=0.05), "effect 0 asked for"),
    ],
)
def test_power_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()
