"""How much of the variance of a number each choice of a study explains: η² of model, objective, rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunescope.errors import Degenerate, InputError
from tunescope.study.analyses.rows import finite, needs

if TYPE_CHECKING:
    import pandas as pd


def variance_shares(
    table: pd.DataFrame, value: str = "final_share", *, factors: Sequence[str] = ("model", "objective", "update")
) -> pd.DataFrame:
    """η² of each factor on its own: Σ n_g (mean_g − mean)² / Σ (x − mean)², with its groups and n; largest first.

    Each factor is taken alone, so in an unbalanced study (objectives differ by model) shares overlap and need not add up to at most 1.
    A factor of many groups explains some by chance: (groups − 1)/(n − 1) is `chance`, its mean where the factor says nothing.

    Raises: Degenerate when all values are alike, InputError for a factor with one value or a missing one.
    """
    import pandas as pd

    needs(table, *factors)
    known, _ = finite(table, value)
    x = known[value].to_numpy(dtype="float64")
    total = float(np.sum((x - x.mean()) ** 2))
    if total <= 1e-24 * len(x) * max(1.0, float(np.abs(x).max()) ** 2):
        raise Degenerate(f"all {len(x)} values of {value} are alike, so there is no variance to share out")
    lines = []
    for name in factors:
        held = known[name]
        if held.isna().any() or held.nunique() < 2:
            lacking = f"{int(held.isna().sum())} lines have none" if held.isna().any() else f"all lines have {held.iloc[0]}"
            raise InputError(f"η² of {name} asked for, but {lacking}; leave it out of factors, or choose the lines that vary in it")
        groups = known.groupby(name, observed=True)[value].agg(["mean", "size"])
        between = float((groups["size"] * (groups["mean"] - x.mean()) ** 2).sum())
        chance = (len(groups) - 1) / (len(x) - 1)
        lines.append({"factor": name, "eta2": between / total, "chance": chance, "groups": len(groups), "n": len(x)})
    return pd.DataFrame(lines).sort_values(["eta2", "factor"], ascending=[False, True], ignore_index=True)
