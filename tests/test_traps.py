"""The numerical traps of the specification, each with the right answer and, where that is cheap, the wrong one it used to get elsewhere."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import linalg
from sklearn.neighbors import NearestNeighbors

import tunescope as ts
from tunescope.errors import ActivationError, AlignmentError, Degenerate, NotEnoughRows
from tunescope.geometry import MEASURES, Moments, Rows
from tunescope.geometry.measures.nps import NPS
from tunescope.geometry.neighbours import nearest

GRAM_MEASURES = ("cka", "debiased_cka", "procrustes", "rbf_cka")


def value(name: str, x, y) -> float:
    return MEASURES[name](y) if MEASURES[name].one_sided else MEASURES[name](x, y)


def reference_cka(x, y) -> float:
    """In float64, from Grams of centred rows."""
    k, m = (side @ side.T for side in (np.asarray(s, dtype=np.float64) - np.asarray(s, dtype=np.float64).mean(0) for s in (x, y)))
    return float((k * m).sum() / np.linalg.norm(k) / np.linalg.norm(m))


# ---------------------------------------------------------------- constant and dead dimensions


@pytest.mark.parametrize("n", [60, 20], ids=["n > d", "n < d"])
@pytest.mark.parametrize("name", [*GRAM_MEASURES, "cca", "svcca", "pwcca", "linear_r2"])
def test_a_constant_dimension_at_offset_1000_is_not_there(related, name, n):
    """torch_cka gives NaN and pytorch-cka 0: 1000² swamps float32 unless rows are centred before they are multiplied."""
    x, y = (side.float() for side in related(n, 12 if n == 60 else 40))
    constant = torch.full((n, 1), 1000.0)
    found = value(name, torch.cat([x, constant], 1), torch.cat([constant, y], 1))
    # rounding: three of float64's digits go into the offset's mean, and n < d makes cca a ratio of ones
    assert found == pytest.approx(value(name, x, y), abs=1e-6)


def test_neighbours_by_distance_do_not_see_a_constant_dimension(related):
    x, y = (side.float() for side in related(80, 12))
    constant = torch.full((80, 1), 1000.0)
    for metric in ("euclidean", "centred_cosine"):
        found = ts.nps(torch.cat([x, constant], 1), torch.cat([y, constant], 1), metric=metric)
        assert found == ts.nps(x, y, metric=metric)


# Isotropy divides by the number of features and rsa centres each row over them: to these, two more features are not nothing.
@pytest.mark.parametrize("n", [60, 26], ids=["n > d", "n < d"])
@pytest.mark.parametrize("name", [name for name in MEASURES if name not in ("isotropy", "rsa")])
def test_dead_columns_change_nothing(related, name, n):
    """MiniLM's dimensions 127 and 223 are 1e-33 for every text; whitening them makes them as loud as the rest."""
    x, y = related(n, 12 if n == 60 else 40)
    # of size 1e-33 and as random as any rounding
    dead = 1e-33 * torch.randn(2, n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tolerance = 1e-7 if name == "procrustes" else 1e-9
    assert value(name, torch.cat([x, dead[0]], 1), torch.cat([y, dead[1]], 1)) == pytest.approx(value(name, x, y), abs=tolerance)


@pytest.mark.parametrize("name", MEASURES)
def test_dead_columns_leave_everything_finite(related, name):
    rows = Rows.of(*(torch.cat([side.float(), torch.full((60, 2), 1e-33)], 1) for side in related(60, 12)))
    estimate = MEASURES[name].estimate(rows)
    assert all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))
    assert estimate.null is None or math.isfinite(estimate.null) and math.isfinite(estimate.null_sd)


# ---------------------------------------------------------------- scale and near-parallel rows


@pytest.mark.parametrize("name", [*GRAM_MEASURES, "nps", "rsa", "trustworthiness", "cca", "linear_r2", "row_cosine", "mean_cosine"])
@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e9])
def test_no_epsilon_stands_in_a_denominator(related, name, scale):
    """What is invariant to scale is so at 1e-20: in float64, since a float32's square there is no float32."""
    x, y = related(60, 12)
    assert value(name, x * scale, y * scale) == pytest.approx(value(name, x, y), abs=1e-7 if name == "procrustes" else 1e-9)


@pytest.mark.parametrize("name", [name for name in GRAM_MEASURES if name != "rbf_cka"])
def test_near_parallel_rows_are_read_by_what_tells_them_apart(related, name):
    """One shared direction of length 1, differences of 1e-4, float32: platonic-rep's additive 1e-6 turns .918 into .111 here."""
    spread = related(80, 12)
    x, y = ((1e-4 * (side - side.mean(0)) + 1 / math.sqrt(12)).float() for side in spread)
    assert ts.mean_cosine(x) > 0.9999
    # float32 keeps 1e-7 of 0.3: the differences of 1e-4 are known to 1e-3, and averages over 80 rows and 12 features better
    assert value(name, x, y) == pytest.approx(value(name, *spread), abs=1e-3)
    # of the very rows given, nothing is lost at all
    assert value(name, x, y) == pytest.approx(value(name, *(side.double() - side.double().mean(0) for side in (x, y))), abs=1e-9)


def test_float32_would_put_cka_above_one(related):
    """Reductions in float64 keep the cosine of equal Grams at 1 to its last digits."""
    x = related(300, 12)[0].float() + 30
    assert ts.cka(x, x.clone()) == pytest.approx(1, abs=1e-15)


# ---------------------------------------------------------------- small distances


def diagonal_stretch(n: int, d: int, size: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Orthonormal centred columns and the same stretched by 1 + size·tᵢ: XᵀY is diagonal and positive, so that the distance is
    √(2 − 2 Σs/√(dΣs²)), taken here in exact fractions."""
    random = np.random.default_rng(0)
    x = random.normal(size=(n, d))
    basis = np.linalg.qr(x - x.mean(0)).Q
    stretch = 1 + size * np.linspace(-1, 1, d)
    s = [Fraction(value) for value in stretch]
    cosine_square = sum(s) ** 2 / (d * sum(value**2 for value in s))  # 1 − tiny: the subtraction must be exact
    tiny = 1 - cosine_square
    distance = math.sqrt(2 * float(tiny) / (1 + math.sqrt(float(cosine_square))))  # 1 − c = (1 − c²)/(1 + c)
    return basis, basis * stretch, distance


@pytest.mark.parametrize("comparison", ["spearman", "kendall"])
@pytest.mark.parametrize("dissimilarity", ["correlation", "cosine"])
def test_rows_that_repeat_tie_in_rsa(comparison, dissimilarity):
    """A product of matrices gives equal pairs values that differ in their last digits: no order is to be read into them."""
    random = np.random.default_rng(0)
    x = random.normal(size=(5, 16))[random.integers(0, 5, 60)]
    assert ts.rsa(x, 3 * x, comparison=comparison, dissimilarity=dissimilarity) == pytest.approx(1, abs=1e-12)
    with pytest.raises(Degenerate, match="all dissimilarities of one side are equal"):
        ts.rsa(np.eye(20), np.eye(20)[random.permutation(20)], dissimilarity=dissimilarity)


@pytest.mark.parametrize("scale", [1e4, 1e6])
@pytest.mark.parametrize("name", ["cca", "pwcca", "linear_r2"])
def test_a_massive_dimension_hides_no_other_from_linear_maps(name, scale):
    """CCA and regression do not care for the scale of a feature: 1e6 beside 1 is no reason to take the 1 for rounding."""
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 20))
    y = x + 0.5 * random.normal(size=(500, 20))
    stretched = x * np.r_[scale, np.ones(19)]
    if name == "pwcca":  # its weights are sizes: the massive dimension takes them all
        assert value(name, stretched, y) == pytest.approx(np.sqrt(value("linear_r2", y, x[:, :1])), abs=0.02)
    else:
        assert value(name, stretched, y) == pytest.approx(value(name, x, y), abs=1e-9)


def test_the_top_subspace_of_rows_in_fewer_directions_is_not_defined():
    random = np.random.default_rng(0)
    x = random.normal(size=(100, 3)) @ random.normal(size=(3, 64))
    with pytest.raises(Degenerate, match="varies in fewer than 10 directions"):
        ts.subspace_overlap(x, x * 1.0000001)


@pytest.mark.parametrize("name", ["cca", "svcca", "pwcca"])
def test_without_the_one_row_that_varies_there_is_no_interval(name):
    x = np.ones((60, 8))
    x[5] = np.random.default_rng(0).normal(size=8)
    found = MEASURES[name].estimate(Rows.of(x, np.random.default_rng(1).normal(size=(60, 8))))
    assert (found.low, found.high) == (None, None)


def test_last_bit_noise_on_a_large_offset_is_no_spread():
    random = np.random.default_rng(0)
    x = np.full((30, 100), 1000.0, np.float32) + (random.integers(-1, 2, size=(30, 100)) * 6.1e-5).astype(np.float32)
    with pytest.raises(Degenerate, match="all 30 rows of x are the same"):
        ts.procrustes(x, random.normal(size=(30, 100)).astype(np.float32))


def test_the_cross_layer_map_checks_its_layers_like_every_measure():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(50, 8)), random.normal(size=(40, 8))
    for cross in (ts.cross_cka, ts.cross_nps):
        with pytest.raises(AlignmentError, match="the layers have 40 and 50 rows"):
            cross([x], [y])
        with pytest.raises(AlignmentError, match="a side has no layers"):
            cross([x], [])
        with pytest.raises(ActivationError, match="layer 1 of y has NaN or Inf, first in row 3"):
            cross([x], [x, np.where(np.arange(50)[:, None] == 3, np.nan, x)])
    half = [torch.from_numpy(side + 40).bfloat16() for side in (x, x + random.normal(size=x.shape))]
    assert float(ts.cross_cka(half[:1], half[1:])) == pytest.approx(ts.cka(*half), abs=2e-7)


def test_arrays_of_any_byte_order_are_read_and_what_is_no_array_is_said():
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    assert ts.cka(x.astype(">f4"), x) == pytest.approx(1, abs=1e-12)
    fixed = x.copy()
    fixed.flags.writeable = False
    assert ts.cka(fixed, x) == pytest.approx(1, abs=1e-12)
    with pytest.raises(AlignmentError, match="x is a list that is no array of numbers"):
        ts.cka([["a", "b"]] * 20, x)
    with pytest.raises(AlignmentError, match="y is a sparse tensor"):
        ts.cka(x, torch.from_numpy(x).to_sparse())


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-5])
@pytest.mark.parametrize(("n", "d"), [(290, 32), (100, 64)])
def test_procrustes_is_right_where_float32_gives_zero(size, n, d):
    """True distances down to 6e-6, on float32 rows and after a rotation. √(2 − 2·nuclear) in float32 is 0 below 3e-4."""
    x, y, distance = diagonal_stretch(n, d, size)
    turn = linalg.qr(np.random.default_rng(1).normal(size=(d, d)))[0]
    x, y = (torch.from_numpy(side * 1000).float() for side in (x, y @ turn))
    assert size / 3 < distance < size
    # the rows were rounded to float32, 3e-8 of each: in quadrature against 6e-6 that is 1e-5 of the distance
    assert ts.procrustes(x, y) == pytest.approx(distance, rel=0.01)


def test_procrustes_at_1e_minus_4_with_fewer_rows_than_features(related):
    """Against scipy's residual |X − YQ| in float64, which has no subtraction of near-equal numbers."""
    x, _ = related(60, 200)
    y = x + 1e-4 * torch.randn(60, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, y = x.float(), y.float()
    sides = [side.double().numpy() - side.double().numpy().mean(0) for side in (x, y)]
    sides = [side / np.linalg.norm(side) for side in sides]
    turn, _ = linalg.orthogonal_procrustes(sides[1], sides[0])
    expected = np.linalg.norm(sides[0] - sides[1] @ turn)
    assert 1e-5 < expected < 1e-3
    assert ts.procrustes(x, y) == pytest.approx(expected, rel=1e-4)


def test_the_variance_of_a_small_change_is_not_a_difference_of_variances(related):
    """Rows of size 10, a change of 1e-4, float32: Σ(y−x)² summed row by row. From float32 moments of x and y it would be rounding."""
    x = (10 * related(200, 12)[0]).float()
    y = (x.double() + 1e-4 * torch.randn(200, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).float()
    change = (y.double() - x.double()).numpy()
    expected = np.square(change - change.mean(0)).sum()
    assert float(Rows.of(x, y).change.yy.trace()) == pytest.approx(expected, rel=1e-12)
    float32 = Moments.of(x, y)
    yy, xx, xy = (float(moment.float().trace()) for moment in (float32.yy, float32.xx, float32.xy))
    assert yy + xx - 2 * xy != pytest.approx(expected, rel=0.05)


# ---------------------------------------------------------------- minibatches


def test_a_stream_of_small_batches_is_not_an_average_of_biased_values():
    """The spec's case in kind: averaging biased CKA over batches of 32 reads far too high; the streamed moments give the whole's value."""
    random = np.random.default_rng(0)
    x = random.normal(size=(512, 64))
    y = x + random.normal(size=(512, 64))
    batches = [Moments.of(torch.from_numpy(a), torch.from_numpy(b)) for a, b in zip(np.split(x, 16), np.split(y, 16), strict=True)]
    whole = sum(batches[1:], batches[0])
    for name in ("cka", "debiased_cka"):
        assert MEASURES[name].value(whole) == pytest.approx(MEASURES[name](x, y), abs=1e-9)
    averaged = np.mean([MEASURES["cka"].value(batch) for batch in batches])
    assert averaged > MEASURES["debiased_cka"].value(whole) + 0.2


# ---------------------------------------------------------------- duplicates, ties


def with_duplicates(n: int, share: float, d: int = 24) -> torch.Tensor:
    random = np.random.default_rng(0)
    x = random.normal(size=(n, d))
    copies = int(n * share)
    x[random.permutation(n)[:copies]] = x[random.integers(n, size=copies)]
    return torch.from_numpy(x).float()


def test_duplicate_texts_are_kept_and_no_row_is_its_own_neighbour():
    """With 10% duplicates, "drop the nearest" leaves rows that list themselves; excluding by index does not."""
    x = with_duplicates(400, 0.10)
    graph = nearest(x, 10)
    assert not (graph == torch.arange(400)[:, None]).any()
    dropped = NearestNeighbors(n_neighbors=11, metric="cosine", algorithm="brute").fit(x).kneighbors(x, return_distance=False)[:, 1:]
    assert (dropped == np.arange(400)[:, None]).any(axis=1).mean() > 0.01
    assert ts.nps(x, x.clone()) == 1
    assert ts.trustworthiness(x, x.clone()) == ts.continuity(x, x.clone()) == 1


@pytest.mark.parametrize("name", ["nps", "mutual_knn", "trustworthiness", "continuity"])
@pytest.mark.parametrize("copies", [2, 4])
def test_neighbour_measures_of_repeated_rows_with_themselves_are_one(name, copies):
    """Products of matrices give equal rows values that differ in the last digits; those ties must not be broken by them."""
    for d in (5, 383):
        x = torch.randn(101, d, generator=torch.Generator().manual_seed(d)).repeat(copies, 1)
        assert MEASURES[name](x, x.clone()) == 1


def test_bfloat16_ties_are_formed_in_float32():
    """kNN of bf16 rows with themselves after a shuffle: similarities formed in bf16 tie, ties go by place, and few neighbours survive."""
    x = (torch.randn(500, 64, generator=torch.Generator().manual_seed(0)) + 4).bfloat16()
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    place = order.argsort()

    def in_bfloat16(rows: torch.Tensor) -> torch.Tensor:
        unit = rows / rows.norm(dim=1, keepdim=True)
        return (unit @ unit.T).fill_diagonal_(-2).float().sort(dim=1, descending=True, stable=True).indices[:, :10]

    def survivors(search) -> float:
        before, after = search(x), order[search(x[order]).long()][place]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(before.tolist(), after.tolist(), strict=True)]))

    assert survivors(lambda rows: nearest(rows, 10)) == 1
    assert survivors(in_bfloat16) < 0.8
    assert ts.nps(x[order], x[order].clone()) == 1
    assert ts.nps(x, x.float()) == 1


# ---------------------------------------------------------------- one massive row


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_one_massive_row_is_read_rightly(related, size):
    """A row 10⁴ times the others owns the Grams: CKA is then a statement about it, and must still be the right number."""
    x, y = (side.float() for side in related(80, 12))
    x[5] *= size
    y[5] *= size
    assert ts.cka(x, y) == pytest.approx(reference_cka(x, y), abs=1e-12)
    assert ts.nps(x, y) == pytest.approx(
        np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*(knn(side) for side in (x, y)), strict=True)]), abs=1e-12
    )
    for name in ("cka", "debiased_cka", "procrustes", "nps", "rsa", "isotropy"):
        estimate = MEASURES[name].estimate(Rows.of(x, y))
        assert all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))
        assert estimate.low <= estimate.value <= estimate.high


def knn(x: torch.Tensor) -> list[list[int]]:
    fitted = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(x.double().numpy())
    return fitted.kneighbors(return_distance=False).tolist()


@pytest.mark.parametrize("name", ["debiased_cka", "isotropy"])
def test_a_row_beyond_float64s_reach_is_refused_not_guessed(related, name):
    """At 10⁹ times the others, what the unbiased estimates subtract differs in no digit: debiased CKA used to read 1.6."""
    x, y = related(60, 8)
    x[7] *= 1e9
    y[7] *= 1e9
    with pytest.raises(Degenerate, match=f"{name} is not defined on these rows"):
        value(name, x, y)


# ---------------------------------------------------------------- what has no answer

SPREADLESS = sorted(set(MEASURES) - {"relative_drift", "row_cosine", "change_rank", "mean_cosine", "partition_ratio"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", SPREADLESS)
@pytest.mark.parametrize("constant", ["x", "y", "both"])
def test_rows_that_are_all_alike_have_no_geometry(related, name, dtype, constant):
    """Two constant sides used to keep all their "neighbours", and a constant side correlated with rounding."""
    x, y = (side.to(dtype) for side in related(40, 12))
    alike = torch.linspace(0.1, 1.3, 12, dtype=dtype).expand(40, 12)  # 0.1 and its like: their means are rounded
    x, y = (alike if constant in ("x", "both") else x), (alike * 3 if constant in ("y", "both") else y)
    side = "x" if constant in ("x", "both") else "y"
    with pytest.raises(Degenerate, match=f"all 40 rows of {side} are the same, so there is no geometry to compare"):
        MEASURES[name].estimate(Rows.of(x, y))


@pytest.mark.parametrize("name", MEASURES)
def test_equal_sides_are_equal_even_where_rows_are_alike(name):
    """The embedding of [CLS] is one row for every text: nothing changed there, and no null is made up (never NaN)."""
    rows = Rows.of(*(torch.full((40, 6), 0.1) for _ in range(2)))
    if name == "isotropy":
        with pytest.raises(Degenerate):
            MEASURES[name].estimate(rows)
        return
    estimate = MEASURES[name].estimate(rows)
    assert estimate.change == 0
    assert estimate.null is None or math.isfinite(estimate.null) and math.isfinite(estimate.null_sd)


@pytest.mark.parametrize("name", ["debiased_cka", "rsa"])
def test_equidistant_rows_have_no_debiased_geometry(name):
    """Corners of a simplex: all dissimilarities are equal, there is nothing to correlate."""
    with pytest.raises(Degenerate, match="is not defined"):
        MEASURES[name](np.eye(10), np.random.default_rng(0).normal(size=(10, 4)))


def test_isotropy_of_a_simplex_is_refused():
    with pytest.raises(Degenerate, match="isotropy is not defined on these rows"):
        ts.isotropy(np.eye(10))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["x", "y"])
def test_nan_and_inf_name_their_side_and_row(related, bad, side):
    x, y = (array.numpy().copy() for array in related(2000, 6))
    {"x": x, "y": y}[side][1234, 3] = bad
    with pytest.raises(ActivationError, match=f"{side} has NaN or Inf, first in row 1,234; a measure of it would mean nothing"):
        ts.cka(x, y)


def test_sides_that_do_not_match_are_refused():
    x = np.zeros((12, 3))
    with pytest.raises(AlignmentError, match="x has 12 rows and y has 11; row i of both must be the same text"):
        ts.cka(x, x[:-1])
    with pytest.raises(AlignmentError, match=r"y has shape \(36,\); expected two dimensions \(rows, features\)"):
        ts.cka(x, x.ravel())
    with pytest.raises(AlignmentError, match="groups has 4 entries for 12 rows; each row belongs to one text"):
        Rows.of(x, x, np.arange(4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ts.cka(x[:4], x[:4]), "cka needs at least 5 rows, got 4"),
        (lambda x: ts.isotropy(x[:4]), "isotropy needs at least 5 rows, got 4"),
        (lambda x: ts.nps(x[:11], x[:11]), "nps needs at least 12 rows, got 11"),
        (lambda x: ts.nps(x, x, k=30), "nps needs at least 32 rows, got 30"),
        (lambda x: ts.trustworthiness(x[:23], x[:23]), "trustworthiness needs at least 24 rows, got 23"),
        (lambda x: ts.subspace_overlap(x[:11], x[:11]), "subspace_overlap needs at least 12 rows, got 11"),
        (lambda x: nearest(torch.from_numpy(x), 30), "30 neighbours need at least 31 rows, got 30"),
        (lambda x: NPS().estimate(Rows.of(x[:11], x[:11] + 1)), "nps needs at least 12 rows, got 11"),
    ],
)
def test_too_few_rows_are_refused_by_name_and_number(call, message):
    with pytest.raises(NotEnoughRows) as caught:
        call(np.random.default_rng(0).normal(size=(30, 6)))
    assert str(caught.value) == message


@pytest.mark.parametrize("name", MEASURES)
def test_the_smallest_number_of_rows_that_is_accepted_works(name):
    measure = MEASURES[name]
    random = np.random.default_rng(0)
    x = random.normal(size=(measure.minimum_rows, 3))
    estimate = measure.estimate(Rows.of(x, x + random.normal(size=x.shape)))
    assert all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))
    assert estimate.null is None or math.isfinite(estimate.null) and math.isfinite(estimate.null_sd)


def test_neighbours_at_any_scale_and_offset():
    """A few rows, or all of them, far too small or large to square in float32; and centred metrics far from the origin."""
    random = np.random.default_rng(5)
    x = random.normal(size=(200, 32)).astype(np.float32)
    turn, _ = np.linalg.qr(random.normal(size=(32, 32)))
    scales = np.where(np.arange(200) < 15, 1e-23, 1.0)[:, None].astype(np.float32)
    assert ts.nps(x * scales, (x * scales).astype(np.float64) @ turn) == pytest.approx(1, abs=0.01)
    y = x + random.normal(size=x.shape).astype(np.float32)
    for scale in (1e-18, 1e18):
        assert ts.nps(x * np.float32(scale), y * np.float32(scale)) == pytest.approx(ts.nps(x, y), abs=0.005)
    x, y = x.astype(np.float64), y.astype(np.float64)
    for metric in ("euclidean", "centred_cosine"):
        assert ts.nps(x + 1e7, y + 1e7, metric=metric) == pytest.approx(ts.nps(x, y, metric=metric), abs=1e-9)


def test_views_and_complex_arrays():
    x = np.random.default_rng(0).normal(size=(30, 4))
    assert ts.cka(x[::-1], x[::-1] * 2) == pytest.approx(1, abs=1e-12)
    with pytest.raises(AlignmentError, match="x is complex"):
        ts.cka(x + 1j, x)
