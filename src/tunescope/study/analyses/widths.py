"""Width: how a run's change is shared out over depth, averaged over runs; its last entry is the concentration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunescope.errors import InputError, NotEnoughRows
from tunescope.geometry.profile import shares
from tunescope.study.analyses.curves import Curves, Grid, curves
from tunescope.study.analyses.profiles import mean_curves
from tunescope.study.analyses.rows import needs

if TYPE_CHECKING:
    import pandas as pd


def widths(
    rows: pd.DataFrame, *, by: Sequence[str] = ("model",), measure: str = "cka", axis: str = "blocks", checkpoint: str = "last"
) -> pd.DataFrame:
    """The mean share of the total change at each depth of each group: the columns `by`, depth, share, sd (over runs) and runs.

    A run's shares are its changes over their sum, so that every run weighs the same; the study takes 1 − CKA. Runs in which nothing
    changed have no shares and are left out. Of the depth study's runs without equal-step this is its printed table, to .0021.

    Args and errors as `curves`; InputError for a group read at several sets of depths, NotEnoughRows when no run changed.
    """
    found = curves(rows, measure=measure, axis=axis, checkpoint=checkpoint)
    _one_grid_a_group(found, by, axis)
    normed = [_shared(grid) for grid in found.grids]
    if not any(len(grid.lines) for grid in normed):
        raise NotEnoughRows("no run changed, so there is no width")
    return mean_curves(Curves(found.about, tuple(normed)), by).rename(columns={"change": "share", "curves": "runs"})


def concentrations(found: pd.DataFrame) -> pd.DataFrame:
    """Of `widths`, the share at the greatest depth of each group, largest first."""
    by = list(found.columns[: found.columns.get_loc("depth")])
    last = found.loc[found.groupby(by, dropna=False)["depth"].idxmax()] if by else found.loc[[found["depth"].idxmax()]]
    return last.sort_values(["share", *by], ascending=[False, *[True] * len(by)], ignore_index=True)


def width_error(found: pd.DataFrame, printed: pd.DataFrame, *, by: Sequence[str] = ("model",)) -> float:
    """The largest absolute difference between two tables of widths with the columns `by`, depth and share.

    Raises: InputError when a group or depth is in one of them only.
    """
    both = found[[*by, "depth", "share"]].merge(printed[[*by, "depth", "share"]], on=[*by, "depth"], how="outer", indicator=True)
    alone = both[both["_merge"] != "both"]
    if len(alone):
        named = ", ".join(f"{alone[name].iloc[0]}" for name in (*by, "depth"))
        raise InputError(f"{len(alone)} places are in one of the two width tables only, the first being {named}")
    return float((both["share_x"] - both["share_y"]).abs().max())


def _shared(grid: Grid) -> Grid:
    share = shares(grid.changes)
    known = np.isfinite(share).all(1)
    return Grid(grid.depths, share[known], grid.lines[known])


def _one_grid_a_group(found: Curves, by: Sequence[str], axis: str) -> None:
    needs(found.about, *by)
    marked = found.about.assign(grid=-1)
    for number, grid in enumerate(found.grids):
        marked.iloc[grid.lines, -1] = number if axis == "blocks" else 0
    marked = marked[marked["grid"] >= 0]
    kinds = marked.groupby(list(by), dropna=False)["grid"].nunique() if by else marked[["grid"]].nunique()
    if (kinds > 1).any():
        raise InputError(f"the curves of {kinds.idxmax()} have {kinds.max()} sets of depths; ask for axis='published' or more of by")
