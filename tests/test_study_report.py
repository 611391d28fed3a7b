"""The page of a study: its figures are those that the published tables are known to give, its charts draw them, names stay names."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chromium import settle, visit
from example_payload import HOSTILE_NAME
from example_study import DEVIATIONS, RUNS, SEALED, VERDICTS, example_study
from test_report import Tags
from test_report_run import Table
from tunescope import report
from tunescope.errors import InputError, OutputError
from tunescope.report import study_series, study_words
from tunescope.report.numbers import signed, three
from tunescope.study import analyses
from tunescope.study.published import DEPTH, published_rows
from tunescope.study.reported import report_study, reported
from tunescope.study.reporting import SCHEMA, study_payload
from tunescope.study.reporting.among import like
from tunescope.study.reporting.block_types import block_types
from tunescope.study.reporting.payload import SECTIONS

NOW = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.fixture(scope="module")
def published() -> dict:
    return study_payload(published_rows(), name="published", created=NOW)


@pytest.fixture(scope="module")
def mine() -> dict:
    return made(example_study())


@pytest.fixture(scope="module")
def pages(published, mine, tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("studies")
    payloads = {"published": published, "mine": mine, "hostile": made(example_study(hostile=True)),
                "empty": study_payload(published_rows()[:0])}  # fmt: skip
    for name, payload in payloads.items():
        (out / f"{name}.html").write_text(report.study_report(payload), encoding="utf-8")
    return {name: out / f"{name}.html" for name in payloads}


def made(rows) -> dict:
    return study_payload(
        rows, runs=RUNS, verdicts=VERDICTS, deviations=DEVIATIONS, sealed=SEALED, created=NOW,
        plan={"name": "mine", "about": "Which?", "sha256": "cd" * 32}, blocks={"neox-sequential": "sequential", "pythia-160m": "parallel"},
    )  # fmt: skip


def only(entries: list[dict], **wanted) -> dict:
    [found] = [entry for entry in entries if all(entry[key] == value for key, value in wanted.items())]
    return found


def text_of(page: str) -> str:
    return " ".join(" ".join(Tags(page).text).split())


def parts_of(page: str) -> list[str]:
    return list(dict.fromkeys(attributes["data-section"] for _, attributes in Tags(page).tags if "data-section" in attributes))


def drawn(payload: dict) -> dict[str, list[dict]]:
    return {name: [row for rows in spec["datasets"].values() for row in rows] for name, spec in report.study_charts(payload).items()}


# What the published tables give, as the specification of the studies has it.


def test_signs_of_slopes(published):
    entry = only(published["signs"], study=DEPTH)
    counts = {(group["group"], group["measure"]): (group["positive"], group["n"]) for group in entry["groups"]}
    assert counts["training as usual", "procrustes"] == (189, 190)
    assert counts["training as usual", "cka"] == (188, 190)
    assert (entry["agreement"]["agree"], entry["agreement"]["n"]) == (206, 210)
    steps = only(published["steps"], measure="procrustes")
    groups = {group["group"]: (group["positive"], group["n"]) for group in steps["groups"]}
    assert groups == {"parallel": (3, 8), "sequential": (10, 12), "not saturated": (10, 11), "saturated": (3, 9), "causal-LM": (7, 8),
                      "contrastive": (4, 10)}  # fmt: skip
    assert [round(steps["ratio"][name], 1) for name in ("geometric_mean", "low", "high")] == [3.1, 1.2, 12.3]


def test_distances_variance_widths(published):
    for distance, positive, p in (("procrustes", 8, 0.039), ("cosine", 9, 0.0039)):
        entry = only(published["distances"], distance=distance)
        assert (entry["within"]["positive"], entry["within"]["n"]) == (positive, 9)
        assert entry["within"]["p"] == pytest.approx(p, abs=5e-4)
        assert (entry["without"]["positive"], entry["without"]["n"]) == (7, 9)
    shares = only(published["shares"], value="final_share", measure="cka")
    assert [(row["factor"], round(row["eta2"], 2)) for row in shares["rows"]] == [("model", 0.61), ("objective", 0.17), ("update", 0.1)]
    widths = only(published["widths"], study=DEPTH)
    printed = published_rows().query("measure == 'share' and depth == 1").set_index("model")["value"]
    for line in widths["lines"]:
        assert line["shares"][-1] == pytest.approx(printed[line["model"]], abs=0.0021)


def test_change_against_damage_anchors_and_layers(published):
    entry = only(published["matched"], model="e5-base-v2", task="msmarco")
    assert entry["correlation"]["value"] == pytest.approx(0.943, abs=5e-4)
    assert entry["correlation"]["p"] == pytest.approx(0.017, abs=5e-4)
    assert (round(entry["ratio"]["drift"], 2), round(entry["ratio"]["damage"], 2)) == (1.4, 7.85)
    pair = only(only(published["anchors"], measure="cka")["pairs"], a="msmarco", b="nfcorpus")
    assert (round(pair["rho"], 3), round(pair["p"], 4)) == (0.964, 0.0028)
    [entry] = published["layers"]
    found = entry["groups"][0]["association"]
    assert (round(found["spearman"]["value"], 2), round(found["spearman"]["p"], 3)) == (-0.93, 0.007)
    assert round(found["partial"]["value"], 2) == 0.52
    assert found["rank_partial"]["value"] is None
    assert found["rank_partial"]["reason"]


def test_slopes_are_the_analyses(published):
    table = analyses.profiles(analyses.choose(published_rows(), study=DEPTH, measure="cka"))
    entry = only(published["slopes"], study=DEPTH, measure="cka")
    lines = {(line["model"], line["objective"], line["update"]): line for line in entry["lines"]}
    assert len(lines) == len(table) == 210
    for row in table.itertuples():
        assert lines[row.model, row.objective, row.update]["mean"] == row.slope
    charts = drawn(published)
    slopes = sorted(row["slope"] for name, rows in charts.items() if name.startswith("slope_") for row in rows if "seed" in row)
    both = published_rows().query("study == @DEPTH and measure in ('cka', 'procrustes') and subject == 'geometry'")
    assert slopes == sorted(analyses.profiles(both)["slope"])


# A study of one's own.


def test_every_section_is_there_where_its_rows_are(published, mine):
    assert {name for name in SECTIONS if published[name]} == set(SECTIONS) - {"features"}
    assert {name for name in SECTIONS if mine[name]} == set(SECTIONS) - {"distances", "layers"}
    assert set(parts_of(report.study_report(published))) >= (set(SECTIONS) | {"provenance"}) - {"features", "profiles"}
    assert parts_of(report.study_report(mine))[:3] == ["verdicts", "findings", "runs"]
    assert "features" in parts_of(report.study_report(mine))


def test_without_rows_there_is_only_what_it_rests_on():
    payload = study_payload(published_rows()[:0])
    assert not any(payload[name] for name in SECTIONS)
    page = report.study_report(payload)
    assert parts_of(page) == ["provenance"]
    assert "Nothing has been measured yet." in text_of(page)


@pytest.mark.parametrize("subject", ["geometry", "outcome", "features"])
def test_what_has_no_rows_has_no_section(subject):
    payload = study_payload(example_study().query("subject != @subject"), created=NOW)
    of = {"geometry": {"slopes", "matched", "anchors"}, "outcome": {"matched", "trajectories"}, "features": {"features"}}[subject]
    assert not any(payload[name] for name in of)
    assert not of & set(parts_of(report.study_report(payload)))


def test_seeds_floors_and_saturation(mine):
    entry = only(mine["slopes"], measure="procrustes")
    line = only(entry["lines"], model="pythia-160m", objective="simcse", update="lora")
    assert line["n"] == len(line["seeds"]) == 3
    assert line["mean"] == pytest.approx(sum(seed["slope"] for seed in line["seeds"]) / 3)
    assert entry["saturation"] == "floor"
    assert {line["update"] for line in entry["lines"] if line["saturated"]} == {"equal-step"}, "its curves lie at 1.15 of 1.2 ± .06"
    cells = only(mine["steps"], measure="procrustes")["cells"]
    assert {(cell["model"], cell["block"]) for cell in cells} == {("neox-sequential", "sequential"), ("pythia-160m", "parallel")}


def test_conditions_pairs_and_paths(mine):
    entry = only(mine["conditions"], model="neox-sequential")
    assert [line["condition"] for line in entry["lines"]] == ["contrast", "gaps", "noise"]
    assert [line["regime"] for line in entry["lines"]] == ["aligned", "misaligned", "control"]
    nps, _, search = range(3)
    assert entry["lines"][1]["cells"][nps]["mean"] == pytest.approx(0.155)
    assert entry["lines"][1]["cells"][search]["seeds"] == 2
    pair = only(only(mine["matched"], task="search")["pairs"], a="contrast", b="gaps")
    assert (pair["n"], pair["checkpoints"]) == (2, 2)
    path = only(only(mine["trajectories"], task="search")["paths"], condition="gaps")
    assert [point["at"] for point in path["points"]] == [10, 20]
    assert path["reason"] == "2 checkpoints; an association needs at least 4"
    assert "2 checkpoints; an association needs at least 4" in text_of(report.study_report(mine))


def test_own_runs_stand_among_the_published(mine):
    entry = only(mine["among"], measure="procrustes")
    assert len(entry["published"]) == 190
    assert {line["model"]: line["like"] for line in entry["own"]} == {"neox-sequential": None, "pythia-160m": "Pythia-160m"}
    slopes = [tick["slope"] for tick in entry["published"]]
    for line in entry["own"]:
        assert line["steeper"] == sum(slope > line["slope"] for slope in slopes)
    said = text_of(report.study_report(mine))
    assert "behind: 20 runs of Pythia-160m" in said
    assert "behind: 190 runs of all nine models" in said
    assert entry["source"] in said


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("EleutherAI/pythia-160m", "Pythia-160m"), ("bert-base-uncased", "BERT-base"), ("gpt2-medium", "GPT-2 medium"), ("b", None),
     ("x/", None), ("neox", None)],
)  # fmt: skip
def test_models_are_found_by_name(name, wanted):
    assert like(name, ["BERT-base", "BERT-large", "GPT-2 medium", "Pythia-160m"]) == wanted


def test_block_types_are_what_the_plan_says():
    made_here = {"family": "gpt_neox", "config": {"use_parallel_residual": False}}
    models = [{"name": "a", "place": "EleutherAI/pythia-160m"}, {"name": "b", "pretrain": made_here}, {"name": "c", "place": "x/y"},
              {"name": "d", "pretrain": {"family": "gpt_neox", "config": {}}}]  # fmt: skip
    assert block_types(models) == {"a": "parallel", "b": "sequential", "d": "parallel"}


def test_the_order_of_the_rows_does_not_matter(mine):
    shuffled = example_study().sample(frac=1, random_state=0)
    assert made(shuffled) == mine


def test_the_hash_of_the_rows_knows_every_row_and_not_what_it_cost(mine):
    rows = example_study()

    def of(rows):
        return made(rows)["provenance"]["rows_sha256"]

    assert of(rows.assign(wall_s=rows["wall_s"] + 1, peak_mb=9.0)) == mine["provenance"]["rows_sha256"]
    changed = rows.assign(value=rows["value"].where(rows.index != rows.index[-1], rows["value"] + 1e-9))
    assert len({of(changed), of(rows[:-1]), mine["provenance"]["rows_sha256"]}) == 3


def test_numbers_that_are_there_twice_are_said_and_the_rest_goes_on():
    rows = example_study()
    import pandas as pd

    payload = study_payload(pd.concat([rows, rows[rows["measure"] == "procrustes"]]), created=NOW)
    entry = only(payload["slopes"], measure="procrustes")
    assert "two values of procrustes" in entry["reason"]
    assert only(payload["slopes"], measure="cka")["lines"]
    assert "two values of procrustes" in text_of(report.study_report(payload))


def test_deviations_come_first_then_verdicts(mine):
    page = report.study_report(mine)
    parts = ('data-flag="deviations"', 'data-section="verdicts"', 'data-section="runs"', 'data-section="slopes"')
    order = [page.index(part) for part in parts]
    assert order == sorted(order)
    said = text_of(page)
    for part in (DEVIATIONS[0], "falsified", "invalid window", "not evaluable", "2 runs, .200 to .400", "in its window .200",
                 "A and B overlap", "OutOfMemory: tried 3 GB", "49 of 51 runs are done, 1 failed and 1 is still to come."):  # fmt: skip
        assert part in said
    assert "first" not in Tags(page).text
    assert "exploratory" not in said
    assert "exploratory" in text_of(report.study_report(mine | {"sealed": None}))


def test_the_headline_counts_verdicts():
    assert study_words.verdict_counts(VERDICTS) == "Of 3 hypotheses 1 is falsified, 1 has an invalid window and 1 is not evaluable."
    assert study_words.verdict_counts(VERDICTS[:1]) == "The one hypothesis is falsified."
    assert study_words.verdict_counts(VERDICTS[1:2] * 2) == "Of 2 hypotheses 2 have an invalid window."


def test_published_findings_are_in_words(published):
    found = " ".join(study_words.findings(published)).replace("\u00a0", " ")
    for said in ("189 of 190 cells trained as usual (Procrustes distance, sign test p < .001)", "13 of 20 stay positive (p = .263)",
                 "within 8 of 9 models (sign test p = .039), without the reference objective within 7 of 9 (p = .180)",
                 "ρ +.943 in msmarco (p = .017, n 6)", "from −.127 (e5-base-v2, mlm_lora_msmarco: nfcorpus nDCG@10) to +.160"):  # fmt: skip
        assert said in found


def test_tables_print_the_payloads_figures(mine):
    rows = Table(report.study_report(mine), "Slopes, Procrustes distance").rows
    head, lines = rows[0], rows[1:]
    slope, seeds = head.index("slope"), head.index("seeds")
    wanted = only(mine["slopes"], measure="procrustes")["lines"]
    assert [(line[0], line[slope], line[slope + 1], line[seeds]) for line in lines] == [
        (line["model"], signed(line["mean"]), three(line["sd"]), "3") for line in wanted
    ]


def test_features_stand_between_floor_and_ceiling(mine):
    entry = only(mine["features"], measure="one_to_one_cosine")
    assert [line["name"] for line in entry["lines"]] == ["r4", "r4", "r16", "r16"]
    source = [row for row in feature_payload()["alignment"] if row["comparison"] == "one_to_one_cosine"]
    for line in entry["lines"]:
        row = only(source, name=line["name"], layer=line["layer"])
        assert (line["value"], line["floor"], line["ceiling"]) == (row["value"], row["floor"], row["ceiling"])
    recovered = only(mine["features"], measure="behaviour_recovered")["lines"]
    assert {line["detail"] for line in recovered} == {"seed 0", "seed 1"}
    assert all(line["floor"] < line["value"] < line["ceiling"] for line in recovered)


def feature_payload() -> dict:
    from example_features import example_features

    return example_features(layers=(3, 5), models=("r4", "r16"))


def test_update_rules_keep_their_colour():
    found = study_series.updates(["EqStep", "LoRA", "Std", "Unif", "FrzLN"])
    assert list(found) == ["Std", "Unif", "LoRA", "FrzLN", "EqStep"]
    assert len({series.role for series in found.values()}) == 5
    many = study_series.updates([f"rule {number}" for number in range(12)])
    assert len({(series.role, series.dash) for series in many.values()}) == 12


@pytest.mark.parametrize("name", ["published", "mine", "hostile", "empty"])
def test_pages_load_nothing_and_names_stay_names(pages, name):
    page = pages[name].read_text(encoding="utf-8")
    tags = Tags(page).tags
    assert not [tag for tag, _ in tags if tag in ("img", "link", "iframe", "object")]
    assert [key for _, attributes in tags for key in attributes if key.startswith("on") or key == "src"] == []
    assert "default-src 'none'" in page
    words = text_of(page).split()
    assert "None" not in words
    assert "nan" not in words
    assert len(page.encode()) < 6_000_000
    if name == "hostile":
        assert " ".join(HOSTILE_NAME.split())[:12] in text_of(page)


def test_the_page_and_its_payload_are_written(tmp_path):
    page = report_study("published", out=tmp_path / "deep" / "study.html")
    assert page == tmp_path / "deep" / "study.html"
    content = json.loads((tmp_path / "deep" / "study.json").read_text(encoding="utf-8"))
    assert content["schema"] == SCHEMA
    assert re.search(r"<title>Study: published tables</title>", page.read_text(encoding="utf-8"))


def test_places_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"--out .*page\.txt asked for; give a page, such as .*page\.html"):
        report_study("published", out=tmp_path / "page.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        report_study("published", out=tmp_path / "file" / "page.html")


@pytest.fixture
def folder(tmp_path):
    """A study's folder with two finished runs and one that failed, and a plan that was sealed before."""
    pytest.importorskip("tunescope.study.judged")
    from tunescope.study.expand import expand
    from tunescope.study.folder import StudyFolder
    from tunescope.study.jobs import jobs_of
    from tunescope.study.ledger_lines import lines
    from tunescope.study.plan import read_plan
    from tunescope.study.registered import register
    from tunescope.study.row import Row

    plan = read_plan("tiny-layers")
    specs, study = expand(plan), StudyFolder.at(tmp_path)
    register(plan, specs, study)
    jobs = jobs_of(specs)
    study.open(plan.name, jobs.values())
    first = next(iter(jobs.values()))
    spec = first.spec
    row = Row(study=plan.name, run=first.run, kind=spec.kind, model=spec.model.name, condition=spec.condition, seed=spec.seed,
              subject="geometry", measure="cka", value=0.9, change=0.1, where="output", texts="docs")  # fmt: skip
    content = lines([row])
    study.rows_of(first.run).write(content)
    study.write_state(first.run, {"state": "done", "rows": 1, "bytes": len(content), "seconds": 1.0})
    for job in list(jobs.values())[1:]:
        study.write_state(job.run, {"state": "failed", "errors": ["OSError: no space"], "seconds": 1.0})
    return tmp_path


def test_a_folder_has_its_page_beside_its_rows(folder):
    page = report_study(folder)
    assert page == folder / "report.html"
    payload = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert payload["sealed"]["hash"]
    assert payload["runs"]["counts"]["done"] == 1
    assert {run["error"] for run in payload["runs"]["failed"]} <= {"OSError: no space"}
    assert payload["provenance"]["rows"] == 1
    assert [verdict["state"] for verdict in payload["verdicts"]] == ["not evaluable"] * len(payload["verdicts"])


def test_a_plan_of_which_nothing_ran_has_a_page():
    pytest.importorskip("tunescope.study.judged")
    payload = reported("depth")
    assert payload["runs"]["total"] == payload["runs"]["counts"]["queued"] == 240
    assert payload["runs"]["counts"]["done"] == 0
    said = text_of(report.study_report(payload))
    assert "0 of 240 runs are done and 240 are still to come." in said
    assert "Stated in the plan; nothing has run yet." in said
    assert "exploratory" not in said


def test_a_folder_without_a_study_is_refused(tmp_path):
    pytest.importorskip("tunescope.study.judged")
    with pytest.raises(InputError, match="no ledger"):
        report_study(tmp_path)


def test_the_command_writes_it(tmp_path, monkeypatch):
    pytest.importorskip("tunescope.cli.study.verdict")
    from tunescope.cli import main

    out = tmp_path / "page.html"
    printed = io.StringIO()
    monkeypatch.setattr("sys.argv", ["tunescope", "study", "report", "published", "--out", str(out)])
    monkeypatch.setattr("sys.stdout", printed)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    assert printed.getvalue().strip() == f"report   {out}"
    assert out.is_file()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["published", "mine"])
def test_pages_read_in_both_lights(browser, pages, name, dark):
    from test_report_browser import colours, contrast, luminance

    visit(browser, pages[name], dark=dark)
    [paper] = colours(browser, "body", "backgroundColor")
    assert (luminance(paper) < 0.1) == dark
    for selector in ("h1", "h2", "h4", ".headline", ".note", "td.n", "th", ".lead", ".key", ".found li"):
        for ink in colours(browser, selector, "color"):
            assert contrast(ink, paper) >= 4.5, (selector, ink)
    lines = "document.querySelectorAll('[data-chart^=profile] .mark-line path')"
    strokes = set(browser.execute_script(f"return [...{lines}].map(e => getComputedStyle(e).stroke)"))
    assert len(strokes) > 3
    for stroke in strokes:
        assert contrast(stroke, paper) >= 3, stroke
    assert browser.find_elements("css selector", ".chart-failed") == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", ["published", "mine", "hostile", "empty"])
def test_nothing_overflows_and_nothing_fails(browser, pages, name, width):
    visit(browser, pages[name], width=width)
    wide, inner = browser.execute_script("return [document.scrollingElement.scrollWidth, innerWidth]")
    assert wide <= inner == width
    browser.execute_script("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    settle(browser)
    assert browser.find_elements("css selector", ".chart-failed") == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
