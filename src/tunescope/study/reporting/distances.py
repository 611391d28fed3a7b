"""Objective distance against slope: within each model, over all of them, and what lies off the common line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunescope.study import analyses
from tunescope.study.reporting.choices import curve_measures, leading, ordered, usual
from tunescope.study.reporting.plain import plain, tried

if TYPE_CHECKING:
    import pandas as pd

DISTANCES = ("procrustes", "cosine")


def distance_sections(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """An entry a measure of distance, against the slopes of the leading measure of geometry."""
    known = rows[(rows["subject"] == "distance") & rows["value"].notna()]
    measures = curve_measures(rows)
    if known.empty or not measures:
        return []
    names = [name for name in ordered(known["measure"].unique(), DISTANCES) if name in DISTANCES] or ordered(known["measure"].unique(), ())
    return [_section(rows, measures[0], name) for name in names[:2]]


def _section(rows: pd.DataFrame, measure: str, distance: str) -> dict[str, Any]:
    geometry = (rows["subject"] == "geometry") & (rows["measure"] == measure) & (rows["depth"] > 0)
    texts, _ = leading(rows[geometry], "texts")
    slopes = usual(rows[geometry & ((rows["texts"] == texts) | (texts is None))])
    both = rows.loc[slopes.index.union(rows.index[rows["subject"] == "distance"])]
    about = {"measure": measure, "distance": distance, "texts": texts}
    points, reason = tried(analyses.distances_and_slopes, both, measure=measure, distance=distance, texts=texts)
    if points is None:
        return about | {"points": [], "reason": reason}
    return plain(
        about
        | {
            "points": points,
            "reason": None,
            "within": _or_reason(lambda: analyses.concordance(points)),
            "without": _or_reason(lambda: analyses.concordance(analyses.without_reference(points))),
            "pooled": _or_reason(lambda: analyses.pooled(points)),
            "residuals": _or_reason(lambda: analyses.residuals(points)),
        }
    )


def _or_reason(make) -> Any:
    found, reason = tried(make)
    return {"reason": reason} if found is None else plain(found) | {"reason": None}
