"""The page of a training run without a browser: every number is there, charts draw the rows, and what is not known is said."""

from __future__ import annotations

import copy
import json
import random
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from example_payload import HOSTILE_TEXT
from example_run import example_run, hostile_run
from test_report import Tags
from tiny_models import TEXTS, save_model
from tunescope import report
from tunescope.cli import app
from tunescope.report import loss_curve, numbers, run_page, run_reading, run_words, step_sizes_chart, thinning, trajectory_depth
from tunescope.training.step_sizes import STATES


class Table(HTMLParser):
    """Cells of the tables whose region is named so, a list a row."""

    def __init__(self, text: str, named: str):
        super().__init__(convert_charrefs=True)
        self.named, self.rows, self._in, self._cell = named, [], False, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if dict(attrs).get("aria-label", "").startswith(self.named):
            self._in = True
        if self._in and tag == "tr":
            self.rows.append([])
        self._cell = self._cell or (self._in and tag in {"td", "th"})
        if self._in and tag in {"td", "th"}:
            self.rows[-1].append("")
        elif self._cell and tag in {"span", "br"} and self.rows[-1][-1]:
            self.rows[-1][-1] += " "

    def handle_endtag(self, tag):
        self._in = self._in and tag != "table"
        self._cell = self._cell and tag not in {"td", "th"}

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data


def shown(payload: dict) -> str:
    return " ".join(" ".join(Tags(report.run_report(payload)).text).split())


def drawn(payload: dict) -> dict[str, list[dict]]:
    """Every row of every chart on the page, by chart."""
    text = report.run_report(payload)
    specs = json.loads(re.search(r'id="chart-specs">(.*?)</script>', text, re.DOTALL)[1])
    return {name: [row for rows in spec["datasets"].values() for row in rows] for name, spec in specs.items()}


def changed(payload: dict, **keys) -> dict:
    return copy.deepcopy(payload) | keys


def geometry(payload: dict, measure: str) -> list[dict]:
    return [row for row in payload["trajectory"] if row.get("measure") == measure]


# Numbers


@pytest.mark.parametrize("measure", ["nps", "debiased_cka", "relative_drift", "isotropy"])
def test_every_distance_is_in_the_table_at_its_place_and_step(measure):
    payload = example_run()
    head, *rows = Table(report.run_report(payload), f"{measure}: change").rows
    assert head[:5] == ["place", "step 0", "step 10", "step 30", "step 60"]
    found = {(row[0], step): cell for row in rows for step, cell in zip((0, 10, 30, 60), row[1:], strict=False)}
    assert found == {(row["where"], row["step"]): numbers.three(row["change"]) for row in geometry(payload, measure)}
    floor = {"nps": ".920", "debiased_cka": "1", "relative_drift": "1.200"}.get(measure)
    assert [row[5:] for row in rows] == [[floor] if floor else []] * 5


def test_every_outcome_stands_with_its_interval_and_verdict():
    payload = example_run()
    rows = Table(report.run_report(payload), "Every outcome").rows[1:]
    asked = [row for row in payload["trajectory"] if row["kind"] != "geometry"]
    assert len(rows) == len(asked) == 12
    for cells, row in zip(rows, asked, strict=True):
        assert cells[0] == str(row["step"])
        assert cells[3:5] == [numbers.three(row["base"]), numbers.three(row["tuned"])]
        assert cells[5].startswith(numbers.signed(row["delta"]))
        assert numbers.signed(row["low"]) in cells[5]
        assert row["verdict"] in cells[6]


def test_points_carry_loss_distance_scores_and_weights():
    payload = example_run()
    rows = Table(report.run_report(payload), "Points of the run").rows[1:]
    losses = [row["loss"] for row in payload["losses"]]
    assert [row[0] for row in rows] == ["0", "10", "30", "60"]
    assert rows[1][2] == numbers.three(float(np.mean(losses[7:12])))  # five steps around the tenth
    assert [row[3] for row in rows] == ["0", ".067", ".200", ".400"]
    assert rows[3][4:6] == [".605 −.040 [−.052, −.028] worse", ".860 +.050 [+.030, +.070] better"]
    assert [row[6] for row in rows] == [each["weights_sha256"][:12] + "…" for each in payload["record"]["checkpoints"]]


@pytest.mark.parametrize("tau", [None, 5e-4])
def test_groups_are_told_by_their_median_step(tau):
    payload = example_run(tau=tau)
    rows = {row[0]: row for row in Table(report.run_report(payload), "Step sizes by group").rows[1:]}
    for group in ("block 1", "block 2", "block 3", "rest"):
        found = [row["ratio"] for row in payload["steps"] if row["group"] == group]
        assert rows[group][1:4] == [numbers.two_digits(value) for value in (np.median(found), min(found), max(found))]
        if tau:
            assert rows[group][4] == f"× {numbers.two_digits(tau / np.median(found))}"


# Charts


@pytest.mark.parametrize("measure", ["nps", "debiased_cka", "relative_drift", "isotropy"])
def test_a_panel_draws_the_rows_of_its_measure(measure):
    payload = example_run()
    rows = [row for row in drawn(payload)[f"trajectory_{measure}"] if "value" in row]
    found = {(row["step"], row["layer"]): row["change"] for row in rows if row["i"] != -0.4}
    assert found == {(row["step"], row["where"]): row["change"] for row in geometry(payload, measure) if row["step"]}
    floors = {row["floor"] for row in rows if "floor" in row}
    assert floors == {"nps": {1 - 0.08}, "debiased_cka": {1.0}, "relative_drift": {1.2}, "isotropy": set()}[measure]


def test_outcome_charts_draw_their_task_with_its_interval():
    payload = example_run()
    charts = drawn(payload)
    for name, metric, chart in (("scifact", "ndcg@10", "outcome_0"), ("topic", "accuracy", "outcome_1")):
        asked = [row for row in payload["trajectory"] if row.get("name") == name and row["metric"] == metric]
        found = {row["step"]: (row["delta"], row["low"], row["high"]) for row in charts[chart] if "low" in row}
        assert found == {row["step"]: (row["delta"], row["low"], row["high"]) for row in asked}


def test_loss_and_step_sizes_of_a_short_run_are_drawn_whole():
    payload = example_run(tau=5e-4)
    charts = drawn(payload)
    assert {row["step"]: row["loss"] for row in charts["loss"] if "loss" in row} == {row["step"]: row["loss"] for row in payload["losses"]}
    sizes = {(row["group"], row["step"]): row["ratio"] for row in charts["step_sizes"] if "group" in row}
    assert sizes == {(row["group"], row["step"]): row["ratio"] for row in payload["steps"]}
    assert [row["ratio"] for row in charts["step_sizes"] if "group" not in row and "ratio" in row] == [5e-4]
    assert "τ .0005" in [row.get("said") for row in charts["step_sizes"]]


def test_five_thousand_steps_are_thinned_and_no_extreme_is_lost():
    payload = example_run(steps=5000, points=(0, 5000), blocks=12)
    payload["losses"][3210]["loss"], payload["losses"][77]["loss"] = 9.5, 0.125
    payload["steps"][13 * 1234 + 4]["ratio"], payload["steps"][13 * 4321 + 4]["ratio"] = 0.31, 1.7e-7
    charts = drawn(payload)
    losses = [row for row in charts["loss"] if "loss" in row]
    assert len(losses) < 1000
    assert {(3211, 9.5), (78, 0.125), (1, payload["losses"][0]["loss"]), (5000, payload["losses"][-1]["loss"])} <= {
        (row["step"], row["loss"]) for row in losses
    }
    sizes = [row for row in charts["step_sizes"] if "group" in row]
    assert len(sizes) <= 13 * 184
    for group in {row["group"] for row in payload["steps"]}:
        asked, found = ([row for row in rows if row["group"] == group] for rows in (payload["steps"], sizes))
        assert max(row["high"] for row in found) == max(row["ratio"] for row in asked)
        assert min(row["low"] for row in found) == min(row["ratio"] for row in asked)


@pytest.mark.parametrize(("count", "over"), [(1, 1), (4, 1), (5, 5), (40, 5), (5000, 101)])
def test_the_running_mean_is_a_convolution(count, over):
    values = np.random.default_rng(0).normal(size=count)
    assert thinning.window(count) == over
    found = thinning.running_mean(values.tolist(), over)
    expected = np.convolve(values, np.ones(over), "same") / np.convolve(np.ones(count), np.ones(over), "same")
    np.testing.assert_allclose(found, expected, atol=1e-12)  # sums of up to 5,000 values of size 1


@pytest.mark.parametrize(("rows", "most"), [(1, 8), (7, 8), (100, 8), (101, 40), (1000, 4)])
def test_thinning_keeps_order_ends_and_extremes(rows, most):
    draw = random.Random(rows)
    curve = [{"step": step, "v": draw.random()} for step in range(rows)]
    found = thinning.thinned(curve, "v", most)
    assert len(found) <= most
    assert [row["step"] for row in found] == sorted({row["step"] for row in found})
    values = [row["v"] for row in found]
    assert (found[0], found[-1], min(values), max(values)) == (
        curve[0], curve[-1], min(row["v"] for row in curve), max(row["v"] for row in curve)
    )  # fmt: skip
    parts = thinning.stretches(curve, "v", most)
    split = np.array_split([row["v"] for row in curve], min(most, rows))
    if rows % most == 0:  # numpy puts the longer parts first
        assert [part["v"] for part in parts] == pytest.approx([float(np.median(part)) for part in split])
    assert [parts[0]["first"], parts[-1]["last"]] == [0, rows - 1]
    assert all(one["last"] + 1 == two["first"] for one, two in zip(parts, parts[1:], strict=False))


def test_of_very_many_points_some_are_drawn_with_first_and_last():
    payload = example_run(steps=400, points=tuple(range(0, 401, 4)))
    assert len(trajectory_depth.shown_points(payload, "nps")) == 24
    assert trajectory_depth.shown_points(payload, "nps")[::23] == [4, 400]
    assert len(Table(report.run_report(payload), "nps: change").rows[0]) == 1 + 101 + 1  # the table has them all


@pytest.mark.parametrize("low", [3.2e-9, 7.2e-4, 1e-3, 0.0099, 0.97, 4.0])
@pytest.mark.parametrize("times", [1.05, 1.44, 2.7, 3.3, 40.0, 1e3, 1e7])
def test_a_logarithmic_axis_has_labels_enough_and_not_too_many(low, times):
    found = step_sizes_chart._ticks(low, low * times)
    assert 3 <= len(found) <= 9
    assert found == sorted(set(found))
    assert low <= found[0] <= found[-1] <= low * times
    assert all(float(f"{value:.4g}") == value for value in found)  # numbers that are short to print
    reach = np.log([low, *found, low * times])
    assert np.diff(reach).max() <= 0.62 * np.log(times)  # and spread over the axis


# Words


def test_the_headline_says_what_moved_how_far_and_what_came_of_it():
    payload = example_run(tau=5e-4)
    assert run_words.headline(payload) == (
        "60 steps of contrastive by lora+equal-step moved 294,912 of 109,777,152 parameters (<1%). At step 60 a text had lost 40% of its "
        "neighbours at the output (1 − nps .400); in an unrelated representation it would lose 92%."
    )
    assert run_words.outcome_headline(payload) == (
        "At step 60, tuned is worse at scifact (nDCG@10 −.040, 95% −.052 to −.028); tuned is better at topic (accuracy +.050, "
        "95% +.030 to +.070)."
    )


MLM, SIMCSE = {"name": "mlm", "share": 0.15}, {"name": "simcse", "temperature": 0.05}
SUM = {"name": "mixture", "parts": [MLM, {"name": "contrastive"}], "weights": [0.5, 1.0]}
WORDS = {
    "plain": (MLM, "mlm", {"mlm_accuracy": "mlm accuracy"}),
    "sum": (SUM, "mlm ×.5 + contrastive", {"0.mlm": "loss of mlm", "1.contrastive": "loss of contrastive"}),
    "held": ({"name": "preserve", "objective": SIMCSE, "kind": "features", "weight": 2.0}, "simcse, held to the start ×2",
             {"objective": "loss of simcse, without what holds it to the start", "view_distance": "view distance",
              "distance_from_start": "relative squared distance from the start, on the texts to keep"}),
    "sum held": ({"name": "preserve", "objective": SUM, "kind": "kl", "weight": 1.0}, "mlm ×.5 + contrastive, held to the start",
                 {"0.mlm": "loss of mlm", "objective": "loss of mlm ×.5 + contrastive, without what holds it to the start",
                  "distance_from_start": "KL from the start in nats, on the texts to keep"}),
    "twice": ({"name": "mixture", "parts": [SIMCSE, SIMCSE], "weights": [1.0, 1.0]}, "simcse + simcse",
              {"0.simcse": "loss of simcse 1", "1.view_distance": "view distance, of simcse 2"}),
    "held inside": ({"name": "mixture", "parts": [MLM, {"name": "preserve", "objective": SIMCSE, "kind": "kl"}], "weights": [1.0, 0.25]},
                    "mlm + (simcse, held to the start) ×.25", {"1.preserve": "loss of preserve"}),
}  # fmt: skip


@pytest.mark.parametrize("case", WORDS)
def test_sums_and_what_holds_to_the_start_are_said_as_they_were_asked_for(case):
    described, named, beside = WORDS[case]
    payload = example_run()
    payload["record"]["objective"] = described | {"max_length": 64}
    payload["losses"], payload["steps"] = [{"step": 1, "loss": 1.0} | dict.fromkeys(beside, 0.25)], []
    comma = "," if ", " in named else ""
    assert run_words.headline(payload).startswith(f"1 step of {named}{comma} by lora moved 294,912")
    assert [line.partition(":")[0] for line in run_words.beside_the_loss(payload)] == list(beside.values())
    said = shown(payload)
    assert not re.search(r"\b\d\.(mlm|simcse|contrastive|view)|distance_from_start|\bmixture\b", said)
    assert f"objective {named}" in said


def test_what_was_settled_is_told_by_part():
    payload = example_run()
    resolved = {"mixture": {"0.mlm": {"head": "own"}, "1.contrastive": {"pooling": "mean"}}}
    payload["record"]["objective"] = {"name": "preserve", "objective": SUM, "kind": "kl", "weight": 1.0, "resolved": resolved}
    assert "settled as mlm head own, contrastive pooling mean" in shown(payload)


def test_geometry_alone_never_says_good_or_bad():
    payload = example_run(tau=5e-4)
    payload["trajectory"] = [row for row in payload["trajectory"] if row["kind"] == "geometry"]
    said = shown(payload)
    assert "nothing on this page measured function" in said
    assert "Did it help" not in said
    assert not re.search(r"better|worse|improve|degrad|collapse|harm", said, re.IGNORECASE)


def test_a_run_that_came_back_says_where_it_was_farthest():
    payload = example_run()
    for row in geometry(payload, "nps"):
        if row["step"] == 60:
            row |= {"value": 1.0, "change": 0.0}
    assert run_words.distance(payload) == (
        "At step 60 every text had the neighbours it began with at the output (1 − nps 0); most at step 30, 20%."
    )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (lambda row: False, "Nothing was measured on the way, so this page does not say how far it moved."),
        (lambda row: row["step"] == 0, "Only the start was measured, so this page does not say how far it moved."),
        (lambda row: row.get("measure") == "isotropy", "No distance from the start is known, so this page does not say how far it moved."),
        (lambda row: row.get("where") == "block 2", "At step 60 a text had lost 27% of its neighbours at the block 2 output (1 − nps "
                                                    ".267); in an unrelated representation it would lose 92%."),
        (lambda row: row.get("step") == 30, "At step 30 a text had lost 20% of its neighbours at the output (1 − nps .200); in an "
                                            "unrelated representation it would lose 92%."),
    ],
)  # fmt: skip
def test_what_was_measured_is_what_is_said(rows, said):
    payload = example_run()
    payload["trajectory"] = [row for row in payload["trajectory"] if rows(row)]
    assert said in shown(payload)


def test_a_run_without_a_trajectory_says_so():
    said = shown(changed(example_run(), trajectory=[]))
    assert "No point of this run was measured" in said
    assert "The run, point by point" in said  # its models were kept all the same
    assert {"loss", "step_sizes"} == set(drawn(changed(example_run(), trajectory=[])))


def test_what_equal_steps_flattened_is_said():
    equal, own = example_run(tau=5e-4), example_run()
    for payload in (equal, own):
        for row in payload["steps"]:
            row["ratio"] = {"block 1": 2e-4, "block 2": 4e-4, "block 3": 1.7e-3, "rest": 8e-4}[row["group"]]
    [said] = run_words.step_sizes(equal)
    assert "ran from .00020 (block 1) to .0017 (block 3) of a group’s size, 8.5 times as far" in said
    assert "Each was then set to τ = .0005" in said
    [said] = run_words.step_sizes(own)
    assert said.endswith("8.5 times as far. Nothing was rescaled.")


def test_groups_without_a_relative_step_are_named_and_not_drawn():
    payload = example_run(tau=5e-4)
    assert {run_reading.MOVED, run_reading.FROZEN} <= set(STATES)
    for row in payload["steps"]:
        if row["group"] == "rest":
            row |= {"ratio": 0.0, "weight": 0.0, "gradient": 0.0, "state": "frozen"}
        elif row["group"] == "block 2" and row["step"] == 1:
            row |= {"ratio": 3e9, "weight": 0.0, "state": "zero norm"}
    assert run_words.step_sizes(payload)[1] == (
        "What is in no block did not train; block 2 made 1 step from zero norm, where no relative step exists, and that was the "
        "optimizer’s own."
    )
    sizes = step_sizes_chart.size_rows(payload)
    assert "rest" not in {row["group"] for row in sizes}
    assert max(row["high"] for row in sizes) < 1
    assert "frozen at 60" in shown(payload)


@pytest.mark.parametrize("seed", range(12))
def test_moved_by_noise_is_a_t_test(seed):
    """Oracle: scipy's one-sample t statistic of the agreements is at most 2."""
    found = np.random.default_rng(seed).normal(0.05, 0.12, size=20)
    rows = [{"agreement": value} for value in found.tolist()] + [{"agreement": None}]
    assert run_reading.by_noise(rows) == (stats.ttest_1samp(found, 0).statistic <= 2)


def test_groups_moved_by_noise_are_marked():
    payload = example_run(tau=5e-4)
    assert "noise" not in " ".join(run_words.step_sizes(payload))
    for row in payload["steps"]:
        row["agreement"] = (-1) ** row["step"] * 0.2 if row["group"] == "block 1" else 0.5 + row["step"] / 1000
    assert run_words.step_sizes(payload)[-1].startswith("Moved by noise: block 1. Of such a group")
    rows = Table(report.run_report(payload), "Step sizes by group").rows
    assert [row[0] for row in rows[1:] if "moved by noise" in row[0]] == ["block 1 moved by noise"]
    assert rows[0][-1] == "agreement"


def test_the_loss_is_told_by_first_last_and_lowest():
    payload = example_run()
    losses = [row["loss"] for row in payload["losses"]]
    said = run_words.loss(payload)
    assert f"was {numbers.three(losses[0])} at the first step and {numbers.three(float(np.mean(losses[-10:])))} over the last 10" in said
    assert run_words.beside_the_loss(payload) == ["view distance: .251 at first, .310 at last, .251 to .310 on the way"]
    assert loss_curve.loss_rows(changed(payload, losses=[])) == []


def test_provenance_is_whole():
    payload = example_run(tau=5e-4)
    payload["record"]["warnings"] = ["views were identical"]
    said = shown(payload)
    record = payload["record"]
    hashes = record["spec_hash"], record["base"]["weights_sha256"], record["spec"]["data"]["pairs"]["sha256"]
    words = "pairs.tsv", "torch 2.13.0", "query, value", "views were identical", "intfloat/e5-base-v2"
    for text in (*(each[:12] for each in hashes), *words):
        assert text in said, text
    html = report.run_report(payload)
    assert record["spec_hash"] in html
    assert all(each["weights_sha256"] in html for each in record["checkpoints"])


def test_what_is_known_of_a_measure_is_said():
    about = {
        "title": "Neighbours kept", "change": "1 − value", "direction": "higher is closer", "range": [0, 1], "null": "k/(N − 1)",
        "invariances": ["rotation"], "reference": "https://arxiv.org/abs/2305.06329", "one_sided": False,
    }  # fmt: skip
    said = shown(changed(example_run(), measures={"nps": about}))
    assert "a text had lost 40% of its neighbours at the output (1 − nps .400)" in said
    assert "k/(N − 1)" in said


def test_tunescope_tune_writes_the_page_and_names_it(tmp_path):
    base = save_model(tmp_path / "base", "bert", head="mlm")
    (tmp_path / "texts.txt").write_text("\n".join(f"{text} {number}" for number, text in enumerate(TEXTS * 2)), encoding="utf-8")
    asked = ["--objective", "mlm", "--update", "equal-step", "--tau", ".001", "--texts", str(tmp_path / "texts.txt"), "--steps", "3"]
    more = ["--batch-size", "4", "--no-trajectory", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, ["tune", str(base), *asked, *more])
    assert done.exit_code == 0, done.output
    assert f"report   {tmp_path / 'run' / 'report.html'}" in done.output
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in (tmp_path / "run" / "losses.jsonl").read_text(encoding="utf-8").splitlines()]
    said = " ".join("".join(Tags(text).text).split())
    assert f"The loss was {numbers.three(rows[0]['loss'])} at the first step" in said
    assert "3 steps of mlm by equal-step" in said
    assert "τ = .001" in said
    assert "No point of this run was measured" in said


def captions(payload: dict) -> dict[str, str]:
    payload = run_page.reading.printable(payload)
    return run_page._captions(payload, run_page.run_charts(payload))


@pytest.mark.parametrize(
    ("chart", "words", "has", "lacks"),
    [
        ("loss", "Thick: the running mean", lambda: example_run(steps=60), lambda: example_run(steps=4, points=(0, 4))),
        ("loss", "Thin: every step", lambda: example_run(steps=60), lambda: example_run(steps=5000, points=(0, 5000))),
        ("loss", "the models that were kept", example_run, lambda: unfinished()),
        ("depth", "A line a point of the run", example_run, lambda: no_layers()),
        ("depth", "stronger as it goes on", example_run, lambda: example_run(points=(0, 60))),
        ("depth", "iamonds lie beyond", example_run, lambda: without_sites()),
        ("depth", "Dashed: the change of an unrelated", example_run, lambda: far_from_chance()),
        ("depth", "A start from which nothing is away", example_run, lambda: example_run(points=(10, 60))),
        ("depth", "are drawn, and all are in the table", lambda: example_run(steps=400, points=tuple(range(0, 401, 4))), example_run),
        ("sizes", "dashed: τ", lambda: example_run(tau=5e-4), example_run),
        ("sizes", "stronger with depth", example_run, lambda: example_run(blocks=1)),
        ("sizes", "what is in no block", example_run, lambda: changed(example_run(), steps=in_blocks())),
        ("sizes", "medians of stretches", lambda: example_run(steps=5000, points=(0, 5000)), example_run),
        ("outcomes", "Shaded", example_run, lambda: without_margin()),
        ("outcomes", "one lucky point among many", example_run, lambda: example_run(points=(0, 60))),
    ],
)
def test_captions_name_what_is_drawn_and_nothing_else(chart, words, has, lacks):
    assert words in captions(has())[chart]
    assert words not in captions(lacks())[chart]


def test_the_page_prints_its_captions():
    payload = example_run(tau=5e-4)
    assert not [name for name, said in captions(payload).items() if said not in shown(payload)]


def without_sites() -> dict:
    payload = example_run()
    payload["trajectory"] = [row for row in payload["trajectory"] if row["kind"] != "geometry" or row["layer"] is not None]
    return payload


def far_from_chance() -> dict:
    """Changes of a hundredth of those that reach the floor of chance."""
    payload = example_run()
    for row in geometry(payload, "nps") + geometry(payload, "relative_drift"):
        row["change"] /= 100
        row["value"] = row["change"] if row["measure"] == "relative_drift" else 1 - row["change"]
    return payload


def in_blocks() -> list[dict]:
    return [row for row in example_run()["steps"] if row["group"] != "rest"]


def without_margin() -> dict:
    payload = example_run()
    return changed(payload, trajectory=[row | {"margin": 0.0} for row in payload["trajectory"]])


# Odd runs


def bare() -> dict:
    return {"record": {}, "losses": [], "steps": [], "trajectory": []}


def one_step() -> dict:
    payload = example_run(steps=1, points=(0, 1), blocks=1)
    payload["steps"] = payload["steps"][:1]
    return payload


def unfinished() -> dict:
    payload = example_run()
    payload["record"] |= {"finished": False, "checkpoints": []}
    payload["losses"], payload["steps"] = payload["losses"][:20], []
    return payload


def unmeasurable() -> dict:
    payload = example_run()
    for row in payload["trajectory"]:
        if row["kind"] == "geometry":
            row |= {"value": None, "change": None, "null": None, "reason": "all rows are alike"}
        else:
            row |= dict.fromkeys(("base", "tuned", "delta", "low", "high", "p")) | {"verdict": "not evaluable", "reason": "one item"}
    return payload


def nothing_moved() -> dict:
    payload = example_run()
    for row in payload["trajectory"]:
        if row["kind"] == "geometry":
            row |= {"value": 1 - 0.0 if row["measure"] in ("nps", "debiased_cka") else 0.0, "change": 0.0}
    for row in payload["steps"]:
        row |= {"ratio": 0.0, "state": "no update"}
    return payload


def no_layers() -> dict:
    payload = example_run()
    payload["trajectory"] = [row for row in payload["trajectory"] if row.get("layer") is None]
    return payload


ODD = {
    "bare": bare,
    "one step": one_step,
    "unfinished": unfinished,
    "unmeasurable": unmeasurable,
    "nothing moved": nothing_moved,
    "no layers": no_layers,
    "96 blocks": lambda: example_run(blocks=96, tau=5e-4),
    "hostile": hostile_run,
    "nan": lambda: changed(example_run(), losses=[{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 1.0}]),
}


@pytest.mark.parametrize("case", ODD)
def test_every_odd_run_renders(case):
    text = report.run_report(ODD[case]())
    tags = Tags(text)
    assert tags.open == []
    said = " ".join(tags.text)
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+|[a-z]+nan[a-z]*", "", said.lower())
    assert "None" not in said
    boxes = [attrs["data-chart"] for _, attrs in tags.tags if "data-chart" in attrs]
    assert len(boxes) == len(set(boxes))
    assert set(boxes) == set(run_page.run_charts(report.run_page.reading.printable(ODD[case]())))


def test_odd_runs_are_told_in_words():
    assert "The run is not finished: it was to make 60 steps." in shown(unfinished())
    assert "20 steps of contrastive by lora" in shown(unfinished())
    assert "No step sizes were kept." in shown(unfinished())
    assert "Not measured at embeddings, block 1, block 2, block 3, output: all rows are alike." in shown(unmeasurable())
    assert "no verdict is possible at scifact (one item)" in shown(unmeasurable())
    assert "no step has a relative size" in shown(nothing_moved())
    assert "No losses were kept" in shown(bare())


def test_strangers_strings_are_shown_not_run():
    text = report.run_report(hostile_run())
    tags = Tags(text)
    assert HOSTILE_TEXT in "".join(tags.text)
    assert not [tag for tag, _ in tags.tags if tag == "img"]
    assert "alert(1)</script>" not in text


@pytest.mark.slow
def test_the_charts_are_vega_lite(tmp_path):
    import vl_convert

    for name, spec in run_page.run_charts(example_run(tau=5e-4)).items():
        spec |= {"width": 400}
        spec.pop("autosize")
        assert vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]).startswith("<svg"), name
        assert spec["description"]


def test_what_goes_without_saying_is_not_listed():
    payload = example_run()
    payload["record"]["objective"] |= {"head_seed": 7, "head_fitted_steps": 0}
    payload["record"]["update"] |= {"options": {"rank": 8}, "rank": 8, "family": "bert", "weight_decay_policy": "on matrices"}
    labels = [row["label"] for row in run_page._asked(payload["record"])]
    assert {"objective", "its options", "pairs", "items", "schedule"} <= set(labels)
    assert not {"rank", "family", "head seed", "head fitted for, steps", "weight decay policy", "warmup", "processes"} & set(labels)
    payload["record"]["objective"]["head_fitted_steps"] = 100
    assert "head fitted for, steps" in [row["label"] for row in run_page._asked(payload["record"])]
