"""Scores in a table of one's own: (id, base, tuned) in one file, or (id, score) in one file a side; or two mappings in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunescope.errors import FormatError, InputError, UnknownName
from tunescope.outcome.external.measured import Measured, number, once
from tunescope.outcome.external.metrics import direction
from tunescope.texts.tables import READERS, Table

IDS = ("id", "_id", "item", "item_id", "doc_id", "query_id", "query-id", "qid")
TEXTS = ("text", "input", "question", "query")  # compared between the sides where both have it
SCORE = "score"
KINDS = tuple(suffix for suffix in READERS if suffix != ".txt")


def read_side(path: Path, *, metric: str | None = None) -> list[Measured]:
    """One side's scores from a table of (id, score): the column `metric`, else the only column beside the id, else every column whose
    name is a known metric. A column `task` makes one task of each of its values.

    Raises FormatError (no ids, no scores), UnknownName (no such column), InputError (an id twice, a score that is no finite number).
    """
    table = _table(path)
    ids = _ids(table, path)
    columns = _score_columns(table, path, metric, taken=(ids, "task", *TEXTS))
    return [found for column in columns for found in _measured(table, path, ids, column, metric or column)]


def read_pair(path: Path, *, metric: str | None = None) -> tuple[list[Measured], list[Measured]]:
    """Both sides' scores from one table of (id, base, tuned), and `task` if it has one. `metric` is what the scores are called."""
    table = _table(path)
    ids = _ids(table, path)
    missing = [column for column in ("base", "tuned") if column not in table.columns]
    if missing:
        listed = ", ".join(f"'{name}'" for name in table.columns)
        raise FormatError(f"{path}: no column {' and '.join(map(repr, missing))}; it has {listed}. Name them so, or give one file a side")
    base, tuned = (_measured(table, path, ids, column, metric or SCORE) for column in ("base", "tuned"))
    return base, tuned


def from_mapping(scores: Mapping[str, Any], side: str, *, metric: str | None = None) -> list[Measured]:
    """One side's scores given as {id: score}."""
    name = metric or SCORE
    read = {str(item): number(_plain(value), f"{side}['{item}']", name) for item, value in scores.items()}
    if not read:
        raise InputError(f"{side} has no items; give a mapping of ids to scores")
    if len(read) < len(scores):
        raise InputError(f"{side} has ids that read the same as text (1 and '1'); every id may have one score")
    return [Measured(task="", metric=name, scores=read, source=side)]


def _table(path: Path) -> Table:
    reader = READERS.get(path.suffix.lower())
    if reader is None or path.suffix.lower() not in KINDS:
        raise FormatError(f"{path}: scores are read from {', '.join(KINDS)}, from .json and .eval logs and from folders of them")
    table = reader(path)
    if not table.rows:
        raise FormatError(f"{path}: no rows in it; a table of scores has one row an item")
    return table


def _ids(table: Table, path: Path) -> str:
    found = next((name for name in IDS if name in table.columns), None)
    if found is None:
        listed = ", ".join(f"'{name}'" for name in table.columns)
        raise FormatError(f"{path}: no column of ids; it has {listed}. Items are matched by id, never by place: call the column 'id'")
    return found


def _score_columns(table: Table, path: Path, metric: str | None, *, taken: Sequence[str]) -> list[str]:
    rest = [name for name in table.columns if name not in taken]
    if metric is not None:
        if metric in rest:
            return [metric]
        if SCORE in rest:
            return [SCORE]
        raise UnknownName(f"score column of {path}", metric, rest)
    known = [name for name in rest if direction(Measured("", name, {}, ""), None) is not None]
    chosen = known or (rest if len(rest) == 1 else [name for name in rest if name == SCORE])
    if not chosen:
        listed = ", ".join(f"'{name}'" for name in rest) or "none beside the id"
        raise FormatError(f"{path}: which column holds the scores? It has {listed}; name one with metric='...', or call it '{SCORE}'")
    return chosen


def _measured(table: Table, path: Path, ids: str, column: str, metric: str) -> list[Measured]:
    tasks = table.columns.get("task", ("",) * len(table.rows))
    texts = next(((name, table.columns[name]) for name in TEXTS if name in table.columns), None)
    found: list[Measured] = []
    for task in dict.fromkeys(tasks):
        rows = [row for row, name in enumerate(tasks) if name == task]
        places: dict[str, str] = {}
        scores, contents = {}, {}
        for row in rows:
            item, place = _id(table.columns[ids][row], f"{path}, {table.rows[row]}"), table.rows[row]
            once(places, item, place, str(path))
            scores[item] = number(_plain(table.columns[column][row]), f"{path}, {place}, item '{item}'", f"column '{column}'")
            if texts is not None:
                contents[item] = str(texts[1][row])
        checks = {texts[0]: contents} if texts is not None else {}
        found.append(Measured(task=str(task or ""), metric=metric, scores=scores, source=str(path), checks=checks))
    return found


def _id(cell: Any, place: str) -> str:
    if cell is None or str(cell).strip() == "":
        raise InputError(f"{place}: no id; items are matched by id, so every row needs one")
    return str(cell)


def _plain(cell: Any) -> Any:
    """A numpy number as Python's own."""
    return cell.item() if hasattr(cell, "item") else cell


