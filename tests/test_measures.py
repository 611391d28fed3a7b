"""Every measure against code or formulas that are not ours.

Tolerances: 1e-9 where both sides sum in float64 by different routes (measured: 1e-12 to 1e-15); wider ones say why.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import linalg, stats
from scipy.spatial.distance import pdist, squareform
from sklearn.linear_model import LinearRegression
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import KernelCenterer

import tunescope as ts
from tunescope.errors import UnknownName
from tunescope.geometry import MEASURES, Rows, principal_angles
from tunescope.geometry import rows as rows_module
from tunescope.geometry.measures.procrustes import aligned_residuals
from tunescope.geometry.measures.rsa import COMPARISONS, DISSIMILARITIES, RSA

# more rows than features, fewer, and sides of different widths on both sides of n
SHAPES = pytest.mark.parametrize(("n", "d", "e"), [(60, 12, 12), (30, 50, 50), (40, 8, 20), (30, 12, 70)])
SAME_FEATURES = pytest.mark.parametrize(("n", "d"), [(60, 12), (30, 50)])


def arrays(related, n, d, e=None, **options) -> tuple[np.ndarray, np.ndarray]:
    x, y = related(n, d, e, **options)
    return x.numpy(), y.numpy()


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(0)


def gram_alignment(k: np.ndarray, m: np.ndarray) -> float:
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


# ---------------------------------------------------------------- published values


@pytest.fixture
def demo():
    """The arrays of google-research's own CKA demo: seed 1337 of numpy's legacy stream."""
    random = np.random.RandomState(1337)
    x = random.randn(100, 10)
    return x, random.randn(100, 10) + x


def test_golden_values_of_the_google_research_demo(demo):
    assert ts.cka(*demo) == pytest.approx(0.5576132566117589, abs=1e-14)
    assert ts.debiased_cka(*demo) == pytest.approx(0.513456489505526, abs=1e-14)
    assert ts.rbf_cka(*demo, bandwidth=0.5) == pytest.approx(0.65483, abs=5e-6)  # printed to five digits there
    assert ts.cca(*demo) == pytest.approx(0.54540, abs=5e-6)  # of centred rows


@SHAPES
def test_rsatoolbox_reaches_the_same_numbers_by_other_code(related, n, d, e):
    """Whitened cosine of squared Euclidean RDMs is linear CKA, and the Bures similarity is 1 − procrustes²/2."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm, compare

    x, y = arrays(related, n, d, e)
    rdms = [calc_rdm(Dataset(side), method="euclidean") for side in (x, y)]
    # cosine_cov solves a linear system by conjugate gradients that stop at 1e-5
    assert ts.cka(x, y) == pytest.approx(float(compare(*rdms, method="cosine_cov")[0, 0]), abs=1e-5)
    # bures takes matrix square roots, which halve the digits of the zero eigenvalues
    assert 1 - ts.procrustes(x, y) ** 2 / 2 == pytest.approx(float(compare(*rdms, method="bures")[0, 0]), abs=1e-6)


# ---------------------------------------------------------------- kernels


@SHAPES
def test_cka_is_the_cosine_of_centred_grams(related, n, d, e):
    x, y = map(centred, arrays(related, n, d, e))
    assert ts.cka(x + 3, y - 5) == pytest.approx(gram_alignment(x @ x.T, y @ y.T), abs=1e-9)


def unbiased_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al. 2012, equation 5, on Grams with zeroed diagonals."""
    k, m = (g - np.diag(np.diag(g)) for g in (k, m))
    n = len(k)
    one = np.ones(n)
    cross = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    return float(cross / (n * (n - 3)))


@SHAPES
def test_debiased_cka_is_the_textbook_estimator(related, n, d, e):
    x, y = arrays(related, n, d, e)
    k, m = x @ x.T, y @ y.T
    expected = unbiased_hsic(k, m) / np.sqrt(unbiased_hsic(k, k) * unbiased_hsic(m, m))
    assert ts.debiased_cka(x, y) == pytest.approx(expected, abs=1e-9)


@SHAPES
@pytest.mark.parametrize("bandwidth", [0.5, 1.0, 2.0])
def test_rbf_cka_against_scikit_learns_kernels(related, n, d, e, bandwidth):
    def kernel(x: np.ndarray) -> np.ndarray:
        squares = squareform(pdist(x, "sqeuclidean"))
        return KernelCenterer().fit_transform(rbf_kernel(x, gamma=1 / (2 * bandwidth**2 * np.median(squares))))

    x, y = arrays(related, n, d, e)
    assert ts.rbf_cka(x, y, bandwidth=bandwidth) == pytest.approx(gram_alignment(kernel(x), kernel(y)), abs=1e-9)


# ---------------------------------------------------------------- procrustes


@SHAPES
def test_procrustes_is_scipys_residual(related, n, d, e):
    """The distance that is left after scipy's best rotation, the narrower side padded with zeros."""
    x, y = map(centred, arrays(related, n, d, e))
    x, y = (np.pad(side / np.linalg.norm(side), ((0, 0), (0, max(d, e) - side.shape[1]))) for side in (x, y))
    turn, nuclear = linalg.orthogonal_procrustes(y, x)
    assert ts.procrustes(x, y) == pytest.approx(np.linalg.norm(x - y @ turn), abs=1e-9)
    assert ts.procrustes(x, y) == pytest.approx(np.sqrt(2 - 2 * linalg.svdvals(x.T @ y).sum()), abs=1e-9)
    assert nuclear == pytest.approx(linalg.svdvals(x.T @ y).sum(), abs=1e-9)


@pytest.mark.parametrize("case", ["steep", "dead directions", "duplicates", "near", "constant but for one row"])
def test_procrustes_of_grams_without_full_rank_is_scipys(case):
    """Fewer rows than features are read from Cholesky factors of their Grams; a bad spectrum may cost it digits, not the distance."""
    random = np.random.default_rng(3)
    x = random.normal(size=(60, 200)) / np.arange(1, 201) ** (4 if case == "steep" else 1)
    y = x + 0.05 * random.normal(size=x.shape) / np.arange(1, 201) ** 2
    if case == "dead directions":  # x lacks what y has a little of
        left, values, right = np.linalg.svd(x, full_matrices=False)
        x = (left[:, :20] * values[:20]) @ right[:20]
    elif case == "duplicates":
        x[30:], y[30:] = x[:30], y[:30]
    elif case == "near":
        y = x + 1e-3 * (y - x)
    elif case == "constant but for one row":
        x[1:] = 1.0
    x, y = (side - side.mean(0) for side in (x, y))
    x, y = (side / np.linalg.norm(side) for side in (x, y))
    turn, _ = linalg.orthogonal_procrustes(y, x)
    assert ts.procrustes(x, y) == pytest.approx(np.linalg.norm(x - y @ turn), rel=1e-6)


@SHAPES
def test_aligned_residuals_are_what_scipys_rotation_leaves_of_each_row(related, n, d, e):
    x, y = map(centred, arrays(related, n, d, e))
    x, y = (np.pad(side / np.linalg.norm(side), ((0, 0), (0, max(d, e) - side.shape[1]))) for side in (x, y))
    turn, _ = linalg.orthogonal_procrustes(y, x)
    expected = np.linalg.norm(x - y @ turn, axis=1) / np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(aligned_residuals(Rows.of(x, y)), expected, atol=1e-9)


# ---------------------------------------------------------------- rsa

CORRELATION = {
    "spearman": lambda a, b: stats.spearmanr(a, b).statistic,
    "pearson": lambda a, b: stats.pearsonr(a, b).statistic,
    "kendall": lambda a, b: stats.kendalltau(a, b).statistic,
}


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("dissimilarity", DISSIMILARITIES)
def test_rsa_is_scipys_correlation_of_scipys_distances(related, comparison, dissimilarity):
    x, y = arrays(related, 40, 8, 20)
    expected = CORRELATION[comparison](pdist(x, dissimilarity), pdist(y, dissimilarity))
    assert ts.rsa(x, y, comparison=comparison, dissimilarity=dissimilarity) == pytest.approx(expected, abs=1e-9)


def test_rsa_of_many_rows_reads_a_fixed_sample(related, monkeypatch):
    assert rows_module.ROW_CAP == 4000  # the row cap of the specification; a smaller one here
    monkeypatch.setattr(rows_module, "ROW_CAP", 40)
    x, y = arrays(related, 101, 6)
    kept = rows_module.sampled(101).numpy()
    assert len(set(kept)) == 40
    expected = stats.spearmanr(pdist(x[kept], "correlation"), pdist(y[kept], "correlation")).statistic
    assert ts.rsa(x, y) == pytest.approx(expected, abs=1e-9)
    estimate = RSA().estimate(Rows.of(x, y, np.arange(101) // 2))
    assert estimate.low < estimate.value < estimate.high


def test_rsa_names_the_nearest_options():
    with pytest.raises(UnknownName, match="unknown comparison 'spearmen'; did you mean spearman?"):
        RSA("spearmen")
    with pytest.raises(UnknownName, match="unknown dissimilarity 'euclid'; did you mean euclidean?"):
        ts.rsa(np.eye(9), np.eye(9), dissimilarity="euclid")


# ---------------------------------------------------------------- linear maps


@pytest.mark.parametrize(("n", "d", "e"), [(60, 12, 12), (80, 8, 20)])
def test_cca_is_the_spectrum_between_orthonormal_bases(related, n, d, e):
    """Björck and Golub: canonical correlations are the singular values of QxᵀQy."""
    x, y = map(centred, arrays(related, n, d, e))
    expected = linalg.svdvals(np.linalg.qr(x).Q.T @ np.linalg.qr(y).Q)
    assert ts.cca(x, y) == pytest.approx(np.mean(expected**2), abs=1e-9)
    assert ts.cca(x, y) == pytest.approx(np.mean(np.cos(linalg.subspace_angles(x, y)) ** 2), abs=1e-9)


@pytest.mark.parametrize("share", [0.99, 0.9, 0.5])
def test_svcca_is_cca_of_the_leading_directions(related, share):
    x, y = map(centred, arrays(related, 80, 12))

    def leading(side: np.ndarray) -> np.ndarray:
        u, s, _ = np.linalg.svd(side, full_matrices=False)
        return u[:, : int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), share)) + 1]

    expected = linalg.svdvals(leading(x).T @ leading(y)).mean()
    assert ts.svcca(x, y, share=share) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("n", "d", "e"), [(60, 12, 12), (80, 8, 20), (80, 20, 8)])
def test_pwcca_weighs_by_the_definition_of_morcos_et_al(related, n, d, e):
    x, y = map(centred, arrays(related, n, d, e))
    basis = np.linalg.qr(x).Q
    u, correlations, _ = np.linalg.svd(basis.T @ np.linalg.qr(y).Q, full_matrices=False)
    weights = np.abs((basis @ u).T @ x).sum(1)  # canonical variates hᵢ of norm 1 against every neuron
    assert ts.pwcca(x, y) == pytest.approx((weights * correlations).sum() / weights.sum(), abs=1e-9)


@pytest.mark.parametrize(("n", "d", "e"), [(60, 12, 12), (80, 8, 20)])
def test_linear_r2_is_scikit_learns(related, n, d, e):
    x, y = arrays(related, n, d, e)
    fitted = LinearRegression().fit(x, y).predict(x)
    expected = 1 - np.square(y - fitted).sum() / np.square(centred(y)).sum()
    assert ts.linear_r2(x, y) == pytest.approx(expected, abs=1e-9)


def test_fewer_rows_than_features_fit_anything(related):
    """Any n−1 directions span the centred rows: these measures say 1 whatever the data, and their null says so too."""
    x, y = arrays(related, 30, 50)
    unrelated = np.random.default_rng(5).normal(size=(30, 50))
    for name in ("cca", "linear_r2"):
        assert MEASURES[name](x, unrelated) == pytest.approx(1, abs=1e-9)
        assert MEASURES[name].chance(Rows.of(x, unrelated), seed=0).mean == pytest.approx(1, abs=1e-9)
    assert ts.cca(x, y) == pytest.approx(1, abs=1e-9)


# ---------------------------------------------------------------- neighbours


def sklearn_neighbours(x: np.ndarray, k: int, metric: str) -> np.ndarray:
    return NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute").fit(x).kneighbors(return_distance=False)


def kept_share(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([len(set(left) & set(right)) / a.shape[1] for left, right in zip(a, b, strict=True)]))


@SHAPES
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 10])
def test_nps_is_the_overlap_of_scikit_learns_neighbours(related, n, d, e, metric, k):
    x, y = arrays(related, n, d, e)
    expected = kept_share(sklearn_neighbours(x, k, metric), sklearn_neighbours(y, k, metric))
    assert ts.nps(x, y, k=k, metric=metric) == pytest.approx(expected, abs=1e-12)


def test_mutual_knn_is_the_overlap_of_the_largest_inner_products(related):
    x, y = arrays(related, 60, 12)
    tops = [np.argsort(-(side @ side.T - np.diag(np.full(60, np.inf))), axis=1)[:, :7] for side in (x, y)]
    assert ts.mutual_knn(x, y, k=7) == pytest.approx(kept_share(*tops), abs=1e-12)


def test_the_nps_curve_is_nps_at_each_k(related):
    x, y = arrays(related, 60, 12)
    expected = {k: kept_share(sklearn_neighbours(x, k, "cosine"), sklearn_neighbours(y, k, "cosine")) for k in (5, 10, 25, 50)}
    assert ts.nps_curve(x, y) == pytest.approx(expected, abs=1e-12)
    assert list(ts.nps_curve(x[:20], y[:20])) == [5, 10]  # the others need more rows
    assert ts.nps_curve(x[:6], y[:6]) == {}


@SHAPES
@pytest.mark.parametrize("k", [3, 10])
def test_trustworthiness_and_continuity_are_scikit_learns(related, n, d, e, k):
    x, y = arrays(related, n, d, e)
    expected = sklearn_trustworthiness(x, y, n_neighbors=k, metric="euclidean")
    assert ts.trustworthiness(x, y, k=k, metric="euclidean") == pytest.approx(expected, abs=1e-12)
    swapped = sklearn_trustworthiness(y, x, n_neighbors=k, metric="euclidean")
    assert ts.continuity(x, y, k=k, metric="euclidean") == pytest.approx(swapped, abs=1e-12)


def test_trustworthiness_by_cosine_is_that_of_unit_rows(related):
    x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in arrays(related, 40, 12))
    assert ts.trustworthiness(x, y) == pytest.approx(sklearn_trustworthiness(x, y, n_neighbors=10), abs=1e-12)


# ---------------------------------------------------------------- isotropy


def brute_iso_score(x: np.ndarray) -> float:
    """(PR − 1)/(D − 1) from averages over all quadruples of distinct rows, of what estimates (tr C)² and |C|²_F without bias."""
    trace, square = [], []
    for i, j, k, l in itertools.permutations(range(len(x)), 4):  # noqa: E741
        a, b = x[i] - x[j], x[k] - x[l]
        trace.append((a @ a / 2) * (b @ b / 2))
        square.append((a @ b) ** 2 / 4)
    return float((np.mean(trace) / np.mean(square) - 1) / (x.shape[1] - 1))


@pytest.mark.parametrize(("n", "d"), [(5, 3), (8, 3), (7, 20)])
def test_isotropy_is_the_ratio_of_u_statistics(related, n, d):
    x, _ = arrays(related, n, d)
    assert ts.isotropy(x) == pytest.approx(brute_iso_score(x), rel=1e-9)


def test_isotropy_of_a_known_spectrum(related):
    """Rudman et al.'s own steps on the population's variances; 20,000 rows are within a relative 2% of it (n^−½ = .7%)."""
    variances = np.array([4.0, 2, 1, 1, 0.5, 0.1])
    d = len(variances)
    unit = np.sqrt(d) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(unit - 1) / np.sqrt(2 * (d - np.sqrt(d)))
    used = (d - defect**2 * (d - np.sqrt(d))) ** 2 / d**2
    expected = (d * used - 1) / (d - 1)
    x = np.random.default_rng(3).normal(size=(20_000, d)) * np.sqrt(variances) + 7
    assert ts.isotropy(x) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("n", "low", "high"), [(64, 0.97, 1.03), (32, 0.94, 1.06)])
def test_isotropy_of_white_noise_is_one_at_any_n(n, low, high):
    """The spec's band at n = 64; at n = 32, D = 64 the plug-in reads .32, and the estimate's spread doubles with half the rows."""
    random = np.random.default_rng(0)
    assert low <= np.mean([ts.isotropy(random.normal(size=(n, 64))) for _ in range(60)]) <= high


@SAME_FEATURES
def test_mean_cosine_is_the_mean_over_scipys_pairs(related, n, d):
    x, _ = arrays(related, n, d)
    assert ts.mean_cosine(x) == pytest.approx(1 - pdist(x, "cosine").mean(), abs=1e-9)


@SAME_FEATURES
def test_partition_ratio_by_its_definition(related, n, d):
    x, _ = arrays(related, n, d)
    directions = np.linalg.eigh(x.T @ x).eigenvectors
    z = np.exp(np.concatenate([x @ directions, -x @ directions], axis=1)).sum(0)
    assert ts.partition_ratio(x) == pytest.approx(z.min() / z.max(), rel=1e-9)


def test_partition_ratio_of_large_rows_does_not_overflow():
    """exp(1000) is not a float64; along the mean, of norm 2000, the ratio is about e^−4000: 0 in float64, not NaN."""
    x = np.random.default_rng(0).normal(size=(30, 4)) + 1000
    assert ts.partition_ratio(x) == 0.0


# ---------------------------------------------------------------- drift


@SAME_FEATURES
def test_row_measures_by_their_formulas(related, n, d):
    x, y = arrays(related, n, d)
    norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    assert ts.relative_drift(x, y) == pytest.approx(np.mean(np.linalg.norm(y - x, axis=1) / norms[0]), abs=1e-12)
    assert ts.row_cosine(x, y) == pytest.approx(np.mean((x * y).sum(1) / norms[0] / norms[1]), abs=1e-12)


def test_rows_of_zeros_moved_or_not():
    x, y = np.ones((6, 3)), np.ones((6, 3))
    x[0] = y[0] = x[1] = y[2] = 0  # row 0 zero on both sides, row 1 appeared, row 2 vanished
    assert ts.relative_drift(x, y) == pytest.approx((0 + 1 + 1 + 0 + 0 + 0) / 6, abs=1e-15)
    assert ts.row_cosine(x, y) == pytest.approx((1 + 0 + 0 + 1 + 1 + 1) / 6, abs=1e-15)


@pytest.mark.parametrize(("n", "d", "m"), [(60, 12, 3), (60, 12, 10), (30, 50, 10), (60, 12, 12)])
def test_principal_angles_are_scipys(related, n, d, m):
    x, y = map(centred, arrays(related, n, d))
    tops = [np.linalg.svd(side, full_matrices=False)[2][:m].T for side in (x, y)]
    expected = linalg.subspace_angles(*tops)[::-1]
    # where the subspaces meet (m = d) the angle is 0, which two routes of float64 give to 1e-8 at best
    np.testing.assert_allclose(principal_angles(x, y, m=m), expected, atol=1e-7)
    assert ts.subspace_overlap(x, y, m=m) == pytest.approx(np.mean(np.cos(expected) ** 2), abs=1e-9)


@pytest.mark.parametrize("angle", [1e-6, 1e-9, 0.3, np.pi / 2 - 1e-6])
def test_principal_angles_keep_their_digits_near_zero_and_near_a_right_angle(angle):
    """A plane turned by a known angle. The arccosine alone gives 0 for 1e-9."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(centred(random.normal(size=(50, 4)))).Q * [4, 0.01, 0, 0]
    turn = np.eye(4)
    turn[[0, 0, 2, 2], [0, 2, 0, 2]] = np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)
    assert float(principal_angles(basis, basis @ turn, m=1)) == pytest.approx(angle, rel=1e-6)


@SAME_FEATURES
def test_change_rank_is_the_entropy_of_the_singular_values(related, n, d):
    x, y = arrays(related, n, d)
    singular = linalg.svdvals(centred(y - x))
    assert ts.change_rank(x, y) == pytest.approx(np.exp(stats.entropy(singular)), abs=1e-6)  # entropy counts rounding at 1e-16 too


@pytest.mark.parametrize(("n", "d"), [(60, 12), (30, 200)])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_change_rank_counts_equal_directions(related, n, d, rank):
    """A change with r equal singular values has effective rank r, whatever the number of features it could have used."""
    x, _ = arrays(related, n, d)
    random = np.random.default_rng(rank)
    rows = np.linalg.qr(centred(random.normal(size=(n, rank)))).Q
    change = rows @ np.linalg.qr(random.normal(size=(d, rank))).Q.T
    assert ts.change_rank(x, x + change) == pytest.approx(rank, abs=1e-6)  # y − x has x's rounding, 1e-16, in every direction


def test_front_doors_take_what_the_measures_take(related):
    """`ts.name(x, y)` is the measure of that name with its defaults."""
    x, y = arrays(related, 60, 12)
    for name, measure in MEASURES.items():
        assert getattr(ts, name)(*((y,) if measure.one_sided else (x, y))) == (measure(y) if measure.one_sided else measure(x, y))
