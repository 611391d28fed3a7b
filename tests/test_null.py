"""Chance: the closed forms against all permutations there are, the floors of the specification, and p-values against another package."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import pdist, squareform

import tunescope as ts
from tunescope.geometry import MEASURES, Rows, permutation_p
from tunescope.geometry.measures.cka import RBFCKA
from tunescope.geometry.measures.nps import NPS, Continuity, Trustworthiness
from tunescope.geometry.measures.rsa import RSA
from tunescope.geometry.null import debiased_sd, from_draws, gram_product, mantel_sd, shared_edges_sd

# n! values each: 120, 720 and (where one evaluation is cheap) 5,040
SMALL = pytest.mark.parametrize("n", [5, 6, 7])


def small(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Skewed rows, so that no moment of theirs is zero by symmetry."""
    random = np.random.default_rng(seed)
    return random.exponential(size=(n, 3)) + 1, random.exponential(size=(n, 4)) ** 2 - 2


def over_all(n: int, value) -> tuple[float, float]:
    """Mean and standard deviation of value(order) over every permutation of n rows."""
    values = [value(list(order)) for order in itertools.permutations(range(n))]
    return float(np.mean(values)), float(np.std(values))


def centred_gram(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(0)
    return x @ x.T


# ---------------------------------------------------------------- closed forms, exactly


@SMALL
def test_gram_products_over_all_permutations(n):
    k, m = map(centred_gram, small(n))
    mean, sd = over_all(n, lambda p: (k * m[np.ix_(p, p)]).sum())
    diagonal = tuple(np.square(np.diag(g)).sum() for g in (k, m))
    found = gram_product(n, (k.trace(), m.trace()), (np.square(k).sum(), np.square(m).sum()), diagonal)
    assert found == pytest.approx((mean, sd**2), rel=1e-9)


@SMALL
def test_cka_over_all_permutations(n):
    x, y = small(n)
    k, m = map(centred_gram, (x, y))
    mean, sd = over_all(n, lambda p: (k * m[np.ix_(p, p)]).sum() / np.linalg.norm(k) / np.linalg.norm(m))
    null = MEASURES["cka"].chance(Rows.of(x, y), seed=0)
    assert (null.mean, null.sd) == pytest.approx((mean, sd), rel=1e-9)


@SMALL
@pytest.mark.parametrize("bandwidth", [0.5, 1.0])
def test_rbf_cka_over_all_permutations(n, bandwidth):
    x, y = small(n)
    projector = np.eye(n) - 1 / n
    k, m = (
        projector @ np.exp(-squares / (2 * bandwidth**2 * np.median(squares))) @ projector
        for squares in (squareform(pdist(side, "sqeuclidean")) for side in (x, y))
    )
    mean, sd = over_all(n, lambda p: (k * m[np.ix_(p, p)]).sum() / np.linalg.norm(k) / np.linalg.norm(m))
    null = RBFCKA(bandwidth).chance(Rows.of(x, y), seed=0)
    assert (null.mean, null.sd) == pytest.approx((mean, sd), rel=1e-9)


@SMALL
def test_debiased_cka_over_all_permutations(n):
    """U-centred Grams (Székely and Rizzo 2014): the debiased CKA is their cosine; its null is 0 ± √(2/(n(n−3))) whatever the data."""

    def u_centred(x: np.ndarray) -> np.ndarray:
        k = x @ x.T
        np.fill_diagonal(k, 0)
        rows = k.sum(1, keepdims=True) / (n - 2)
        return (k - rows - rows.T + k.sum() / ((n - 1) * (n - 2))) * (1 - np.eye(n))

    x, y = small(n)
    k, m = u_centred(x), u_centred(y)
    cosine = (k * m).sum() / np.linalg.norm(k) / np.linalg.norm(m)
    assert ts.debiased_cka(x, y) == pytest.approx(cosine, abs=1e-9)
    mean, sd = over_all(n, lambda p: (k * m[np.ix_(p, p)]).sum() / np.linalg.norm(k) / np.linalg.norm(m))
    null = MEASURES["debiased_cka"].chance(Rows.of(x, y), seed=0)
    assert null.mean == pytest.approx(mean, abs=1e-12)
    assert null.sd == debiased_sd(n) == pytest.approx(sd, rel=1e-9)


@SMALL
@pytest.mark.parametrize("measure", [RSA("pearson", "euclidean"), RSA("spearman", "correlation")], ids=["pearson", "spearman"])
def test_rsa_over_all_permutations(n, measure):
    """Mantel's mean and variance; for Spearman the ranks are permuted with their pairs."""
    x, y = small(n)
    a, b = (squareform(rank(pdist(side, measure.dissimilarity))) for side in (x, y) for rank in [ranker(measure.comparison)])
    upper = np.triu_indices(n, 1)
    mean, sd = over_all(n, lambda p: np.corrcoef(a[upper], b[np.ix_(p, p)][upper])[0, 1])
    null = measure.chance(Rows.of(x, y), seed=0)
    assert null.mean == pytest.approx(mean, abs=1e-12)
    assert null.sd == pytest.approx(sd, rel=1e-9)
    assert mantel_sd(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(sd, rel=1e-9)


def ranker(comparison: str):
    return stats.rankdata if comparison == "spearman" else np.asarray


def random_graph(n: int, k: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.array([random.choice([j for j in range(n) if j != i], size=k, replace=False) for i in range(n)])


@SMALL
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_shared_edges_over_all_permutations(n, k, seed):
    a, b = (random_graph(n, k, 2 * seed + side) for side in (0, 1))
    edges = {(i, j) for i in range(n) for j in a[i]}

    def shared(p: list[int]) -> int:
        return sum((p[i], p[j]) in edges for i in range(n) for j in b[i])

    mean, sd = over_all(n, shared)
    assert mean == pytest.approx(n * k * k / (n - 1), rel=1e-12)
    assert shared_edges_sd(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(sd, rel=1e-9)


def test_nps_over_all_permutations():
    """The same through the measure itself; n = 7 with k = 2."""
    x, y = small(7)
    measure = NPS(k=2, metric="euclidean")
    left, right = (np.argsort(squareform(pdist(side)) + np.diag(np.full(7, np.inf)), axis=1)[:, :2] for side in (x, y))

    def value(p: list[int]) -> float:
        place = np.argsort(p)
        return float(np.mean([len(set(left[i]) & set(place[right[p[i]]])) / 2 for i in range(7)]))

    mean, sd = over_all(7, value)
    null = measure.chance(Rows.of(x, y), seed=0)
    assert mean == pytest.approx(2 / 6, rel=1e-12)
    assert (null.mean, null.sd) == pytest.approx((mean, sd), rel=1e-9)


@pytest.mark.parametrize("measure", [Trustworthiness, Continuity])
@pytest.mark.parametrize(("n", "k"), [(6, 1), (6, 2), (7, 2)])
def test_the_mean_rank_penalty_over_all_permutations(measure, n, k):
    """The mean is the same whatever the data, and whichever side is asked."""
    x, y = small(n)
    order = [np.argsort(squareform(pdist(side)) + np.diag(np.full(n, np.inf)), axis=1) for side in (x, y)]
    rank, near = np.argsort(order[0], axis=1) + 1, order[1][:, :k]

    def value(p: list[int]) -> float:
        place = np.argsort(p)
        penalty = sum(max(0, rank[i, place[j]] - k) for i in range(n) for j in near[p[i]])
        return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * penalty

    mean, _ = over_all(n, value)
    assert measure(k, "euclidean").chance(Rows.of(x, y), seed=0).mean == pytest.approx(mean, rel=1e-9)


def test_the_spread_of_rank_penalties_is_near_that_of_draws(related):
    """It takes rows as independent, and says so: within a quarter of the spread of 150 draws (whose own error is 6%)."""
    x, y = related(60, 12)
    rows, measure = Rows.of(x, y), Trustworthiness(k=5)
    generator = torch.Generator().manual_seed(0)
    draws = [measure.value(rows.permuted(torch.randperm(60, generator=generator))) for _ in range(150)]
    null = measure.chance(rows, seed=0)
    assert null.mean == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / math.sqrt(150))
    assert null.sd == pytest.approx(np.std(draws), rel=0.25)


# ---------------------------------------------------------------- drawn nulls


def test_drawn_nulls_are_ten_values_of_shuffled_rows(related):
    """Re-using what a shuffle leaves alone must give what measuring the shuffled rows anew gives."""
    x, y = related(40, 12)
    rows = Rows.of(x, y)
    for name in ("procrustes", "cca", "svcca", "pwcca", "linear_r2", "change_rank", "relative_drift", "row_cosine"):
        generator = torch.Generator().manual_seed(5)
        draws = [MEASURES[name](x, y[torch.randperm(40, generator=generator)]) for _ in range(10)]
        null = MEASURES[name].chance(rows, seed=5)
        # the draws of procrustes take float32 singular values: 1e-6 of their sum
        assert (null.mean, null.sd) == pytest.approx((np.mean(draws), np.std(draws, ddof=1)), abs=1e-5 if name == "procrustes" else 1e-9)


def test_the_seed_makes_the_draws(related):
    rows = Rows.of(*related(40, 12))
    first, again, other = (MEASURES["procrustes"].chance(rows, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.mean != other.mean
    assert from_draws(lambda order: float(order[0]), 3, seed=0, draws=500).mean == pytest.approx(1, abs=4 * math.sqrt(2 / 3 / 500))


def test_the_mean_cosine_with_shuffled_rows_is_that_of_all_pairs(related):
    x, y = related(40, 12)
    null = MEASURES["row_cosine"].chance(Rows.of(x, y), seed=0)
    units = [side.numpy() / np.linalg.norm(side.numpy(), axis=1, keepdims=True) for side in (x, y)]
    assert null.mean == pytest.approx(np.mean(units[0] @ units[1].T), abs=4 * null.sd / math.sqrt(10))


@pytest.mark.parametrize("name", ["isotropy", "mean_cosine", "partition_ratio", "subspace_overlap"])
def test_measures_that_shuffling_cannot_change_say_so(related, name):
    null = MEASURES[name].chance(Rows.of(*related(40, 12)), seed=0)
    assert null.mean is None
    assert null.sd is None
    assert "shuffling" in null.reason


# ---------------------------------------------------------------- floors

SPECTRA = {"flat": 0.0, "1/k": 1.0, "1/k^1.5": 1.5}


def unrelated(n: int, d: int, power: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two independent arrays whose covariances have eigenvalues k^−power."""
    random = np.random.default_rng(seed)
    scale = np.arange(1, d + 1) ** (-power / 2)
    return tuple(torch.from_numpy(random.normal(size=(n, d)) * scale) for _ in range(2))


# The spec's simulated floors, N = 290, D = 768. Tolerances: three digits were printed, and one draw of the few-dimensional spectra
# scatters by .01 around its mean (three draws are averaged here).
@pytest.mark.parametrize(
    ("spectrum", "procrustes", "cka", "tolerance"),
    [("flat", 0.435, 0.725, 0.002), ("1/k", 0.891, 0.091, 0.006), ("1/k^1.5", 1.195, 0.022, 0.012)],
)
def test_the_floors_of_the_specification(spectrum, procrustes, cka, tolerance):
    found = {"procrustes": [], "cka": [], "debiased_cka": [], "nps": []}
    for seed in range(3):
        rows = Rows.of(*unrelated(290, 768, SPECTRA[spectrum], seed))
        for name, values in found.items():
            values.append(MEASURES[name].of_rows(rows))
    assert np.mean(found["procrustes"]) == pytest.approx(procrustes, abs=tolerance)
    assert np.mean(found["cka"]) == pytest.approx(cka, abs=tolerance)
    # three standard errors of the mean of three
    assert abs(np.mean(found["debiased_cka"])) < 3 * debiased_sd(290) / math.sqrt(3)
    assert np.mean(found["nps"]) == pytest.approx(10 / 289, abs=3 * MEASURES["nps"].chance(rows, seed=0).sd / math.sqrt(3))
    # and the permutation null of one data set says the same without a second one
    assert MEASURES["cka"].chance(rows, seed=0).mean == pytest.approx(cka, abs=tolerance)
    assert MEASURES["procrustes"].chance(rows, seed=0).mean == pytest.approx(procrustes, abs=tolerance)


@pytest.mark.slow
def test_the_floors_at_a_thousand_rows():
    x, y = unrelated(1000, 768, 0.0, 0)
    assert ts.procrustes(x, y) == pytest.approx(0.80, abs=0.005)
    assert ts.cka(x, y) == pytest.approx(0.43, abs=0.005)
    assert abs(ts.debiased_cka(x, y)) < 3 * debiased_sd(1000)


def test_only_biased_measures_name_an_ideal_floor_to_be_far_from():
    """The warning of a report compares a null with this; debiased measures have nothing to warn about."""
    named = {name for name, measure in MEASURES.items() if measure.ideal_floor is not None}
    assert named == {"cka", "rbf_cka", "procrustes", "cca", "svcca", "pwcca", "linear_r2"}
    assert MEASURES["procrustes"].ideal_floor == pytest.approx(math.sqrt(2))


def test_saturated_means_no_closer_than_shuffled_rows(related):
    x, y = related(80, 12)
    shuffled = y[torch.randperm(80, generator=torch.Generator().manual_seed(0))]
    for name in ("cka", "debiased_cka", "procrustes", "nps", "rsa"):
        assert not MEASURES[name].estimate(Rows.of(x, y)).saturated
        assert not MEASURES[name].estimate(Rows.of(x, x.clone())).saturated
        assert MEASURES[name].estimate(Rows.of(x, shuffled)).saturated


# ---------------------------------------------------------------- p-values


@pytest.mark.parametrize("name", ["cka", "debiased_cka", "nps", "procrustes"])
@pytest.mark.parametrize("noise", [3.0, 30.0], ids=["weakly related", "all but unrelated"])
def test_permutation_p_against_calibrated_similarity(related, name, noise):
    """Their Algorithm 1 with our permutations: 1 − procrustes²/2 is the similarity of the same order."""
    from calibrated_similarity import calibrate

    measure = MEASURES[name]
    x, y = related(40, 6, noise=noise)
    generator = torch.Generator().manual_seed(11)

    def similarity(a: torch.Tensor, b: torch.Tensor) -> float:
        return measure(a, b) if measure.higher_is_closer else 1 - measure(a, b) ** 2 / 2

    _, expected, _ = calibrate(x, y, similarity, K=39, perm_fn=lambda n, device: torch.randperm(n, generator=generator, device=device))
    found = permutation_p(measure, Rows.of(x, y), draws=39, seed=11)
    assert found == pytest.approx(float(expected), abs=1e-6)  # theirs is float32
    assert 1 / 40 <= found <= 1


def test_permutation_p_of_a_sure_thing_is_one_over_the_draws_and_one(related):
    x, _ = related(40, 6)
    assert permutation_p(MEASURES["cka"], Rows.of(x, x), draws=99) == pytest.approx(1 / 100)


@pytest.mark.parametrize("name", ["nps", "mutual_knn", "trustworthiness", "continuity"])
@pytest.mark.parametrize("distinct", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_neighbour_floors_hold_where_rows_repeat(name, distinct):
    """200 rows drawn from a few distinct ones: ties fill the lists and go to the lower index, and unrelated rows share those. The floor is
    ten refits; against thirty others the means differ by four standard errors at most."""
    random = np.random.default_rng(0)
    x, y = (torch.from_numpy(random.normal(size=(distinct, 16))[random.integers(0, distinct, 200)]) for _ in range(2))
    measure, rows = MEASURES[name], Rows.of(x, y)
    floor = measure.chance(rows, seed=0)
    drawn = [measure.of_rows(rows.permuted(torch.from_numpy(random.permutation(200)))) for _ in range(30)]
    assert abs(floor.mean - np.mean(drawn)) < 4 * np.std(drawn) * np.sqrt(1 / 10 + 1 / 30)


def test_a_count_of_directions_is_never_saturated():
    """A change of full rank moved in as many directions as shuffled rows differ in, and says nothing of closeness."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=generator)
    estimate = MEASURES["change_rank"].estimate(Rows.of(x, x + 0.01 * torch.randn(60, 6, generator=generator)))
    assert estimate.change >= estimate.null - 2 * estimate.null_sd
    assert not estimate.saturated
