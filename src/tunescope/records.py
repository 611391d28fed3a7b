"""Rows in, rows out: one flat record per number, in JSON lines that pandas and DuckDB read as they are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tunescope.errors import FormatError

SCHEMA = "tunescope.records/1"


@dataclass(frozen=True)
class Record:
    """One number and what it takes to read it."""

    base: str
    tuned: str
    where: str  # "block 3", "final", "output"
    layer: int | None
    depth: float | None
    measure: str
    value: float | None
    change: float | None
    low: float | None
    high: float | None
    null: float | None
    null_sd: float | None
    noise: float | None
    n: int
    spec: str  # hash of what was measured
    tunescope: str
    schema: str = SCHEMA


def write_records(records: Iterable[Record], path: Path) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(asdict(record), ensure_ascii=False, allow_nan=False) + "\n" for record in records), encoding="utf-8")


def read_records(path: Path) -> list[Record]:
    """Raises FormatError naming the schema found when it is not ours."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if row.get("schema") != SCHEMA:
            raise FormatError(f"{path}: schema {row.get('schema')!r} found, this version reads {SCHEMA!r}")
    return [Record(**row) for row in rows]
