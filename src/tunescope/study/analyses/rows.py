"""Which rows an analysis reads: chosen by name, of the last checkpoint, and each number once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunescope.errors import InputError, NotEnoughRows, UnknownName
from tunescope.study.row import KEY

if TYPE_CHECKING:
    import pandas as pd

CHECKPOINTS = ("last", "all")


def choose(rows: pd.DataFrame, **factors: Any) -> pd.DataFrame:
    """Rows whose columns have these values: one value, a tuple of several, or None for rows without one.

    Raises: UnknownName for a column that is none, NotEnoughRows naming what the column holds when nothing is left.
    """
    kept = rows
    for name, wanted in factors.items():
        needs(kept, name)
        held = kept[name].isna() if wanted is None else kept[name].isin(wanted if isinstance(wanted, (tuple, list, set)) else [wanted])
        if not held.any():
            raise NotEnoughRows(f"no row has {name} {_told(wanted)}{_among(factors, name)}; there is {_listed(kept[name])}")
        kept = kept[held]
    return kept


def needs(rows: pd.DataFrame, *names: str) -> None:
    """Raises UnknownName for a column that the frame lacks."""
    for name in names:
        if name not in rows.columns:
            raise UnknownName("column of rows", name, rows.columns)


def last_checkpoints(rows: pd.DataFrame, checkpoint: str = "last") -> pd.DataFrame:
    """Of every run the rows of its last checkpoint, by step and, where there is none, by epoch; all rows for checkpoint "all".

    The last one is that of the subject: a run may be measured more often than it is evaluated.
    """
    if checkpoint not in CHECKPOINTS:
        raise UnknownName("checkpoint", checkpoint, CHECKPOINTS)
    kept = rows
    for name in ("step", "epoch"):
        if checkpoint == "all" or kept[name].isna().all():
            continue
        at = kept[name].astype("float64")
        last = at.groupby([kept["run"], kept["subject"]], sort=False).transform("max")
        kept = kept[((at == last) | last.isna()).to_numpy()]
    return kept


def one(rows: pd.DataFrame, name: str, asked: str | None, *, prefer: str | None = None) -> pd.DataFrame:
    """The rows of one value of a column: the one asked for, the only one there is, or the preferred one.

    Raises: NotEnoughRows when nothing is left, InputError when there are several and none was asked for.
    """
    if asked is not None:
        return choose(rows, **{name: asked})
    held = rows[name].dropna().unique()
    if len(held) < 2:
        return rows
    if prefer in held:
        return choose(rows, **{name: prefer})
    raise InputError(f"the rows are of several {name}: {_listed(rows[name])}; say which, {name}='{sorted(map(str, held))[0]}'")


def each_once(rows: pd.DataFrame, key: Sequence[str], what: str) -> None:
    """Raises InputError naming the first number that is there twice."""
    twice = rows.duplicated(list(key))
    if twice.any():
        first = rows.loc[twice, list(key)].astype("str").sort_values(list(key)).iloc[0]
        named = ", ".join(f"{name} {str(value)[:16]}" for name, value in first.items() if value not in ("nan", "<NA>", "None"))
        differ = [name for name in ("study", *KEY, "kind") if name not in key and name in rows and rows[name].nunique(dropna=False) > 1]
        hint = f"choose among {', '.join(differ)}" if differ else "a ledger must hold each number once"
        raise InputError(f"two {what} of {named}; {hint}")


def sorted_values(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """In the order of these columns, whatever the order of the rows was."""
    return rows.sort_values(list(names), kind="stable", ignore_index=True)


def grouped(table: pd.DataFrame, by: Sequence[str]):
    """Groups of a table in the order of their names, as (names, group); all of it as one where `by` is empty."""
    needs(table, *by)
    if not by:
        return [((), table)]
    return [(key, group) for key, group in table.groupby(list(by), dropna=False, sort=True)]


def finite(table: pd.DataFrame, *values: str) -> tuple[pd.DataFrame, int]:
    """The lines in which these columns are numbers, and how many were left out. Raises NotEnoughRows when none is left."""
    needs(table, *values)
    known = np.isfinite(table[list(values)].to_numpy(dtype="float64", na_value=np.nan)).all(1)
    if not known.any():
        why = table["reason"].dropna().unique() if "reason" in table.columns else []
        raise NotEnoughRows(f"no {' and '.join(values)} among {len(table)} lines{': ' + why[0] if len(why) else ''}")
    return table[known], int((~known).sum())


def _told(wanted: Any) -> str:
    many = isinstance(wanted, (tuple, list, set))
    return "empty" if wanted is None else " or ".join(f"'{each}'" for each in wanted) if many else f"'{wanted}'"


def _among(factors: dict[str, Any], name: str) -> str:
    before = list(factors)[: list(factors).index(name)]
    return f" among those of {', '.join(f'{each} {_told(factors[each])}' for each in before)}" if before else ""


def _listed(values: pd.Series, most: int = 8) -> str:
    held = sorted(map(str, values.dropna().unique()))
    more = f" and {len(held) - most} more" if len(held) > most else ""
    return ", ".join(held[:most]) + more if held else "nothing there"
