"""The neighbour search against scikit-learn and against sorting everything in float64, above all where values tie or nearly do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from tunescope.errors import NotEnoughRows, UnknownName
from tunescope.geometry.measures.nps import rank_of
from tunescope.geometry.neighbours import METRICS, SPARE, nearest, overlap, positions

METRIC = pytest.mark.parametrize("metric", METRICS)


def similarities(x: torch.Tensor, metric: str) -> torch.Tensor:
    """(n, n) in float64 by the metric's definition, one row against all at a time; self at −∞."""
    x = x.double()
    if metric == "centred_cosine":
        x = x - x.mean(0)
    if "cosine" in metric:
        x = x / x.norm(dim=1, keepdim=True).clamp_min(1e-300)
    rows = [-(x - row).square().sum(1) if metric == "euclidean" else (x * row).sum(1) for row in x]
    return torch.stack(rows).fill_diagonal_(-torch.inf)


def sorted_all(x: torch.Tensor, k: int, metric: str) -> torch.Tensor:
    """Nearest first, ties to the lower index, by a stable sort of everything."""
    return similarities(x, metric).sort(dim=1, descending=True, stable=True).indices[:, :k]


def normal(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@METRIC
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("n", "d", "k"), [(500, 64, 10), (90, 300, 25), (12, 2, 11)])
@pytest.mark.parametrize("offset", [0, 5])
def test_neighbours_and_their_order_are_those_of_sorting_everything(metric, dtype, n, d, k, offset):
    x = normal(n, d, dtype=dtype) + offset
    assert torch.equal(nearest(x, k, metric=metric).long(), sorted_all(x, k, metric))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbours_are_scikit_learns(metric):
    x = normal(300, 20, dtype=torch.float64)
    expected = NearestNeighbors(n_neighbors=10, metric=metric, algorithm="brute").fit(x.numpy()).kneighbors(return_distance=False)
    np.testing.assert_array_equal(nearest(x, 10, metric=metric), expected)


def test_the_search_in_blocks_is_the_search_at_once(monkeypatch):
    x = normal(130, 8)
    whole = nearest(x, 7)
    monkeypatch.setattr("tunescope.geometry.neighbours.CELLS", 130 * 9)  # nine rows at a time: not a divisor of 130
    assert torch.equal(nearest(x, 7), whole)


# ---------------------------------------------------------------- ties


@METRIC
@pytest.mark.parametrize("copies", [2, 5, SPARE + 20])
def test_equal_rows_tie_and_go_to_the_lower_index(metric, copies):
    """Also where more rows tie than the search keeps in reserve."""
    x = normal(30, 16).repeat(copies, 1)[torch.randperm(30 * copies, generator=torch.Generator().manual_seed(1))]
    assert torch.equal(nearest(x, 10, metric=metric).long(), sorted_all(x, 10, metric))


@METRIC
def test_a_large_set_of_duplicates_among_other_rows(metric):
    x = normal(400, 16)
    x[torch.randperm(400, generator=torch.Generator().manual_seed(2))[:90]] = x[0].clone()
    assert torch.equal(nearest(x, 10, metric=metric).long(), sorted_all(x, 10, metric))


@METRIC
def test_all_rows_equal_have_the_lowest_indices_as_neighbours(metric):
    expected = [[j for j in range(40) if j != i][:6] for i in range(40)]
    assert nearest(torch.full((40, 5), 0.3), 6, metric=metric).tolist() == expected


def test_a_zero_row_is_equally_far_from_all_by_cosine():
    x = normal(20, 4)
    x[5] = 0
    assert nearest(x, 4)[5].tolist() == [0, 1, 2, 3]


@METRIC
@pytest.mark.parametrize("noise", [1e-6, 1e-7, 1e-8])
def test_neighbours_closer_than_float32_can_tell_are_told_apart(metric, noise):
    """Pairs of nearly equal rows, seen from rows to which neither is close: their similarities differ by less than float32's rounding of
    the sums behind them, and cancel to small values in which a tolerance relative to the value would not see it."""
    pairs = normal(200, 64, dtype=torch.float64, seed=1)
    twins = pairs * (1 + noise * normal(200, 64, dtype=torch.float64, seed=2))
    x = torch.cat([normal(100, 64, dtype=torch.float64), pairs, twins])
    assert torch.equal(nearest(x, 10, metric=metric).long(), sorted_all(x, 10, metric))


@METRIC
def test_scale_does_not_matter_to_the_search(metric):
    """Rows of 1e-12 and 1e12: no epsilon is added anywhere."""
    x = normal(100, 16)
    for scale in (1e-12, 1e12):
        assert torch.equal(nearest(x * scale, 10, metric=metric), nearest(x.double() * scale, 10, metric=metric))
        assert torch.equal(nearest(x.double() * scale, 10, metric=metric), nearest(x.double(), 10, metric=metric))


# ---------------------------------------------------------------- ranks and shared neighbours


@METRIC
@pytest.mark.parametrize("copies", [1, 4])
def test_ranks_are_those_of_sorting_everything(metric, copies):
    x = normal(50, 23, dtype=torch.float64).repeat(copies, 1)
    order = sorted_all(x, len(x) - 1, metric)
    expected = torch.empty(len(x), len(x), dtype=torch.long)
    expected.scatter_(1, order, torch.arange(1, len(x)).expand_as(order))
    asked = (torch.arange(len(x))[:, None] + torch.tensor([1, 2, 7, 31, 49])) % len(x)  # anyone but itself
    assert torch.equal(rank_of(x, asked, metric), expected.gather(1, asked))


def test_positions_and_overlap_by_sets():
    a, b = torch.tensor([[3, 1, 2], [0, 2, 3]]), torch.tensor([[2, 3, 0], [3, 2, 0]])
    assert positions(a, b).tolist() == [[1, 3, 0], [2, 1, 0]]
    assert overlap(a, b, 3).tolist() == [2, 3]
    assert overlap(a, b, 1).tolist() == [0, 0]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("n", [3, 10])
def test_too_few_rows_for_k_neighbours(n):
    with pytest.raises(NotEnoughRows, match=f"10 neighbours need at least 11 rows, got {n}"):
        nearest(normal(n, 4), 10)


def test_an_unknown_metric_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="unknown metric 'cosin'; did you mean cosine?"):
        nearest(normal(20, 4), 3, metric="cosin")
