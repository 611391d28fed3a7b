"""Retrieval collections: read as they are written, and what is wrong with one said in a line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tunescope.errors import TextsError, UnknownName
from tunescope.texts import Collection, read_collection

SHARED = Path(__file__).parents[2] / "shared" / "data"
DOCUMENTS = [
    {"_id": "d1", "title": "Sun", "text": "It shines."},
    {"_id": "d2", "title": "", "text": "It rains."},
    {"_id": "d3", "text": "Snow"},
]
QUERIES = [{"_id": "q1", "text": "light?"}, {"_id": "q2", "text": "wet?"}, {"_id": "q3", "text": "unjudged"}]
HEADER = "query-id\tcorpus-id\tscore\n"
QRELS = HEADER + "q2\td2\t2\nq1\td1\t1\nq1\td3\t0\n"


def write(folder: Path, documents=DOCUMENTS, queries=QUERIES, qrels: str | None = QRELS, split: str = "test") -> Path:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if qrels is not None:
        (folder / "qrels" / f"{split}.tsv").write_text(qrels, encoding="utf-8")
    return folder


def test_a_folder_is_read_as_written(tmp_path):
    found = read_collection(write(tmp_path / "weather"))
    assert (found.name, found.split, found.source) == ("weather", "test", str(tmp_path / "weather"))
    assert (found.doc_ids, found.doc_texts) == (("d1", "d2", "d3"), ("Sun It shines.", "It rains.", "Snow"))
    assert (found.query_ids, found.query_texts, found.unjudged) == (("q1", "q2"), ("light?", "wet?"), 1)
    assert found.qrels == {"q1": {"d1": 1, "d3": 0}, "q2": {"d2": 2}}
    assert found.warnings == ()
    assert repr(found) == "<Collection weather, split test: 3 passages, 2 judged queries>"


def test_a_split_is_named_after_a_colon(tmp_path):
    folder = write(tmp_path / "with:colon", split="dev")
    assert read_collection(f"{folder}:dev").split == "dev"
    with pytest.raises(UnknownName, match="unknown split of .* 'dve'; did you mean dev"):
        read_collection(f"{folder}:dve")
    with pytest.raises(UnknownName, match="'test'.*known: dev"):
        read_collection(folder)


def test_dicts_make_the_collection_of_the_folder(tmp_path):
    read = read_collection(write(tmp_path))
    documents = {row["_id"]: row if "title" in row else row["text"] for row in DOCUMENTS}
    grades = {"q2": {"d2": np.int64(2)}, "q1": {"d1": 1, "d3": 0}}
    made = Collection.of(documents, {row["_id"]: row["text"] for row in QUERIES}, grades)
    assert made.sha256 == read.sha256
    assert (made.doc_texts, made.query_ids, made.qrels) == (read.doc_texts, read.query_ids, read.qrels)
    assert made.sha256 != Collection.of(documents, {"q1": "light?", "q2": "wet?"}, grades | {"q2": {"d2": 1}}).sha256


def test_what_is_odd_is_counted(tmp_path):
    documents = [*DOCUMENTS, {"_id": "d4", "title": "", "text": " "}, {"_id": "d5", "text": "Snow"}, {"_id": "q2", "text": "wet?"}]
    found = read_collection(write(tmp_path, documents, qrels=QRELS + "q1\td1\t1\nq3\td1\t0\n"))
    assert found.warnings == (
        "1 of 6 passages are blank",
        "1 of 6 passages are copies of another",
        "1 judgements are there more than once",
        "1 of 3 judged queries have no relevant passage and are not evaluated",
        "1 queries are passages of the corpus too, under the same id: each finds itself",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"documents": []}, "corpus.jsonl: nothing in it"),
        ({"documents": [*DOCUMENTS, DOCUMENTS[0]]}, "1 ids of passages are there more than once, the first 'd1'; ids must be unique"),
        ({"queries": [*QUERIES, QUERIES[2]]}, "1 ids of queries are there more than once, the first 'q3'"),
        ({"documents": [{"text": "no id"}]}, "corpus.jsonl: no field '_id'; it has 'text'"),
        ({"documents": [{"_id": None, "text": "t"}]}, "corpus.jsonl, line 1: '_id' is None"),
        ({"documents": [*DOCUMENTS, {"_id": "d4"}]}, "corpus.jsonl, line 4: the text of 'd4' is missing or null"),
        ({"documents": [{"_id": "d4", "text": 3}]}, "the text of 'd4' is a int, not a string"),
        ({"documents": [{"_id": "d4", "title": 3, "text": "t"}]}, "the title of document 'd4' is a int"),
        ({"queries": [{"_id": "q1", "text": " "}, QUERIES[1]]}, "query 'q1' is blank"),
        ({"qrels": None}, "no qrels/\\*.tsv in it"),
        ({"qrels": HEADER}, "no judgement in the qrels of split 'test'"),
        ({"qrels": HEADER + "q1\td1\t0\n"}, "every grade in the qrels of split 'test' is 0"),
        ({"qrels": "q1\td1\t1\n"}, "must be the header query-id, corpus-id, score"),
        ({"qrels": "q\titer\td\tscore\nq1\t0\td1\t1\n"}, "must be the header query-id, corpus-id, score"),
        ({"qrels": QRELS + "q8\td1\t1\nq9\td1\t1\n"}, "the qrels name 2 query ids that are not there, the first 'q8'"),
        ({"qrels": QRELS + "q1\td9\t1\n"}, "the qrels name 1 document id that is not there, the first 'd9'"),
        ({"qrels": QRELS + "q2\td1\t0.5\n"}, "qrels.test.tsv, row 4: the grade of 'd1' for query 'q2' is '0.5'; grades are whole numbers"),
        ({"qrels": QRELS + "q2\td1\t-1\n"}, "row 4: the grade of 'd1' for query 'q2' is -1; grades are whole numbers from 0"),
        ({"qrels": QRELS + "q2\td1\t99999\n"}, "is 99999; grades are whole numbers from 0 \\(not relevant\\) to 10,000"),
        ({"qrels": QRELS + "q2\td2\t1\n"}, "row 4: 'd2' is judged 2 and 1 for query 'q2'; leave one"),
    ],
)  # fmt: skip
def test_bad_collections_are_refused_in_one_line(tmp_path, change, message):
    with pytest.raises(TextsError, match=message) as caught:
        read_collection(write(tmp_path, **change))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    write(tmp_path / "scifact")
    with pytest.raises(TextsError, match="no such folder; did you mean .*scifact\\?"):
        read_collection(tmp_path / "scifatc")
    with pytest.raises(TextsError, match="no such folder; looked in"):
        read_collection(f"{tmp_path / 'elsewhere'}:dev")
    with pytest.raises(TextsError, match="a file; give the folder it is in"):
        read_collection(tmp_path / "scifact" / "corpus.jsonl")
    with pytest.raises(TextsError, match="no corpus.jsonl in it; a collection is corpus.jsonl, queries.jsonl and qrels/<split>.tsv"):
        read_collection(tmp_path)


def test_dicts_are_checked_too():
    with pytest.raises(TextsError, match="given as dicts: the corpus is empty"):
        Collection.of({}, {"q": "t"}, {"q": {"d": 1}})
    with pytest.raises(TextsError, match="qrels: the grade of 'd' for query 'q' is True"):
        Collection.of({"d": "t"}, {"q": "t"}, {"q": {"d": True}})
    with pytest.raises(TextsError, match="document 'd' is a int; give its text, or a title and a text"):
        Collection.of({"d": 3}, {"q": "t"}, {"q": {"d": 1}})


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
@pytest.mark.parametrize(
    ("name", "passages", "queries", "judgements"), [("scifact", 5183, 300, 339), ("squad2_dev:dev", 1216, 6078, 6078)]
)
def test_real_collections(name, passages, queries, judgements):
    """Counts as published with the data."""
    found = read_collection(f"{SHARED}/{name}")
    assert (len(found.doc_ids), len(found.query_ids)) == (passages, queries)
    assert sum(map(len, found.qrels.values())) == judgements


def test_dicts_are_asked_for_and_ids_must_be_text():
    with pytest.raises(TextsError, match="documents is a list; give a dict by id"):
        Collection.of(["a"], {"q": "b"}, {"q": {"a": 1}})
    with pytest.raises(TextsError, match=r"the id 'd\\x00' holds a character that is no text"):
        Collection.of({"d\0": "a"}, {"q": "b"}, {"q": {"d\0": 1}})
