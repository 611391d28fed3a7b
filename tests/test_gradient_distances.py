"""Distances of gradients against numpy and scipy, the test of a mean against planted means, and the agreement of halves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import spatial, stats

from tunescope.training.gradient_distances import DISTANCES, OF_MEANS, PROJECTIONS, gradient_distances
from tunescope.training.gradient_mean import GradientMean
from tunescope.training.split_half import split_half

N, WIDE = 60, 40


def rows(seed=0, *, mean=0.5, n=N, d=WIDE):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) + mean * torch.randn(d, generator=generator)


def distances(x, y):
    means = GradientMean.of(x, seed=0), GradientMean.of(y, seed=0)
    return gradient_distances(x, y, means, names=("one", "two"), seed=0)


def test_every_distance_is_what_numpy_and_scipy_make_of_it():
    x, y = rows(0), 0.7 * rows(0) + rows(1)
    found, (a, b) = distances(x, y), (side.double().numpy() for side in (x, y))
    p, q = a.mean(0), b.mean(0)
    # scipy's disparity is the least square of a rotated *and scaled* y: 1 − s², s the sum of singular values, where ours is √(2 − 2s)
    s = (1 - spatial.procrustes(a, b)[2]) ** 0.5
    assert found["procrustes"].value == pytest.approx((2 - 2 * s) ** 0.5, abs=1e-9)
    assert found["cosine"].value == pytest.approx(spatial.distance.cosine(p, q), abs=1e-6)  # float32 rows, divided in float64
    assert found["pearson"].value == pytest.approx(1 - stats.pearsonr(p, q)[0], abs=1e-6)
    assert found["fisher_cosine"].value == pytest.approx(spatial.distance.cosine((a**2).mean(0), (b**2).mean(0)), abs=1e-6)
    assert found["debiased_cka"].value == pytest.approx(1 - unbiased_cka(a, b), abs=1e-9)
    draws = [np.asarray(torch.randn(WIDE, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(k))) for k in range(PROJECTIONS)]
    cosines = [spatial.distance.cosine(p @ draw, q @ draw) for draw in draws]
    assert found["cosine_32"].value == pytest.approx(np.mean(cosines), abs=1e-6)
    assert found["cosine_32"].spread == pytest.approx(np.std(cosines, ddof=1), abs=1e-6)
    assert found["cosine_128"].value is None
    assert found["cosine_128"].reason == "the gradients have 40 features: nothing to reduce to 128"


def unbiased_cka(a, b):
    """From the sums of Song et al. 2012, written out."""

    def hsic(k, m):
        n = len(k)
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        return (np.trace(k @ m) + k.sum() * m.sum() / (n - 1) / (n - 2) - 2 * (k @ m).sum() / (n - 2)) / (n * (n - 3))

    k, m = a @ a.T, b @ b.T
    return hsic(k, m) / (hsic(k, k) * hsic(m, m)) ** 0.5


def test_intervals_of_cosines_are_the_exact_jackknife():
    x, y = rows(0), rows(0) + rows(1)
    found, (a, b) = distances(x, y), (side.double().numpy() for side in (x, y))
    without = [spatial.distance.cosine(np.delete(a, i, 0).mean(0), np.delete(b, i, 0).mean(0)) for i in range(N)]
    # around the value itself, as the package's jackknife has effects about their own mean
    se = ((N - 1) / N * np.sum((np.array(without) - np.mean(without)) ** 2)) ** 0.5
    reach = stats.t.ppf(0.975, N - 1) * se
    assert found["cosine"].high - found["cosine"].value == pytest.approx(reach, rel=1e-4)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_size_is_nothing_to_any_distance_and_nothing_underflows(size):
    x, y = rows(0), rows(0) + rows(1)
    one, two = distances(x, y), distances(x, size * y)
    for name in DISTANCES:
        assert two[name].value == (None if one[name].value is None else pytest.approx(one[name].value, rel=1e-4)), name  # float32 rows
    assert two["debiased_cka"].value < 1, "the published one read exactly 1 − 0 from underflow"


def test_an_objective_is_no_distance_from_itself():
    noise = rows(3, mean=0.0)
    for x in (rows(), noise - noise.mean(0)):
        assert [found.value for found in distances(x, x.clone()).values()] == [0.0] * len(DISTANCES)


def test_a_rotated_gradient_is_near_by_procrustes_and_cka_and_far_by_cosine():
    x = rows()
    turn = torch.linalg.qr(torch.randn(WIDE, WIDE, generator=torch.Generator().manual_seed(5))).Q
    found = distances(x, x @ turn)
    assert found["procrustes"].value < 1e-3
    assert found["debiased_cka"].value < 1e-5
    assert found["cosine"].value > 0.3


def test_a_mean_that_cancels_is_refused_where_means_are_compared_and_only_there():
    x, noise = rows(0), rows(1, mean=0.0)
    noise = noise - noise.mean(0)  # what Barlow Twins' rows do over a batch
    found = distances(x, noise)
    for name in DISTANCES:
        assert (found[name].value is None) == (name in OF_MEANS), name
    said = found["cosine"].reason
    assert said.startswith("the mean gradient of two is noise: its size is ")
    assert "random signs give 0.13 (p = 1, level 0.05)" in said  # 1/√59


def test_what_only_the_lengths_of_texts_make_a_mean_of_is_refused():
    generator = torch.Generator().manual_seed(0)
    short = (torch.arange(N) % 2 == 0).unsqueeze(1)
    lengths = torch.where(short, 2, 50)
    totals = torch.randn(N, WIDE, generator=generator) + torch.where(short, 1.0, -1.0)
    totals = totals - totals.mean(0)  # the sums over tokens cancel out; their token means do not
    mean = GradientMean.of(totals / lengths, totals, seed=0)
    assert mean.p == 0.001
    assert mean.total_p == 1
    assert mean.noise
    assert "summed over tokens its rows cancel out, and what is left in their mean is that short texts weigh more" in mean.refusal("x")


def test_coherence_is_the_mean_over_the_spread_and_its_chance_that_of_random_signs():
    x = rows(0, mean=0.2)
    found, a = GradientMean.of(x, seed=0), x.double().numpy()
    assert found.coherence == pytest.approx(np.linalg.norm(a.mean(0)) / np.sqrt(((a - a.mean(0)) ** 2).sum(1).mean()))
    assert found.norm == pytest.approx(np.linalg.norm(a, axis=1).mean())
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        signed = a * rng.choice([-1, 1], (N, 1))
        drawn.append((signed.mean(0) ** 2).sum() / ((signed - signed.mean(0)) ** 2).sum(1).mean())
    assert np.sqrt(np.mean(drawn)) == pytest.approx(found.chance, rel=0.03)


def test_the_test_of_a_mean_keeps_its_level():
    """400 sets of rows without a mean: rejected at .05 within four standard errors; the p is valid, so never more than that."""
    p = np.array([GradientMean.of(rows(seed, mean=0.0, n=30, d=8), seed=seed).p for seed in range(400)])
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 400) ** 0.5)
    assert all(not GradientMean.of(rows(seed, mean=1.0, n=30, d=8), seed=seed).noise for seed in range(20))


def test_rows_of_nothing_are_counted():
    x = rows()
    x[: N // 4] = 0
    assert GradientMean.of(x, seed=0).nonzero == 0.75


def test_halves_agree_on_an_order_that_is_there_and_not_on_one_that_is_not():
    reference = rows(0, n=200)
    near, middle, far = reference + 0.2 * rows(1, n=200), reference + rows(2, n=200), rows(3, n=200)
    for measure in ("procrustes", "cosine"):
        found = split_half(measure, {"far": far, "near": near, "middle": middle}, reference, splits=8)
        assert found.names == ("near", "middle", "far"), measure
        assert (found.spearman, found.kendall, found.same) == (pytest.approx(1), pytest.approx(1), 1.0)
    alike = {str(seed): reference + rows(seed, n=200) for seed in range(10, 14)}
    found = split_half("procrustes", alike, reference, splits=20)
    assert found.same < 0.5
    assert found.kendall_low < found.kendall < found.kendall_high


def test_one_objective_has_no_order():
    found = split_half("procrustes", {"simcse": rows(1)}, rows(0))
    assert found.spearman is None
    assert found.reason == "an order takes two objectives beside the reference"
