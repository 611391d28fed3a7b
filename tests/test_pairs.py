"""Pairs: which columns are read, hard negatives, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas
import pytest

from tunescope.errors import TextsError, UnknownName
from tunescope.texts import Pairs, as_pairs, read_pairs

SHARED = Path(__file__).parents[2] / "shared" / "data"


def write(path: Path, columns: dict) -> Path:
    frame = pandas.DataFrame(columns)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("names", [("query", "passage"), ("anchor", "positive"), ("question", "sentence"), ("sentence", "split_rewrite")])
def test_the_usual_columns_are_found(tmp_path, suffix, names):
    pairs = read_pairs(write(tmp_path / f"p{suffix}", {names[0]: ["a?", "b?"], names[1]: ["A.", "B."]}))
    assert (pairs.queries, pairs.passages, pairs.negatives) == (("a?", "b?"), ("A.", "B."), ((), ()))
    assert pairs.items == [("a?", "A."), ("b?", "B.")]


def test_columns_may_be_named_in_any_order(tmp_path):
    file = write(tmp_path / "p.csv", {"text": ["A."], "other": ["a?"], "third": ["x"]})
    assert read_pairs(file, query="other", passage="text").items == [("a?", "A.")]
    assert read_pairs(file, query="text", passage="third").items == [("A.", "x")]
    with pytest.raises(UnknownName, match="quer"):
        read_pairs(file, query="quer")


def test_hard_negatives_are_cells_or_lists(tmp_path):
    rows = [{"query": "a?", "positive": "A.", "negative": "N."}, {"query": "b?", "positive": "B.", "negative": ["M.", "O."]}]
    rows.append({"query": "c?", "positive": "C."})
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = read_pairs(tmp_path / "p.jsonl")
    assert pairs.negatives == (("N.",), ("M.", "O."), ())
    assert pairs.items[1:] == [("b?", "B.", ["M.", "O."]), ("c?", "C.")]


def test_the_hash_is_over_every_text_in_order():
    every = ["a?", "A.", "N.", "b?", "B."]
    data = b"".join(len(text.encode()).to_bytes(8, "little") + text.encode() for text in every)
    assert as_pairs([("a?", "A.", ["N."]), ("b?", "B.")]).sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": ["x"], "b": ["y"], "c": ["z"]}, "which columns hold the query"),
        ({"query": ["x", " "], "passage": ["y", "z"]}, "row 2: a side of the pair"),
        ({"text": ["x", "y", "z", "w"], "label": ["pos", "neg", "pos", "neg"]}, "which columns hold the query"),
    ],
)
def test_files_that_are_no_pairs(tmp_path, columns, said):
    with pytest.raises(TextsError, match=said):
        read_pairs(write(tmp_path / "p.csv", columns))


@pytest.mark.parametrize("given", [[("a",)], [("a", "b", ["c"], "d")], 3, [], [("a", None)]])
def test_lists_that_are_no_pairs(given):
    with pytest.raises(TextsError):
        as_pairs(given)


def test_a_sample_depends_on_the_pairs_and_not_on_their_order():
    pairs = as_pairs([(f"q{i}", f"p{i}") for i in range(50)])
    few, turned = pairs.sample(10), Pairs.of(pairs.queries[::-1], pairs.passages[::-1]).sample(10)
    assert set(few.items) == set(turned.items)
    assert len(few) == 10
    assert set(few.items) <= set(pairs.sample(20).items)
    assert len(pairs.sample(99)) == 50


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not beside the repository")
def test_questions_and_sentences():
    pairs = read_pairs(SHARED / "squad_nqg_pairs" / "pairs_test.tsv")
    frame = pandas.read_csv(SHARED / "squad_nqg_pairs" / "pairs_test.tsv", sep="\t", quoting=3, keep_default_na=False)
    assert list(pairs.queries) == list(frame["question"])
    assert list(pairs.passages) == list(frame["sentence"])
    repeated = 1 - frame["sentence"].nunique() / len(frame)
    assert any(f"{repeated:.0%} of the passages repeat" in warning for warning in pairs.warnings)
