"""Rows as JSON lines, each checked before it is written, and lines as a table with a type a column, a torn last line left out."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable
from dataclasses import fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from tunescope.errors import FormatError, InputError
from tunescope.study.row import COLUMNS, KEY, SCHEMA, Row

if TYPE_CHECKING:
    import pyarrow

_TYPES = {each.name: str(each.type).removesuffix(" | None") for each in fields(Row)}
WHOLE = tuple(name for name in COLUMNS if _TYPES[name] == "int")
REQUIRED = tuple(each.name for each in fields(Row) if str(each.type) == "str")


def lines(rows: Iterable[Row]) -> bytes:
    """One JSON object a line.

    Raises InputError for a value that is not of its column's type or not finite, for two rows of one number, and for no rows at all.
    """
    found, seen = [], set[tuple[object, ...]]()
    for row in rows:
        content = {name: _plain(name, value, row) for name, value in row.describe().items()}
        key = tuple(content[name] for name in KEY)
        if key in seen:
            raise InputError(f"two rows of one number, {called(content)}; a run measures each number once")
        seen.add(key)
        found.append(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")
    if not found:
        raise InputError("a run without a row; a finished run has at least one number")
    return "".join(found).encode()


def _plain(name: str, value: Any, row: Row) -> Any:
    """The value as JSON has it: numpy's numbers become Python's."""
    kind = _TYPES[name]
    if value is None and name not in REQUIRED:
        return None
    if kind == "str" and isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()  # half a surrogate pair is no text that a reader of JSON takes
    if kind == "int" and isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if kind == "float" and isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise InputError(f"{name} of {row.subject} {row.measure} is {value!r}; a row has {_WORDS[kind]} there")


_WORDS = {"str": "a text", "int": "a whole number", "float": "a finite number, or None"}


def called(row: dict[str, Any]) -> str:
    """A number by its name, for messages."""
    of = " ".join(str(row[name]) for name in ("condition", "model") if row[name])
    where = [f"{name} {row[name]}" for name in ("side", "texts", "task", "epoch", "step", "where", "layer") if not _missing(row[name])]
    seed = "" if _missing(row["seed"]) else f" seed {row['seed']}"
    return f"{row['subject']} {row['measure']}{' (' + ', '.join(where) + ')' if where else ''} of {of}{seed} (run {row['run'][:12]})"


def _missing(value: Any) -> bool:
    return value is None or value != value or str(value) == "<NA>"


def arrow_schema() -> pyarrow.Schema:
    """The columns of `Row` with fixed types, whatever the rows hold."""
    import pyarrow

    kinds = {"str": pyarrow.string(), "int": pyarrow.int64(), "float": pyarrow.float64()}
    return pyarrow.schema([(name, kinds[_TYPES[name]]) for name in COLUMNS])


def parse_lines(content: bytes, *, name: str) -> pyarrow.Table:
    """The rows of JSON lines; a last line that is not whole is left out, with a warning. name: of the file, for messages.

    Raises FormatError, naming the line or the schema found.
    """
    import pyarrow
    from pyarrow import json as arrow_json

    content = _untorn(content, name=name)
    if not content.strip():
        return arrow_schema().empty_table()
    how = arrow_json.ParseOptions(explicit_schema=arrow_schema(), unexpected_field_behavior="error")
    longest = max(map(len, content.splitlines()))
    read = arrow_json.ReadOptions(block_size=max(1 << 20, 2 * longest))  # a line must lie in two blocks at most
    try:
        table = arrow_json.read_json(pyarrow.BufferReader(content), parse_options=how, read_options=read)
    except pyarrow.ArrowInvalid as error:
        raise _what_is_wrong(content, name=name, said=str(error)) from error
    return of_this_schema(table, name=name)


def of_this_schema(table: pyarrow.Table, *, name: str) -> pyarrow.Table:
    """The table with the columns of `Row`, in their order and types. Raises FormatError naming the schema found."""
    found = table["schema"].unique().to_pylist() if "schema" in table.column_names else [None]
    apart = sorted(set(table.column_names) ^ set(COLUMNS))
    if other := [each for each in found if each != SCHEMA]:
        raise FormatError(f"{name}: schema {other[0]!r} found, this version reads {SCHEMA!r}")
    if apart and len(table):
        raise FormatError(f"{name}: columns {', '.join(apart)} differ, this version reads {SCHEMA!r}")
    if lacking := [each for each in REQUIRED if len(table) and table[each].null_count]:
        raise FormatError(f"{name}: rows without {', '.join(lacking)}; {SCHEMA!r} has it in every row")
    return table.select(COLUMNS).cast(arrow_schema()) if len(table) else arrow_schema().empty_table()


def _untorn(content: bytes, *, name: str) -> bytes:
    """Without a last line that a killed writer or copy left unfinished."""
    if not content or content.endswith(b"\n"):
        return content
    whole, newline, last = content.rpartition(b"\n")
    try:
        whole_row = isinstance(json.loads(last), dict)
    except ValueError:
        whole_row = False
    if not whole_row:
        warnings.warn(f"{name}: the last line is torn and was left out; tunescope study run does its run again", stacklevel=4)
        return whole + newline
    return content


def _what_is_wrong(content: bytes, *, name: str, said: str) -> FormatError:
    """The first line that is not a row, by its number."""
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            row = json.loads(line) if line.strip() else {"schema": SCHEMA}
        except ValueError as error:
            return FormatError(f"{name}, line {number}: not JSON ({error}); remove the line, or take the file from where it was copied")
        if not isinstance(row, dict) or row.get("schema") != SCHEMA:
            found = row.get("schema") if isinstance(row, dict) else None
            return FormatError(f"{name}, line {number}: schema {found!r} found, this version reads {SCHEMA!r}")
        if unknown := sorted(set(row) - set(COLUMNS)):
            return FormatError(f"{name}, line {number}: unknown column {', '.join(unknown)}; {SCHEMA} has none of that name")
    return FormatError(f"{name}: not rows of {SCHEMA!r} ({said})")
