"""Retrieval collections: passages, queries and which passages answer which query, from a folder in the BEIR layout or from dicts."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tunescope.errors import TextsError, UnknownName
from tunescope.texts.corpus import hash_texts
from tunescope.texts.tables import read_jsonl, read_tsv

SPLIT = "test"
HIGHEST = 10_000  # evaluators keep a counter for every grade up to the largest
_LAYOUT = "a collection is corpus.jsonl, queries.jsonl and qrels/<split>.tsv"

Document = str | Mapping[str, str]


@dataclass(frozen=True, repr=False)
class Collection:
    """Passages and judged queries, each with an id of its own, in the order they were given.

    doc_texts: title + space + text, or the text alone. qrels: query id -> document id -> grade, a whole number, 0 for judged and not
    relevant. queries holds those with a judgement in this split; `unjudged` counts the others, which are left out. sha256: over the
    ids, texts and judgements, in order.
    """

    name: str
    split: str
    doc_ids: tuple[str, ...]
    doc_texts: tuple[str, ...]
    query_ids: tuple[str, ...]
    query_texts: tuple[str, ...]
    qrels: dict[str, dict[str, int]]
    unjudged: int
    source: str
    sha256: str
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        documents: Mapping[str, Document],
        queries: Mapping[str, str],
        qrels: Mapping[str, Mapping[str, int]],
        *,
        name: str = "collection",
        split: str = SPLIT,
        source: str = "given as dicts",
    ) -> Collection:
        """A collection in memory: documents id -> text or {"title": …, "text": …}, queries id -> text, qrels as above.

        Raises TextsError as `read_collection` does.
        """
        for what, given in (("documents", documents), ("queries", queries), ("qrels", qrels)):
            if not isinstance(given, Mapping):
                raise TextsError(f"{what} is a {type(given).__name__}; give a dict by id")
        docs = [(id, _document(document, id, source)) for id, document in documents.items()]
        judgements = ((query, document, grade, "qrels") for query, row in qrels.items() for document, grade in row.items())
        return _collection(docs, list(queries.items()), judgements, name=name, split=split, source=source)

    def __repr__(self) -> str:
        sizes = f"{len(self.doc_ids):,} passages, {len(self.query_ids):,} judged queries"
        return f"<Collection {self.name}, split {self.split}: {sizes}>"


def read_collection(path: str | Path) -> Collection:
    """Read a folder in the BEIR layout, split "test", or another as "folder:split".

    corpus.jsonl {_id, title, text}, queries.jsonl {_id, text}, qrels/<split>.tsv with a header and the columns query-id, corpus-id, score.

    Raises TextsError (no such folder or file, nothing in it, an id twice, a judgement of an id that is not there, a grade that is not
    a whole number from 0), UnknownName for a split that is not there. Reference: https://github.com/beir-cellar/beir/wiki
    """
    folder, split = _folder_and_split(path)
    for file in ("corpus.jsonl", "queries.jsonl"):
        if not (folder / file).is_file():
            raise TextsError(f"{folder}: no {file} in it; {_LAYOUT}")
    splits = sorted(file.stem for file in folder.glob("qrels/*.tsv"))
    if not splits:
        raise TextsError(f"{folder}: no qrels/*.tsv in it; {_LAYOUT}")
    if split not in splits:
        raise UnknownName(f"split of {folder} (name one as {folder}:{splits[0]})", split, splits)
    try:
        documents = [(id, _document(row, id, source)) for id, row, source in _records(folder / "corpus.jsonl")]
        queries = [(id, _text(row, id, source)) for id, row, source in _records(folder / "queries.jsonl")]
        judgements = list(_judgements(folder / "qrels" / f"{split}.tsv"))
    except OSError as error:
        raise TextsError(f"{folder}: cannot be read ({error.strerror or error})") from error
    return _collection(documents, queries, judgements, name=folder.resolve().name, split=split, source=str(folder))


def _folder_and_split(path: str | Path) -> tuple[Path, str]:
    folder, split = Path(path), SPLIT
    if not folder.is_dir() and ":" in str(path):
        place, _, split = str(path).rpartition(":")
        folder = Path(place)
    if folder.is_dir():
        return folder, split
    if folder.exists():
        raise TextsError(f"{folder}: a file; give the folder it is in: {_LAYOUT}")
    parent = folder.parent
    near = difflib.get_close_matches(folder.name, [child.name for child in parent.iterdir()] if parent.is_dir() else [], n=3)
    hint = f"did you mean {', '.join(str(parent / name) for name in near)}?" if near else f"looked in {parent.resolve()}"
    raise TextsError(f"{folder}: no such folder; {hint}")


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(id, fields, where) of every line."""
    table = read_jsonl(path)
    if not table.rows:
        raise TextsError(f"{path}: nothing in it; write one {{\"_id\": …, \"text\": …}} a line")
    if "_id" not in table.columns:
        raise TextsError(f"{path}: no field '_id'; it has {', '.join(map(repr, table.columns))}")
    columns = {name: table.columns[name] for name in ("title", "text") if name in table.columns}
    for row, (id, name) in enumerate(zip(table.columns["_id"], table.rows, strict=True)):
        if isinstance(id, bool) or not isinstance(id, str | int):
            raise TextsError(f"{path}, {name}: '_id' is {id!r}; every line needs an id of its own, a string")
        yield str(id), {field: cells[row] for field, cells in columns.items()}, f"{path}, {name}"


def _document(document: Any, id: str, source: str) -> str:
    if isinstance(document, str):
        return document
    if not isinstance(document, Mapping):
        raise TextsError(f"{source}: document '{id}' is a {type(document).__name__}; give its text, or a title and a text")
    title = document.get("title") or ""
    if not isinstance(title, str):
        raise TextsError(f"{source}: the title of document '{id}' is a {type(title).__name__}, not a string")
    return f"{title} {_text(document, id, source)}".strip()


def _text(row: Mapping[str, Any], id: str, source: str) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        found = "missing or null" if text is None else f"a {type(text).__name__}, not a string"
        raise TextsError(f"{source}: the text of '{id}' is {found}")
    return text


def _judgements(path: Path) -> Iterator[tuple[str, str, Any, str]]:
    """(query id, document id, grade, where) of every row."""
    table = read_tsv(path)
    header = list(table.columns)
    if header and (len(header) != 3 or _grade(header[2]) is not None):
        raise TextsError(f"{path}: its first line is {header}; it must be the header query-id, corpus-id, score, tab-separated")
    for *pair, grade, row in zip(*table.columns.values(), table.rows, strict=True):
        number = _grade(grade)
        yield *pair, grade if number is None else number, f"{path}, {row}"


def _grade(cell: str) -> int | None:
    try:
        return int(cell)
    except ValueError:
        return None


def _collection(
    documents: list[tuple[str, str]],
    queries: list[tuple[str, str]],
    judgements: Iterable[tuple[str, str, Any, str]],
    *,
    name: str,
    split: str,
    source: str,
) -> Collection:
    if not documents:
        raise TextsError(f"{source}: the corpus is empty; give at least one passage")
    for id, _ in (*documents, *queries):
        if "\0" in id or not id.isascii() and any("\ud800" <= letter <= "\udfff" for letter in id):
            raise TextsError(f"{source}: the id {id!r} holds a character that is no text; give it another")
    _refuse_repeats([id for id, _ in documents], "passages", source)
    _refuse_repeats([id for id, _ in queries], "queries", source)
    texts = dict(queries)
    qrels, repeated = _graded(judgements)
    if not qrels:
        raise TextsError(f"{source}: no judgement in the qrels of split '{split}'; each query needs at least one relevant passage")
    _refuse_unknown(qrels, texts, "query", source)
    _refuse_unknown(dict.fromkeys(chain.from_iterable(qrels.values())), dict(documents), "document", source)
    judged = {id: text for id, text in queries if id in qrels}
    if not any(grade for row in qrels.values() for grade in row.values()):
        raise TextsError(f"{source}: every grade in the qrels of split '{split}' is 0; no query has a relevant passage")
    blank = next((id for id, text in judged.items() if not text.strip()), None)
    if blank is not None:
        raise TextsError(f"{source}: query '{blank}' is blank; write it, or take its judgements out")
    ordered = {id: qrels[id] for id in judged}
    return Collection(
        name=name,
        split=split,
        doc_ids=tuple(id for id, _ in documents),
        doc_texts=tuple(text for _, text in documents),
        query_ids=tuple(judged),
        query_texts=tuple(judged.values()),
        qrels=ordered,
        unjudged=len(queries) - len(judged),
        source=source,
        sha256=_hash(documents, judged, ordered),
        warnings=_remarks(documents, judged, ordered, repeated),
    )


def _graded(judgements: Iterable[tuple[str, str, Any, str]]) -> tuple[dict[str, dict[str, int]], int]:
    """The qrels, and how many judgements say again what was said."""
    qrels: dict[str, dict[str, int]] = {}
    repeated = 0
    for query, document, grade, where in judgements:
        if isinstance(grade, bool) or not isinstance(grade, int | np.integer) or not 0 <= grade <= HIGHEST:
            allowed = f"grades are whole numbers from 0 (not relevant) to {HIGHEST:,}"
            raise TextsError(f"{where}: the grade of '{document}' for query '{query}' is {grade!r}; {allowed}")
        row = qrels.setdefault(query, {})
        if row.get(document, grade) != grade:
            raise TextsError(f"{where}: '{document}' is judged {row[document]} and {grade} for query '{query}'; leave one")
        repeated += document in row
        row[document] = int(grade)
    return qrels, repeated


def _refuse_repeats(ids: list[str], what: str, source: str) -> None:
    repeats = [id for id, count in Counter(ids).items() if count > 1]
    if repeats:
        raise TextsError(f"{source}: {len(repeats):,} ids of {what} are there more than once, the first '{repeats[0]}'; ids must be unique")


def _refuse_unknown(named: Iterable[str], known: Mapping[str, Any], what: str, source: str) -> None:
    unknown = [id for id in named if id not in known]
    if unknown:
        found = f"{len(unknown):,} {what} {'id that is' if len(unknown) == 1 else 'ids that are'} not there, the first '{unknown[0]}'"
        raise TextsError(f"{source}: the qrels name {found}; take those judgements out")


def _hash(documents: list[tuple[str, str]], queries: dict[str, str], qrels: dict[str, dict[str, int]]) -> str:
    judgements = (part for query, row in qrels.items() for document, grade in row.items() for part in (query, document, str(grade)))
    return hash_texts(chain(chain.from_iterable(documents), ("",), chain.from_iterable(queries.items()), ("",), judgements))


def _remarks(
    documents: list[tuple[str, str]], queries: dict[str, str], qrels: dict[str, dict[str, int]], repeated: int
) -> tuple[str, ...]:
    texts = [text for _, text in documents]
    by_id, blank, copies = dict(documents), sum(not text.strip() for text in texts), len(texts) - len(set(texts))
    without = sum(not any(row.values()) for row in qrels.values())
    itself = sum(by_id.get(id) == text for id, text in queries.items())
    counts = {
        f"{blank:,} of {len(texts):,} passages are blank": blank,
        f"{copies:,} of {len(texts):,} passages are copies of another": copies,
        f"{repeated:,} judgements are there more than once": repeated,
        f"{without:,} of {len(queries):,} judged queries have no relevant passage and are not evaluated": without,
        f"{itself:,} queries are passages of the corpus too, under the same id: each finds itself": itself,
    }
    return tuple(remark for remark, count in counts.items() if count)
