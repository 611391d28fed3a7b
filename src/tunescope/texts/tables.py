"""Files into rows: each reader takes a path and gives a `Table`; nothing is guessed, repaired or dropped without a word."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow
import pyarrow.parquet
import pyarrow.types

from tunescope.errors import TextsError


@dataclass(frozen=True)
class Table:
    """Columns of equal length, a name for every row ("line 17"), and what was skipped on the way."""

    columns: dict[str, tuple[Any, ...]]
    rows: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())


def read_txt(path: Path) -> Table:
    """One text a line, in the column `text`. Lines end in LF or CRLF; blank lines are skipped and counted."""
    lines, names, skipped = _lines(path)
    return Table({"text": tuple(lines)}, names, skipped)


def read_jsonl(path: Path) -> Table:
    """One JSON object a line; its keys are the columns, and a key that a line lacks is null there."""
    lines, names, skipped = _lines(path)
    records = []
    for line, name in zip(lines, names, strict=True):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise TextsError(f"{path}, {name}: not JSON ({error.msg} at character {error.colno:,}); jsonl is one object a line") from error
        if not isinstance(record, dict):
            raise TextsError(f'{path}, {name}: {_json_kind(record)}, not an object; write {{"text": "..."}} on every line')
        records.append(record)
    keys = dict.fromkeys(key for record in records for key in record)
    return Table({key: tuple(record.get(key) for record in records) for key in keys}, names, skipped)


def read_csv(path: Path) -> Table:
    """Comma-separated with a header, quoted as RFC 4180 has it: a quoted cell may hold commas and line ends."""
    return _delimited(path, delimiter=",", quoting=csv.QUOTE_MINIMAL)


def read_tsv(path: Path) -> Table:
    """Tab-separated with a header, one row a line; quotation marks are part of the text, as text/tab-separated-values has it."""
    table = _delimited(path, delimiter="\t", quoting=csv.QUOTE_NONE)
    quoted = sum(cell[:1] == cell[-1:] == '"' and '""' in cell[1:-1] for cells in table.columns.values() for cell in cells)
    if not quoted:
        return table
    hint = f"{quoted:,} cells look quoted and tsv has no quoting: save the file as csv if the quotation marks are not text"
    return Table(table.columns, table.rows, (*table.warnings, hint))


def read_parquet(path: Path) -> Table:
    """Every column of a plain type (text, number, truth value, date); nested and binary columns are left on the disk."""
    try:
        schema = pyarrow.parquet.read_schema(path)
        names = [column.name for column in schema if not _unreadable(column.type)]
        columns = pyarrow.parquet.ParquetFile(path).read(columns=names).to_pydict()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TextsError(f"{path}: not a parquet file that can be read ({str(error).splitlines()[0]})") from error
    length = len(next(iter(columns.values()), []))
    return Table({name: tuple(cells) for name, cells in columns.items()}, tuple(f"row {number}" for number in range(1, length + 1)))


READERS: dict[str, Callable[[Path], Table]] = {
    ".txt": read_txt,
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}


def _decode(path: Path) -> str:
    """The file as UTF-8, with or without a byte-order mark."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = data.count(b"\n", 0, offset) + 1
        encoding = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "ISO-8859-1"
        raise TextsError(
            f"{path}, line {line:,}: byte 0x{data[offset]:02x} at offset {offset:,} is not UTF-8; "
            f"convert the file first, for example: iconv -f {encoding} -t UTF-8 {path.name} > utf8{path.suffix}"
        ) from None


def _lines(path: Path) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    """The lines that are not blank, their names, and the warning that some were."""
    lines = [line.removesuffix("\r") for line in _decode(path).split("\n")]
    if not lines[-1]:
        lines.pop()  # nothing follows the end of the last line
    kept = [place for place, line in enumerate(lines) if line.strip()]
    return [lines[place] for place in kept], tuple(f"line {place + 1}" for place in kept), _skipped(len(lines) - len(kept))


def _delimited(path: Path, *, delimiter: str, quoting: Literal[0, 3]) -> Table:
    reader = csv.reader(io.StringIO(_decode(path), newline=""), delimiter=delimiter, quoting=quoting, strict=quoting != csv.QUOTE_NONE)
    rows: list[list[str]] = []
    names: list[str] = []
    header: list[str] = []
    blank = 0
    try:
        for cells in reader:
            if not cells:
                blank += 1
            elif not header:
                header = cells
            elif len(cells) != len(header):
                found = f"{len(cells):,} cells, the header has {len(header):,}"
                raise TextsError(f"{path}, line {reader.line_num}: {found}; quote a cell that holds the separator")
            else:
                rows.append(cells)
                names.append(f"row {len(rows)}")
    except csv.Error as error:
        raise TextsError(f"{path}, line {reader.line_num}: not {path.suffix[1:]} ({error}); check the quotation marks near it") from error
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise TextsError(f"{path}: the header names {', '.join(map(repr, repeated))} more than once; every column needs a name of its own")
    return Table({name: tuple(row[place] for row in rows) for place, name in enumerate(header)}, tuple(names), _skipped(blank))


def _skipped(blank: int) -> tuple[str, ...]:
    return (f"{blank:,} blank line{'s' if blank > 1 else ''} skipped",) if blank else ()


def _json_kind(value: object) -> str:
    kinds = {str: "a string", list: "a list", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
    return kinds[type(value)]


def _unreadable(kind: pyarrow.DataType) -> bool:
    inner = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    types = pyarrow.types
    return types.is_nested(inner) or types.is_binary(inner) or types.is_large_binary(inner) or types.is_fixed_size_binary(inner)
