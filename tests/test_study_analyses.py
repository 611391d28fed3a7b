"""Analyses of ledger rows, on planted ledgers, against scipy, closed forms and a slower way of saying the same."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tunescope.errors import Degenerate, InputError, NotEnoughRows, UnknownName
from tunescope.study import analyses
from tunescope.study.published import published_rows
from tunescope.study.row import COLUMNS, Row

RULES = ("uniform", "lora", "equal-step")
OBJECTIVES = {"mlm": 0.0, "simcse": 1.0, "barlow-twins": 2.0, "span": 0.5}


def frame(rows) -> pd.DataFrame:
    found = pd.DataFrame([row.describe() for row in rows], columns=list(COLUMNS))
    numbers = ("value", "change", "depth", "epoch", "low", "high", "null", "null_sd", "sd", "wall_s", "peak_mb")
    return found.astype(dict.fromkeys(numbers, "float64") | dict.fromkeys(("seed", "step", "layer", "n"), "Int64"))


def curve(changes, *, run, model="bert", objective="mlm", update="uniform", seed=0, measure="procrustes", **more):
    """Rows of a depth curve: the embeddings unmoved, then one block after the other."""
    blocks = len(changes)
    for layer, change in enumerate([0.0, *changes]):
        where = f"block {layer}" if layer else "embeddings"
        yield Row(
            study="s", run=run, kind="tune", model=model, subject="geometry", measure=measure, value=change, change=change,
            texts="docs", condition=f"{objective} {update}", objective=objective, update=update, seed=seed, where=where, layer=layer,
            depth=layer / blocks, **more,
        )  # fmt: skip


@pytest.fixture(scope="module")
def planted():
    """Two models × objectives × rules × seeds with drawn curves, and the objectives' distances."""
    draw, rows = np.random.default_rng(0), []
    for model, blocks in (("bert", 6), ("opt", 4)):
        for objective, distance in OBJECTIVES.items():
            for update, seed in itertools.product(RULES, (0, 1)):
                run, size = f"{model} {objective} {update} {seed}", 3.0 if update == "equal-step" else 1.0
                changes = size * (0.05 + draw.random(blocks) * 0.05 + np.arange(1, blocks + 1) / blocks * (0.1 + 0.1 * distance))
                for measure, shown in (("procrustes", changes), ("cka", changes**2)):
                    rows += curve(shown, run=run, model=model, objective=objective, update=update, seed=seed, measure=measure)
            rows.append(Row("s", f"{model} {objective}", "tune", model, "distance", "cosine", distance, objective=objective))
    return frame(rows)


def test_every_slope_is_scipys_regression_and_every_rank_slope_its_spearman(planted):
    table = analyses.profiles(planted, measure="procrustes")
    assert len(table) == 2 * 4 * 3 * 2
    for line in table.itertuples():
        own = planted[(planted["run"] == line.run) & (planted["measure"] == "procrustes") & (planted["layer"] > 0)]
        x, y = own["depth"].to_numpy(float), own["change"].to_numpy(float)
        assert line.slope == pytest.approx(stats.linregress(x, y).slope, rel=1e-12)
        assert line.rank_slope == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert line.final_share == pytest.approx(y[-1] / y.sum(), rel=1e-12)
        assert line.peak_depth == x[y.argmax()]
        assert (line.strictly_monotone, line.peaks_last) == (bool((np.diff(y) > 0).all()), bool(y.argmax() == len(y) - 1))
        assert line.mean_change == pytest.approx(y.mean())


def test_the_order_of_the_rows_is_no_matter(planted):
    shuffled = planted.sample(frac=1, random_state=3).reset_index(drop=True)
    for analysis in (
        lambda rows: analyses.profiles(rows),
        lambda rows: analyses.widths(rows),
        lambda rows: analyses.distances_and_slopes(rows, distance="cosine"),
        lambda rows: analyses.profile_table(rows, measure="cka"),
    ):
        pd.testing.assert_frame_equal(analysis(planted), analysis(shuffled))


def test_means_over_seeds_are_pandas_own(planted):
    table = analyses.profiles(planted, measure="cka")
    found = analyses.over_seeds(table, "slope", by=("model", "condition")).set_index(["model", "condition"])
    groups = table.groupby(["model", "condition"])["slope"]
    assert found["mean"].to_dict() == pytest.approx(groups.mean().to_dict())
    assert found["sd"].to_dict() == pytest.approx(groups.std(ddof=1).to_dict())
    assert set(found["seeds"]) == {2}
    with pytest.raises(InputError, match="two values of slope for"):
        analyses.over_seeds(analyses.profiles(planted), "slope", by=("model", "condition"))


def test_signs_have_the_exact_binomial_p():
    found = analyses.signs(pd.DataFrame({"slope": [1.0] * 8 + [-1.0, 0.0]}))
    assert (found.positive, found.negative, found.zero, found.n) == (8, 1, 1, 10)
    assert found.p == pytest.approx(stats.binomtest(8, 9).pvalue)
    with pytest.raises(NotEnoughRows):
        analyses.signs(pd.DataFrame({"slope": [np.nan]}))


def test_two_measures_agree_where_their_slopes_have_one_sign():
    rows = [*curve([1, 2, 3], run="a"), *curve([1, 2, 3], run="a", measure="cka"),
            *curve([1, 2, 3], run="b", objective="x"), *curve([3, 2, 1], run="b", objective="x", measure="cka")]  # fmt: skip
    found = analyses.sign_agreement(analyses.profiles(frame(rows)))
    assert (found.agree, found.n) == (1, 2)
    assert found.exceptions["run"].tolist() == ["b"]


def test_distance_against_slope_is_spearman_within_each_model_and_its_signs(planted):
    points = analyses.distances_and_slopes(planted[planted["update"] != "equal-step"], distance="cosine")
    assert len(points) == 8
    assert set(points["updates"]) == {2}
    found = analyses.concordance(points)
    for line in found.models.itertuples():
        own = points[points["model"] == line.model]
        assert line.rho == pytest.approx(stats.spearmanr(own["distance"], own["slope"]).statistic)
        y = stats.rankdata(own["slope"])
        rho = [abs(stats.pearsonr(stats.rankdata(own["distance"]), y[list(order)])[0]) for order in itertools.permutations(range(len(y)))]
        assert line.p == pytest.approx(np.mean(np.array(rho) >= abs(line.rho) - 1e-12))
    assert found.p == pytest.approx(stats.binomtest(found.positive, found.positive + found.negative).pvalue)
    rest = analyses.without_reference(points)
    assert 0.0 not in set(rest["distance"])
    assert len(rest) == 6
    together = analyses.pooled(points)
    assert together.pearson.value == pytest.approx(stats.pearsonr(points["distance"], points["slope"]).statistic)


def test_residuals_are_of_the_least_squares_line():
    x = np.arange(8.0)
    y = 2 * x + np.array([0, 0, 0, 5.0, 0, 0, 0, 0])
    found = analyses.residuals(pd.DataFrame({"model": "m", "objective": list("abcdefgh"), "distance": x, "slope": y}))
    line = stats.linregress(x, y)
    assert (found.gradient, found.intercept) == pytest.approx((line.slope, line.intercept))
    assert found.table.iloc[0]["objective"] == "d"
    assert found.table["anomaly"].sum() == 1
    assert found.sd == pytest.approx(np.sqrt(np.sum((y - line.slope * x - line.intercept) ** 2) / 6))
    with pytest.raises(Degenerate):
        analyses.residuals(pd.DataFrame({"model": "m", "objective": list("abc"), "distance": [0.0, 1, 2], "slope": [0.0, 2, 4]}))


def test_eta_squared_is_the_share_of_an_analysis_of_variance(planted):
    table = analyses.profiles(planted, measure="cka")
    found = analyses.variance_shares(table, "slope").set_index("factor")
    x = table["slope"].to_numpy()
    for factor in ("model", "objective", "update"):
        groups = [group["slope"].to_numpy() for _, group in table.groupby(factor)]
        f = stats.f_oneway(*groups).statistic
        k, n = len(groups), len(x)
        assert found.loc[factor, "eta2"] == pytest.approx(f * (k - 1) / (f * (k - 1) + n - k))
        assert found.loc[factor, "chance"] == pytest.approx((k - 1) / (n - 1))


def test_ratios_are_geometric_means_of_cells(planted):
    found = analyses.ratios(analyses.profiles(planted, measure="procrustes"), of="equal-step", to="uniform")
    table = analyses.profiles(planted, measure="procrustes").groupby(["model", "objective", "update"])["mean_change"].mean().unstack()
    expected = (table["equal-step"] / table["uniform"]).to_numpy()
    assert found.n == 8
    assert found.geometric_mean == pytest.approx(stats.gmean(expected))
    assert (found.low, found.high) == pytest.approx((expected.min(), expected.max()))


def test_widths_are_mean_shares_and_add_up_to_one(planted):
    found = analyses.widths(planted[planted["model"] == "bert"], by=("model",))
    assert found["share"].sum() == pytest.approx(1)
    own = planted[(planted["model"] == "bert") & (planted["measure"] == "cka") & (planted["layer"] > 0)]
    share = own["change"] / own.groupby("run")["change"].transform("sum")
    assert found["share"].to_numpy() == pytest.approx(share.groupby(own["depth"]).mean().to_numpy())
    assert analyses.concentrations(found)["share"].tolist() == [found["share"].iloc[-1]]


def drifted(condition, drift, gain, *, seed=0, model="e5", step=None, texts="A", regime=None):
    shared = {"study": "s", "run": f"{model} {condition} {seed}", "kind": "tune", "model": model, "condition": condition, "seed": seed,
              "step": step, "regime": regime, "where": "output"}  # fmt: skip
    return [
        Row(**shared, subject="geometry", measure="nps", value=1 - drift, change=drift, texts=texts),
        Row(**shared, subject="outcome", measure="ndcg@10", task="search", side="tuned", value=0.5 + gain, change=gain),
    ]


def test_the_ratio_test_is_max_over_min_of_both_sides():
    first = [*drifted("a", 0.4, -0.02), *drifted("b", 0.5, -0.10)]
    second = [*drifted("a", 0.5, -0.04, seed=1), *drifted("b", 0.6, -0.12, seed=1)]
    rows = frame(first + second)
    found = analyses.ratio_test(analyses.points(rows))
    assert (found.drift, found.damage) == pytest.approx((0.55 / 0.45, 0.11 / 0.03))
    assert found.margin == pytest.approx(found.damage / found.drift)
    assert found.holds == (found.margin >= 3)
    with pytest.raises(InputError, match="c lost nothing"):
        analyses.ratio_test(analyses.points(frame([*drifted("a", 0.4, -0.02), *drifted("c", 0.5, 0.1)])))


def test_matched_by_interpolation_reads_both_paths_at_one_drift_and_pairs_the_seeds():
    rows = []
    for seed in (0, 1, 2):
        for step, drift in ((1, 0.2), (2, 0.6)):
            rows += drifted("good", drift, 0.1 * drift + 0.01 * seed, seed=seed, step=step)
            rows += drifted("bad", drift, -0.5 * drift + 0.01 * seed, seed=seed, step=step)
    found = analyses.at_one_drift(analyses.points(frame(rows), checkpoint="all"), "good", "bad", drift=0.4)
    assert found.n == 3
    assert found.difference == pytest.approx(-0.6 * 0.4), "seeds' offsets cancel in pairs"
    assert found.low == pytest.approx(found.difference)
    assert found.high == pytest.approx(found.difference)
    assert found.p == pytest.approx(2 / 8), "all three signs alike, of eight"
    with pytest.raises(NotEnoughRows, match="reaches a drift"):
        analyses.at_one_drift(analyses.points(frame(rows), checkpoint="all"), "good", "bad", drift=0.9)


def test_anchor_sets_are_compared_with_ties_averaged_and_the_exact_p():
    drifts = {"A": [0.0, 0.1, 0.2, 0.2, 0.5], "B": [0.0, 0.2, 0.1, 0.3, 0.6]}
    rows = [row for texts, moved in drifts.items() for name, drift in zip("vwxyz", moved, strict=True)
            for row in drifted(name, drift, -drift, texts=texts)[:1]]  # fmt: skip
    (pair,) = analyses.anchor_robustness(frame(rows)).pairs.itertuples()
    assert pair.rho == pytest.approx(stats.spearmanr(drifts["A"], drifts["B"]).statistic)
    a, b = (stats.rankdata(drifts[name]) for name in "AB")
    every = [abs(np.corrcoef(a, b[list(order)])[0, 1]) for order in itertools.permutations(range(5))]
    assert pair.p == pytest.approx(np.mean(np.array(every) >= abs(pair.rho) - 1e-12))


def test_trajectories_average_seeds_at_each_checkpoint():
    paths = [(seed, step) for seed in (0, 1) for step in range(1, 6)]
    rows = [row for seed, step in paths for row in drifted("a", 0.1 * step + 0.01 * seed, -0.02 * step, seed=seed, step=step)]
    (found,) = analyses.trajectories(frame(rows))
    assert found.clock == "step"
    assert found.table["step"].tolist() == [1, 2, 3, 4, 5]
    assert found.table["drift"].to_numpy() == pytest.approx(0.1 * np.arange(1, 6) + 0.005)
    assert found.association.spearman.value == pytest.approx(-1)


def test_layers_set_the_measure_against_the_probes_gain():
    cka, gain = [0.99, 0.9, 0.7, 0.75, 0.3], [0.0, 0.02, 0.03, 0.05, 0.2]
    about = {"study": "s", "run": "r", "kind": "compare", "model": "m", "condition": "c"}
    rows = [Row(**about, subject="geometry", measure="cka", value=v, change=1 - v, texts="t", layer=k) for k, v in enumerate(cka)]
    probes = about | {"subject": "outcome", "measure": "accuracy", "task": "t", "side": "tuned"}
    rows += [Row(**probes, value=g, change=g, layer=k) for k, g in enumerate(gain)]
    (found,) = analyses.layer_tables(frame(rows))
    assert found.association.spearman.value == pytest.approx(stats.spearmanr(cka, gain).statistic)
    x, y, z = (np.array(each, dtype=float) for each in (cka, gain, range(5)))
    left = [each - np.polyval(np.polyfit(z, each, 1), z) for each in (x, y)]
    assert found.association.partial.value == pytest.approx(np.corrcoef(*left)[0, 1])


def test_the_published_rows_are_a_ledger_of_the_reading():
    rows = published_rows()
    assert list(rows.columns) == list(COLUMNS)
    assert set(rows["study"]) == {"depth", "drift", "drift, anchor sets", "drift, epochs", "layers"}
    depth = analyses.choose(rows, study="depth", subject="geometry", measure="cka")
    assert np.allclose(depth["value"] + depth["change"], 1)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda rows: analyses.profiles(rows, measure="ckaa"), NotEnoughRows, "no row has measure 'ckaa'"),
        (lambda rows: analyses.profiles(rows, axis="layers"), UnknownName, "axis"),
        (lambda rows: analyses.choose(rows, modell="bert"), UnknownName, "model"),
        (lambda rows: analyses.profiles(pd.concat([rows, rows])), InputError, "a ledger must hold each number once"),
        (lambda rows: analyses.points(rows), NotEnoughRows, "nps"),
        (lambda rows: analyses.distances_and_slopes(rows), NotEnoughRows, "no row has"),
    ],
)
def test_what_the_rows_do_not_hold_is_said_by_name(planted, call, error, words):
    with pytest.raises(error, match=words):
        call(planted)
