"""Kept, moved, new: planted layers read as planted, and layers that resemble each other by nature never read as moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from tunescope.errors import NotEnoughRows
from tunescope.geometry.cross import cross_hsic
from tunescope.geometry.matching import Fit, chance_ceiling, match_layers
from tunescope.geometry.rows import Rows

LAYERS = 6


def chain(rng: np.random.Generator, n: int, *, step: float, d: int = 24, layers: int = LAYERS) -> list[np.ndarray]:
    """Layers that walk away from each other: neighbours are alike, the more so the smaller the step; uneven spectrum, off the origin."""
    spectrum = np.linspace(2, 0.3, d)
    found = [rng.normal(size=(n, d)) * spectrum]
    for _ in range(layers - 1):
        found.append(found[-1] + step * rng.normal(size=(n, d)) * spectrum)
    return [x + 3 for x in found]


def rotated(rng: np.random.Generator, x: np.ndarray, *, noise: float) -> np.ndarray:
    """The same rows in other axes, with noise that many times their spread."""
    turned = x @ np.linalg.qr(rng.normal(size=(x.shape[1],) * 2))[0]
    return turned + noise * turned.std() * rng.normal(size=x.shape)


def matched(xs: list[np.ndarray], ys: list[np.ndarray], own: list[int] | None = None):
    xs, ys = ([torch.from_numpy(layer) for layer in side] for side in (xs, ys))
    return match_layers(xs, ys, own or range(len(ys)))


def verdicts(xs: list[np.ndarray], ys: list[np.ndarray]) -> list[str | None]:
    return [match.verdict for match in matched(xs, ys).matches]


@pytest.mark.parametrize(("n", "noise"), [(60, 0.0), (60, 0.2), (300, 0.4), (1100, 0.4)])
def test_planted_layers_read_as_planted(n, noise):
    """Layer 1 carries base layer 4, layer 4 rows of nothing, all others their own."""
    rng = np.random.default_rng(n)
    xs = chain(rng, n, step=0.9)
    ys = [rotated(rng, x, noise=noise) for x in xs]
    ys[1], ys[4] = rotated(rng, xs[4], noise=noise), rng.normal(size=xs[4].shape)
    found = matched(xs, ys).matches
    assert [match.verdict for match in found] == ["kept", "moved", "kept", "kept", "new", "kept"]
    assert [match.best for match in found if match.verdict != "new"] == [0, 4, 2, 3, 5]
    moved = found[1]
    assert moved.difference == pytest.approx(moved.value - moved.own_value)
    assert 0 < moved.difference_low < moved.difference < moved.difference_high
    assert moved.low < moved.value <= moved.high + 1e-12
    assert moved.value > moved.similarity


@pytest.mark.parametrize("step", [0.02, 0.1, 0.3])
def test_an_untouched_copy_is_kept_everywhere(step):
    """Neighbours are up to .9997 alike; the copy itself, or one that was computed in other batches."""
    rng = np.random.default_rng(1)
    xs = chain(rng, 50, step=step)
    for noise in (0.0, 1e-7):
        found = matched(xs, [x + noise * rng.normal(size=x.shape) for x in xs]).matches
        assert [(match.verdict, match.best) for match in found] == [("kept", i) for i in range(LAYERS)]
        assert all(match.value == pytest.approx(1, abs=1e-9) for match in found)


def towards(xs: list[np.ndarray], share: float) -> list[np.ndarray]:
    """Every layer that share of the way to the next one."""
    return [x + share * (after - x) for x, after in zip(xs, [*xs[1:], xs[-1]], strict=True)]


def test_a_change_smaller_than_what_tells_the_layers_apart_is_no_move():
    """Neighbours are .99 alike: a layer may lie four fifths of the way to the next one, closer to it without any doubt, and keep."""
    rng = np.random.default_rng(2)
    xs = chain(rng, 2000, step=0.07)
    ys = towards(xs, 0.8)
    found = matched(xs, ys)
    apart = cross_hsic(*[[torch.from_numpy(x) for x in xs]] * 2).debiased_cka.diagonal(1)
    assert (apart > 0.99).all()
    assert [match.best for match in found.matches] == [1, 2, 3, 4, 5, 5]
    assert found.matches[0].difference_low > 0
    assert {match.verdict for match in found.matches} == {"kept"}


def test_a_layer_further_from_its_neighbour_than_before_did_not_move_to_it():
    """Own layer and neighbour share s, differ in u against v; the tuned one kept a little more of v and has much of its own."""
    rng = np.random.default_rng(3)
    s, u, v, w = rng.normal(size=(4, 1500, 12))
    own, other = np.hstack([2 * s, u, 0 * v]), np.hstack([2 * s, 0 * u, v])
    tuned = np.hstack([1.2 * s, 0.6 * v, 2 * w])
    match = matched([own, other], [tuned], [0]).matches[0]
    assert match.best == 1
    assert match.difference_low > 0
    assert match.value < match.similarity
    assert match.verdict == "kept"


def textbook(x: np.ndarray, y: np.ndarray) -> float:
    """Debiased CKA from zero-diagonal Grams (Song et al. 2012, equation 5)."""

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        return np.sum(k * m) + k.sum() * m.sum() / (n - 1) / (n - 2) - 2 / (n - 2) * k.sum(0) @ m.sum(0)

    k, m = (side @ side.T for side in (x - x.mean(0), y - y.mean(0)))
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def test_the_numbers_are_those_of_the_textbook_estimator_refitted_without_each_row():
    rng = np.random.default_rng(4)
    xs = chain(rng, 30, step=1.0, layers=4)
    ys = [rotated(rng, xs[2], noise=0.3), rotated(rng, xs[1], noise=0.3)]
    found = matched(xs, ys)
    table = np.array([[textbook(x, y) for y in ys] for x in xs])
    match = found.matches[0]
    assert (match.best, match.own) == (int(table[:, 0].argmax()), 0)
    assert (match.value, match.own_value) == pytest.approx((table[2, 0], table[0, 0]), abs=1e-10)
    assert match.similarity == pytest.approx(textbook(xs[0], xs[2]), abs=1e-10)
    without = np.array([textbook(*pair) for pair in without_each(xs[2], ys[0])])
    difference = without - np.array([textbook(*pair) for pair in without_each(xs[0], ys[0])])
    for value, left_out, level, low, high in (
        (match.value, without, 0.95, match.low, match.high),
        (match.difference, difference, 1 - 0.05 / 6, match.difference_low, match.difference_high),
    ):
        se = np.sqrt(29 / 30 * np.sum((left_out - left_out.mean()) ** 2))
        reach = stats.t.ppf(0.5 + level / 2, 29) * se
        assert (low, high) == pytest.approx((value - reach, min(value + reach, 1 if level == 0.95 else np.inf)), abs=1e-9)
    assert found.tested == 6


def without_each(x: np.ndarray, y: np.ndarray):
    return ((np.delete(x, i, 0), np.delete(y, i, 0)) for i in range(len(x)))


@pytest.mark.parametrize(("n", "widths"), [(40, [90, 7]), (700, [24, 9]), (1100, [30, 60])])
def test_the_debiased_map_is_the_textbook_estimator(n, widths):
    """float32 products above a thousand rows: 2e-7 a cell, as the biased map."""
    rng = np.random.default_rng(n)
    common = rng.normal(size=(n, 6))
    xs, ys = ([common @ rng.normal(size=(6, d)) + rng.normal(size=(n, d)) + 9 for d in side] for side in (widths, widths[::-1]))
    found = cross_hsic(*[[torch.from_numpy(layer) for layer in side] for side in (xs, ys)]).debiased_cka
    np.testing.assert_allclose(found, [[textbook(x, y) for y in ys] for x in xs], rtol=0, atol=1e-6 if n > 1024 else 1e-10)


def test_layers_without_spread_are_named_and_spoil_no_other():
    rng = np.random.default_rng(5)
    xs = chain(rng, 50, step=0.8, layers=4)
    ys = [x + 0.1 * rng.normal(size=x.shape) for x in xs]
    xs[0], ys[3] = np.full_like(xs[0], 0.1), np.full_like(ys[3], 0.1)
    found = matched(xs, ys).matches
    assert [match.verdict for match in found] == [None, "kept", "kept", None]
    assert "all 50 rows of x are the same" in found[0].reason
    assert "all 50 rows of y are the same" in found[3].reason


def test_known_fits_and_a_known_map_change_nothing():
    rng = np.random.default_rng(6)
    xs, ys = ([torch.from_numpy(layer) for layer in chain(rng, 60, step=0.8)] for _ in range(2))
    fits = [Fit.of(Rows(x, y)) for x, y in zip(xs, ys, strict=True)]
    known = match_layers(xs, ys, range(LAYERS), fits=fits, similarity=cross_hsic(xs, ys).debiased_cka)
    assert known == match_layers(xs, ys, range(LAYERS))


def test_tokens_of_one_text_are_one_witness():
    """Every row forty times over, as tokens of one text: the interval is about that of the rows once."""
    rng = np.random.default_rng(7)
    xs, ys = (chain(rng, 60, step=0.8, layers=2), chain(rng, 60, step=0.8, layers=2))
    ys = [x + y for x, y in zip(xs, ys, strict=True)]
    many = [[torch.from_numpy(np.repeat(layer, 40, 0)) for layer in side] for side in (xs, ys)]
    once = matched(xs, ys).matches[0]
    tokens = match_layers(*many, range(2), groups=torch.arange(60).repeat_interleave(40)).matches[0]
    assert tokens.high - tokens.low == pytest.approx(once.high - once.low, rel=0.2)


def test_one_layer_and_few_rows():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(40, 6))
    (match,) = matched([x], [x + 0.1]).matches
    assert (match.verdict, match.difference_low) == ("kept", None)
    with pytest.raises(NotEnoughRows, match="needs at least 5 rows, got 4"):
        matched([x[:4]], [x[:4]])


def owned(rng: np.random.Generator, n: int, d: int = 10) -> np.ndarray:
    """One dimension owns the Gram: where chance has its heaviest tail."""
    return rng.normal(size=(n, d)) * np.array([1.0] + [0.02] * (d - 1))


def rate(draws: int, flagged) -> float:
    return sum(flagged(np.random.default_rng([9, draw])) for draw in range(draws)) / draws


def equidistant(rng: np.random.Generator) -> bool:
    """Every layer halfway to its neighbour, where a coin decides which is closer: is any called moved?"""
    return "moved" in verdicts(xs := chain(rng, 40, step=0.5), [y + 0.3 * rng.normal(size=y.shape) for y in towards(xs, 0.5)])


def untouched(rng: np.random.Generator) -> bool:
    """Neighbours .9 to .999 alike, noise of a tenth to all of their spread: is any layer called moved?"""
    xs = chain(rng, int(rng.integers(12, 60)), step=rng.uniform(0.03, 0.35))
    return "moved" in verdicts(xs, [x + rng.uniform(0.1, 1) * x.std() * rng.normal(size=x.shape) for x in xs])


def unrelated(rng: np.random.Generator) -> bool:
    """Unrelated rows, the tuned one of the heaviest tail: is the best of all layers taken for a match?"""
    xs = [owned(rng, 50) for _ in range(LAYERS)]
    return "new" not in verdicts(xs, [owned(rng, 50)])


@pytest.mark.parametrize("flagged", [untouched, equidistant, unrelated])
def test_a_few_draws_of_chance_are_not_taken_for_a_finding(flagged):
    assert rate(10, flagged) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("flagged", "draws"), [(untouched, 200), (equidistant, 200), (unrelated, 1000)])
def test_chance_is_taken_for_a_finding_at_most_as_often_as_promised(flagged, draws):
    """At most 5%, and two standard deviations of the simulation itself."""
    assert rate(draws, flagged) <= 0.05 + 2 * (0.05 * 0.95 / draws) ** 0.5


def test_the_ceiling_is_the_tail_of_one_owned_dimension():
    """n times the squared correlation of two unrelated normal columns is χ²₁ for many rows, and dCKA that less 1/n, about."""
    rng = np.random.default_rng(10)
    correlations = np.array([np.corrcoef(*rng.normal(size=(2, 200)))[0, 1] for _ in range(4000)])
    share = np.mean(correlations**2 - 1 / 199 > chance_ceiling(200, 5))
    assert share == pytest.approx(0.01, abs=3 * (0.01 * 0.99 / 4000) ** 0.5)
