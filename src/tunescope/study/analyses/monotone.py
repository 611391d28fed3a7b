"""How many depth curves rise all the way to the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunescope.errors import NotEnoughRows
from tunescope.study.analyses.rows import grouped, needs

if TYPE_CHECKING:
    import pandas as pd

_COUNTED = ("monotone", "strictly_monotone", "peaks_last")


def monotone_counts(table: pd.DataFrame, *, by: Sequence[str] = ()) -> pd.DataFrame:
    """Of the curves of `profiles`, in every group: the columns `by`; n; monotone, that never fall towards the output; strictly_monotone,
    that rise at every step; peaks_last, of which no block changed more than the last; left_out, that have no or one block to compare.

    A curve that rises but for one step in the third decimal counts as not monotone, as does one that falls throughout.

    Raises: NotEnoughRows when no curve has two blocks.
    """
    import pandas as pd

    needs(table, "blocks", *_COUNTED)
    if not (table["blocks"] > 1).any():
        raise NotEnoughRows(f"none of {len(table)} curves has two blocks, so none can rise or fall")
    lines: list[dict[str, Any]] = []
    for key, group in grouped(table, by):
        known = group[group["blocks"] > 1]
        counts = {name: int(known[name].sum()) for name in _COUNTED}
        lines.append(dict(zip(by, key, strict=True)) | {"n": len(known)} | counts | {"left_out": len(group) - len(known)})
    return pd.DataFrame(lines)
