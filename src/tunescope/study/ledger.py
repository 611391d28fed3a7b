"""The ledger: what was measured, a row a number, in plain files that pandas and DuckDB read as they are, also while a study runs.

A study's ledger is a folder with a file of JSON lines for each finished run, `ledger/<hash of the run>.jsonl`, put there whole under a
name that only that run has. Files are added and never changed: a run whose file is there is finished and one whose file is not there is
not, so no row can be lost or doubled, whoever is killed when. In DuckDB: `read_json('STUDY/ledger/*.jsonl')`.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tunescope.errors import FormatError, InputError
from tunescope.study.agreement import AGREE, each_number_once
from tunescope.study.ledger_lines import WHOLE, arrow_schema, of_this_schema, parse_lines
from tunescope.study.row import Row

if TYPE_CHECKING:
    import fsspec
    import pandas
    import pyarrow

LEDGER = "ledger"  # the folder of it within a study's


def read_ledger(*paths: str | Path, agree: float = AGREE) -> pandas.DataFrame:
    """Rows of any number of ledgers as one frame, each number once, in an order that does not depend on the order of the paths.

    paths: folders of studies, folders of JSON lines, .jsonl and .parquet files; fsspec URLs too. agree: two values of one number, which
    two machines measured, count as the same up to this relative difference; the row that sorts first is kept.

    Text is of dtype str, whole numbers Int64, others float64. A torn last line is left out with a warning.
    Raises: InputError where nothing is, or two ledgers contradict each other; FormatError naming the schema found.
    """
    import pyarrow

    if not paths:
        raise InputError("read_ledger got no path; give the folder of a study, or files of rows")
    return _to_pandas(each_number_once(pyarrow.concat_tables([part for path in paths for part in _tables(path)]), agree=agree))


def frame(rows: Iterable[Row]) -> pandas.DataFrame:
    """Rows that are at hand as `read_ledger` gives them: same columns and dtypes; order kept."""
    import pyarrow

    return _to_pandas(pyarrow.Table.from_pylist([asdict(row) for row in rows], schema=arrow_schema()))


def write_parquet(frame: pandas.DataFrame, path: str | Path) -> None:
    """Rows as one Parquet file, whole or not at all; texts are dictionary-encoded. Raises FormatError for a frame that is not of rows."""
    import io

    import pyarrow
    from pyarrow import parquet

    from tunescope.study.places import place

    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    buffer = io.BytesIO()
    parquet.write_table(of_this_schema(table, name="the frame"), buffer, compression="zstd")
    place(path).write(buffer.getvalue())


def _to_pandas(table: pyarrow.Table) -> pandas.DataFrame:
    import pandas

    found = table.to_pandas(integer_object_nulls=False)
    for name in WHOLE:  # exact also beyond 2**53, which floats with NaN are not
        found[name] = table[name].to_pandas(types_mapper={table.schema.field(name).type: pandas.Int64Dtype()}.get)
    return found.astype({name: "str" for name in found.columns if found[name].dtype == object})


def _tables(path: str | Path) -> list[pyarrow.Table]:
    """What lies at one path, a table a file."""
    import fsspec

    files, root = fsspec.core.url_to_fs(str(path))
    files.invalidate_cache()
    if files.isdir(root):
        held = f"{root}/{LEDGER}" if files.isdir(f"{root}/{LEDGER}") else root
        names = sorted(name for name in files.ls(held, detail=False) if name.endswith(".jsonl"))
        if not names and held == root and not files.exists(f"{root}/study.json"):
            raise InputError(f"'{path}' holds no ledger (no {LEDGER}/, no .jsonl); give the folder of a study, or files of rows")
        with ThreadPoolExecutor() as threads:
            return [arrow_schema().empty_table(), *threads.map(lambda name: _table(files, name), names)]
    if not files.exists(root):
        raise InputError(f"there is no ledger at '{path}'; give the folder of a study, or files of rows")
    return [_table(files, root)]


def _table(files: fsspec.AbstractFileSystem, name: str) -> pyarrow.Table:
    import pyarrow
    from pyarrow import parquet

    if not name.endswith(".parquet"):
        return parse_lines(files.cat_file(name), name=name)
    try:
        return of_this_schema(parquet.read_table(pyarrow.BufferReader(files.cat_file(name))), name=name)
    except pyarrow.ArrowInvalid as error:
        raise FormatError(f"{name}: not Parquet ({error}); write it anew from the JSON lines") from error
