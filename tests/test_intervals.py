"""Intervals: delete-one values against refitting, standard errors against formulas of others, and (slow) whether 95% is 95%."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from tunescope.errors import Degenerate
from tunescope.geometry import MEASURES, Rows
from tunescope.geometry.measures.cka import RBFCKA
from tunescope.geometry.measures.nps import NPS, Trustworthiness
from tunescope.geometry.measures.rsa import RSA
from tunescope.geometry.neighbours import nearest, overlap_se
from tunescope.stats import Spread, jackknife, t_interval


def without(x: torch.Tensor, row: int) -> torch.Tensor:
    return torch.cat([x[:row], x[row + 1 :]])


def refitted(measure, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """The measure on every data set with one row less: what delete-one formulas must give, with none of their algebra."""
    return np.array([measure(without(x, i), without(y, i)) for i in range(len(x))])


# ---------------------------------------------------------------- delete-one values


@pytest.mark.parametrize("name", ["cka", "debiased_cka"])
@pytest.mark.parametrize(("n", "d", "e"), [(40, 6, 6), (25, 40, 40), (30, 8, 60), (6, 3, 3)])
def test_delete_one_values_of_alignments_are_those_of_refitting(related, name, n, d, e):
    x, y = related(n, d, e)
    np.testing.assert_allclose(MEASURES[name].without_each(Rows.of(x, y)), refitted(MEASURES[name], x, y), rtol=0, atol=1e-12)


def one_sided_refits(measure, y: torch.Tensor) -> float:
    values = np.array([measure(without(y, i)) for i in range(len(y))])
    return jackknife_se(values)


def jackknife_se(values: np.ndarray) -> float:
    """Efron and Stein 1981, about the mean of the delete-one values."""
    n = len(values)
    return float(np.sqrt((n - 1) / n * np.square(values - values.mean()).sum()))


@pytest.mark.parametrize("name", ["isotropy", "mean_cosine"])
@pytest.mark.parametrize(("n", "d"), [(40, 6), (25, 40)])
def test_standard_errors_of_one_side_are_those_of_refitting(related, name, n, d):
    x, y = related(n, d)
    assert MEASURES[name].spread(Rows.of(x, y)).se == pytest.approx(one_sided_refits(MEASURES[name], y), rel=1e-9)


def test_delete_one_values_of_mean_cosine_are_those_of_refitting(related):
    x, y = related(30, 6)
    measure = MEASURES["mean_cosine"]
    expected = [measure(without(y, i)) for i in range(30)]
    np.testing.assert_allclose(measure.without_each(Rows.of(x, y)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bandwidth", [0.5, 1.0])
def test_delete_one_values_of_rbf_cka_hold_the_bandwidth(related, bandwidth):
    x, y = related(30, 6)
    kernels = [np.exp(-s / (2 * bandwidth**2 * np.median(s))) for s in (squareform(pdist(side.numpy(), "sqeuclidean")) for side in (x, y))]

    def value(kept: np.ndarray) -> float:
        projector = np.eye(len(kept)) - 1 / len(kept)
        k, m = (projector @ kernel[np.ix_(kept, kept)] @ projector for kernel in kernels)
        return float((k * m).sum() / np.linalg.norm(k) / np.linalg.norm(m))

    expected = [value(np.delete(np.arange(30), i)) for i in range(30)]
    np.testing.assert_allclose(RBFCKA(bandwidth).without_each(Rows.of(x, y)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("comparison", ["pearson", "spearman"])
def test_delete_one_values_of_rsa(related, comparison):
    """Pearson's are those of refitting; Spearman's hold the ranks, which is stated."""
    x, y = related(30, 6)
    rank = stats.rankdata if comparison == "spearman" else np.asarray
    a, b = (squareform(rank(pdist(side.numpy(), "euclidean"))) for side in (x, y))

    def value(kept: np.ndarray) -> float:
        upper = np.triu_indices(len(kept), 1)
        return float(stats.pearsonr(a[np.ix_(kept, kept)][upper], b[np.ix_(kept, kept)][upper]).statistic)

    expected = [value(np.delete(np.arange(30), i)) for i in range(30)]
    np.testing.assert_allclose(RSA(comparison, "euclidean").without_each(Rows.of(x, y)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_the_infinitesimal_jackknife_of_procrustes_is_near_refitting(related, noise):
    """First order against exact: within 15% at n ≫ d, where leaving a row out is a small step."""
    x, y = related(120, 6, noise=noise)
    measure = MEASURES["procrustes"]
    assert measure.spread(Rows.of(x, y)).se == pytest.approx(jackknife_se(refitted(measure, x, y)), rel=0.15)


def test_the_derivative_of_procrustes_is_that_of_finite_differences(related):
    """Moving the weight of one row by h moves the distance by h times its first-order effect."""
    x, y = (side.numpy() for side in related(30, 6))

    def distance(weights: np.ndarray) -> float:
        a, b = x - x.mean(0), y - y.mean(0)  # to first order the mean does not matter: Σ x̃ = 0
        square = [(weights[:, None] * side * side).sum() for side in (a, b)]
        nuclear = np.linalg.svd(a.T @ (weights[:, None] * b), compute_uv=False).sum()
        return float(np.sqrt(2 - 2 * nuclear / np.sqrt(square[0] * square[1])))

    effects = MEASURES["procrustes"].without_each(Rows.of(x, y)) - distance(np.ones(30))
    h = 1e-5
    for i in (0, 7, 29):
        step = h * np.eye(30)[i]
        slope = (distance(np.ones(30) - step) - distance(np.ones(30) + step)) / (2 * h)
        assert float(effects[i]) == pytest.approx(slope, abs=1e-8)


# ---------------------------------------------------------------- standard errors by other formulas


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).exponential(size=23)
    deletions = (values.sum() - values) / 22
    assert jackknife(deletions, values.mean()).se == pytest.approx(stats.sem(values), rel=1e-12)
    assert jackknife(deletions, values.mean()).df == 22


def test_a_grouped_jackknife_of_repeated_rows_does_not_believe_the_repeats():
    """Every value three times, as the tokens of one text might be: the error is that of the distinct values, not √3 smaller."""
    values = np.random.default_rng(0).exponential(size=200)
    repeated, groups = np.repeat(values, 3), np.repeat(np.arange(200), 3)
    deletions = (repeated.sum() - repeated) / (len(repeated) - 1)
    grouped, naive = (jackknife(deletions, repeated.mean(), groups=g) for g in (groups, None))
    assert grouped.df == 199
    assert grouped.se == pytest.approx(stats.sem(values), rel=0.01)  # first order: off by one in two hundred
    assert naive.se == pytest.approx(stats.sem(values) / math.sqrt(3), rel=0.01)


def test_groups_of_one_row_change_nothing():
    deletions = np.random.default_rng(0).normal(size=15)
    labels = np.random.default_rng(1).permutation(15) * 7
    assert jackknife(deletions, 0.1, groups=labels).se == pytest.approx(jackknife(deletions, 0.1).se, rel=1e-12)


def test_a_jackknife_needs_two():
    with pytest.raises(Degenerate, match="an interval needs at least two rows or groups, got 1"):
        jackknife(np.array([0.3, 0.4]), 0.3, groups=np.array([5, 5]))


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_is_students(level):
    low, high = t_interval(0.4, Spread(0.1, 9), level=level)
    assert (low, high) == pytest.approx(stats.t.interval(level, 9, loc=0.4, scale=0.1), rel=1e-12)
    assert t_interval(0.9, Spread(0.1, 9), bounds=(0, 1))[1] == 1


@pytest.mark.parametrize("name", ["relative_drift", "row_cosine"])
def test_means_over_rows_have_the_standard_error_of_a_mean(related, name):
    x, y = related(40, 6)
    rows = Rows.of(x, y)
    assert MEASURES[name].spread(rows).se == pytest.approx(stats.sem(MEASURES[name].rows(rows)), rel=1e-9)


def test_the_error_of_kept_neighbours_by_its_double_sum(related):
    """Σᵢ Σⱼ rᵢrⱼ over equal rows, neighbours on either side in either direction, and mates of one group; row by row."""
    x, y = related(40, 6)
    a, b = nearest(x, 5), nearest(y, 5)
    kept = np.array([len(set(one) & set(two)) / 5 for one, two in zip(a.tolist(), b.tolist(), strict=True)])
    rest = kept - kept.mean()
    for groups in (np.arange(40), np.arange(40) // 3):
        near = groups[:, None] == groups[None]
        for i in range(40):
            for j in {*a[i].tolist(), *b[i].tolist()}:
                near[i, j] = near[j, i] = True
        variance = rest @ near @ rest
        own = sum(rest[groups == g].sum() ** 2 for g in np.unique(groups))
        found = overlap_se(a, b, groups=torch.from_numpy(groups))
        assert found == pytest.approx(math.sqrt(max(variance, own)) / 40, rel=1e-9)
    assert overlap_se(a, b) == overlap_se(a, b, groups=torch.arange(40))


# ---------------------------------------------------------------- groups of rows left out


def dealt(n: int) -> list[np.ndarray]:
    """Ten hands of rows in the order of a seeded shuffle, as the docstring says."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0)).numpy()
    return [np.flatnonzero(order % 10 == hand) for hand in range(10)]


BY_TENTHS = ["cca", "svcca", "pwcca", "linear_r2", "subspace_overlap", "change_rank", "trustworthiness", "partition_ratio"]


@pytest.mark.parametrize("name", BY_TENTHS)
def test_ten_groups_by_adding_moments_are_ten_refits(related, name):
    x, y = related(100, 12)
    measure = MEASURES[name]
    rests = [np.delete(np.arange(100), hand) for hand in dealt(100)]
    values = np.array([measure(y[rest]) if measure.one_sided else measure(x[rest], y[rest]) for rest in rests])
    spread = measure.spread(Rows.of(x, y))
    assert spread.se == pytest.approx(jackknife_se(values), rel=1e-6)
    assert spread.df == 9


def test_rows_of_one_text_are_left_out_together(related):
    """Three texts make three groups, and leaving one out leaves out all its rows."""
    x, y = related(60, 4)
    texts = torch.arange(60) % 3
    values = np.array([MEASURES["linear_r2"](x[texts != t], y[texts != t]) for t in range(3)])
    spread = MEASURES["linear_r2"].spread(Rows.of(x, y, texts))
    assert spread.df == 2
    assert spread.se == pytest.approx(jackknife_se(values), rel=1e-9)


@pytest.mark.parametrize("measure", [*MEASURES.values(), NPS(k=3), Trustworthiness(k=3)], ids=lambda measure: measure.name)
def test_tokens_of_one_text_never_count_as_independent(related, measure):
    """Every row three times with a little noise: an interval over texts is not narrower than one that takes the copies as rows."""
    x, y = related(40, 5)
    generator = torch.Generator().manual_seed(0)
    x, y = (side.repeat_interleave(3, 0) for side in (x, y))
    x, y = (side + 0.05 * torch.randn(side.shape, generator=generator, dtype=side.dtype) for side in (x, y))
    grouped = measure.spread(Rows.of(x, y, torch.arange(120) // 3))
    alone = measure.spread(Rows.of(x, y))
    if alone.df == 9:  # ten groups either way; which rows they hold differs
        assert grouped.df == 9
        return
    assert grouped.df == 39
    # delete-one jackknives widen by up to √3; copies that are neighbours depended on each other already
    assert grouped.se >= alone.se * (1 - 1e-9 if isinstance(measure, NPS) else 1.2)


# ---------------------------------------------------------------- one row that is everything


@pytest.mark.parametrize("size", [1e3, 1e6])
@pytest.mark.parametrize("name", ["cka", "debiased_cka", "procrustes"])
def test_leaving_out_a_massive_row_is_refitting(related, name, size):
    """The rest is 10⁻⁶ to 10⁻¹² of the sums: subtraction would leave rounding, the derivative would not see it coming."""
    x, y = (side.clone() for side in related(40, 6))
    x[7] *= size
    y[7] *= size
    rows = Rows.of(x, y)
    expected = MEASURES[name](without(x, 7), without(y, 7))
    assert float(MEASURES[name].without_each(rows)[7]) == pytest.approx(expected, abs=1e-9)
    estimate = MEASURES[name].estimate(rows)
    assert MEASURES[name].bounds[0] <= estimate.low <= estimate.value <= estimate.high <= MEASURES[name].bounds[1]


def test_one_row_that_makes_all_the_difference_leaves_no_interval():
    x, y = np.ones((8, 3)), np.ones((8, 3))
    x[2], y[2] = 5, 7
    estimate = MEASURES["cka"].estimate(Rows.of(x, y))
    assert estimate.value == pytest.approx(1, abs=1e-12)  # one direction on each side, the same row far out in both
    assert (estimate.low, estimate.high) == (None, None)


# ---------------------------------------------------------------- coverage


def coverage(measures, draw, *, repeats: int) -> dict[str, float]:
    """How often the 95% interval of each measure holds the mean of its estimates over `repeats` data sets.

    The mean is what an interval for a biased measure can promise: the biased CKA of n rows estimates its own expectation at n.
    """
    random = np.random.default_rng(2024)
    found = {name: [] for name in measures}
    for _ in range(repeats):
        rows = Rows.of(*draw(random))
        for name, measure in measures.items():
            value = measure.of_rows(rows)
            found[name].append((value, *t_interval(value, measure.spread(rows), bounds=measure.bounds)))
    shares = {}
    for name, triples in found.items():
        value, low, high = np.array(triples).T
        truth = value.mean()
        shares[name] = float(np.mean((low <= truth) & (truth <= high)))
    return shares


def gaussian(random, n, d, noise):
    x = random.normal(size=(n, d)) * np.linspace(2, 0.5, d)
    return x, x + noise * random.normal(size=(n, d))


def heavy_tailed(random, n, d, noise):
    x = random.standard_t(5, size=(n, d)) * np.linspace(2, 0.5, d)
    return x, x + noise * random.standard_t(5, size=(n, d))


def clustered(random, n, d, noise):
    x = 3 * random.normal(size=(8, d))[random.integers(8, size=n)] + random.normal(size=(n, d))
    return x, x + noise * random.normal(size=(n, d))


# 400 repeats: a true 95% is read within ±.022 (two standard errors)
@pytest.mark.slow
@pytest.mark.parametrize("draw", [gaussian, heavy_tailed], ids=["gaussian", "heavy-tailed"])
@pytest.mark.parametrize(("n", "d", "most"), [(100, 8, 0.99), (60, 100, 1.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(draw, n, d, most):
    """With fewer rows than features the spread comes from pairs of rows more than from rows, and a jackknife counts pairs twice (Efron and
    Stein 1981): the intervals are then too wide, up to 99.8% measured, never too narrow."""
    measures = {name: MEASURES[name] for name in ("cka", "debiased_cka", "procrustes", "isotropy")}
    shares = coverage(measures, lambda random: draw(random, n, d, 0.7), repeats=400)
    assert all(0.90 <= share <= most for share in shares.values()), shares


# Rows that share neighbours depend on each other; the error counts pairs of neighbours only and is .85 to 1.05 of the truth, so that
# a 95% interval may hold it 90% of the time, less the ±.03 of reading it from 400 repeats.
@pytest.mark.slow
@pytest.mark.parametrize("draw", [gaussian, clustered], ids=["gaussian", "clustered"])
@pytest.mark.parametrize(("n", "d", "noise"), [(200, 8, 0.3), (200, 8, 1.0), (300, 64, 1.0)])
def test_the_interval_of_nps_holds_the_truth_nearly_as_often(draw, n, d, noise):
    share = coverage({"nps": MEASURES["nps"]}, lambda random: draw(random, n, d, noise), repeats=400)["nps"]
    assert 0.86 <= share <= 0.99, share
