"""`tunescope study replay`: every figure of the published tables to the printed digits, and a changed cell changes its figures."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

import tunescope as ts
from tunescope.cli import app, main
from tunescope.errors import FormatError

# What a correct implementation prints: claim's beginning, recomputed, agrees.
EXPECTED = (
    ("rows, standard + equal-step", "190 + 20 = 210", "yes"),
    ("positive slopes, Procrustes / CKA", "189 / 188 of 190", "no"),
    ("Procrustes and CKA slopes of one sign", "189 of 190; 206 of 210", "no"),
    ("the exception (Procrustes)", "CodeGen-350M BarlowTwins FrzLN, −.032", "yes"),
    ("width table", ".0021", "not reported"),
    ("equal-step slopes still positive", "10 of 12 / 3 of 8 / 7 of 8 / 2 of 8", "no"),
    ("models with Spearman(distance, slope) > 0", "8 of 9 (.039); 9 of 9 (.0039)", "yes"),
    ("the same without the objective at distance 0", "7 of 9 (.18); 7 of 9 (.18)", "not reported"),
    ("Procrustes profiles strictly monotone", "99 of 190; 16 of 190", "no"),
    ("η² of the final-layer share", ".61 / .17 / .10", "not reported"),
    ("mean change, equal-step over standard", "3.1 (1.2–12.3)", "no"),
    ("contrastive, gaussian, both MLM", "1.40 / 1.82 / 1.37; 7.85", "yes"),
    ("the same with CKA", "4.7 / 2.8 / 5.6: fails on B", "no"),
    ("1 − NPS of E5 over that of BERT", "3.5", "no"),
    ("Spearman(1 − NPS, damage)", ".943, p .017, n 6", "not reported"),
    ("CKA on anchors A and B", ".964, p .0028, n 7", "no"),
    ("Spearman(CKA, Δ accuracy)", "−.93 (p .007); Pearson +.52, ranks undefined (collinear)", "yes"),
)


@pytest.fixture
def tables(tmp_path):
    """The bundled tables, to be changed."""
    folder = tmp_path / "tables"
    folder.mkdir()
    for file in resources.files("tunescope.reference").iterdir():
        if file.name.endswith(".csv"):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def change(folder, name, column, value, **where):
    """Rewrite one cell; `where` must name exactly one line."""
    place = folder / f"{name}.csv"
    with place.open(encoding="utf-8", newline="") as opened:
        lines = list(csv.DictReader(opened))
    hits = [line for line in lines if all(line[key] == str(wanted) for key, wanted in where.items())]
    assert len(hits) == 1, hits
    hits[0][column] = value
    with place.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, lines[0])
        writer.writeheader()
        writer.writerows(lines)


@pytest.fixture(scope="module")
def before():
    """What the bundled tables give."""
    return recomputed(ts.replay())


def recomputed(replayed) -> dict[str, str]:
    return {claim.claim: claim.recomputed for claim in replayed.rows}


def test_every_figure_of_the_published_tables_is_reproduced_to_the_printed_digits():
    found = ts.replay()
    assert [(claim.recomputed, claim.agrees) for claim in found.rows] == [(value, agrees) for _, value, agrees in EXPECTED]
    assert all(claim.claim.startswith(name) for claim, (name, _, _) in zip(found.rows, EXPECTED, strict=True))
    assert found.counts == {"yes": 5, "no": 8, "not reported": 4, "not computable": 0}


def test_the_figures_are_those_of_pandas_and_scipy_read_straight_from_the_files():
    """No row, no analysis of ours: the CSV files, one pivot, scipy. Tolerance: rounding of sums in another order."""
    root = resources.files("tunescope.reference")
    depth, far, apart, layers = (
        pd.read_csv(str(root / f"{name}.csv")) for name in ("depth_profiles", "drift_conditions", "objective_distance", "distilbert_imdb")
    )
    curves = depth.pivot(index=["metric", "model", "objective", "condition"], columns="depth", values="value")
    slopes = curves.apply(lambda curve: stats.linregress(curve.index.to_numpy(), curve.to_numpy()).slope, axis=1)
    usual = slopes[slopes.index.get_level_values("condition") != "EqStep"]
    figures = [claim.figures for claim in ts.replay().rows]

    assert figures[1] == {ours: {"positive": int((usual[theirs] > 0).sum()), "n": 190} for ours, theirs in
                          (("procrustes", "procrustes"), ("cka", "cka_change"))}  # fmt: skip
    assert figures[3]["runs"][0]["slope"] == pytest.approx(usual["procrustes"].min(), abs=1e-12)
    mean = usual["procrustes"].groupby(["model", "objective"]).mean().rename("slope").reset_index().merge(apart)
    for distance in ("procrustes", "cosine"):
        for order, points in ((6, mean), (7, mean[mean[distance] > 0])):
            rho = {model: stats.spearmanr(own[distance], own["slope"]).statistic for model, own in points.groupby("model")}
            assert figures[order][distance]["rho"] == pytest.approx(rho, abs=1e-9)
            up = sum(value > 0 for value in rho.values())
            assert figures[order][distance]["p"] == pytest.approx(stats.binomtest(up, len(rho)).pvalue)
    share = curves.loc["cka_change"].pipe(lambda each: each[1.0] / each.sum(axis=1)).rename("share").reset_index()
    share = share[share["condition"] != "EqStep"]
    for factor, column in (("model", "model"), ("objective", "objective"), ("update", "condition")):
        groups = [own.to_numpy() for _, own in share.groupby(column)["share"]]
        between = (stats.f_oneway(*groups).statistic) * (len(groups) - 1)
        assert figures[9][factor] == pytest.approx(between / (between + len(share) - len(groups)))
    moved = curves.loc["procrustes"].mean(axis=1).unstack("condition")
    ratio = (moved["EqStep"] / moved["Std"]).dropna()
    assert figures[10] == pytest.approx({"geometric_mean": stats.gmean(ratio), "low": ratio.min(), "high": ratio.max(), "n": 20})
    e5 = far[(far["model"] == "e5-base-v2") & (far["condition"] != "base")]
    assert figures[14]["rho"] == pytest.approx(stats.spearmanr(1 - e5["nps"], -e5["msmarco_delta_pp"]).statistic)
    assert figures[16]["spearman"] == pytest.approx(stats.spearmanr(layers["cka"], layers["delta_accuracy"]).statistic)
    left = [layers[name] - np.polyval(np.polyfit(layers["layer"], layers[name], 1), layers["layer"]) for name in ("cka", "delta_accuracy")]
    assert figures[16]["partial_pearson"] == pytest.approx(stats.pearsonr(*left).statistic)


def test_a_claim_that_does_not_hold_says_what_differs():
    for claim in ts.replay().rows:
        assert (claim.agrees != "no") or claim.words, claim


def test_the_same_tables_elsewhere_give_the_same(tables):
    assert recomputed(ts.replay(tables)) == recomputed(ts.replay())


CELL = {"model": "BERT-base", "objective": "MLM", "depth": "1.00"}
E5 = {"model": "e5-base-v2", "condition": "contrastive_lora"}
# table, column, new value, the line; the claims, by their order in EXPECTED, whose printed figures change: these and no others.
CELLS = (
    ("depth_profiles", "value", "-5", CELL | {"condition": "Std", "metric": "procrustes"}, {1, 2, 3, 8, 10}),
    ("depth_profiles", "value", "0", CELL | {"condition": "EqStep", "metric": "procrustes"}, {2, 5, 10}),
    ("depth_profiles", "value", "9", CELL | {"condition": "Std", "metric": "cka_change"}, {4, 9}),
    ("width_profiles", "share", "0.5", {"model": "BERT-base", "depth": "1.00"}, {4}),
    ("objective_distance", "cosine", "9", {"model": "BERT-base", "objective": "MLM"}, {6, 7}),
    ("drift_conditions", "msmarco_delta_pp", "-20", {"condition": "gaussian_0.16"}, {11, 12, 14}),
    ("drift_conditions", "nps", "0.01", E5, {14}),
    ("drift_conditions", "nps", "0.99", {"model": "bert-base-uncased", "condition": "mlm_lora_msmarco"}, {13}),
    ("anchor_robustness", "nps_wikipedia", "0.01", {"condition": "contrastive_lora"}, {11}),
    ("anchor_robustness", "cka_nfcorpus", "0.01", {"condition": "contrastive_lora"}, {12, 15}),
    ("distilbert_imdb", "delta_accuracy", "-0.5", {"layer": "6"}, {16}),
    ("distilbert_imdb", "cka", "0.99", {"layer": "6"}, {16}),
)


@pytest.mark.parametrize(("name", "column", "value", "where", "claims"), CELLS)
def test_a_changed_cell_changes_its_figures_and_no_others(tables, before, name, column, value, where, claims):
    change(tables, name, column, value, **where)
    after = recomputed(ts.replay(tables))
    assert {order for order, claim in enumerate(before) if before[claim] != after[claim]} == claims


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_lines_and_columns_is_no_matter(tables, seed):
    """To the digits printed, words too; sums in another order may differ in the last bit."""
    for place in tables.iterdir():
        table = pd.read_csv(place, dtype=str, keep_default_na=False)
        table.sample(frac=1, random_state=seed).sample(frac=1, axis=1, random_state=seed).to_csv(place, index=False)
    found, bundled = ts.replay(tables), ts.replay()
    assert [(claim.recomputed, claim.agrees) for claim in found.rows] == [(claim.recomputed, claim.agrees) for claim in bundled.rows]
    assert [claim.words for claim in found.rows] == [claim.words for claim in bundled.rows]


def test_a_line_that_is_not_there_is_not_counted(tables, before):
    place = tables / "depth_profiles.csv"
    lines = [line for line in place.read_text().splitlines() if not line.startswith("OPT-125m,SimCSE,EqStep")]
    place.write_text("\n".join(lines))
    found = ts.replay(tables).rows[0]
    assert (found.recomputed, found.agrees, found.words) == ("190 + 19 = 209", "no", "209 rows, not 210")
    assert {0} | set().union(*(claims for *_, claims in CELLS)) == set(range(len(EXPECTED))), "some cell moves every claim"


@pytest.mark.parametrize(
    ("name", "column", "value", "lost", "words"),
    [
        ("drift_conditions", "msmarco_delta_pp", "", {11, 12, 14}, "no row has task 'msmarco'"),
        ("drift_conditions", "nps", "1", {13, 14}, "moved"),
        ("depth_profiles", "value", "0", {4, 6, 7, 9, 10}, ""),
        ("distilbert_imdb", "delta_accuracy", "0.1", {16}, "one variable is constant"),
    ],
)
def test_what_the_tables_do_not_give_is_said_and_the_other_claims_go_on(tables, name, column, value, lost, words):
    place = tables / f"{name}.csv"
    with place.open(encoding="utf-8", newline="") as opened:
        lines = [line | {column: value} for line in csv.DictReader(opened)]
    with place.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    found = ts.replay(tables)
    assert {order for order, claim in enumerate(found.rows) if claim.agrees == "not computable"} == lost
    assert all(found.rows[order].words and words in found.rows[order].words for order in lost)
    json.dumps(found.describe(), allow_nan=False)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "depth_profiles.csv").unlink(), "has no depth_profiles.csv; it needs anchor_robustness.csv,"),
        (lambda folder: shutil.rmtree(folder), "there is no folder"),
        (lambda folder: (folder / "distilbert_imdb.csv").write_text("layer,cka\n0,1\n"),
         "has no column status, pretrained_accuracy, finetuned_accuracy, delta_accuracy; its first line says layer, cka"),
        (lambda folder: change(folder, "distilbert_imdb", "cka", "high", layer=3), "line 5, column cka: 'high' is not a number"),
        (lambda folder: change(folder, "distilbert_imdb", "cka", "1e300", layer=3), "column cka: '1e300' is larger than 1e+09"),
        (lambda folder: change(folder, "drift_conditions", "nps", "nan", condition="gaussian_0.16"), "column nps: 'nan' is not a number"),
        (lambda folder: change(folder, "drift_conditions", "nps", "", condition="gaussian_0.16"), "column nps: the cell is empty"),
        (lambda folder: change(folder, "depth_profiles", "metric", "svcca", **CELL, condition="Std", metric="cka_change"),
         "depth_profiles.csv has the metric 'svcca'; procrustes and cka_change are read"),
        (lambda folder: (folder / "distilbert_imdb.csv").write_bytes(b"\xff\xfe\x00"), "is not a CSV table in UTF-8"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_is_one_line(tables, spoil, words, monkeypatch, capsys):
    spoil(tables)
    with pytest.raises(FormatError, match=re.escape(words)):
        ts.replay(tables)
    monkeypatch.setattr(sys, "argv", ["tunescope", "study", "replay", "--tables", str(tables)])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert (ended.value.code, told.out, told.err.count("\n")) == (2, "", 1)
    assert words in told.err


def test_the_command_prints_every_claim_and_json_has_the_figures():
    printed = CliRunner().invoke(app, ["study", "replay"])
    assert printed.exit_code == 0
    assert "5 agree, 8 do not, 4 were" in printed.stdout
    payload = json.loads(CliRunner().invoke(app, ["study", "replay", "--json"]).stdout)
    assert payload["schema"] == "tunescope.replay/1"
    row = next(row for row in payload["rows"] if row["claim"].startswith("η²"))
    assert row["figures"] == pytest.approx({"model": 0.61, "objective": 0.17, "update": 0.10}, abs=0.005)


@pytest.mark.parametrize("columns", [50, 80])
def test_it_fits_a_narrow_terminal_with_no_figure_lost(columns):
    printed = CliRunner().invoke(app, ["study", "replay"], env={"COLUMNS": str(columns)}).stdout
    assert max(map(len, printed.splitlines())) <= columns
    assert all(figure in printed for figure in ("2.8", "12.3)", ".0028", "7.85", "−.032"))


def test_no_torch_is_loaded():
    code = "import sys; from tunescope.study.replay import replay; replay(); sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_of_docs_shows_what_is_printed_and_its_code_runs():
    page = (Path(__file__).parents[1] / "docs" / "studies.md").read_text(encoding="utf-8")
    printed = CliRunner().invoke(app, ["study", "replay"], env={"COLUMNS": "80"}).stdout
    assert "\n".join(line.rstrip() for line in printed.strip("\n").splitlines()) in page
    (code,) = re.findall(r"```python\n(.*?)```", page.split("## Analyses")[1], flags=re.DOTALL)
    names: dict = {}
    exec(compile(code, "docs/studies.md", "exec"), names)
    points, analyses = names["points"], names["analyses"]
    assert [round(analyses.pooled(each).pearson.value, 2) for each in (analyses.without_reference(points), points)] == [0.64, 0.43]
    told = set(re.findall(r"`(\w+)`", page.split("| question | function |")[1].split("```")[0]))
    beneath = {"choose", "curves", "drifts", "outcomes", "over_runs", "last_checkpoints"}  # what the functions of the page are made of
    assert told == {name for name in analyses.__all__ if name.islower()} - beneath
