"""Results measured elsewhere: files as lm-evaluation-harness 0.4, Inspect 0.3 and MTEB 2 write them, with planted scores."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pytest

import tunescope as ts
from tunescope.errors import AlignmentError, FormatError, InputError, UnknownName

TIME = "2026-01-02T03-04-05.678901"
BASE = [0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]
TUNED = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]


def sha(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


# lm-evaluation-harness


def sample(doc: int, metrics: dict, *, filtered: str = "none", text: str | None = None, prompt: str = "") -> dict:
    """One line of a samples file, as lm_eval.evaluator.evaluate and EvaluationTracker.save_results_samples make it."""
    said = text or f"question {doc}"
    head = {"doc_id": doc, "doc": {"question": said}, "target": "0", "arguments": {"gen_args_0": {"arg_0": prompt + said, "arg_1": " yes"}}}
    answers = {"resps": [[["-1.5", "True"]]], "filtered_resps": [["-1.5", "True"]], "filter": filtered, "metrics": list(metrics)}
    return {**head, **answers, "doc_hash": sha(said), "prompt_hash": sha(prompt + said), "target_hash": sha("0"), **metrics}


def samples(folder: Path, task: str, lines: list[dict], *, time: str = TIME) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"samples_{task}_{time}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def accuracies(scores: list[float], **more) -> list[dict]:
    return [sample(doc, {"acc": score, "acc_norm": score}, **more) for doc, score in enumerate(scores)]


def test_a_samples_file_a_side_is_an_outcome_a_metric(tmp_path):
    base = samples(tmp_path / "b" / "org__model", "arc_easy", accuracies(BASE))
    tuned = samples(tmp_path / "t" / "org__tuned", "arc_easy", accuracies(TUNED)[::-1])  # the order of the lines says nothing
    result = ts.external_results(base, tuned, margin=0.05)
    assert [(row.name, row.metric, row.main, row.n, row.kind) for row in result.outcomes] == [
        ("arc_easy", "acc", True, 8, "external"),
        ("arc_easy", "acc_norm", False, 8, "external"),
    ]
    main = result.outcomes[0]
    assert (main.base, main.tuned, main.delta) == pytest.approx((np.mean(BASE), np.mean(TUNED), np.mean(TUNED) - np.mean(BASE)))
    assert (main.margin, main.higher_is_better, result.reader) == (0.05, True, "lm-eval")
    assert result.tasks[0].ids == tuple("01234567")
    np.testing.assert_array_equal(result.tasks[0].tuned, TUNED)


def test_the_detail_lists_the_items_that_changed_worse_first(tmp_path):
    result = ts.external_results(samples(tmp_path / "b", "t", accuracies(BASE)), samples(tmp_path / "t", "t", accuracies(TUNED)[1:]))
    detail = result.detail
    assert json.loads(json.dumps(detail, allow_nan=False)) == detail
    assert (detail["kind"], detail["name"], detail["reader"], detail["items"], detail["unmatched"]) == ("external", "t", "lm-eval", 7, 1)
    assert detail["most_changed"] == [
        {"id": "2", "base": 1.0, "tuned": 0.0, "delta": -1.0},
        {"id": "5", "base": 0.0, "tuned": 1.0, "delta": 1.0},
    ]
    assert any("1 scored only in" in text and "('0') and left out" in text for text in result.warnings)


def test_a_folder_holds_several_tasks(tmp_path):
    for side, scores in (("b", BASE), ("t", TUNED)):
        samples(tmp_path / side / "org__model", "mmlu_anatomy", accuracies(scores))
        samples(tmp_path / side / "org__model", "hellaswag", accuracies(scores[::-1]))
    samples(tmp_path / "t" / "org__model", "only_here", accuracies(BASE))
    result = ts.external_results(tmp_path / "b", tmp_path / "t")
    assert [(row.name, row.metric) for row in result.outcomes if row.main] == [("hellaswag", "acc"), ("mmlu_anatomy", "acc")]
    assert [detail["name"] for detail in result.details] == ["hellaswag", "mmlu_anatomy"]
    assert (result.detail["items"], len(result.detail["tasks"])) == (16, 2)
    assert result.detail["most_changed"][0]["id"] == "hellaswag: 5"  # item 5 of the reversed scores is item 2
    assert "measured on the tuned side only and left out: only_here acc, only_here acc_norm" in result.warnings


def test_filters_are_metrics_of_their_own(tmp_path):
    def lines(strict, flexible):
        found = [sample(doc, {"exact_match": score}, filtered="strict-match") for doc, score in enumerate(strict)]
        return found + [sample(doc, {"exact_match": score}, filtered="flexible-extract") for doc, score in enumerate(flexible)]

    base, tuned = samples(tmp_path / "b", "gsm8k", lines(BASE, TUNED)), samples(tmp_path / "t", "gsm8k", lines(TUNED, BASE))
    result = ts.external_results(base, tuned)
    assert [row.metric for row in result.outcomes] == ["exact_match,strict-match", "exact_match,flexible-extract"]
    assert result.outcomes[0].delta == pytest.approx(-result.outcomes[1].delta)
    (only,) = ts.external_results(base, tuned, metric="exact_match,flexible-extract").outcomes
    assert only.main
    assert len(ts.external_results(base, tuned, metric="exact_match").outcomes) == 2


def test_perplexities_are_those_of_the_harness(tmp_path):
    """exp(−Σ ll / Σ words) and the like (lm_eval.api.metrics), from per-item scores whose plain mean gives them."""
    words, bytes_ = [3, 10, 7], [14, 52, 31]
    sides = {"b": [-9.0, -31.5, -20.25], "t": [-8.0, -30.0, -22.5]}
    for side, lls in sides.items():
        rows = [
            sample(doc, {"word_perplexity": [ll, w], "byte_perplexity": [ll, b], "bits_per_byte": [ll, b]})
            for doc, (ll, w, b) in enumerate(zip(lls, words, bytes_, strict=True))
        ]
        samples(tmp_path / side, "wikitext", rows)
        samples(tmp_path / side, "lambada", [sample(doc, {"perplexity": ll, "acc": 1}) for doc, ll in enumerate(lls)])
    rows = {row.metric: row for row in ts.external_results(tmp_path / "b", tmp_path / "t").outcomes}
    for attribute, lls in (("base", sides["b"]), ("tuned", sides["t"])):
        assert math.exp(getattr(rows["log_word_perplexity"], attribute)) == pytest.approx(math.exp(-sum(lls) / sum(words)))
        assert math.exp(getattr(rows["log_byte_perplexity"], attribute)) == pytest.approx(math.exp(-sum(lls) / sum(bytes_)))
        assert getattr(rows["bits_per_byte"], attribute) == pytest.approx(-sum(lls) / sum(bytes_) / math.log(2))
        assert math.exp(getattr(rows["log_perplexity"], attribute)) == pytest.approx(math.exp(-np.mean(lls)))
    (only,) = ts.external_results(tmp_path / "b" / f"samples_wikitext_{TIME}.jsonl", tmp_path / "t" / f"samples_wikitext_{TIME}.jsonl",
                                  metric="word_perplexity").outcomes  # fmt: skip
    assert (only.metric, only.base) == ("log_word_perplexity", rows["log_word_perplexity"].base)
    assert [rows[name].higher_is_better for name in ("log_word_perplexity", "bits_per_byte", "log_perplexity")] == [False] * 3


def test_a_corpus_metric_without_item_scores_is_left_out_and_said(tmp_path):
    for side in "bt":
        samples(tmp_path / side, "mrpc", [sample(doc, {"acc": 1.0, "f1": [1, 0]}) for doc in range(3)])
    result = ts.external_results(tmp_path / "b", tmp_path / "t")
    assert [row.metric for row in result.outcomes] == ["acc"]
    assert "mrpc: 'f1' is left out: the harness computes it over all items at once, no item has a score" in result.warnings


def test_the_results_file_says_the_direction(tmp_path):
    for side, score in (("b", 0.2), ("t", 0.9)):
        samples(tmp_path / side, "mine", [sample(doc, {"toxicity": score + doc**2 * score / 1000}) for doc in range(30)])
        results = {"results": {}, "higher_is_better": {"mine": {"toxicity": False}}}
        (tmp_path / side / f"results_{TIME}.json").write_text(json.dumps(results), encoding="utf-8")
    (row,) = ts.external_results(tmp_path / "b", tmp_path / "t").outcomes
    assert (row.higher_is_better, row.verdict) == (False, "worse")


def test_a_margin_makes_equivalence_possible():
    """1,000 equal items of which 10 change each way: the mean stays within .05 of 0 by any test."""
    scores = np.tile([0.0, 1.0], 500)
    later = scores.copy()
    later[:20] = 1 - later[:20]
    base, tuned = ({str(row): float(value) for row, value in enumerate(side)} for side in (scores, later))
    assert ts.external_results(base, tuned, metric="acc", margin=0.05).outcomes[0].verdict == "equivalent"
    assert ts.external_results(base, tuned, metric="acc").outcomes[0].verdict == "no difference shown"


def test_the_newest_of_two_runs_is_read_and_said(tmp_path):
    samples(tmp_path / "b", "t", accuracies(BASE))
    samples(tmp_path / "b", "t", accuracies(TUNED), time="2026-02-02T03-04-05.678901")
    samples(tmp_path / "t", "t", accuracies(TUNED))
    result = ts.external_results(tmp_path / "b", tmp_path / "t")
    assert result.outcomes[0].delta == 0
    assert any("is read, the newest of 2 runs" in text for text in result.warnings)


def test_another_prompt_is_said(tmp_path):
    base = samples(tmp_path / "b", "t", accuracies(BASE))
    tuned = samples(tmp_path / "t", "t", accuracies(TUNED, prompt="<|user|>"))
    assert "t: 8 of 8 items have another prompt on each side" in ts.external_results(base, tuned).warnings[0]


def test_another_text_under_the_same_id_is_refused(tmp_path):
    lines = accuracies(TUNED)
    lines[3] = sample(3, {"acc": 1.0, "acc_norm": 1.0}, text="another question")
    base, tuned = samples(tmp_path / "b", "t", accuracies(BASE)), samples(tmp_path / "t", "t", lines)
    with pytest.raises(AlignmentError, match=r"t: item '3' is not the same on both sides: doc_hash '.* \(only this item differs\)"):
        ts.external_results(base, tuned)


def broken(line: dict, **change) -> dict:
    return {**line, **change}


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda lines: [*lines, lines[2]], InputError, r"item '2' is there twice \(line 3 and line 9\)"),
        (lambda lines: [*lines[:1], broken(lines[1], acc=math.nan), *lines[2:]], InputError, r"line 2: acc is nan, not a finite number"),
        (lambda lines: [*lines[:1], broken(lines[1], acc="yes"), *lines[2:]], InputError, r"line 2: acc is 'yes', not a number"),
        (lambda lines: [*lines[:1], broken(lines[1], acc=None), *lines[2:]], InputError, r"line 2: acc is missing, not a number"),
        (lambda lines: [], FormatError, "no items in it; was the evaluation cut short"),
        (lambda lines: [{"question": "?"}], FormatError, "line 1: no doc_id"),
    ],
    ids=["twice", "nan", "word", "null", "empty", "other"],
)
def test_a_broken_samples_file_is_refused_with_its_line(tmp_path, change, kind, said):
    good, bad = samples(tmp_path / "b", "t", accuracies(BASE)), samples(tmp_path / "t", "t", change(accuracies(TUNED)))
    with pytest.raises(kind, match=said) as error:
        ts.external_results(good, bad)
    assert str(bad) in str(error.value)


def test_a_metric_that_was_not_asked_for_may_be_broken(tmp_path):
    lines = accuracies(TUNED)
    lines[1]["acc_norm"] = math.nan
    base, tuned = samples(tmp_path / "b", "t", accuracies(BASE)), samples(tmp_path / "t", "t", lines)
    assert [row.metric for row in ts.external_results(base, tuned, metric="acc").outcomes] == ["acc"]
    with pytest.raises(InputError, match="line 2: acc_norm is nan"):
        ts.external_results(base, tuned)


def test_a_line_that_was_cut_is_named(tmp_path):
    path = samples(tmp_path, "t", accuracies(BASE))
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    with pytest.raises(FormatError, match=r"line 8: not JSON \(.*\); was the evaluation cut short\?"):
        ts.external_results(path, path)
    path.write_bytes(path.read_bytes().replace(b"question 3", b"questi\xf6n 3"))
    with pytest.raises(FormatError, match=r"line 4: not JSON \(not UTF-8\)"):
        ts.external_results(path, path)


def test_two_models_in_a_folder_are_refused(tmp_path):
    samples(tmp_path / "org__a", "t", accuracies(BASE))
    samples(tmp_path / "org__b", "t", accuracies(BASE))
    with pytest.raises(InputError, match=r"the logs of 2 models or runs are in it \(org__a, org__b\); name one of these folders"):
        ts.external_results(tmp_path, tmp_path)


def test_results_that_are_means_only_are_refused(tmp_path):
    path = tmp_path / f"results_{TIME}.json"
    path.write_text(json.dumps({"results": {"arc_easy": {"acc,none": 0.5}}}), encoding="utf-8")
    with pytest.raises(FormatError, match=r"neither a log of Inspect nor a result of MTEB.*with --log_samples"):
        ts.external_results(path, path)


# Inspect


def inspect_log(values: dict[str, object], *, model: str, scorer: str = "match", epoch: int = 1, status: str = "success") -> dict:
    """A log as `inspect eval --log-format json` writes it, cut to what has a bearing here."""
    kept = [
        {
            "id": item,
            "epoch": epoch,
            "input": [{"id": sha((model, item))[:8], "content": f"Say {item}.", "source": "input", "role": "user"}],
            "target": "1",
            "messages": [],
            "scores": None if value == "error" else {scorer: {"value": value, "answer": "1", "explanation": "1", "history": []}},
        }
        for item, value in values.items()
    ]
    spec = {"eval_id": "x", "created": "2026-01-02T03:04:05+00:00", "task": "echo", "model": model, "dataset": {}, "config": {}}
    return {"version": 2, "status": status, "eval": spec, "plan": {}, "results": {}, "stats": {}, "samples": kept}


def as_json(path: Path, log: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(log, indent=2), encoding="utf-8")
    return path


def as_eval(path: Path, log: dict, *, zstd: bool = True) -> Path:
    """The same log as .eval: a zip with header.json and summaries.json, compressed with Zstandard in frames (today) or deflate (before)."""
    members = {"header.json": {key: part for key, part in log.items() if key != "samples"}, "summaries.json": log["samples"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    if not zstd:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, part in members.items():
                archive.writestr(name, json.dumps(part))
        return path
    codec, body, directory = pyarrow.Codec("zstd"), b"", b""
    for name, part in members.items():
        data = json.dumps(part).encode()
        packed = b"".join(codec.compress(piece, asbytes=True) for piece in (data[:100], data[100:]))
        fields = struct.pack("<HHHHHIIIHH", 63, 0, 93, 0, 33, zlib.crc32(data), len(packed), len(data), len(name), 0)  # APPNOTE 4.3.7
        directory += b"PK\1\2" + struct.pack("<H", 63) + fields + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name.encode()
        body += b"PK\3\4" + fields + name.encode() + packed
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 2, 2, len(directory), len(body), 0)
    path.write_bytes(body + directory + end)
    return path


GRADES = {"a": "C", "b": "I", "c": "P", "d": "N", "e": "C"}
LATER = {"a": "C", "b": "C", "c": "C", "d": "I", "e": "C"}


@pytest.mark.parametrize("write", [as_json, as_eval, lambda path, log: as_eval(path, log, zstd=False)], ids=["json", "zstd", "deflate"])
def test_inspect_logs_count_grades_as_inspect_does(tmp_path, write):
    suffix = ".json" if write is as_json else ".eval"
    base = write(tmp_path / f"b{suffix}", inspect_log(GRADES, model="base"))
    tuned = write(tmp_path / f"t{suffix}", inspect_log(LATER, model="tuned"))
    result = ts.external_results(base, tuned)
    (row,) = result.outcomes
    assert (row.name, row.metric, row.n, row.higher_is_better, result.reader) == ("echo", "match", 5, True, "inspect")
    np.testing.assert_array_equal(result.tasks[0].base, [1, 0, 0.5, 0, 1])
    np.testing.assert_array_equal(result.tasks[0].tuned, [1, 1, 1, 0, 1])


def test_a_eval_and_a_json_of_one_task_go_together(tmp_path):
    base = as_eval(tmp_path / "b" / "log.eval", inspect_log(GRADES, model="base"))
    as_json(tmp_path / "t" / "log.json", inspect_log(LATER, model="tuned"))
    assert ts.external_results(base.parent, tmp_path / "t").outcomes[0].delta == pytest.approx(1.5 / 5)


def test_epochs_are_averaged_and_samples_without_a_score_counted(tmp_path):
    log = inspect_log({"a": 1.0, "b": 0.0, "c": math.nan, "d": "error"}, model="base", scorer="f1", status="error")
    log["samples"] += inspect_log({"a": 0.5, "b": 0.0, "c": 1.0, "d": "error"}, model="base", scorer="f1", epoch=2)["samples"]
    base = as_json(tmp_path / "b.json", log)
    tuned = as_json(tmp_path / "t.json", inspect_log({"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0}, model="tuned", scorer="f1"))
    result = ts.external_results(base, tuned)
    np.testing.assert_array_equal(result.tasks[0].base, [0.75, 0.0, 1.0])
    assert result.detail["unmatched"] == 1
    said = "\n".join(result.warnings)
    assert "an item's score is the mean of its 2 epochs" in said
    assert f"1 without a score in {base} and left out" in said
    assert "has the status 'error': not all samples may be in it" in said


def test_a_scorer_of_several_values_is_several_metrics(tmp_path):
    one = {"a": {"recall": 0.5, "verbosity": 3}, "b": {"recall": 1.0, "verbosity": 4}}
    base = as_json(tmp_path / "b.json", inspect_log(one, model="base", scorer="rubric"))
    tuned = as_json(tmp_path / "t.json", inspect_log(one, model="tuned", scorer="rubric"))
    result = ts.external_results(base, tuned)
    assert [row.metric for row in result.outcomes] == ["rubric/recall"]
    assert any("echo: 'rubric/verbosity' is left out: is more of it better or worse?" in text for text in result.warnings)
    both = ts.external_results(base, tuned, higher_is_better={"rubric/verbosity": False})
    assert [(row.metric, row.higher_is_better) for row in both.outcomes] == [("rubric/recall", True), ("rubric/verbosity", False)]


def test_another_question_under_the_same_id_of_inspect_is_refused(tmp_path):
    log = inspect_log(LATER, model="tuned")
    log["samples"][1]["input"] = "Say something else."
    base, tuned = as_eval(tmp_path / "b.eval", inspect_log(GRADES, model="base")), as_eval(tmp_path / "t.eval", log)
    with pytest.raises(AlignmentError, match="echo: item 'b' is not the same on both sides: start of the input"):
        ts.external_results(base, tuned)


def test_broken_logs_of_inspect_are_refused(tmp_path):
    good = as_json(tmp_path / "g.json", inspect_log(GRADES, model="base"))
    twice = inspect_log(GRADES, model="base")
    twice["samples"].append(twice["samples"][0])
    with pytest.raises(InputError, match="sample 'a' is there twice for epoch 1"):
        ts.external_results(good, as_json(tmp_path / "t.json", twice))
    with pytest.raises(InputError, match="sample 'a': match is 'maybe', not a number"):
        ts.external_results(good, as_json(tmp_path / "m.json", inspect_log({"a": "maybe"}, model="base")))
    nameless = inspect_log(GRADES, model="base")
    del nameless["samples"][1]["id"]
    with pytest.raises(FormatError, match="a sample of it has no 'id' or no 'epoch'"):
        ts.external_results(good, as_json(tmp_path / "i.json", nameless))
    half = as_json(tmp_path / "h.json", inspect_log(GRADES, model="base"))
    half.write_text(half.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    with pytest.raises(FormatError, match=r"h\.json: not JSON \(.*, line \d+\); was the evaluation cut short\?"):
        ts.external_results(good, half)
    with pytest.raises(FormatError, match="no samples in this log; it was written with --no-log-samples"):
        ts.external_results(good, as_json(tmp_path / "n.json", inspect_log({}, model="base")))
    cut = as_eval(tmp_path / "c.eval", inspect_log(GRADES, model="base"))
    cut.write_bytes(cut.read_bytes()[:-30])
    with pytest.raises(FormatError, match=r"c\.eval: not a whole \.eval \(.*\); was it copied while it was being written\?"):
        ts.external_results(good, cut)
    spoilt = as_eval(tmp_path / "s.eval", inspect_log(GRADES, model="base"))
    crc = struct.pack("<I", zipfile.ZipFile(spoilt).getinfo("summaries.json").CRC)
    spoilt.write_bytes(spoilt.read_bytes().replace(crc, b"\0\0\0\0"))
    with pytest.raises(FormatError, match=r"s\.eval: not a whole \.eval \(summaries\.json is damaged\)"):
        ts.external_results(good, spoilt)
    as_json(tmp_path / "two" / "a.json", inspect_log(GRADES, model="m1"))
    as_json(tmp_path / "two" / "b.json", inspect_log(GRADES, model="m2"))
    with pytest.raises(InputError, match=r"the logs of 2 models are in it \(m1, m2\); put each model's in a folder of its own"):
        ts.external_results(tmp_path / "two", good)


# MTEB


def mteb_result(task: str, entries: list[tuple[str, float, list[float]]], *, revision: str = "abc", version: str = "2.26.24") -> dict:
    """A result as mteb.TaskResult.to_disk writes it; the main score is the accuracy."""

    def entry(subset, main, experiments):
        per = {"scores_per_experiment": [{"accuracy": score, "f1": score / 2} for score in experiments]} if experiments else {}
        return {**per, "accuracy": main, "f1": main / 2, "ap": None, "main_score": main, "hf_subset": subset, "languages": ["eng-Latn"]}

    scores = {"test": [entry(*part) for part in entries]}
    head = {"dataset_revision": revision, "task_name": task, "mteb_version": version}
    return {**head, "scores": scores, "evaluation_time": 1.5, "kg_co2_emissions": None, "date": None}


def test_mteb_pairs_the_experiments_of_a_task_and_the_tasks(tmp_path):
    first, second = [0.5, 0.6, 0.7], [0.6, 0.6, 0.9]
    for side, experiments, mains in (("b", first, (0.4, 0.5)), ("t", second, (0.3, 0.45))):
        home = tmp_path / side / "org__model" / "rev"
        as_json(home / "Banking77.json", mteb_result("Banking77", [("default", float(np.mean(experiments)), experiments)]))
        as_json(home / "Multi.json", mteb_result("Multi", [("en", mains[0], []), ("de", mains[1], [])]))
        as_json(home / "model_meta.json", {"name": "org/model", "revision": "rev"})
    result = ts.external_results(tmp_path / "b", tmp_path / "t")
    rows = {row.name: row for row in result.outcomes}
    assert list(rows) == ["MTEB", "Banking77", "Multi"]
    assert [(row.metric, row.items, row.n) for row in result.outcomes] == [
        ("main_score", "tasks", 2), ("accuracy", "experiments", 3), ("accuracy", "splits and subsets", 2),
    ]  # fmt: skip
    assert rows["Banking77"].delta == pytest.approx(np.mean(second) - np.mean(first))
    assert rows["Multi"].delta == pytest.approx(-0.075)
    assert rows["MTEB"].delta == pytest.approx((np.mean(second) - np.mean(first) - 0.075) / 2)


def test_one_score_a_side_is_no_test(tmp_path):
    base = as_json(tmp_path / "b.json", mteb_result("SciFact", [("default", 0.64, [])]))
    tuned = as_json(tmp_path / "t.json", mteb_result("SciFact", [("default", 0.70, [])]))
    (row,) = ts.external_results(base, tuned).outcomes
    assert (row.n, row.base, row.tuned, row.verdict) == (1, 0.64, 0.70, "not evaluable")
    assert row.reason == "a test needs at least two splits and subsets, got 1"


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"dataset_revision": "def"}, AlignmentError, r"T: the two sides measured different revisions of the data \('abc' in .*'def' in"),
        ({"scores": {}}, FormatError, "no scores in it"),
        ({"scores": None}, FormatError, "no 'task_name' with 'scores'"),
        ({"mteb_dataset_name": "T"}, FormatError, r"written by mteb before 1\.11"),
        ({"scores": {"test": {"accuracy": 0.7}}}, FormatError, "a score of it has no 'hf_subset' or no 'main_score'"),
        ({"task_name": "U"}, AlignmentError, "no task and metric is on both sides: base has T accuracy; tuned has U accuracy"),
    ],
)
def test_results_of_mteb_that_do_not_fit_are_refused(tmp_path, change, kind, said):
    base = as_json(tmp_path / "b.json", mteb_result("T", [("default", 0.64, [])]))
    tuned = as_json(tmp_path / "t.json", {**mteb_result("T", [("default", 0.7, [])]), **change})
    with pytest.raises(kind, match=said):
        ts.external_results(base, tuned)


def test_a_task_of_mteb_that_is_there_twice_is_refused(tmp_path):
    for home in ("rev1", "rev2"):
        as_json(tmp_path / home / "T.json", mteb_result("T", [("default", 0.64, [])]))
    with pytest.raises(InputError, match=r"T is there twice \(rev1.T\.json and rev2.T\.json\); name the folder of one model"):
        ts.external_results(tmp_path, tmp_path)


def test_another_version_of_mteb_is_said(tmp_path):
    base = as_json(tmp_path / "b.json", mteb_result("T", [("default", 0.6, [0.5, 0.7])]))
    tuned = as_json(tmp_path / "t.json", mteb_result("T", [("default", 0.7, [0.6, 0.9])], version="2.0.0"))
    assert ts.external_results(base, tuned).warnings == ("T: measured with mteb 2.26.24 on the base side and mteb 2.0.0 on the tuned side",)


QRELS = {"q1": {"d1": 1, "d2": 2}, "q2": {"d3": 1}, "q3": {"d1": 0}, "q4": {"d9": 1}}


def predictions(path: Path, first: list[str], second: list[str]) -> Path:
    """What AbsTask._save_task_predictions writes for a retrieval task."""
    ranked = {"q1": first, "q2": second, "q3": first}
    rows = {query: {doc: 1 - place / 10 for place, doc in enumerate(docs)} for query, docs in ranked.items()}
    return as_json(path / "Tiny_predictions.json", {"mteb_model_meta": {"model_name": "m", "revision": "r"}, "default": {"test": rows}})


def test_saved_rankings_are_scored_query_by_query(tmp_path):
    base = predictions(tmp_path / "b", ["d1", "d2", "d3"], ["d1", "d3"])
    tuned = predictions(tmp_path / "t", ["d2", "d1", "d3"], ["d1", "d2"])
    qrels = tmp_path / "test.tsv"
    lines = [f"{query}\t{doc}\t{grade}\n" for query, row in QRELS.items() for doc, grade in row.items()]
    qrels.write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8")
    result = ts.external_results(base, tuned, qrels=qrels)
    assert [(row.name, row.metric, row.items, row.n) for row in result.outcomes] == [("Tiny", "ndcg@10", "queries", 2)]
    best = 2 + 1 / math.log2(3)
    np.testing.assert_allclose(result.tasks[0].base, [(1 + 2 / math.log2(3)) / best, 1 / math.log2(3)], rtol=1e-12)
    np.testing.assert_allclose(result.tasks[0].tuned, [1, 0], rtol=1e-12)
    assert any(text.startswith("Tiny: 1 without a score") for text in result.warnings)
    assert ts.external_results(base, tuned, qrels=QRELS).outcomes == result.outcomes


def test_rankings_without_fitting_judgements_are_refused(tmp_path):
    base = predictions(tmp_path / "b", ["d1"], ["d3"])
    with pytest.raises(InputError, match="holds rankings and no scores; give the judgements of the task: qrels="):
        ts.external_results(base, base)
    with pytest.raises(AlignmentError, match="none of its queries is in the qrels"):
        ts.external_results(base, base, qrels={"other": {"d1": 1}})
    with pytest.raises(InputError, match="no such file of judgements"):
        ts.external_results(base, base, qrels=tmp_path / "none.tsv")
    labels = as_json(tmp_path / "C_predictions.json", {"mteb_model_meta": {}, "default": {"test": [[0, 1], [1, 1]]}})
    with pytest.raises(FormatError, match="only those of retrieval tasks can be scored here"):
        ts.external_results(labels, labels, qrels=QRELS)


# Tables and mappings


def table(path: Path, columns: dict[str, list]) -> Path:
    frame = pandas.DataFrame(columns)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


IDS = [f"q{row}" for row in range(8)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_one_table_or_one_a_side(tmp_path, suffix):
    both = table(tmp_path / f"mine{suffix}", {"id": IDS, "base": BASE, "tuned": TUNED})
    base = table(tmp_path / f"b{suffix}", {"id": IDS, "acc": BASE, "answer": ["x"] * 8})
    tuned = table(tmp_path / f"t{suffix}", {"id": IDS[::-1], "acc": TUNED[::-1], "answer": ["y"] * 8})
    (one,) = ts.external_results(both, metric="acc", seed=3).outcomes
    (two,) = ts.external_results(base, tuned, name="mine", seed=3).outcomes
    assert one == two
    assert (one.name, one.metric, one.delta) == ("mine", "acc", pytest.approx(np.mean(TUNED) - np.mean(BASE)))


def test_a_column_of_tasks_makes_one_outcome_each(tmp_path):
    both = table(tmp_path / "m.csv", {"task": ["a"] * 4 + ["b"] * 4, "id": list("0123") * 2, "base": BASE, "tuned": TUNED})
    rows = ts.external_results(both, metric="acc").outcomes
    assert [(row.name, row.base, row.tuned, row.n) for row in rows] == [("a", 0.5, 0.5, 4), ("b", 0.75, 1.0, 4)]


def test_mappings_in_memory():
    base, tuned = dict(zip(IDS, BASE, strict=True)), dict(zip(IDS[2:], np.array(TUNED[2:]), strict=True))
    result = ts.external_results(base, tuned, metric="loss")
    assert (result.outcomes[0].n, result.outcomes[0].higher_is_better, result.detail["unmatched"]) == (6, False, 2)
    np.testing.assert_array_equal(result.tasks[0].base, BASE[2:])


def test_the_same_numbers_through_every_reader(tmp_path):
    memory = ts.external_results(dict(zip("01234567", BASE, strict=True)), dict(zip("01234567", TUNED, strict=True)), metric="acc")
    base, tuned = samples(tmp_path / "b", "t", accuracies(BASE)), samples(tmp_path / "t", "t", accuracies(TUNED))
    logs = ts.external_results(base, tuned, metric="acc")
    numbers = [(row.base, row.tuned, row.delta, row.low, row.high, row.p, row.verdict) for row in (memory.outcomes[0], logs.outcomes[0])]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize(
    ("columns", "kind", "said"),
    [
        ({"id": ["a", "b", "a"], "acc": [1, 0, 1]}, InputError, r"item 'a' is there twice \(row 1 and row 3\)"),
        ({"id": ["a", "b"], "acc": [1, None]}, InputError, r"row 2, item 'b': column 'acc' is '', not a number"),
        ({"id": ["a", "b"], "acc": ["1", "high"]}, InputError, r"row 2, item 'b': column 'acc' is 'high', not a number"),
        ({"id": ["a", None], "acc": [1, 0]}, InputError, r"row 2: no id; items are matched by id"),
        ({"name": ["a"], "acc": [1]}, FormatError, r"no column of ids; it has 'name', 'acc'. Items are matched by id, never by place"),
        ({"id": ["a"], "x": [1], "y": [2]}, FormatError, r"which column holds the scores\? It has 'x', 'y'; name one with metric="),
        ({"id": ["a", "b"], "fluency": [1, 2]}, InputError, r"more of 'fluency' better or worse\? .*pass higher_is_better=True or False"),
    ],
    ids=["twice", "empty", "word", "no id", "no ids", "which", "direction"],
)
def test_a_table_that_does_not_do_is_refused_with_its_row(tmp_path, columns, kind, said):
    path = table(tmp_path / "b.csv", columns)
    with pytest.raises(kind, match=said) as error:
        ts.external_results(path, path)
    assert str(path) in str(error.value)


def test_what_was_asked_that_is_not_there(tmp_path):
    base = table(tmp_path / "b.csv", {"id": IDS, "acc": BASE})
    logs = samples(tmp_path / "b", "t", accuracies(BASE))
    with pytest.raises(UnknownName, match="unknown reader of results 'lmeval'; did you mean lm-eval"):
        ts.external_results(base, base, reader="lmeval")
    with pytest.raises(UnknownName, match="unknown score column of .*'acccc'; did you mean acc"):
        ts.external_results(base, base, metric="acccc")
    with pytest.raises(UnknownName, match="unknown metric of t 'accnorm'; did you mean acc_norm, acc"):
        ts.external_results(logs, logs, metric="accnorm")
    with pytest.raises(InputError, match="is read as lm-eval and .* as table; both sides need the same program's results"):
        ts.external_results(logs, base)
    with pytest.raises(InputError, match="holds one model's results .*; give the other model's too"):
        ts.external_results(logs)
    with pytest.raises(FormatError, match="no column 'base' and 'tuned'; it has 'id', 'acc'. Name them so, or give one file a side"):
        ts.external_results(base)
    with pytest.raises(InputError, match="no such file or folder; looked in"):
        ts.external_results(tmp_path / "none.csv", base)
    with pytest.raises(AlignmentError, match=r"no item is on both sides; .* has 'q0', 'q1', 'q2', …, .* has 'z'"):
        ts.external_results(base, table(tmp_path / "z.csv", {"id": ["z"], "acc": [1]}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"the folder has no samples_\*\.jsonl of lm_eval, no \.eval of Inspect and no \.json"):
        ts.external_results(tmp_path / "empty", tmp_path / "empty")


def test_equal_texts_are_asked_of_tables_that_have_them(tmp_path):
    base = table(tmp_path / "b.csv", {"id": IDS, "acc": BASE, "question": IDS})
    tuned = table(tmp_path / "t.csv", {"id": IDS, "acc": TUNED, "question": [*IDS[:-1], "another"]})
    with pytest.raises(AlignmentError, match="item 'q7' is not the same on both sides: question 'q7' in .*, 'another' in"):
        ts.external_results(base, tuned)


def test_per_cent_against_fractions_is_said():
    scores = {f"q{i}": 80 + i % 5 for i in range(20)}
    result = ts.external_results(scores, {key: value / 100 for key, value in scores.items()}, metric="acc")
    assert "is one of them in per cent?" in result.warnings[0]
