"""The tables, bundled or from a folder of someone's own with the same files and columns; every cell is checked."""

from __future__ import annotations

import csv
import io
import math
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from tunescope.errors import FormatError, UnknownName
from tunescope.reference.columns import COLUMNS, Columns

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 1e9  # no table holds such numbers, and the squares of much larger ones overflow


def table(name: str, folder: str | Path | None = None) -> pd.DataFrame:
    """One table as printed: words as str, numbers as float64, an empty cell as NaN. Nothing is kept between calls.

    Args: folder: of NAME.csv files like the bundled ones, which are read by default. Columns beyond those of `COLUMNS` are left out.

    Raises: UnknownName for a name that is none of the tables'; FormatError naming file, line and column where there is no such file, a
    column is missing, a number is none, a name is empty, a line has too few or too many cells, or two lines are of the same thing.
    """
    import pandas as pd

    if name not in COLUMNS:
        raise UnknownName("published table", name, COLUMNS)
    columns, file = COLUMNS[name], _file(name, folder)
    lines = [_checked(line, columns, f"{file}, line {number}") for number, line in _lines(file, columns)]
    if not lines:
        raise FormatError(f"{file} has a header and no line; give the table as it was printed, or the numbers in its place")
    _once(file, columns, lines)
    return pd.DataFrame(lines, columns=list(columns.names)).astype(dict.fromkeys(columns.numbers, "float64"))


def _file(name: str, folder: str | Path | None) -> Traversable:
    if folder is None:
        return resources.files("tunescope.reference").joinpath(f"{name}.csv")
    root = Path(folder)
    if not root.is_dir():
        raise FormatError(f"there is no folder {root}; give one with {', '.join(f'{each}.csv' for each in COLUMNS)}")
    file = root / f"{name}.csv"
    if not file.is_file():
        raise FormatError(f"{root} has no {file.name}; it needs {', '.join(f'{each}.csv' for each in COLUMNS)}")
    return file


def _lines(file: Traversable, columns: Columns) -> list[tuple[int, dict[str, str]]]:
    """The lines under the header with their numbers, empty ones left out."""
    try:
        reader = csv.reader(io.StringIO(file.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        cells = [(reader.line_num, line) for line in reader if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{file} is not a CSV table in UTF-8: {error}") from error
    header = [cell.strip() for cell in cells[0][1]] if cells else []
    missing = [column for column in columns.names if column not in header]
    if missing:
        found = ", ".join(header) if header else "nothing"
        raise FormatError(f"{file} has no column {', '.join(missing)}; its first line says {found}")
    for number, line in cells[1:]:
        if len(line) != len(header):
            raise FormatError(f"{file}, line {number}: {len(line)} cells under a header of {len(header)}")
    return [(number, dict(zip(header, line, strict=True))) for number, line in cells[1:]]


def _checked(line: dict[str, str], columns: Columns, place: str) -> dict[str, str | float]:
    """The line's cells, its numbers as numbers."""
    found: dict[str, str | float] = {}
    for name in columns.names:
        cell, here = line[name].strip(), f"{place}, column {name}"
        if name not in columns.numbers and not cell:
            raise FormatError(f"{here}: the cell is empty; it needs a name")
        found[name] = _number(cell, here, may_be_empty=name in columns.sparse) if name in columns.numbers else cell
    return found


def _number(cell: str, place: str, *, may_be_empty: bool) -> float:
    if not cell and may_be_empty:
        return math.nan
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if abs(number) > LARGEST and math.isfinite(number):
        raise FormatError(f"{place}: '{cell}' is larger than {LARGEST:g}, which no such table holds")
    if not math.isfinite(number):
        raise FormatError(f"{place}: '{cell}' is not a number" if cell else f"{place}: the cell is empty; it needs a number")
    return number


def _once(file: Traversable, columns: Columns, lines: list[dict[str, str | float]]) -> None:
    seen: set[tuple[str | float, ...]] = set()
    for line in lines:
        key = tuple(line[name] for name in columns.key)
        if key in seen:
            raise FormatError(f"{file} has two lines of {', '.join(map(str, key))}; keep one")
        seen.add(key)
