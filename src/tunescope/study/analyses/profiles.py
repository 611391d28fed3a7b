"""What is read off every depth curve of a study: slope, rank slope, peak, monotone or not, final share; and the mean curves of groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunescope.geometry.profile import localities, shares
from tunescope.study.analyses.curves import Curves, Grid, curves
from tunescope.study.analyses.rows import needs

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = ("slope", "rank_slope", "peak_depth", "mean_change", "final_change", "final_share")


def profiles(rows: pd.DataFrame, *, measure: str | None = None, axis: str = "blocks", checkpoint: str = "last") -> pd.DataFrame:
    """A line a depth curve: its run's factors, and

    slope: least squares of change on depth (the locality gradient); rank_slope: the same on ranks, Spearman's ρ; peak_depth: of the
    largest change, the shallowest of equals (`geometry.profile`). monotone: never falls towards the output; strictly_monotone: rises at
    every step; peaks_last: no block changed more than the last. mean_change, final_change: over the blocks, and at the last.
    final_share: the last block's share of the total change, the concentration; of CKA the headline of the width. blocks: depths read.
    Where a number is NaN `reason` says why.

    Args and errors as `curves`.
    """
    found = curves(rows, measure=measure, axis=axis, checkpoint=checkpoint)
    table = found.about.drop(columns="reason")
    for name in NUMBERS:
        table[name] = np.nan
    for name in ("monotone", "strictly_monotone", "peaks_last"):
        table[name] = False
    table["blocks"], table["reason"] = 0, found.about["reason"]
    columns: dict[str, np.ndarray] = {name: table[name].to_numpy(copy=True) for name in table.columns if name not in found.about.columns}
    columns["reason"] = found.about["reason"].to_numpy(dtype=object, copy=True)
    for grid in found.grids:
        for name, values in _read(grid).items():
            columns[name][grid.lines] = values
    return table.assign(**columns)


def profile_table(
    rows: pd.DataFrame,
    *,
    measure: str,
    by: Sequence[str] = ("model", "objective", "update"),
    axis: str = "blocks",
    checkpoint: str = "last",
) -> pd.DataFrame:
    """The mean curve of every group: the columns `by`, depth, change, sd (over curves, NaN for one) and curves.

    Groups whose curves were read at different depths give a line for each depth that any has; `curves` says of how many.
    Args and errors as `curves`; UnknownName for a column of `by`.
    """
    return mean_curves(curves(rows, measure=measure, axis=axis, checkpoint=checkpoint), by)


def mean_curves(found: Curves, by: Sequence[str]) -> pd.DataFrame:
    """Mean, sd and number of curves at each depth of each group."""
    needs(found.about, *by)
    points = _long(found)
    keys = [*by, "depth"]
    groups = points.groupby(keys, dropna=False, sort=True, observed=True)["change"]
    return groups.agg(change="mean", sd="std", curves="size").reset_index()


def _long(found: Curves) -> pd.DataFrame:
    """A line a curve and depth."""
    import pandas as pd

    parts = [
        found.about.iloc[np.repeat(grid.lines, len(grid.depths))].assign(
            depth=np.tile(grid.depths, len(grid.lines)), change=grid.changes.ravel()
        )
        for grid in found.grids
    ]
    return pd.concat(parts, ignore_index=True) if parts else found.about.iloc[:0].assign(depth=0.0, change=0.0)


def _read(grid: Grid) -> dict[str, np.ndarray]:
    changes, share = grid.changes, shares(grid.changes)[:, -1]
    line, nothing = localities(grid.depths, changes), ~changes.any(1)
    reason = np.full(len(changes), None, dtype=object)
    reason[np.isnan(share)] = "no block changed, so there are no shares"
    reason[np.isnan(line.rank_slope)] = "the curve is flat"
    reason[nothing] = "nothing changed"
    if len(grid.depths) < 2:
        reason[:] = "a curve of one block has no slope"
    return {
        "slope": line.slope, "rank_slope": line.rank_slope, "peak_depth": line.peak_depth, "monotone": line.monotone,
        "strictly_monotone": (np.diff(changes, axis=1) > 0).all(1), "peaks_last": changes[:, -1] >= changes.max(1),
        "mean_change": changes.mean(1), "final_change": changes[:, -1], "final_share": share,
        "blocks": np.full(len(changes), len(grid.depths)), "reason": reason,
    }  # fmt: skip
