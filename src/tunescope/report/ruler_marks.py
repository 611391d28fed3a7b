"""The ruler: the tuned model among known disturbances of the same base, by how far each moved the deployed embedding."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading
from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import three
from tunescope.report.theme import LIGHT

ROW_PX = 22


def ruler_measure(payload: reading.Payload) -> str | None:
    """The measure the ruler is read by: the first of its readings that is a distance, else the first."""
    names = [found["measure"] for found in (payload.get("ruler") or {}).get("readings") or []]
    return next((name for name in names if name == "procrustes"), names[0] if names else None)


def ruler_marks(payload: reading.Payload, tables: Tables) -> Any | None:
    """One line a disturbance, nearest first, on a logarithmic axis; the tuned model's stands out."""
    import altair as alt

    rows = ruler_rows(payload)
    if len(rows) < 2:
        return None
    order = [row["label"] for row in rows]
    low, high = rows[0]["change"], rows[-1]["change"]
    x = alt.X("change:Q", axis=None, scale=alt.Scale(type="log", domain=[low / 1.25, high * 3], nice=False))
    axis = alt.Axis(title=None, ticks=False, domain=False, labelPadding=8, labelLimit=190, grid=False)
    y = alt.Y("label:N", sort=order, axis=axis)
    colour = alt.condition("datum.tuned", alt.value(LIGHT["main"]), alt.value(LIGHT["muted"]))
    told = [alt.Tooltip("label:N"), alt.Tooltip("said:N", title=reading.about(payload, ruler_measure(payload) or "")["change"])]
    base = tables(rows)
    return alt.layer(
        base.mark_rule(color=LIGHT["rule"], strokeWidth=1).encode(x=x, x2=alt.datum(low / 1.25), y=y),
        base.mark_circle(size=70, opacity=1).encode(x=x, y=y, color=colour, tooltip=told),
        base.mark_text(align="left", dx=9).encode(x=x, y=y, text=alt.Text("said:N"), color=colour),
    ).properties(height=ROW_PX * len(rows))


def ruler_rows(payload: reading.Payload) -> list[dict[str, Any]]:
    """Every mark and the tuned model, by growing change at the output; what did not move has no place on a logarithmic axis."""
    name, ruler = ruler_measure(payload), payload.get("ruler") or {}
    if name is None:
        return []
    sides = [(mark["label"], False, mark) for mark in ruler["marks"]] + [("the tuned model", True, ruler["tuned"])]
    rows = [
        {"label": label, "tuned": tuned, "change": change, "said": three(change)}
        for label, tuned, found in sides
        if (change := found["sites"].get("output", {}).get(name, {}).get("change") or 0) > 0
    ]
    return sorted(rows, key=lambda row: row["change"])
