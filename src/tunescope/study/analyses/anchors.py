"""Does the order of the conditions depend on which texts (anchors) the drift is read on?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from tunescope.errors import NotEnoughRows
from tunescope.stats import spearman
from tunescope.study.analyses.points import DEPLOYED, DIGITS
from tunescope.study.analyses.rows import choose, finite, last_checkpoints, one

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Anchors:
    """table: a line a condition, a column an anchor set, the mean change over runs. pairs: a line two anchor sets: a, b, rho, p, n, method.

    left_out: conditions that were not read on every anchor set.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    left_out: tuple[str, ...]


def anchor_robustness(rows: pd.DataFrame, *, measure: str = "nps", model: str | None = None, where: str | None = None) -> Anchors:
    """Rank correlation of the conditions' change between every two anchor sets, ties averaged, p of all orders (up to 8 conditions).

    The untuned model is a condition where the rows have it, as in the study; it is last on every set and raises ρ. Under CKA on its
    anchors A and B: .964, p .0028.

    Raises: NotEnoughRows below two anchor sets or three conditions; InputError when several models or sites are there and none was chosen.
    """
    import pandas as pd

    geometry = choose(last_checkpoints(rows), subject="geometry", measure=measure)
    geometry = one(one(geometry[geometry["depth"].isna()], "where", where, prefer=DEPLOYED), "model", model)
    known, _ = finite(geometry, "change")
    table = known.pivot_table(index="condition", columns="texts", values="change", aggfunc="mean", sort=True).round(DIGITS)
    if table.shape[1] < 2:
        raise NotEnoughRows(f"anchor robustness needs at least 2 sets of texts, got {', '.join(table.columns) or 'none'}")
    lost = table.isna().any(axis=1)
    whole = table[~lost]
    if len(whole) < 3:
        raise NotEnoughRows(f"anchor robustness needs at least 3 conditions read on every set of texts, got {len(whole)}")
    lines = []
    for a, b in combinations(whole.columns, 2):
        found = spearman(whole[a].to_numpy(), whole[b].to_numpy())
        lines.append({"a": a, "b": b, "rho": found.value, "p": found.p, "n": found.n, "method": found.method, "reason": found.reason})
    return Anchors(whole, pd.DataFrame(lines), tuple(table.index[lost]))
