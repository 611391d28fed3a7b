"""`tunescope study replay`: every figure of the published tables to the printed digits, and a changed cell changes its figures."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from importlib import resources

import pytest
from typer.testing import CliRunner

import tunescope as ts
from tunescope.cli import app
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


def recomputed(replayed) -> dict[str, str]:
    return {claim.claim: claim.recomputed for claim in replayed.rows}


def test_every_figure_of_the_published_tables_is_reproduced_to_the_printed_digits():
    found = ts.replay()
    assert [(claim.recomputed, claim.agrees) for claim in found.rows] == [(value, agrees) for _, value, agrees in EXPECTED]
    assert all(claim.claim.startswith(name) for claim, (name, _, _) in zip(found.rows, EXPECTED, strict=True))
    assert found.counts == {"yes": 5, "no": 8, "not reported": 4, "not computable": 0}


def test_a_claim_that_does_not_hold_says_what_differs():
    for claim in ts.replay().rows:
        assert (claim.agrees != "no") or claim.words, claim


def test_the_same_tables_elsewhere_give_the_same(tables):
    assert recomputed(ts.replay(tables)) == recomputed(ts.replay())


@pytest.mark.parametrize(
    ("name", "column", "value", "where", "claims"),
    [
        ("depth_profiles", "value", "0.0",
         {"model": "BERT-base", "objective": "MLM", "condition": "Std", "metric": "procrustes", "depth": "1.00"},
         {"positive slopes", "Procrustes and CKA", "the exception", "models with", "the same without the objective", "Procrustes profiles",
          "mean change"}),
        ("drift_conditions", "msmarco_delta_pp", "-20.0", {"model": "e5-base-v2", "condition": "gaussian_0.16", "anchor": "msmarco"},
         {"contrastive, gaussian, both MLM", "the same with CKA", "Spearman(1 − NPS"}),
        ("anchor_robustness", "cka_nfcorpus", "0.01", {"condition": "contrastive_lora"}, {"the same with CKA", "CKA on anchors A and B"}),
        ("distilbert_imdb", "delta_accuracy", "-0.5", {"layer": "6"}, {"Spearman(CKA"}),
        ("objective_distance", "cosine", "9", {"model": "BERT-base", "objective": "MLM"},
         {"models with", "the same without the objective"}),
        ("width_profiles", "share", "0.5", {"model": "BERT-base", "depth": "1.00"}, {"width table"}),
    ],
)  # fmt: skip
def test_a_changed_cell_changes_its_figures_and_no_others(tables, name, column, value, where, claims):
    before = recomputed(ts.replay())
    change(tables, name, column, value, **where)
    after = recomputed(ts.replay(tables))
    changed = {claim for claim in before if before[claim] != after[claim]}
    assert changed, "nothing changed"
    assert all(any(claim.startswith(begin) for begin in claims) for claim in changed), changed


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "depth_profiles.csv").unlink(), "depth_profiles.csv"),
        (lambda folder: (folder / "distilbert_imdb.csv").write_text("layer,cka\n0,1\n"), "distilbert_imdb.csv"),
        (lambda folder: change(folder, "distilbert_imdb", "cka", "high", layer=3), "high"),
        (lambda folder: change(folder, "drift_conditions", "nps", "nan", condition="gaussian_0.16", anchor="msmarco"), "nps"),
        (lambda folder: (folder / "distilbert_imdb.csv").write_bytes(b"\xff\xfe\x00"), "UTF-8"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_is_one_line(tables, spoil, words):
    spoil(tables)
    with pytest.raises(FormatError, match=words):
        ts.replay(tables)
    told = CliRunner().invoke(app, ["study", "replay", "--tables", str(tables)])
    assert isinstance(told.exception, FormatError)


def test_the_command_prints_every_claim_and_json_has_the_figures():
    printed = CliRunner().invoke(app, ["study", "replay"])
    assert printed.exit_code == 0
    assert "5 agree, 8 do not, 4 were" in printed.stdout
    payload = json.loads(CliRunner().invoke(app, ["study", "replay", "--json"]).stdout)
    assert payload["schema"] == "tunescope.replay/1"
    row = next(row for row in payload["rows"] if row["claim"].startswith("η²"))
    assert row["figures"] == pytest.approx({"model": 0.61, "objective": 0.17, "update": 0.10}, abs=0.005)


def test_it_fits_eighty_columns():
    printed = CliRunner().invoke(app, ["study", "replay"], env={"COLUMNS": "80"})
    assert max(map(len, printed.stdout.splitlines())) <= 80


def test_no_torch_is_loaded():
    code = "import sys; from tunescope.study.replay import replay; replay(); sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
