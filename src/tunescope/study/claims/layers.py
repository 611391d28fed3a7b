"""What the DistilBERT study claims of its table: change and improvement at the same layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunescope.errors import Degenerate, NotEnoughRows
from tunescope.stats import Correlation
from tunescope.study import analyses
from tunescope.study.claims.claim import Found, Printed, agreement, listed, printed
from tunescope.study.published import LAYERS

if TYPE_CHECKING:
    import pandas as pd

STUDY = "DistilBERT layers"
LEVEL = 0.05


class LayerTables:
    """The study's rows."""

    def __init__(self, rows: pd.DataFrame):
        self.rows = analyses.choose(rows, study=LAYERS)


def together(tables: LayerTables) -> Found:
    """CKA against the probe's gain over layers, and what is left of it given the layer."""
    (found,) = analyses.layer_tables(tables.rows)
    if found.association is None:
        raise NotEnoughRows(found.reason or "")
    plain, partial, ranks = found.association.spearman, found.association.partial, found.association.rank_partial
    if plain.value is None or plain.p is None:
        raise Degenerate(f"CKA and the gain have no correlation: {plain.reason}")
    same = plain.value < 0 and plain.p <= LEVEL
    words = [] if same else ["layers that changed more did not gain more"]
    if (found.table["value"].diff().iloc[1:] < 0).all():
        words.append("CKA falls at every layer, so that change and depth cannot be told apart")
    recomputed = f"{_value(plain)} (p {printed(plain.p, 3)}); Pearson {_value(partial, sign=True)}, ranks {_value(ranks, sign=True)}"
    figures = {"spearman": plain.value, "p": plain.p, "partial_pearson": partial.value, "partial_spearman": ranks.value}
    return Found(recomputed, agreement(same), listed(words), figures | {"reason": ranks.reason})


CLAIMS = (Printed("Spearman(CKA, Δ accuracy), exact p; partial given the layer", "“co-locate”", together),)


def _value(found: Correlation, *, sign: bool = False) -> str:
    return f"undefined ({(found.reason or '').split(' with')[0]})" if found.value is None else printed(found.value, 2, sign=sign)
