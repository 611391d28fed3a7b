"""Outcomes in the report without a browser: verdicts in words, the headline, every table, escaping, figures, the terminal."""

from __future__ import annotations

import copy
import json
import re

import pytest
from rich.cells import cell_len

from example_outcomes import hostile_outcomes, many_tasks, outcome, with_outcomes
from example_payload import HOSTILE_TEXT, example
from test_report import Tags, printed, shown
from tunescope import report
from tunescope.report import numbers, outcome_words, point_labels, reading, two_questions
from tunescope.report.charts import charts


def alone(row: dict) -> dict:
    return example() | {"outcomes": [row], "outcome_details": [], "association": None}


def nothing_known() -> dict:
    """Outcomes of every kind whose numbers are all unknown and whose lists are empty."""
    payload = with_outcomes()
    kept = {"kind", "name", "metric", "layer", "main", "items", "higher_is_better", "n", "margin"}
    for row in payload["outcomes"]:
        row |= {key: None for key in row if key not in kept} | {"verdict": "not evaluable"}
    for found in payload["outcome_details"]:
        rest = found.keys() - {"kind", "name", "layers", "choices"}
        found |= {key: [] if isinstance(found[key], list) else None for key in rest}
        for row in [*found.get("layers", []), *found.get("choices", [])]:
            row |= {key: None for key in row if key not in ("index", "name", "depth", "key", "title")}
    payload["association"] = {"said": None, "n": None, "spearman": {"value": None}}
    payload["ruler"]["outcomes"] = [mark | {"delta": None, "value": None} for mark in payload["ruler"]["outcomes"]]
    return payload


def no_geometry() -> dict:
    """A probe of layers that geometry never measured."""
    payload = with_outcomes()
    return payload | {"layers": [], "sites": {}, "cross": None, "width": None, "weights": None, "published": None, "nps_curve": None}


def reread() -> dict:
    """Models with tokenizers of their own: bits per byte and no KL; results of several tasks in one detail."""
    payload = with_outcomes()
    spoken = next(found for found in payload["outcome_details"] if found["kind"] == "language")
    spoken |= {"unit": "bits per byte", "base_bits_per_byte": 1.021, "tuned_bits_per_byte": 0.998, "kl": None, "kl_reverse": None,
               "kl_interval": None, "agreement": None, "agreement_interval": None, "most_changed_tokens": []}  # fmt: skip
    task = copy.deepcopy(payload["outcome_details"][-1])
    payload["outcome_details"][-1] |= {"name": "results/", "tasks": [task, task | {"name": "ifeval"}]}
    return payload


ODD = {
    "every kind": with_outcomes,
    "many tasks": many_tasks,
    "hostile": hostile_outcomes,
    "nothing known": nothing_known,
    "no geometry": no_geometry,
    "one block": lambda: with_outcomes(example(blocks=1)),
    "48 blocks": lambda: with_outcomes(example(blocks=48)),
    "nothing changed": lambda: with_outcomes(example(top=0.0)),
    "own tokenizers": reread,
    "no difference at all": lambda: alone(outcome("retrieval", "scifact", "ndcg@10", 0.6, 0.6, 0.0, main=True)),
    "no keys but outcomes": lambda: example() | {"outcomes": [outcome("probe", "a", "accuracy", 0.5, 0.6, 0.01)]},
    "a very long name": lambda: alone(outcome("retrieval", "n" * 300, "m" * 90, 0.5, 0.4, 0.01, main=True)),
}


@pytest.mark.parametrize("case", ODD)
def test_every_odd_payload_renders(case):
    payload = ODD[case]()
    before = json.dumps(payload)
    html = report.render(payload)
    tags = Tags(html)
    assert tags.open == [], "every tag is closed"
    assert json.dumps(payload) == before, "the payload is not touched"
    assert "None" not in re.sub(r"<script.*?</script>", "", html, flags=re.S), "no Python value shows through"
    assert "nan" not in {word.lower() for word in " ".join(tags.text).split()}
    for spec in charts(reading.printable(payload)).values():
        json.dumps(spec, allow_nan=False)


@pytest.mark.parametrize("case", ODD)
def test_the_terminal_fits_eighty_columns(case):
    text = printed(ODD[case]())
    assert max(cell_len(line) for line in text.split("\n")) <= 80
    assert "\x1b" not in text
    assert "None" not in text
    assert "did it help or hurt?" in text


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (outcome("retrieval", "s", "ndcg@10", 0.645, 0.624, 0.013), "worse: −.021 nDCG@10 (−.034 to −.008) on 300 queries"),
        (outcome("probe", "b", "accuracy", 0.91, 0.93, 0.008, n=3080, items="rows"),
         "better: +.020 accuracy (+.012 to +.028) on 3,080 rows"),
        (outcome("language", "w", "loss", 2.4, 2.3, 0.01, higher_is_better=False, items="texts"),
         "better: −.100 loss (−.110 to −.090) on 300 texts"),
        (outcome("retrieval", "n", "map", 0.3, 0.302, 0.006), "equivalent within ±.01: +.002 MAP (−.004 to +.008) on 300 queries"),
        (outcome("retrieval", "n", "mrr@10", 0.3, 0.303, 0.012, detectable=0.018),
         "no difference shown: +.003 MRR@10 (−.009 to +.015) on 300 queries; this many queries would show ±.018 four times in five"),
        (outcome("external", "g", "accuracy", None, None, 0, reason="one item in common"), "not evaluable: one item in common"),
    ],
)  # fmt: skip
def test_a_verdict_is_a_sentence_with_its_interval(row, said):
    assert outcome_words.verdict(row) == said


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (numbers.stated(0.01), ".01"), (numbers.stated(-0.005), "−.005"), (numbers.stated(2), "2"), (numbers.stated(None), "–"),
        (numbers.stated(0.0), "0"), (numbers.amount(23.44), "23.4"), (numbers.amount(2.31), "2.310"), (numbers.amount(None), "–"),
        (numbers.p_value(0.013), "p = .013"), (numbers.p_value(1e-9), "p < .001"), (numbers.p_value(0.9999), "p > .999"),
        (numbers.p_value(1.0), "p = 1"), (numbers.p_value(None), "p –"),
    ],
)  # fmt: skip
def test_numbers_of_outcomes(made, said):
    assert made == said


def test_the_headline_speaks_of_tasks_and_never_of_geometry():
    few = [outcome("retrieval", "scifact", "ndcg@10", 0.645, 0.624, 0.013, main=True),
           outcome("probe", "banking77", "accuracy", 0.91, 0.93, 0.008, main=True),
           outcome("retrieval", "scifact", "map", 0.1, 0.9, 0.01)]  # fmt: skip
    assert outcome_words.headline(few) == (
        "Tuned is worse at scifact (nDCG@10 −.021, 95% −.034 to −.008); tuned is better at banking77 (accuracy +.020, 95% +.012 to +.028)."
    )
    assert outcome_words.headline([]) == ""
    many = outcome_words.headline(many_tasks()["outcomes"])
    assert many.startswith("Of 14 tasks, tuned is worse at 4 (task number 3, task number 6, task number 9 and 1 more); better at 4 (")
    assert many.endswith("After Holm’s correction over 14 tasks, nothing is shown at task number 0.")
    for said in (many, outcome_words.headline(with_outcomes()["outcomes"])):
        assert not re.search(r"cka|block|layer|moved|changed|rewritten", said, flags=re.I)


def test_a_task_is_its_main_metric_at_the_deployed_model():
    deep = [outcome("probe", "b", "accuracy", 0.5, 0.6, 0.01, layer=layer, main=True) for layer in (0, 1, "output", 2)]
    assert [row["layer"] for row in outcome_words.tasks(deep)] == ["output"]
    assert [row["layer"] for row in outcome_words.tasks(deep[:2])] == [1]
    again = outcome("reembedding", "scifact: linear", "ndcg@10", 0.6, 0.5, 0.01, main=True)
    assert outcome_words.tasks([again]) == [], "re-embedding compares two deployments of tuned, not base and tuned"


def test_the_page_says_what_was_measured():
    payload = with_outcomes()
    text = shown(payload)
    for said in (
        payload["headline"], outcome_words.headline(payload["outcomes"]), "Did it help or hurt?", ".645 → .624 nDCG@10",
        "▼ Worse : −.021 nDCG@10 (−.034 to −.008) on 300 queries.",
        "Paired test p < .001; after Holm’s correction over the tasks p = .002.",
        "Each side alone (the weaker test): base [.601, .688], tuned [.580, .667], overlapping although the paired difference is clear.",
        "“No difference shown” is not “preserved”", "Not evaluable : one item in common.",
        "Of 8 places, a linear probe reads better from 4",
        "[+.018, +.034]", payload["association"]["said"], "rank with depth held fixed: collinear with depth",
        "The solver did not converge at block 1 (tuned).", "the probe’s settings alone move its accuracy by .420",
        "Of 300 queries 41 broke", "beyond the first 1,000", "rank 3 → rank 9", "The cheapest choice shown to be as good: a linear bridge.",
        "2.417 → 2.305", "11.2 → 10.0", "KL(tuned ‖ base) .091", "Rome 41%", "1,319 items; 3 were in one file only",
    ):  # fmt: skip
        assert said in text, said
    assert "nothing on this page measured function" not in text
    assert "nothing on this page measured function" in shown(example())
    assert "Did it help or hurt?" not in shown(example())
    assert "did it help or hurt?" not in printed(example())


def test_many_tasks_stand_in_one_table_and_the_telling_ones_in_cards():
    html = report.render(many_tasks())
    cards = re.findall(r'<article class="card">\s*<h3><bdi>(.*?)</bdi>', html)
    assert cards == [*(f"task number {i}" for i in (3, 6, 9, 12, 0)), "task number 2"]
    assert html.count('class="verdict-word worse"') == 5
    assert html.count("not after Holm") == 1
    text = printed(many_tasks())
    assert "and 2 more tasks, in the report" in text
    assert "not shown after Holm's correction over 14 tasks: task number 0" in text


def test_a_layer_answers_both_questions_from_its_own_rows():
    """The change is the comparison's, the difference the probe's; the deployed embedding is the site of that name."""
    payload = with_outcomes()
    rows = {row["name"]: row for row in two_questions.rows(payload, two_questions.probes(payload)[0])}
    for row in payload["layers"]:
        cka = row["measures"]["cka"]
        assert rows[row["name"]]["change"] == cka["change"]
        assert rows[row["name"]]["change_low"] == pytest.approx(1 - cka["high"])
    assert rows["output"]["change"] == payload["sites"]["output"]["measures"]["cka"]["change"]
    drawn = charts(payload)["two_questions_0"]["datasets"]
    points = {point["layer"]: point for points in drawn.values() for point in points if "layer" in point}
    assert {name: (point["x"], point["y"]) for name, point in points.items()} == {n: (r["change"], r["delta"]) for n, r in rows.items()}


def test_labels_meet_neither_points_nor_lines_nor_each_other():
    points = [(20.0 + 9 * i, 100.0 + 6 * (i % 2)) for i in range(20)] + [(300.0, 50.0)]
    words = [str(i) for i in range(20)] + ["output"]
    offsets = point_labels.place(points, words, width=330, height=200, lines=[50.0])
    assert offsets[-1] is not None
    boxes = [(x + dx, y + dy, 6.1 * len(word) + 4, 13.0)
             for (x, y), word, offset in zip(points, words, offsets, strict=True) if offset for dx, dy in [offset]]  # fmt: skip
    for i, (x, y, width, height) in enumerate(boxes):
        assert width / 2 <= x <= 330 - width / 2
        assert abs(y - 50) >= height / 2
        for a, b, wide, high in boxes[:i]:
            assert abs(a - x) * 2 >= wide + width or abs(b - y) * 2 >= high + height


def test_strangers_strings_are_shown_not_run():
    html = report.render(hostile_outcomes())
    outside = re.sub(r"<script.*?</script>", "", html, flags=re.S)
    scripts = [attrs for tag, attrs in Tags(html).tags if tag == "script"]
    assert len(scripts) == 5, "the page's own scripts and no other"
    assert "<script>alert" not in html
    assert "<img" not in outside
    for tag, attrs in Tags(html).tags:
        assert tag != "img"
        assert not any(name.startswith("on") for name in attrs)
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert HOSTILE_TEXT in "".join(Tags(html).text)


def test_figures_of_outcomes_are_named_and_titled(tmp_path):
    payload = with_outcomes()
    payload["layers"] = payload["layers"][:3]
    keep = {"outcomes", "outcome_details", "ruler", "layers", "base", "tuned", "measures", "default_measure", "sites", "data"}
    payload = {key: value for key, value in payload.items() if key in keep}
    payload["measures"] = {"cka": payload["measures"]["cka"]}
    names = {path.stem for path in report.figures(payload, tmp_path)}
    made = {f"outcome_{i}" for i in (0, 1, 2, 3, 5)} | {"two_questions_0", "ruler_outcome_0"} | {f"probe_surface_0_{i}" for i in range(3)}
    assert made <= names
    for name in made:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "worse: −.021 nDCG@10" in (tmp_path / "outcome_0.svg").read_text(encoding="utf-8")
    assert "Changed? Helped? banking77" in (tmp_path / "two_questions_0.svg").read_text(encoding="utf-8")


def test_hostile_labels_do_not_stop_the_drawing(tmp_path):
    payload = hostile_outcomes() | {"layers": [], "measures": {}, "cross": None, "text_sets": None, "published": None, "weights": None}
    assert {path.stem for path in report.figures(payload, tmp_path)} >= {"outcome_0", "ruler_outcome_0", "probe_surface_0_0"}
