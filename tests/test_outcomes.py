"""Outcomes inside a comparison: what is asked is checked before models run, every task is in the payload, planted effects are read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

import tunescope as ts
from tiny_models import WORDS, adapted, save_adapter, save_model, tiny_model, tokenizer_for
from tunescope.cli import app
from tunescope.comparison.ruler_outcomes import smaller
from tunescope.comparison.tasks import MARGINS, margins_of
from tunescope.errors import InputError, TextsError, TunescopeError, UnknownName
from tunescope.models.heads import NoLanguageHead
from tunescope.texts.collections import Collection

KEYS = {"kind", "name", "metric", "layer", "base", "tuned", "delta", "low", "high", "p", "n", "margin", "higher_is_better", "verdict"}
N = 80


def sentences(n: int, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, size=draw.integers(4, 12))) for _ in range(n)]


def table(path, n: int = N, seed: int = 0, column: str = "topic"):
    """Texts of two topics, each with its own word in front."""
    rows = [{"text": f"{WORDS[i % 2]} {text}", column: f"topic {i % 2}"} for i, text in enumerate(sentences(n, seed))]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def collection(n: int = 40) -> Collection:
    texts = sentences(n, seed=3)
    documents = {f"d{i}": text for i, text in enumerate(texts)}
    return Collection.of(documents, {f"q{i}": texts[i] for i in range(12)}, {f"q{i}": {f"d{i}": 1} for i in range(12)}, name="words")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A BERT with its language-model head and a LoRA adapter on it, as folders."""
    folder = tmp_path_factory.mktemp("pair")
    base = save_model(folder / "base", "bert", head="mlm")
    return base, save_adapter(folder / "adapter", base)


@pytest.fixture(scope="module")
def everything(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    scores = folder / "scores.csv"
    scores.write_text("id,base,tuned\n" + "".join(f"q{i},{i % 2},1\n" for i in range(40)))
    labelled, test, texts = table(folder / "train.jsonl"), table(folder / "test.jsonl", 40, seed=1), folder / "held.txt"
    texts.write_text("\n".join(sentences(20, seed=2)) + "\n")
    options = {"labels": "topic", "test": test, "audit": True, "lm": texts, "results": f"acc={scores}", "retrieval": collection()}
    return ts.diff(*map(str, pair), labelled, device="cpu", ruler=True, **options)


def test_every_task_gives_rows_and_a_detail_of_its_own(everything):
    payload = everything.payload
    assert [row for row in payload["outcomes"] if set(row) < KEYS] == []
    assert {row["kind"] for row in payload["outcomes"]} == {"retrieval", "reembedding", "probe", "language", "external"}
    assert {detail["kind"] for detail in payload["outcome_details"]} == {row["kind"] for row in payload["outcomes"]}
    names = {(row["kind"], row["name"]) for row in payload["outcomes"] if row["kind"] != "reembedding"}
    assert names == {("retrieval", "words"), ("probe", "topic"), ("language", "held"), ("external", "scores")}
    json.dumps(payload, allow_nan=False)


def test_a_comparison_with_outcomes_does_not_say_that_none_were_measured(everything, pair):
    without = ts.diff(*map(str, pair), sentences(30), device="cpu").payload
    said = "Nothing was measured about"
    assert said in without["headline"]
    assert any(said in note for note in without["notes"])
    assert said not in everything.headline
    assert not any(said in note for note in everything.payload["notes"])
    assert not any(without[key] for key in ("outcomes", "outcome_details", "outcome_headline"))
    assert everything.payload["outcome_headline"]


def test_holm_is_over_the_main_rows_of_the_tasks(everything):
    mains = [row for row in everything.outcomes if row["main"] and row["kind"] != "reembedding"]
    p, found = [row["p"] for row in mains], [row["p_holm"] for row in mains]
    order, m = np.argsort(p), len(p)
    assert m == 4
    by_hand = np.minimum(1, np.maximum.accumulate(np.sort(p) * np.arange(m, 0, -1)))
    np.testing.assert_allclose(np.array(found)[order], by_hand)
    assert all(row["p_holm"] is None for row in everything.outcomes if row not in mains)


def test_power_is_planned_from_a_saved_result(everything, tmp_path):
    everything.save(tmp_path / "out")
    done = CliRunner().invoke(app, ["power", str(tmp_path / "out"), "--effect", ".01"])
    assert done.exit_code == 0, done.output
    assert "words" in done.stdout
    assert "texts" in done.stdout


def test_the_length_asked_for_is_the_length_of_every_task(pair):
    found = ts.diff(*map(str, pair), sentences(20), max_length=6, retrieval=collection(), lm={"held": sentences(9, 2)}, device="cpu")
    lengths = {detail["kind"]: detail.get("max_length") for detail in found.payload["outcome_details"]}
    assert lengths["retrieval"] == lengths["language"] == 6


def test_tasks_of_one_name_stay_apart(tmp_path):
    for folder, tuned in (("x", 0), ("y", 1)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.csv").write_text("id,base,tuned\n" + "".join(f"q{i},0,{tuned}\n" for i in range(30)))
    rows = np.random.default_rng(0).normal(size=(30, 4))
    found = ts.diff(rows, rows + 0.1, results=[f"acc={tmp_path}/x/s.csv", f"+acc={tmp_path}/y/s.csv"])
    assert [(row["name"], row["verdict"]) for row in found.outcomes] == [("s", "no difference shown"), ("s (2)", "better")]
    assert "s (2)" in found.payload["outcome_headline"]


def test_a_metric_of_one_s_own_is_given_its_direction_by_a_sign(tmp_path):
    (tmp_path / "s.csv").write_text("id,base,tuned\n" + "".join(f"q{i},1,0\n" for i in range(30)))
    rows = np.random.default_rng(0).normal(size=(30, 4))
    (row,) = ts.diff(rows, rows + 0.1, results=f"-slips={tmp_path}/s.csv").outcomes
    assert (row["metric"], row["higher_is_better"], row["verdict"]) == ("slips", False, "better")
    with pytest.raises(InputError, match="--results .slips=FILES where more is better"):
        ts.diff(rows, rows + 0.1, results=f"slips={tmp_path}/s.csv")


def test_a_collection_too_small_for_bridges_is_searched_all_the_same(pair):
    three = Collection.of({f"d{i}": text for i, text in enumerate(sentences(3))}, {"q": "the cat"}, {"q": {"d0": 1}})
    found = ts.diff(*map(str, pair), sentences(20), retrieval=three, device="cpu")
    assert {row["kind"] for row in found.outcomes} == {"retrieval"}
    assert found.outcomes[0]["reason"] == "a difference is judged over two queries or more, got 1"


def test_results_of_elsewhere_are_the_file_s_own_numbers(everything):
    row = next(row for row in everything.outcomes if row["kind"] == "external")
    assert (row["base"], row["tuned"], row["n"], row["metric"], row["verdict"]) == (0.5, 1.0, 40, "acc", "better")


def test_probes_stand_at_every_layer_and_the_output_on_the_rows_that_were_read(everything, pair):
    """The output's accuracy is scikit-learn's on rows captured anew, with the C that was chosen."""
    detail = next(detail for detail in everything.payload["outcome_details"] if detail["kind"] == "probe")
    depth = len(everything.payload["layers"])
    assert [row["name"] for row in detail["layers"]] == [row["name"] for row in everything.payload["layers"]] + ["output"]
    assert (len(detail["layers"]), detail["train"], detail["test"]) == (depth + 1, N, 40)
    model = ts.load_model(str(pair[0]), device="cpu")
    labels = np.array([i % 2 for i in range(N)])
    texts = [f"{WORDS[i % 2]} {text}" for i, text in enumerate(sentences(N))]
    held = [f"{WORDS[i % 2]} {text}" for i, text in enumerate(sentences(40, 1))]
    x, t = (ts.capture(model, given).sites["output"].numpy() for given in (texts, held))
    scale = StandardScaler().fit(x)
    C = detail["layers"][-1]["base"]["C"]
    oracle = LogisticRegression(C=C, max_iter=5000, tol=1e-8).fit(scale.transform(x), labels)
    right = oracle.score(scale.transform(t), labels[:40])
    assert abs(detail["layers"][-1]["base"]["accuracy"] - right) <= 1 / 40  # one row at the boundary


def test_the_audit_stands_beside_the_probe_and_on_the_page(everything):
    detail = next(detail for detail in everything.payload["outcome_details"] if detail["kind"] == "probe")
    audit = detail["audit"]
    assert np.shape(audit["accuracy"]) == (len(audit["scalings"]), len(audit["rows"]), len(audit["Cs"]))
    assert sum(audit["parts"].values()) == pytest.approx(audit["swing"])  # Shapley shares add up
    assert "How much is the probe’s own doing?" in everything.html()


def test_the_ruler_is_told_in_outcome_units_too(everything):
    found = everything.payload["ruler"]["outcomes"]
    assert {(row["kind"], row["name"]) for row in found} == {("retrieval", "words"), ("language", "held")}
    labels = [row["label"] for row in found if row["kind"] == "language"]
    assert labels[-1] == "the tuned model"
    assert len(labels) == len(everything.payload["ruler"]["marks"]) + 1
    for row in found:
        assert row["delta"] == pytest.approx(row["value"] - row["base"])
    noise = [abs(row["delta"]) for row in found if row["kind"] == "language" and row["label"].startswith("gaussian")]
    assert noise[0] < noise[-1]  # σ = .005 against σ = .32


def test_change_and_gain_are_associated_with_depth_held_fixed(tmp_path):
    """Over six layers whose change grows with depth, the rank partial is undefined and says so."""
    draw = np.random.default_rng(0)
    base = draw.normal(size=(6, 120, 10))
    tuned = base + np.arange(6)[:, None, None] * 0.3 * draw.normal(size=base.shape)
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"text {i}", "kind": "ab"[i % 2]}) for i in range(120)) + "\n")
    found = ts.diff(base, tuned, path, labels="kind").payload["association"]
    assert found["n"] == 6
    assert found["partial_rank"] == {"value": None, "p": None, "reason": "collinear with depth"}
    assert found["said"].startswith("Over 6 layers, change and gain correlate at ")


def test_rows_that_gained_the_classes_read_better_and_the_others_do_not(tmp_path):
    draw = np.random.default_rng(0)
    n, d = 400, 12
    labels = draw.integers(0, 3, n)
    base = draw.normal(size=(n, d))
    tuned = base + 2 * np.eye(d)[labels]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"text {i}", "kind": f"k{label}"}) for i, label in enumerate(labels)) + "\n")
    (row,) = [row for row in ts.diff(base, tuned, path, labels="kind").outcomes if row["main"]]
    assert row["verdict"] == "better"
    assert row["base"] < 0.5 < 0.85 < row["tuned"]
    (row,) = [row for row in ts.diff(base, base.copy(), path, labels="kind").outcomes if row["main"]]
    assert (row["delta"], row["p"]) == (0.0, 1.0)
    assert row["verdict"] in ("no difference shown", "equivalent")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"labels": "topics"}, UnknownName, "unknown column of labels in .*'topics'; did you mean topic"),
        ({"test": "x.jsonl"}, InputError, "a test file was given without labels"),
        ({"audit": True}, InputError, "an audit of the probe was asked for without labels"),
        ({"query_prompt": "q: "}, InputError, "none was given .--retrieval FOLDER"),
        ({"retrieval": "no/such/folder"}, TextsError, "no/such/folder"),
        ({"lm": "no-such.txt"}, TextsError, "no-such.txt: no such file"),
        ({"results": "no-such.csv"}, TunescopeError, "no-such.csv"),
        ({"margin": {"probes": 0.1}}, UnknownName, "unknown kind of outcome in margin 'probes'"),
        ({"margin": -1.0}, InputError, "margin -1.0 asked for"),
        ({"margin": "a lot"}, InputError, "margin 'a lot' asked for"),
        ({"labels": "topic", "pooling": "none"}, InputError, "labels are of whole texts"),
        ({"labels": "topic", "method": "stream"}, InputError, "labels are of whole texts"),
        ({"lm": "held.txt", "one_at_a_time": True}, InputError, "lm asked for: both models must read further texts"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line_before_models_read(pair, tmp_path, monkeypatch, options, error, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tunescope.comparison.reader.capture", None)  # no text is read by a model
    with pytest.raises(error, match=said) as raised:
        ts.diff(*map(str, pair), table(tmp_path / "t.jsonl"), device="cpu", **options)
    assert "\n" not in str(raised.value)


def test_a_model_without_a_head_is_refused_before_it_reads(tmp_path, monkeypatch):
    base = save_model(tmp_path / "base", "bert")
    monkeypatch.setattr("tunescope.comparison.reader.capture", None)
    with pytest.raises(NoLanguageHead, match="has no language-model head.*measure retrieval or probes"):
        ts.diff(str(base), str(save_adapter(tmp_path / "a", base)), sentences(20), lm={"held": sentences(9)}, device="cpu")


def test_rows_without_a_model_cannot_read_further_texts():
    rows = np.random.default_rng(0).normal(size=(30, 4))
    with pytest.raises(InputError, match="retrieval asked for: only models can read further texts"):
        ts.diff(rows, rows + 0.1, retrieval=collection())


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, MARGINS),
        (0.05, dict.fromkeys(MARGINS, 0.05)),
        ("0.05", dict.fromkeys(MARGINS, 0.05)),
        ("retrieval=.02, probe=.03", MARGINS | {"retrieval": 0.02, "probe": 0.03}),
        ({"language": 1}, MARGINS | {"language": 1.0}),
    ],
)
def test_a_margin_is_one_number_or_one_a_kind(given, found):
    assert margins_of(given) == found


def test_a_smaller_collection_keeps_every_judged_passage_of_its_queries():
    whole = collection(40)
    part = smaller(whole, queries=5, passages=11)
    assert (len(part.query_ids), len(part.doc_ids)) == (5, 11)
    assert set(part.qrels) == set(part.query_ids) < set(whole.query_ids)
    assert all(set(row) <= set(part.doc_ids) for row in part.qrels.values())
    assert smaller(whole, queries=99, passages=99) is whole
    rare = Collection.of({"d": "a", "e": "b"}, {f"q{i}": "c" for i in range(50)}, {f"q{i}": {"d": int(i == 7)} for i in range(50)})
    assert smaller(rare, queries=3, passages=2).query_ids == ("q7",)


def test_the_command_line_measures_and_prints_both_answers(pair, tmp_path):
    held = tmp_path / "held.txt"
    held.write_text("\n".join(sentences(12, seed=2)) + "\n")
    command = ["diff", *map(str, pair), "--texts", str(table(tmp_path / "t.jsonl")), "--labels", "topic", "--lm", str(held)]
    done = CliRunner().invoke(app, [*command, "--device", "cpu", "--out", str(tmp_path / "out"), "--margin", "probe=.05"])
    assert done.exit_code == 0, done.output
    assert "did it help or hurt" in done.stdout
    saved = ts.load(tmp_path / "out")
    assert {row["kind"] for row in saved.outcomes} == {"probe", "language"}
    assert {row["margin"] for row in saved.outcomes if row["kind"] == "probe"} == {0.05}
    assert "Did it help or hurt" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_loaded_models_are_measured_as_folders_are():
    tokenizer, base = tokenizer_for("gpt2"), tiny_model("gpt2", head="lm")
    tuned = adapted(tiny_model("gpt2", head="lm"), target_modules=["c_attn"])
    found = ts.diff((base, tokenizer), (tuned, tokenizer), sentences(30), lm={"held": sentences(9, 2)})
    (row,) = [row for row in found.outcomes if row["main"]]
    assert (row["kind"], row["metric"], row["n"]) == ("language", "loss", 9)


def test_controls_are_judged_by_the_same_queries_as_the_tuned_model(pair):
    base, tuned = ts.load_pair(*map(str, pair), device="cpu")
    control, asked = ts.perturb(base, kind="gaussian", sigma=0.3, name="noise"), collection()
    payload = ts.diff(base, tuned, sentences(30), measures=["nps", "cka"], controls=[control], retrieval=asked).payload
    (found,) = payload["controls"]
    alone = ts.retrieval(base, control, asked).outcomes[0].row()
    own = ("name", "metric", "base", "tuned", "delta", "low", "high", "p", "n", "verdict")
    assert [found["outcomes"][0][key] for key in own] == [alone[key] for key in own]
    rows = [ts.capture(model, sentences(30)).sites["output"] for model in (base, control)]
    assert found["sites"]["output"]["measures"]["nps"]["value"] == pytest.approx(ts.nps(*rows), abs=1e-12)


def test_controls_without_tasks_have_no_outcomes(pair):
    base, tuned = ts.load_pair(*map(str, pair), device="cpu")
    payload = ts.diff(base, tuned, sentences(30), measures=["cka"], controls=[ts.perturb(base, kind="gaussian", sigma=0.3)]).payload
    assert payload["controls"][0]["outcomes"] == []
