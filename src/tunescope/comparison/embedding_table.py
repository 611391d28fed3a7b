"""Embeddings exported as a table: a column of lists of numbers and, if there is one, a column of ids."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pyarrow.types

from tunescope.errors import AlignmentError, InputError, UnknownName
from tunescope.texts.read import ID_COLUMNS


def read_embeddings(path: Path, *, column: str | None = None) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """(n, d) rows and their ids (None without a column `id` or `_id`) from a .parquet file.

    column: the one with the embeddings; needed when several hold lists of numbers.

    Raises: InputError (no such column, rows of different lengths, an empty row), UnknownName, AlignmentError (an id twice, or none).
    """
    try:
        schema = pyarrow.parquet.read_schema(path)
        name = _embedding_column(schema, path, column)
        id_name = next((wanted for wanted in ID_COLUMNS if wanted in schema.names and wanted != name), None)
        table = pyarrow.parquet.ParquetFile(path).read(columns=[name, *([id_name] if id_name else [])])
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"'{path}' is not a parquet file that can be read ({str(error).splitlines()[0]})") from error
    if not table.num_rows:
        raise InputError(f"'{path}' has no rows; give one embedding a row")
    return _matrix(table[name].combine_chunks(), path, name), _ids(table[id_name].to_pylist(), path, id_name) if id_name else None


def _embedding_column(schema: pyarrow.Schema, path: Path, asked: str | None) -> str:
    lists = [field.name for field in schema if _is_vector(field.type)]
    if asked is not None:
        if asked not in schema.names:
            raise UnknownName(f"column of {path}", asked, schema.names)
        if asked not in lists:
            raise InputError(f"column '{asked}' of '{path}' is {schema.field(asked).type}, not lists of numbers")
        return asked
    if len(lists) != 1:
        found = f"the columns {', '.join(lists)} do" if lists else f"none of {', '.join(schema.names)} does"
        raise InputError(f"'{path}': which column holds the embeddings? {found} hold lists of numbers; name one (--column)")
    return lists[0]


def _is_vector(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        return False
    return types.is_floating(kind.value_type) or types.is_integer(kind.value_type)


def _matrix(cells: pyarrow.Array, path: Path, name: str) -> np.ndarray:
    lengths = np.asarray(cells.value_lengths().fill_null(0))
    width = int(lengths[0])
    odd = np.flatnonzero((lengths != width) | (lengths == 0))
    if cells.null_count or len(odd):
        row = int(np.flatnonzero(np.asarray(cells.is_null()))[0]) if cells.null_count else int(odd[0])
        found = "empty" if not lengths[row] else f"{lengths[row]:,} numbers long"
        raise InputError(f"'{path}', row {row:,} counted from 0: column '{name}' is {found}, row 0 is {width:,} long; all must be alike")
    values = cells.flatten()
    if values.null_count:
        row = int(np.flatnonzero(np.asarray(values.is_null()))[0]) // width
        raise InputError(
            f"'{path}', row {row:,} counted from 0: column '{name}' has a null among its numbers; fill it in or leave the row out"
        )
    return values.to_numpy(zero_copy_only=False).reshape(len(cells), width)


def _ids(given: list, path: Path, name: str) -> tuple[str, ...]:
    if None in given:
        raise AlignmentError(f"'{path}', row {given.index(None):,} counted from 0: no {name}; every row needs one, or none of them")
    ids = tuple(map(str, given))
    repeated = [found for found, count in Counter(ids).items() if count > 1]
    if repeated:
        raise AlignmentError(f"'{path}': {len(repeated):,} ids stand more than once ('{repeated[0]}' first); each must name one row")
    return ids
