"""Pairs of features, spans and tables of dictionaries: against brute force, scipy, closed forms and planted directions."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import subspace_angles
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import normalize

from tunescope import match_dictionaries
from tunescope.dictionaries.alignment_row import ABOVE, NOTHING, above
from tunescope.dictionaries.alignment_tables import alignment_table
from tunescope.dictionaries.assignment import one_to_one
from tunescope.dictionaries.chance_dictionaries import chance_directions, norm_matched_noise
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.directions import directions, nearest_features
from tunescope.dictionaries.firing import TopK
from tunescope.dictionaries.spectrum import Spectrum
from tunescope.dictionaries.subspaces import compare_spans, random_overlap
from tunescope.errors import ActivationError, AlignmentError, Degenerate, InputError


def drawn(n, d, seed):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def near(planted, seed, *, noise=0.1):
    """The planted directions in another order, each moved a little: cosine 1/√(1 + noise²)."""
    order = np.random.default_rng(seed).permutation(len(planted))
    return normalize(planted, dim=1)[order] + noise * normalize(drawn(*planted.shape, seed + 1), dim=1), torch.from_numpy(order)


@pytest.mark.parametrize(("count", "d"), [(32, 64), (64, 128)])
def test_planted_directions_are_paired_one_to_one(count, d):
    planted = drawn(count, d, 0)
    found, order = near(planted, 1)
    match = match_dictionaries(planted, found)
    pairs = match.pairs[match.pairs[:, 1].argsort()]
    assert torch.equal(pairs[:, 0], order)
    assert match.value == pytest.approx(1 / np.sqrt(1.01), abs=5e-3)  # ± the noise's own part along the direction
    assert match.shared == 1.0
    assert match.verdict == ABOVE


def test_a_dictionary_and_its_decoder_are_the_same_thing():
    decoder = drawn(20, 8, 0)
    dictionary = Dictionary(decoder.T.clone(), torch.zeros(20), decoder, torch.zeros(8), TopK(2))
    of_both = match_dictionaries(dictionary, decoder.numpy())
    assert of_both.value == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(of_both.pairs[:, 0], of_both.pairs[:, 1])


@pytest.mark.parametrize(("n", "m"), [(6, 6), (4, 7), (7, 4)])
def test_pairs_have_the_largest_sum_of_all_pairings(n, m):
    a, b = directions(drawn(n, 5, 0)), directions(drawn(m, 5, 1))
    _, (pairs, cosines) = one_to_one(a, b)
    table = (a @ b.T if n <= m else b @ a.T).numpy()
    best = max(table[range(len(table)), list(order)].sum() for order in permutations(range(max(n, m)), min(n, m)))
    assert float(cosines.sum()) == pytest.approx(best, abs=1e-5)
    assert all(len(set(side.tolist())) == min(n, m) for side in pairs.T)
    assert torch.equal(cosines, cosines.sort(descending=True).values)


@pytest.mark.parametrize("kind", ["random", "half shared", "crowded"])
@pytest.mark.parametrize(("n", "m"), [(300, 300), (250, 400), (400, 250)])
def test_pairs_among_the_nearest_are_those_of_the_whole_problem(kind, n, m):
    a, b = drawn(n, 24, 0), drawn(m, 24, 1)
    if kind == "half shared":
        b[:100] = a[100:200] + 0.3 * b[:100]
    if kind == "crowded":  # many features of a have the same few neighbours, so some find no candidate free
        b = torch.cat([b[:10], b[:10].repeat(m // 10 + 1, 1)[: m - 10] + 1e-3 * b[10:]])
    a, b = directions(a), directions(b)
    expected = a.double().numpy() @ b.double().numpy().T
    rows, columns = linear_sum_assignment(expected, maximize=True)
    _, (pairs, cosines) = one_to_one(a, b, whole=0)
    assert len({*pairs[:, 0].tolist()}) == len({*pairs[:, 1].tolist()}) == min(n, m)
    np.testing.assert_allclose(cosines, expected[pairs[:, 0], pairs[:, 1]], atol=1e-5)
    # never more than the exact sum; with 64 candidates the same where neighbours are not all shared
    short = expected[rows, columns].sum() - float(cosines.double().sum())
    assert -1e-3 < short < (1e-3 if kind != "crowded" else 0.05 * min(n, m))


def test_one_candidate_each_still_pairs_everything():
    a, b = directions(drawn(50, 8, 0)), directions(drawn(60, 8, 1))
    _, (pairs, _) = one_to_one(a, b, whole=0, candidates=1)
    assert len({*pairs[:, 0].tolist()}) == len({*pairs[:, 1].tolist()}) == 50


def test_nearest_features_in_blocks_are_those_of_the_whole_table(monkeypatch):
    a, b = directions(drawn(40, 6, 0)), directions(drawn(30, 6, 1))
    monkeypatch.setattr("tunescope.dictionaries.directions._CELLS", 7 * 30)
    found = nearest_features(a, b, k=4)
    table = a.numpy() @ b.numpy().T
    np.testing.assert_allclose(found.of_a, -np.sort(-table, axis=1)[:, :4], atol=1e-6)
    np.testing.assert_allclose(found.of_b, -np.sort(-table.T, axis=1)[:, :4], atol=1e-6)
    np.testing.assert_array_equal(found.at_b, np.argsort(-table, axis=1)[:, :4])
    np.testing.assert_array_equal(found.at_a, np.argsort(-table.T, axis=1)[:, :4])


def expected_largest(n, d):
    """E max of n cosines with a given direction, all directions alike: cos = 2·Beta((d−1)/2, (d−1)/2) − 1."""
    grid = np.linspace(-1, 1, 200_001)
    below = stats.beta.cdf((grid + 1) / 2, (d - 1) / 2, (d - 1) / 2) ** n
    return float(1 - np.trapezoid(below, grid))


@pytest.mark.parametrize(("n", "d"), [(64, 16), (1000, 256)])
def test_the_isotropic_floor_has_its_closed_form(n, d):
    match = match_dictionaries(drawn(2000, d, 0), drawn(n, d, 1), draws=4)
    assert match.chance.max_a[0] == pytest.approx(expected_largest(n, d), abs=2e-3)
    assert match.chance.max_b[0] == pytest.approx(expected_largest(2000, d), abs=6e-3)  # a mean over n features


def test_the_isotropic_floor_of_a_large_dictionary():
    n, d = 16384, 3584
    assert expected_largest(n, d) == pytest.approx(0.066, abs=5e-4)
    found = nearest_features(directions(drawn(200, d, 1)), chance_directions(n, d, seed=0)).of_a
    assert float(found.mean()) == pytest.approx(0.066, abs=0.002)


@pytest.mark.slow
def test_the_floor_of_crowded_activations_of_a_large_dictionary():
    # variances as 1/i; the oracle draws and multiplies in numpy: .394 ± .003 from 1,000 directions
    n, d = 16384, 3584
    root = np.arange(1, d + 1, dtype=np.float32) ** -0.5
    rng = np.random.default_rng(0)
    of, among = (rng.standard_normal((size, d), dtype=np.float32) * root for size in (1000, n))
    of, among = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (of, among))
    expected = (of @ among.T).max(1).mean()
    like = Spectrum(10, torch.zeros(d).double(), torch.from_numpy(root).double() ** 2, torch.eye(d).double())
    found = float(nearest_features(torch.from_numpy(of), chance_directions(n, d, like=like, seed=0)).of_a.mean())
    assert found == pytest.approx(expected, abs=0.002)
    assert found == pytest.approx(0.394, abs=0.01)


def test_chance_directions_are_drawn_like_the_activations():
    rows = drawn(300, 5, 0) @ drawn(5, 12, 1) + 3.0  # five dimensions of twelve
    like = Spectrum.of(rows)
    np.testing.assert_allclose(like.root.T @ like.root, np.cov(rows.double().numpy().T, bias=True), atol=1e-9)
    chance = chance_directions(20_000, 12, like=like, seed=0)
    outside = torch.linalg.svd((rows - rows.mean(0)).double(), full_matrices=False)[2][5:]
    assert float((chance.double() @ outside.T).abs().max()) < 1e-5
    raw = torch.randn(20_000, 12, generator=torch.Generator().manual_seed(3)) @ like.root[:12].float()
    np.testing.assert_allclose(chance.T @ chance / 20_000, normalize(raw, dim=1).T @ normalize(raw, dim=1) / 20_000, atol=0.012)


def test_a_dictionary_drawn_from_the_same_seed_does_not_meet_itself_in_its_floor():
    a = torch.randn(100, 32, generator=torch.Generator().manual_seed(0))
    assert match_dictionaries(a, a, seed=0).floor < 0.6


def test_noise_of_the_same_norms_has_no_direction():
    rows = drawn(4000, 16, 0) * 5 + 2
    noise = norm_matched_noise(rows, mean=rows.double().mean(0), seed=1)
    np.testing.assert_allclose((noise - rows.mean(0)).norm(dim=1), (rows - rows.mean(0)).norm(dim=1), rtol=1e-5)
    assert Spectrum.of(noise).participation_ratio > 15.5


@pytest.mark.parametrize("seed", range(3))
def test_random_dictionaries_are_not_above_their_floor(seed):
    match = match_dictionaries(drawn(200, 32, 10 + seed), drawn(200, 32, 20 + seed))
    assert match.verdict == NOTHING
    assert {row.verdict for row in match.rows()} == {NOTHING}


def test_crowded_activations_need_the_floor_of_their_covariance():
    rows = drawn(2000, 64, 0) * torch.arange(1, 65) ** -0.75
    a, b = (drawn(300, 64, seed) * torch.arange(1, 65) ** -0.75 for seed in (1, 2))
    assert match_dictionaries(a, b).verdict == ABOVE, "two random dictionaries pass for aligned against isotropic directions"
    match = match_dictionaries(a, b, activations=rows)
    assert match.verdict == NOTHING
    assert "covariance of 2,000 activations" in match.chance.drawn


@pytest.mark.parametrize("m", [48, 32])
def test_the_floor_of_a_pair_does_not_depend_on_which_comes_first(m):
    crowded, even = drawn(48, 16, 0) * torch.linspace(4, 0.1, 16), drawn(m, 16, 1)
    forth, back = match_dictionaries(crowded, even), match_dictionaries(even, crowded)
    assert (forth.value, forth.floor, forth.verdict) == pytest.approx((back.value, back.floor, back.verdict), abs=1e-6)
    assert forth.chance.max_a == pytest.approx(back.chance.max_b, abs=1e-6)
    cells = alignment_table({"a": [crowded], "b": [even]}).floor[0, 1], alignment_table({"b": [even], "a": [crowded]}).floor[0, 1]
    assert cells[0] == pytest.approx(cells[1], abs=1e-6) == pytest.approx(forth.floor, abs=1e-6)


def test_each_side_has_random_dictionaries_like_what_it_was_trained_on():
    rows, others = drawn(2000, 16, 0) * torch.linspace(4, 0.1, 16), drawn(2000, 16, 1)
    a, b = drawn(48, 16, 2) * torch.linspace(4, 0.1, 16), drawn(48, 16, 3)
    both = match_dictionaries(a, b, activations=(rows, others))
    swapped = match_dictionaries(b, a, activations=(others, rows))
    assert both.floor == pytest.approx(swapped.floor, abs=1e-6)
    assert both.chance.max_a[0] == match_dictionaries(a, b, activations=others).chance.max_a[0]
    assert both.chance.max_b[0] == match_dictionaries(a, b, activations=rows).chance.max_b[0]
    likes = {"a": Spectrum.of(rows), "b": Spectrum.of(others)}
    assert alignment_table({"a": [a], "b": [b]}, activations=likes).floor[0, 1] == pytest.approx(both.floor, abs=1e-6)
    with pytest.raises(InputError, match="activations of width 8"):
        match_dictionaries(a, b, activations=(rows, drawn(100, 8, 4)))


def test_two_groups_closer_than_their_own_seeds_are_marked():
    groups = {"4": [drawn(16, 8, 0), drawn(16, 8, 1)], "8": [drawn(16, 8, 0), drawn(16, 8, 1)]}
    rows = {row.comparison: row for row in alignment_table(groups).rows()}
    assert rows["rank_by_rank"].value > rows["rank_by_rank"].ceiling
    assert "above the ceiling" in rows["rank_by_rank"].note
    assert rows["seed_by_seed"].note is None


def test_rows_have_floor_ceiling_and_both_directions():
    planted = drawn(64, 32, 0)
    found, _ = near(planted, 1, noise=0.5)
    match = match_dictionaries(planted[:32], found, seed_pair=(planted, near(planted, 7)[0]), shared_at=0.8)
    rows = {(row.comparison, row.sides): row for row in match.rows("adapter with base")}
    one = rows["one_to_one_cosine", "adapter with base"]
    assert one.n == 32
    assert one.floor < one.value < one.ceiling
    assert one.as_dict()["verdict"] == ABOVE
    shared = rows["shared_share", "adapter with base"]
    assert shared.value == pytest.approx(float((match.cosines >= 0.8).float().mean()))
    table = normalize(planted[:32], dim=1).numpy() @ normalize(found, dim=1).numpy().T
    assert rows["max_cosine", "each of adapter with the nearest of base"].value == pytest.approx(table.max(1).mean(), abs=1e-6)
    assert rows["max_cosine", "each of base with the nearest of adapter"].value == pytest.approx(table.max(0).mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("value", "floor", "sd", "ceiling", "best", "verdict"),
    [
        (0.10, 0.07, 0.001, None, 1.0, NOTHING),  # 3% of the way
        (0.13, 0.07, 0.001, None, 1.0, ABOVE),
        (0.13, 0.07, 0.03, None, 1.0, NOTHING),  # two spreads
        (0.10, 0.07, 0.001, 0.3, 1.0, ABOVE),  # 13% of the way to a low ceiling
        (0.05, 0.07, 0.001, 0.06, 1.0, NOTHING),  # below, with a ceiling that is below too
        (0.2, 0.9, None, 0.1, 0.0, ABOVE),  # an error
        (1.2, 0.9, None, 0.1, 0.0, NOTHING),
    ],
)
def test_what_is_above_a_floor(value, floor, sd, ceiling, best, verdict):
    assert above(value, floor, sd=sd, ceiling=ceiling, best=best) == verdict


@pytest.mark.parametrize(
    ("a", "b", "more", "error", "said"),
    [
        (drawn(5, 4, 0), drawn(5, 3, 0), {}, AlignmentError, "width 4 compared with one of width 3"),
        (drawn(5, 4, 0) * torch.nan, drawn(5, 4, 0), {}, ActivationError, "the decoder of a has NaN"),
        (drawn(5, 4, 0), drawn(5, 4, 0), {"draws": 0}, InputError, "at least 1 draw"),
        (drawn(5, 4, 0), drawn(5, 4, 0), {"shared_at": 7}, InputError, "a cosine is −1 to 1"),
        (drawn(5, 4, 0), drawn(5, 4, 0), {"activations": drawn(9, 3, 0)}, InputError, "activations of width 3"),
    ],
)
def test_what_cannot_be_matched_is_said(a, b, more, error, said):
    with pytest.raises(error, match=said):
        match_dictionaries(a, b, **more)


@pytest.mark.parametrize(("d", "m"), [(20, 1), (20, 5), (64, 30)])
def test_principal_angles_are_scipys(d, m):
    a, b = drawn(m + 10, d, 0), drawn(m + 5, d, 1)
    found = compare_spans(a, b, m=m)
    np.testing.assert_allclose(found.angles, np.sort(subspace_angles(a[:m].double().numpy().T, b[:m].double().numpy().T)), atol=1e-6)
    assert found.overlap == pytest.approx(float(found.angles.cos().square().mean()))


def test_the_leading_features_are_those_of_largest_share():
    a, shares = drawn(12, 20, 0), torch.rand(12, generator=torch.Generator().manual_seed(0))
    top = shares.argsort(descending=True)[:4]
    assert compare_spans(a, a[top], m=4, shares_a=shares).overlap == pytest.approx(1.0)


@pytest.mark.parametrize(("d", "m"), [(12, 3), (30, 20)])
def test_random_subspaces_meet_as_the_closed_form_says(d, m):
    rng = np.random.default_rng(0)
    draws = [np.linalg.norm(np.linalg.qr(rng.normal(size=(d, m)))[0][:m]) ** 2 / m for _ in range(4000)]  # against the first m axes
    mean, sd = random_overlap(m, d)
    assert np.mean(draws) == pytest.approx(mean, abs=4 * sd / np.sqrt(4000))
    assert np.std(draws) == pytest.approx(sd, rel=0.05)  # 4,000 draws: ±1.1% one standard error


def test_spans_drawn_like_crowded_activations_meet_more_than_random_ones():
    like = Spectrum.of(drawn(500, 40, 0) * torch.arange(1, 41) ** -1.0)
    found = compare_spans(chance_directions(50, 40, like=like, seed=5), chance_directions(50, 40, like=like, seed=6), m=4, activations=like)
    isotropic, crowded = found.rows()
    assert isotropic.verdict == ABOVE
    assert crowded.verdict == NOTHING
    assert crowded.floor > 2 * isotropic.floor


def test_spans_that_mean_nothing_are_refused():
    with pytest.raises(InputError, match="m must be 1 to 9; all 10 dimensions"):
        compare_spans(drawn(30, 10, 0), drawn(30, 10, 1), m=10)
    with pytest.raises(Degenerate, match="leading features of b span 1 dimensions"):
        compare_spans(drawn(5, 10, 0), torch.ones(5, 10), m=2)
    with pytest.raises(InputError, match="3 shares given for 5 features"):
        compare_spans(drawn(5, 10, 0), drawn(5, 10, 1), m=2, shares_a=torch.ones(3))


def test_a_table_of_ranks_has_floors_and_seed_ceilings():
    planted = drawn(40, 64, 0)
    groups = {
        "4": [near(planted, seed, noise=0.1)[0] for seed in (1, 3)],
        "8": [near(planted, seed, noise=0.4)[0] for seed in (5, 7)],
        "16": [drawn(40, 64, 99)],
    }
    table = alignment_table(groups)
    np.testing.assert_array_equal(table.values, table.values.T)
    assert table.values[0, 0] == pytest.approx(1 / 1.01, abs=0.01)
    assert table.values[0, 1] == pytest.approx(1 / np.sqrt(1.01 * 1.16), abs=0.02)
    assert table.ceiling[0, 1] == table.values[1, 1]
    assert np.isnan(table.values[2, 2])
    rows = {row.sides: row for row in table.rows()}
    assert list(rows) == ["rank 4, seed with seed", "rank 4 with 8", "rank 4 with 16", "rank 8, seed with seed", "rank 8 with 16"]
    assert rows["rank 4 with 8"].verdict == ABOVE
    assert rows["rank 4 with 16"].verdict == NOTHING
    with pytest.raises(InputError, match="4: 1; a table needs two"):
        alignment_table({"4": [planted]})
