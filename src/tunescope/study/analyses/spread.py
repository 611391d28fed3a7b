"""Mean ± sd over training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunescope.errors import InputError
from tunescope.study.analyses.rows import finite

if TYPE_CHECKING:
    import pandas as pd


def over_seeds(table: pd.DataFrame, value: str, *, by: Sequence[str] = ("model", "condition", "measure", "texts")) -> pd.DataFrame:
    """Mean and sd (n − 1) of a column over the seeds of every group: the columns `by`, mean, sd and seeds; sd is NaN where there is one.

    Lines whose value is none are left out. A number that was printed as a mean has no seed and counts as one.

    Raises: InputError when a group has a seed twice (its lines then differ in something that `by` lacks); NotEnoughRows without a value.
    """
    known, _ = finite(table, value, *(() if "seed" in table.columns else ("seed",)))
    twice = known.duplicated([*by, "seed"])
    if twice.any():
        line = known[twice].iloc[0]
        named = ", ".join(f"{name} {line[name]}" for name in (*by, "seed"))
        raise InputError(f"two values of {value} for {named}; choose one, or name in `by` what they differ in")
    groups = known.groupby(list(by), dropna=False, sort=True, observed=True)[value]
    return groups.agg(mean="mean", sd="std", seeds="size").reset_index()
