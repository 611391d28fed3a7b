"""Ledgers put together: each number once, whatever the order they came in; ledgers that contradict each other are refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tunescope.errors import InputError
from tunescope.study.ledger_lines import called
from tunescope.study.row import COLUMNS, KEY

if TYPE_CHECKING:
    import pyarrow

TINY = 1e-9  # what is smaller is rounding of 0
AGREE = 1e-6  # relative; float32 sums in another order, of another processor or library, differ by less
# What two measurements of one number must agree in; names, versions and costs may differ between machines.
_OF_VALUE = ("change", "low", "high", "null")  # of the value's size before they are subtracted: near 0 they are its noise
_NUMBERS = ("value", "change", "low", "high", "null", "null_sd", "sd", "n")


def each_number_once(table: pyarrow.Table, *, agree: float = AGREE) -> pyarrow.Table:
    """Sorted by `row.KEY`, then by the other columns; of rows alike in KEY the first.

    agree: relative difference up to which two of them count as the same. Raises InputError naming the number that differs most.
    """
    if len(table) == 0:
        return table
    rest = [name for name in COLUMNS if name not in KEY]
    codes = {name: _codes(table[name]) for name in KEY}
    groups = np.lexsort([codes[name] for name in reversed(KEY)])
    again = _same_as_before([codes[name][groups] for name in KEY])
    if not again.any():
        return table.take(groups)
    codes |= {name: _codes(table[name]) for name in rest}
    order = np.lexsort([codes[name] for name in reversed((*KEY, *rest))])
    _check(table, order, again, agree)
    return table.take(order[~again])


def _codes(column: pyarrow.ChunkedArray) -> np.ndarray:
    """Whole numbers in the order of the column's values, (rows,); nulls first."""
    import pyarrow.compute as compute

    column = column.combine_chunks()
    encoded = column.dictionary_encode()
    if len(encoded.dictionary) == 0:
        return np.zeros(len(column), dtype=np.int64)
    ranks = compute.rank(encoded.dictionary, sort_keys="ascending", tiebreaker="dense").to_numpy().astype(np.int64)
    indices = encoded.indices.fill_null(-1).to_numpy()
    return np.where(indices < 0, 0, ranks[indices])


def _same_as_before(sorted_codes: list[np.ndarray]) -> np.ndarray:
    """Whether a row has all the codes of the one before it, (rows,)."""
    same = np.zeros(len(sorted_codes[0]), dtype=bool)
    same[1:] = np.logical_and.reduce([codes[1:] == codes[:-1] for codes in sorted_codes])
    return same


def _check(table: pyarrow.Table, order: np.ndarray, again: np.ndarray, agree: float) -> None:
    """Every row that repeats a number against the first of that number."""
    firsts = np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))[again]
    left, right = table.take(order[firsts]), table.take(order[again])
    worst, where = 0.0, (0, "value")
    values = np.fmax(*(np.abs(side["value"].to_numpy(zero_copy_only=False).astype(float)) for side in (left, right)))
    for name in _NUMBERS:
        a, b = (side[name].to_numpy(zero_copy_only=False).astype(float) for side in (left, right))
        size = np.maximum(np.abs(a), np.abs(b))
        size = np.fmax(size, values) if name in _OF_VALUE else size
        with np.errstate(invalid="ignore"):
            gap = np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(a - b) / np.maximum(size, TINY))
        gap = np.where(np.isnan(gap), np.inf, gap)
        if len(gap) and gap.max() > worst:
            worst, where = float(gap.max()), (int(gap.argmax()), name)
    if worst > agree:
        number, name = where
        raise InputError(_contradiction(left.slice(number, 1).to_pylist()[0], right.slice(number, 1).to_pylist()[0], name))


def _contradiction(one: dict[str, Any], other: dict[str, Any], name: str) -> str:
    return (
        f"the ledgers contradict each other: {name} of {called(one)} is {one[name]} ({one['versions']}) and {other[name]} "
        f"({other['versions']}); leave one of them out, or raise `agree` if this much does not matter"
    )
