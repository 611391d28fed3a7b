"""Outlier dimensions: what they hold, CKA they cannot own, and the warning when the two readings disagree."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

import tunescope as ts
from tunescope.comparison.layers import Place, measure_place
from tunescope.comparison.outlier_dimensions import about_outliers, outliers_at
from tunescope.errors import Degenerate, UnknownName
from tunescope.geometry.measures.cka import CKA
from tunescope.geometry.outliers import concentration, robust_cka, standardised, without_top
from tunescope.geometry.rows import Rows


def sides(n: int, d: int, *, seed: int = 0, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Related rows, off the origin, dimensions of unequal spread."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * np.linspace(1.5, 0.5, d) + rng.normal(size=d)
    return x, x + noise * rng.normal(size=(n, d))


def massive(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Dimension 5 is the same on both sides and huge; everything else is unrelated."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, n, d))
    x[:, 5] = y[:, 5] = 300 * rng.normal(size=n) + 1000
    return x, y


def dead(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two dimensions as in MiniLM's output: about 1e-33, one of them the very same for every text on one side."""
    x, y = (side.astype(np.float32) for side in sides(n, d))
    x[:, 2] = 1e-33 * x[:, 2]
    y[:, 2] = 1e-33
    return x, y


@pytest.mark.parametrize(("n", "d"), [(200, 12), (30, 50)])
def test_shares_are_those_of_the_covariance_matrix(n, d):
    x, y = sides(n, d)
    for found, side in zip(concentration(Rows.of(x, y)), (x, y), strict=True):
        covariance = np.cov(side.T)
        variances = np.sort(np.diag(covariance))[::-1]
        np.testing.assert_allclose(found.shares, [variances[:k].sum() / variances.sum() for k in (1, 3, 10)], rtol=1e-10)
        assert list(found.top) == np.argsort(-np.diag(covariance))[:10].tolist()
        rest = np.delete(np.delete(covariance, found.top[:3], 0), found.top[:3], 1)
        assert found.gram == pytest.approx(1 - np.square(rest).sum() / np.square(covariance).sum(), rel=1e-10)


@pytest.mark.parametrize(("n", "d", "e"), [(200, 12, 12), (200, 12, 7), (30, 50, 20)])
def test_the_robust_value_is_that_of_rows_standardised_elsewhere(n, d, e):
    """Rows are held in float32: 1e-6."""
    x, y = sides(n, d)[0], sides(n, e, seed=2)[1]
    y = y + x[:, :e].mean(1, keepdims=True)
    scaled = [StandardScaler().fit_transform(side) for side in (x, y)]
    expected = CKA().estimate(Rows.of(*scaled))
    found = robust_cka(Rows.of(x, y))
    for name in ("value", "change", "low", "high", "null", "null_sd"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-6), name


def test_moments_carried_over_are_those_of_the_scaled_rows():
    x, y = dead(200, 12)
    made = standardised(Rows.of(x, y))
    kept = np.delete(np.arange(12), 2)
    assert made.x.shape == made.y.shape == (200, 11)
    for mine, side in zip((made.x, made.y), (x, y), strict=True):
        np.testing.assert_allclose(mine, StandardScaler().fit_transform(side.astype(np.float64)[:, kept]), atol=1e-6)
    fresh = Rows(made.x, made.y).moments
    for mine, other in zip(made.moments.sums, fresh.sums, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-4)  # float32 rows against float64 moments


def test_dead_dimensions_are_dropped_and_counted():
    x, y = dead(200, 12)
    assert [side.dead for side in concentration(Rows.of(x, y))] == [1, 1]
    kept = np.delete(np.arange(12), 2)
    assert robust_cka(Rows.of(x, y)).value == pytest.approx(robust_cka(Rows.of(x[:, kept], y[:, kept])).value, abs=1e-6)


def test_without_the_largest_dimensions_of_either_side():
    x, y = sides(100, 8)
    x[:, 3] *= 50
    y[:, 6] *= 50
    kept = [0, 1, 2, 4, 5, 7]
    made = without_top(Rows.of(x, y), k=1)
    assert torch.equal(made.x, torch.from_numpy(x[:, kept]))
    assert torch.equal(made.y, torch.from_numpy(y[:, kept]))
    assert robust_cka(Rows.of(x, y), reading="without_top").value == ts.cka(*(np.delete(s, _largest(x, y), 1) for s in (x, y)))
    narrow = without_top(Rows.of(x, y[:, :7]), k=2)
    assert (narrow.x.shape[1], narrow.y.shape[1]) == (6, 5)


def _largest(*both: np.ndarray) -> list[int]:
    return sorted({int(i) for side in both for i in np.argsort(-side.var(0))[:3]})


def test_what_cannot_be_read_is_refused():
    x, y = sides(40, 3)
    with pytest.raises(UnknownName, match="unknown robust reading 'standardized'; did you mean standardised"):
        robust_cka(Rows.of(x, y), reading="standardized")
    with pytest.raises(Degenerate, match="without its 3 largest dimensions a side of 3 has none left"):
        robust_cka(Rows.of(x, y), reading="without_top")
    with pytest.raises(Degenerate, match="all 40 rows of y are the same"):
        robust_cka(Rows.of(x, np.full_like(y, 0.1)))
    assert robust_cka(Rows.of(x, x)).value == 1.0


def measured(x: np.ndarray, y: np.ndarray) -> dict:
    rows = Rows.of(x, y)
    row = measure_place(Place("block 3", 3, 0.5), rows, {"cka": CKA()}, noise={}, seed=0)
    return row | {"outliers": outliers_at(rows, row)}


@pytest.mark.parametrize(("n", "d"), [(400, 40), (60, 100)])
def test_one_massive_dimension_is_caught(n, d):
    row = measured(*massive(n, d))
    found = row["outliers"]
    assert row["measures"]["cka"]["value"] >= 0.999
    assert row["status"] == "untouched"
    assert found["top"]["base"][0] == found["top"]["tuned"][0] == 5
    assert min(found["share"].values()) > 0.99
    assert found["robust_cka"] < found["robust_null"] + 0.1
    assert found["robust_status"] == "rewritten"
    assert robust_cka(Rows.of(*massive(n, d)), reading="without_top").value < found["robust_null"] + 0.1
    (said,) = about_outliers([row], {})
    assert "a few dimensions own the Gram matrix" in said
    assert "block 3 (>.999, standardised " in said
    assert "dimensions 5, " in said


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5, 2.0])
def test_ordinary_rows_are_not_warned_of(noise):
    x, y = sides(400, 40, noise=noise)
    row = measured(x, x if noise == 0 else y)
    assert not row["outliers"]["disagree"]
    assert about_outliers([row], {"output": row}) == []


def test_rows_all_alike_have_no_outliers():
    row = measured(np.ones((40, 5)), sides(40, 5)[0])
    assert row["outliers"] is None
    assert about_outliers([row], {}) == []


def test_a_model_with_a_massive_dimension_is_warned_of():
    """One weight row of each block's last matrix, blown up on both sides, hides that everything else moved."""
    from test_comparison import sentences
    from tiny_models import tiny_model, tokenizer_for

    base = tiny_model("gpt2", n_layer=2)
    with torch.no_grad():
        base.h[0].mlp.c_proj.weight[:, 3] *= 3000
    tuned = copy.deepcopy(base)
    torch.manual_seed(1)
    with torch.no_grad():
        for name in ("c_attn", "c_proj"):
            getattr(tuned.h[1].attn, name).weight.add_(1.5 * torch.randn_like(getattr(tuned.h[1].attn, name).weight))
    tokenizer = tokenizer_for("gpt2")
    c = ts.diff((base, tokenizer), (tuned, tokenizer), sentences(60))
    block = c.payload["layers"][2]
    assert block["measures"]["cka"]["value"] > 0.99
    assert block["outliers"]["top"]["base"][0] == 3
    assert block["outliers"]["disagree"]
    assert [warning for warning in c.warnings if "own the Gram matrix" in warning and "block 2" in warning]
    assert [row["verdict"] for row in c.payload["cross"]["layers"]] == ["kept"] * 3
