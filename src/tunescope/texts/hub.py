"""Datasets of the Hugging Face hub as texts: "hf:org/name", "hf:org/name:split", "hf:org/name/config:split"."""

from __future__ import annotations

import importlib
import itertools
import re
from dataclasses import dataclass
from typing import Any

from tunescope.errors import InputError, TextsError
from tunescope.texts.tables import Table

PREFIX = "hf:"
FIRST = 1000  # rows that are read when no sample is asked for
_NAME = re.compile(r"(?P<path>[\w.-]+/[\w.-]+)(?:/(?P<config>[\w.-]+))?(?::(?P<split>\w[\w.-]*))?")


@dataclass(frozen=True)
class Dataset:
    """The first rows of a split, and what reports call them."""

    table: Table
    source: str


def read_hub(given: str, *, sample: int | None = None) -> Dataset:
    """The first rows of a dataset's split ("train" unless named), streamed: nothing after them is downloaded.

    `sample` is how many, 1,000 without one: a stream can't be sampled by hash unless it is read to its end. That they are the first is
    said in the source and, without `sample`, in a warning. Code that comes with a dataset is never run.

    Raises InputError (not such a name; the library `datasets` is missing), TextsError (no such dataset, config or split; no connection).
    Reference: https://huggingface.co/docs/datasets/stream
    """
    found = _NAME.fullmatch(given.removeprefix(PREFIX))
    if found is None:
        raise InputError(f"'{given}' is no name of a dataset; write hf:org/name, hf:org/name:split or hf:org/name/config:split")
    path, config, split = found["path"], found["config"], found["split"] or "train"
    count = FIRST if sample is None else sample
    rows = _first(given, path, config, split, count)
    whole = f"{PREFIX}{path}{'/' + config if config else ''}:{split}"
    if not rows:
        raise TextsError(f"{whole}: no rows in it; a comparison needs one text a row")
    keys = dict.fromkeys(key for row in rows for key in row)
    said = (f"{whole} is read to its row {count:,}; name another number with --sample",) if sample is None and len(rows) == count else ()
    table = Table({key: tuple(row.get(key) for row in rows) for key in keys}, tuple(f"row {i + 1}" for i in range(len(rows))), said)
    return Dataset(table, f"{whole}, the first {len(rows):,} rows")


def _first(given: str, path: str, config: str | None, split: str, count: int) -> list[dict[str, Any]]:
    try:
        library = importlib.import_module("datasets")
    except ModuleNotFoundError:
        raise InputError(f"'{given}' needs the library datasets; install it with: pip install 'tunescope[datasets]'") from None
    try:
        stream = library.load_dataset(path, name=config, split=split, streaming=True)
        return [dict(row) for row in itertools.islice(stream, count)]
    except (OSError, ValueError, RuntimeError) as error:  # no such dataset or no connection; config or split; one that is a script
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TextsError(f"{given}: cannot be read ({reason})") from error
