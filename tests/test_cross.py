"""The layer-by-layer matrix: every pair equal to the pair measured alone, by either route, at any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tunescope as ts
from tunescope.geometry import cross, cross_cka, cross_nps

# float32 products and float64 sums: the error against float64 that the issue asks for
TOLERANCE = 2e-7


def layers(count: int, n: int, widths: list[int], seed: int = 0) -> list[torch.Tensor]:
    """A random walk through layers: neighbouring layers alike, all with an offset far from 0."""
    random = np.random.default_rng(seed)
    common, found = random.normal(size=(n, 16)), []
    for at in range(count):
        common = common + 0.5 * random.normal(size=common.shape)
        width = widths[at % len(widths)]
        found.append(torch.from_numpy(common @ random.normal(size=(16, width)) + random.normal(size=(n, width)) + 20).float())
    return found


def reference(xs: list[torch.Tensor], ys: list[torch.Tensor]) -> np.ndarray:
    """|XᵀY|²/(|XᵀX||YᵀY|) in float64, pair by pair."""

    def centred(x: torch.Tensor) -> np.ndarray:
        x = x.double().numpy()
        return x - x.mean(0)

    def square(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.square(a.T @ b).sum())

    left, right = ([centred(layer) for layer in side] for side in (xs, ys))
    return np.array([[square(a, b) / np.sqrt(square(a, a) * square(b, b)) for b in right] for a in left])


SIZES = [(40, [8]), (256, [48]), (300, [48, 20]), (700, [24]), (1030, [70, 33])]  # below, at and between multiples of the 256-row block


@pytest.mark.parametrize(("n", "widths"), SIZES)
def test_every_pair_is_the_pair_alone(n, widths):
    xs, ys = layers(4, n, widths), layers(3, n, widths[::-1], seed=1)
    ys[-1] = xs[-1] + 0.1 * layers(1, n, [xs[-1].shape[1]], seed=2)[0]
    found = cross_cka(xs, ys)
    assert found.shape == (4, 3)
    np.testing.assert_allclose(found, reference(xs, ys), rtol=0, atol=TOLERANCE)
    assert float(found[1, 2]) == pytest.approx(ts.cka(xs[1], ys[2]), abs=TOLERANCE)


@pytest.mark.parametrize(("n", "widths"), SIZES)
def test_grams_and_feature_products_agree(n, widths):
    sides = [layers(3, n, widths, seed=seed) for seed in (0, 1)]
    expected = reference(*sides)
    for route in (cross._by_grams, cross._by_features):
        inner, left, right = route(*([cross._Layer.of(layer) for layer in side] for side in sides))
        np.testing.assert_allclose(inner / torch.outer(left, right).sqrt(), expected, rtol=0, atol=TOLERANCE)


def test_the_route_is_chosen_by_cost(monkeypatch):
    taken = []

    def noted(name: str):
        route = getattr(cross, name)
        monkeypatch.setattr(cross, name, lambda *sides: taken.append(name) or route(*sides))

    noted("_by_grams")
    noted("_by_features")
    cross_cka(layers(2, 60, [40]), layers(2, 60, [40], seed=1))
    cross_cka(layers(2, 900, [4]), layers(2, 900, [4], seed=1))
    assert taken == ["_by_grams", "_by_features"]


def test_equal_layers_read_one_on_the_diagonal():
    xs = layers(3, 300, [32])
    np.testing.assert_allclose(cross_cka(xs, xs).diagonal(), 1, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("n", "width"), [(60, 12), (900, 3)], ids=["grams", "features"])
def test_a_layer_without_spread_is_nan_and_spoils_no_other(dtype, n, width):
    """.1 summed n times and divided by n is not .1 in float64: what is left of a constant layer is rounding, not a representation."""
    xs, ys = ([layer.to(dtype) for layer in layers(3, n, [width], seed=seed)] for seed in (0, 1))
    expected = reference(xs, ys)
    xs[1] = torch.full((n, width), 0.1, dtype=dtype)
    found = cross_cka(xs, ys)
    assert found[1].isnan().all()
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=0, atol=TOLERANCE)
    assert cross_cka(ys, xs)[:, 1].isnan().all()


@pytest.mark.parametrize("scale", [1e-18, 1e15])
def test_products_neither_underflow_nor_overflow(scale):
    """Squares of squares of 1e-18 are no float32; layers are brought to one size first."""
    xs, ys = layers(2, 60, [12]), layers(2, 60, [12], seed=1)
    np.testing.assert_allclose(cross_cka([x * scale for x in xs], ys), reference(xs, ys), rtol=0, atol=1e-6)  # scaling rounds the rows


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_cross_nps_is_nps_of_every_pair(metric):
    xs, ys = layers(3, 80, [12, 30]), layers(2, 80, [9], seed=1)
    expected = [[ts.nps(x, y, k=7, metric=metric) for y in ys] for x in xs]
    np.testing.assert_allclose(cross_nps(xs, ys, k=7, metric=metric), expected, rtol=0, atol=1e-12)
