"""Analyses of ledger rows, on planted ledgers, against scipy, closed forms and a slower way of saying the same."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tunescope import reference
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


def test_signs_are_counted_in_every_group(planted):
    table = analyses.profiles(planted).assign(slope=lambda each: np.where(each["objective"] == "span", -each["slope"], each["slope"]))
    found = analyses.sign_counts(table, by=("measure", "objective")).set_index(["measure", "objective"])
    for key, own in table.groupby(["measure", "objective"]):
        line = found.loc[key]
        assert (line.positive, line.negative) == ((own["slope"] > 0).sum(), (own["slope"] < 0).sum())
        assert line.p == pytest.approx(stats.binomtest(int(line.positive), int(line.n)).pvalue)


def test_curves_that_rise_are_counted_and_those_without_two_blocks_left_out():
    shapes = {"rises": [1, 2, 3], "level": [1, 1, 3], "dips": [2, 1, 3], "peaks": [1, 3, 2], "falls": [3, 2, 1], "one": [1]}
    rows = [row for name, changes in shapes.items() for row in curve(changes, run=name, objective=name, model="a" if name < "f" else "b")]
    table = analyses.profiles(frame(rows))
    (found,) = analyses.monotone_counts(table).itertuples(index=False)
    assert tuple(found) == (5, 2, 1, 3, 1), "n, monotone, strictly_monotone, peaks_last, left_out"
    assert analyses.monotone_counts(table, by=("model",)).to_numpy().tolist() == [["a", 1, 0, 0, 1, 0], ["b", 4, 2, 1, 2, 1]]
    with pytest.raises(NotEnoughRows, match="none of 1 curves has two blocks"):
        analyses.monotone_counts(table[table["run"] == "one"])


@pytest.mark.parametrize("blocks", [4, 7, 12, 20, 24])
def test_on_the_published_axis_each_curve_is_read_as_the_study_read_it(blocks):
    """From 12 blocks on round(d·L), where no half is met; below, numpy's interpolation in depth with the embeddings at 0."""
    depths, draw = np.array([0.10, 0.25, 0.40, 0.60, 0.75, 0.90, 1.00]), np.random.default_rng(blocks)
    curves = draw.random((3, blocks)).cumsum(1)
    rows = [row for number, changes in enumerate(curves) for row in curve(changes, run=f"r{number}", seed=number)]
    (grid,) = analyses.curves(frame(rows), axis="published").grids
    by_hand = np.array([np.interp(depths, np.arange(blocks + 1) / blocks, [0.0, *changes]) for changes in curves])
    if blocks >= 12:
        by_hand = curves[:, [round(depth * blocks) - 1 for depth in depths]]
    assert grid.depths == pytest.approx(depths)
    assert grid.changes == pytest.approx(by_hand, rel=1e-12)
    table = analyses.profiles(frame(rows), axis="published").sort_values("seed")
    assert table["slope"].to_numpy() == pytest.approx([stats.linregress(depths, values).slope for values in by_hand])


def test_two_measures_agree_where_their_slopes_have_one_sign():
    rows = [*curve([1, 2, 3], run="a"), *curve([1, 2, 3], run="a", measure="cka"),
            *curve([1, 2, 3], run="b", objective="x"), *curve([3, 2, 1], run="b", objective="x", measure="cka")]  # fmt: skip
    found = analyses.sign_agreement(analyses.profiles(frame(rows)))
    assert (found.agree, found.n) == (1, 2)
    assert found.exceptions["run"].tolist() == ["b"]


def test_slopes_beside_distances_are_of_one_anchor_set(planted):
    steep = planted[planted["subject"] == "geometry"].assign(texts="code", change=lambda rows: 2 * rows["change"])
    whole = steep[steep["layer"] == 1].assign(layer=pd.NA, depth=np.nan, where="output", texts="more")  # is in no curve
    both = pd.concat([planted, steep, whole.astype(planted.dtypes)], ignore_index=True)
    with pytest.raises(InputError, match="several texts: code, docs; say which, texts='code'"):
        analyses.distances_and_slopes(both, distance="cosine")
    docs, code = (analyses.distances_and_slopes(both, distance="cosine", texts=texts) for texts in ("docs", "code"))
    pd.testing.assert_frame_equal(docs, analyses.distances_and_slopes(planted, distance="cosine"))
    assert code["slope"].to_numpy() == pytest.approx(2 * docs["slope"].to_numpy())


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


def test_pooled_correlations_are_of_all_points_with_and_without_the_reference():
    rng = np.random.default_rng(1)
    x = np.concatenate([np.zeros(3), rng.random(12)])
    points = pd.DataFrame({"model": "m", "objective": list("abcdefghijklmno"), "distance": x, "slope": x + rng.normal(0, 0.3, 15)})
    for chosen in (points, analyses.without_reference(points)):
        found = analyses.pooled(chosen)
        assert found.spearman.value == pytest.approx(stats.spearmanr(chosen["distance"], chosen["slope"]).statistic)
        assert found.pearson.value == pytest.approx(stats.pearsonr(chosen["distance"], chosen["slope"]).statistic)
        p = stats.pearsonr(chosen["distance"], chosen["slope"]).pvalue
        assert found.pearson.p == pytest.approx(p, abs=0.01), "drawn orders against Student's t, alike to a hundredth at 12 points"
    assert (analyses.pooled(points).pearson.n, analyses.pooled(analyses.without_reference(points)).pearson.n) == (15, 12)
    with pytest.raises(NotEnoughRows, match="every objective is at distance 0"):
        analyses.without_reference(points.assign(distance=0.0))


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


def test_a_width_table_is_compared_place_by_place(planted):
    found = analyses.widths(planted)
    assert analyses.width_error(found, found) == 0
    off = found.assign(share=found["share"] + np.where(np.arange(len(found)) == 3, 0.25, 0.0))
    assert analyses.width_error(found, off) == pytest.approx(0.25)
    with pytest.raises(InputError, match=f"{len(found) - 4} places are in one of the two width tables only"):
        analyses.width_error(found, found.head(4))


def test_models_of_different_depth_are_not_averaged_block_by_block(planted):
    with pytest.raises(InputError, match="sets of depths; ask for axis='published'"):
        analyses.widths(planted, by=("objective",))
    assert len(analyses.widths(planted, by=("objective",), axis="published")) == 4 * 7


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


def test_every_pair_is_compared_at_the_largest_drift_both_reach():
    rows = [*drifted("near", 0.2, -0.1), *drifted("far", 0.8, -0.2), *drifted("still", 0.0, 0.0), *drifted("other", 0.5, 0.1, model="gpt")]
    (pair,) = analyses.every_pair(analyses.points(frame(rows))).itertuples()
    assert (pair.a, pair.b, pair.drift, pair.n, pair.checkpoints) == ("far", "near", pytest.approx(0.2), 1, 1)
    assert pair.difference == pytest.approx(-0.1 - (-0.2 * 0.2 / 0.8)), "far's gain on the straight line to drift .2"
    assert pair.low is None


def test_a_run_that_has_not_moved_is_no_pair_and_is_counted():
    rows = [*drifted("a", 0.4, -0.2), *drifted("a", 0.0, 0.0, seed=1), *drifted("b", 0.2, -0.3), *drifted("b", 0.2, 0.1, seed=1)]
    rows += [*drifted("c", 0.0, 0.0), *drifted("c", 0.6, 0.3, seed=1)]  # of a and c one has not moved, whichever the seed
    ends = analyses.points(frame(rows))
    both = analyses.every_pair(ends)
    assert both[["a", "b", "drift", "n", "left_out"]].to_numpy().tolist() == [["a", "b", 0.2, 1, 1], ["b", "c", 0.2, 1, 1]]
    assert both["difference"].tolist() == pytest.approx([-0.3 + 0.2 / 2, 0.3 / 3 - 0.1])
    for line in both.itertuples():
        alone = analyses.at_one_drift(ends, line.a, line.b)
        assert (alone.difference, alone.left_out, alone.table["seed"].tolist()) == (line.difference, 1, [0] if line.a == "a" else [1])
    with pytest.raises(NotEnoughRows, match="of every pair of a and c one has not moved"):
        analyses.at_one_drift(ends, "a", "c")
    with pytest.raises(InputError, match="drift 0 asked for"):
        analyses.at_one_drift(ends, "a", "b", drift=0.0)


def test_drift_against_damage_is_spearman_over_the_conditions_that_moved():
    moved = {"a": (0.1, -0.02), "b": (0.2, -0.01), "c": (0.4, -0.03), "d": (0.5, -0.1), "still": (0.0, -0.5)}
    rows = [row for name, (drift, gain) in moved.items() for seed in (0, 1) for row in drifted(name, drift, gain, seed=seed)]
    found = analyses.drift_against_damage(analyses.points(frame(rows)))
    x, y = zip(*[moved[name] for name in "abcd"], strict=True)
    assert (found.value, found.n) == (pytest.approx(stats.spearmanr(x, [-each for each in y]).statistic), 4)
    every = [stats.spearmanr(x, order).statistic for order in itertools.permutations(y)]
    assert found.p == pytest.approx(np.mean(np.abs(every) >= abs(found.value) - 1e-12))
    with pytest.raises(InputError, match="several models"):
        analyses.drift_against_damage(analyses.points(frame([*rows, *drifted("z", 0.3, 0.1, model="gpt")])))


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([*drifted("a", 0.4, -0.02)], NotEnoughRows, "needs at least 2 conditions, got 1"),
        ([*drifted("a", 0.4, -0.02), *drifted("b", 0.0, -0.02)], Degenerate, "b has not moved"),
    ],
)
def test_a_ratio_of_drifts_without_a_value_is_refused(rows, error, words):
    with pytest.raises(error, match=words):
        analyses.drift_ratio(analyses.points(frame(rows)))


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


def test_the_published_path_is_read_epoch_by_epoch():
    path = reference.table("bert_mlm_trajectory")
    (found,) = analyses.trajectories(analyses.choose(published_rows(), study="drift, epochs"))
    x, y = 1 - path["nps"].to_numpy(), path["nfcorpus_ndcg10_percent"].to_numpy()
    assert (found.clock, found.table["epoch"].tolist()) == ("epoch", path["epoch"].tolist())
    assert found.table["gain"].to_numpy() == pytest.approx((y - y[0]) / 100)
    assert found.association.spearman.value == pytest.approx(stats.spearmanr(x.round(6), y).statistic)
    assert found.association.pearson.value == pytest.approx(stats.pearsonr(x, y).statistic)


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
    printed = reference.table("drift_conditions").set_index(["model", "condition"])
    own = rows[(rows["study"] == "drift") & (rows["subject"] == "outcome") & (rows["task"] == "nfcorpus")].set_index(["model", "condition"])
    assert len(own) == printed["nfcorpus_delta_pp"].notna().sum(), "an empty cell is no row"
    assert (own["change"] * 100).to_dict() == pytest.approx(printed["nfcorpus_delta_pp"].dropna().to_dict())
    assert (own["sd"] * 100).to_dict() == pytest.approx(printed.loc[own.index, "nfcorpus_std"].to_dict(), nan_ok=True)
    assert not rows.duplicated(["study", "measure", "side", "task", "texts", *COLUMNS[1:2], "epoch", "where"]).any(), "each number once"


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
