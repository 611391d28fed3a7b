"""Rows that pass by in blocks against the same rows all at once: equal values, equal intervals when all are kept, equal chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tunescope.errors import Degenerate, InputError
from tunescope.geometry import MEASURES, Rows
from tunescope.geometry.stream import Passage, PassedRows, gaussian_crosses

STREAMING = [name for name, measure in MEASURES.items() if measure.streams]
N, D = 900, 24


def two_sides(n: int = N, d: int = D, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows with an offset far from 0 and a decaying spectrum; float32, as captured."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d)) / np.sqrt(np.arange(1, d + 1)) + 3
    return torch.from_numpy(x).float(), torch.from_numpy(x + 0.4 * random.normal(size=(n, d)) / np.arange(1, d + 1)).float()


def passed(x: torch.Tensor, y: torch.Tensor, *, block: int = 128, keep: int | None = None) -> PassedRows:
    """The two sides gone by in blocks, with the first `keep` rows of each block kept (all by default)."""
    pieces = zip(x.split(block), y.split(block), strict=True)
    first, *rest = (Passage.of(xb, yb, keep=torch.arange(len(xb))[:keep], change=True) for xb, yb in pieces)
    return PassedRows(sum(rest, first))


@pytest.mark.parametrize("name", STREAMING)
@pytest.mark.parametrize("block", [1000, 128, 7], ids=["one block", "blocks", "small blocks"])
def test_a_stream_gives_the_exact_value(name, block):
    """Sums of float64 in another order: 1e-9 leaves five digits to spare. subspace and rank read no difference of such sums."""
    x, y = two_sides()
    measure = MEASURES[name]
    found, exact = (measure.estimate(rows) for rows in (passed(x, y, block=block), Rows.of(x, y)))
    assert found.value == pytest.approx(exact.value, abs=1e-9)
    assert found.change == pytest.approx(exact.change, abs=1e-9)


@pytest.mark.parametrize("name", ["cka", "debiased_cka", "procrustes", "isotropy", "relative_drift", "row_cosine"])
def test_with_every_row_kept_the_interval_is_the_exact_one(name):
    x, y = two_sides()
    found, exact = (MEASURES[name].estimate(rows) for rows in (passed(x, y), Rows.of(x, y)))
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-9)


@pytest.mark.parametrize("name", ["cka", "debiased_cka", "procrustes", "isotropy", "relative_drift", "row_cosine"])
def test_with_a_fifth_of_the_rows_kept_the_interval_is_nearly_as_wide(name):
    """A standard deviation from 300 of 1,500 rows is good to about 1/√(2·300) = 4%; heavy tails double it, three of those are 25%."""
    x, y = two_sides(1500)
    found, exact = (MEASURES[name].estimate(rows) for rows in (passed(x, y, block=100, keep=20), Rows.of(x, y)))
    assert found.high - found.value == pytest.approx(exact.high - exact.value, rel=0.25)


@pytest.mark.parametrize("name", ["cka", "debiased_cka", "isotropy"])
def test_rows_that_weigh_much_count_in_the_interval_though_few_are_kept(name, monkeypatch):
    """Twelve rows sixty times as large as the rest make nearly all of the interval; a sample of one row in fifty misses them all.
    The small rest it gives to a few per cent."""
    monkeypatch.setattr("tunescope.geometry.stream.HEAVY", 30)
    x, y = two_sides(1200)
    x, y = x - 3, y - 3
    x[:1200:100] *= 60
    y[:1200:100] *= 60
    found, exact = (MEASURES[name].estimate(rows) for rows in (passed(x, y, block=100, keep=2), Rows.of(x, y)))
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), rel=0.1)


@pytest.mark.parametrize("name", ["procrustes", "cca", "svcca", "linear_r2"])
def test_chance_without_rows_is_chance_by_shuffling(name):
    """The mean of ten draws each way differs by less than four standard errors of that difference."""
    x, y = two_sides(3000)
    found, exact = (MEASURES[name].chance(rows, seed=0) for rows in (passed(x, y), Rows.of(x, y)))
    assert abs(found.mean - exact.mean) < 4 * np.hypot(found.sd, exact.sd) / np.sqrt(10)
    assert 0.3 < found.sd / exact.sd < 3


@pytest.mark.parametrize("name", ["cka", "debiased_cka"])
def test_closed_form_chance_needs_no_rows(name):
    x, y = two_sides()
    found, exact = (MEASURES[name].chance(rows, seed=0) for rows in (passed(x, y, keep=1), Rows.of(x, y)))
    assert (found.mean, found.sd) == pytest.approx((exact.mean, exact.sd), rel=1e-9)


def test_gaussian_crosses_have_the_covariance_of_permuted_ones():
    """E[M_ab M_cd] = xx_ac yy_bd/(n−1) over permutations, in closed form; 4,000 draws estimate it to about 2%."""
    x, y = two_sides(200, 3)
    m = Passage.of(x, y, keep=torch.arange(0)).moments
    draws = torch.stack([*gaussian_crosses(m, seed=0, draws=4000)]).flatten(1)
    expected = torch.kron(m.xx, m.yy) / (m.n - 1)
    scale = float(expected.diagonal().max())
    np.testing.assert_allclose(draws.T @ draws / len(draws), expected, atol=0.1 * scale)


def test_equal_sides_are_known_as_equal_and_one_different_row_is_seen():
    x, _ = two_sides()
    assert MEASURES["cka"].estimate(passed(x, x)).value == 1.0
    y = x.clone()
    y[500, 3] += 1
    assert not passed(x, y, keep=1).same


def test_a_constant_side_has_no_geometry():
    x, _ = two_sides()
    with pytest.raises(Degenerate, match="all 900 rows of y are the same"):
        MEASURES["cka"].estimate(passed(x, torch.full_like(x, 0.1)))


def test_sides_of_different_widths_stream_what_they_share():
    x, y = two_sides()
    found, exact = (MEASURES["procrustes"].estimate(rows) for rows in (passed(x, y[:, :10]), Rows.of(x, y[:, :10])))
    assert found.value == pytest.approx(exact.value, abs=1e-9)
    with pytest.raises(Degenerate, match="needs the same features"):
        MEASURES["relative_drift"].estimate(passed(x, y[:, :10]))


def test_neighbours_are_refused():
    with pytest.raises(InputError, match="neighbours need all rows at once"):
        MEASURES["nps"].estimate(passed(*two_sides()))


def one_rank(rank: int, ranks: int, folder: str) -> None:
    """Every rank passes its share of the blocks by, and the ranks sum up."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting{ranks}", rank=rank, world_size=ranks)
    x, y = two_sides()
    pieces = [Passage.of(xb, yb, keep=torch.arange(2), change=True) for xb, yb in zip(x.split(90), y.split(90), strict=True)][rank::ranks]
    rows = PassedRows(sum(pieces[1:], pieces[0]).all_reduce())
    found = {name: (e.value, e.low, e.high, e.null) for name, e in ((name, MEASURES[name].estimate(rows)) for name in STREAMING)}
    torch.save({"found": found, "kept": len(rows.passage.x)}, f"{folder}/{ranks}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_sum_to_one_process(tmp_path, ranks, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(one_rank, args=(ranks, str(tmp_path)), nprocs=ranks)
    rows = passed(*two_sides(), block=90, keep=2)
    for rank in range(ranks):
        saved = torch.load(tmp_path / f"{ranks}-{rank}.pt", weights_only=True)
        assert saved["kept"] == 20
        for name, (value, low, high, null) in saved["found"].items():
            one = MEASURES[name].estimate(rows)
            assert value == pytest.approx(one.value, abs=1e-9), name
            assert (low, high) == pytest.approx((one.low, one.high), abs=1e-7), name
            if name not in ("relative_drift", "row_cosine"):  # their chance shuffles the kept rows, which come in another order
                assert null == pytest.approx(one.null, abs=1e-7), name
