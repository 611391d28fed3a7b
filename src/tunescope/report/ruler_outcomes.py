"""The ruler in outcome units: what known disturbances of the same base do to each task, beside what the tuning did."""

from __future__ import annotations

import json
from typing import Any

from tunescope.report import outcome_words, reading
from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import amount, signed
from tunescope.report.outcome_whiskers import SIGNED
from tunescope.report.theme import LIGHT

ROW_PX = 22
TUNED = "the tuned model"


def groups(payload: reading.Payload) -> list[list[dict[str, Any]]]:
    """The marks of each task with the tuned model among them, most harmful first."""
    marks = (payload.get("ruler") or {}).get("outcomes") or []
    by_task: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for mark in marks:
        if mark.get("delta") is not None:
            by_task.setdefault((mark["kind"], mark["name"], mark["metric"]), []).append({"tuned": False} | mark)
    made = []
    for (kind, name, metric), rows in by_task.items():
        own = _own(payload, kind, name, metric)
        higher = own["higher_is_better"] if own else True
        if any(row["tuned"] for row in rows):  # measured on the same part of the task as the marks
            own = None
        tuned = [{"label": TUNED, "delta": own["delta"], "value": own["tuned"], "tuned": True}] if own else []
        shared = {"kind": kind, "name": name, "metric": metric, "higher": higher}
        listed = [
            shared | {"label": str(row["label"]), "delta": row["delta"], "tuned": row["tuned"], "said": signed(row["delta"]),
                      "value": amount(row.get("value"))}
            for row in [*rows, *tuned]
        ]  # fmt: skip
        made.append(sorted(listed, key=lambda row: row["delta"], reverse=not higher))
    return made


def _own(payload: reading.Payload, kind: str, name: str, metric: str) -> dict[str, Any] | None:
    found = [row for row in payload.get("outcomes") or [] if (row["kind"], row["name"], row["metric"]) == (kind, name, metric)]
    found = [row for row in found if row.get("delta") is not None]
    return next((row for row in found if row.get("layer") in (None, "output")), found[-1] if found else None)


def ruler_outcome(rows: list[dict[str, Any]], tables: Tables) -> Any | None:
    """One line a disturbance from zero to its difference; the tuned model's stands out."""
    import altair as alt

    if len(rows) < 2:
        return None
    low, high = min(0.0, *(row["delta"] for row in rows)), max(0.0, *(row["delta"] for row in rows))
    width = (high - low) or 0.01
    scale = alt.Scale(domain=[low - (0.3 if low < 0 else 0.06) * width, high + (0.3 if high > 0 else 0.06) * width], nice=False, zero=False)
    left, right = ("worse", "better") if rows[0]["higher"] else ("better", "worse")
    axis = alt.Axis(title=f"← {left} · {right} →", tickCount=4, ticks=False, domain=False, grid=False, labelExpr=SIGNED, titlePadding=5)
    x = alt.X("delta:Q", axis=axis, scale=scale)
    # ASCII, so that a label cannot break the expression it stands in.
    words = json.dumps({str(i): row["label"] for i, row in enumerate(rows)})
    names = alt.Axis(title=None, ticks=False, domain=False, labelPadding=8, labelLimit=150, grid=False, labelExpr=f"{words}[datum.value]")
    y = alt.Y("order:O", axis=names)
    colour = alt.condition("datum.tuned", alt.value(LIGHT["main"]), alt.value(LIGHT["muted"]))
    told = [alt.Tooltip("label:N"), alt.Tooltip("said:N", title="difference"), alt.Tooltip("value:N", title="score")]
    rows = [row | {"order": order} for order, row in enumerate(rows)]
    base = tables(rows)
    parts = [
        tables([{"delta": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1.2).encode(x=x),
        base.mark_rule(color=LIGHT["rule"], strokeWidth=1).encode(x=x, x2=alt.datum(0), y=y),
        base.mark_circle(size=70, opacity=1).encode(x=x, y=y, color=colour, tooltip=told),
    ]
    for sign, align, dx in ((1, "left", 8), (-1, "right", -8)):
        side = [row for row in rows if (row["delta"] >= 0) == (sign > 0)]
        if side:
            parts.append(tables(side).mark_text(align=align, dx=dx).encode(x=x, y=y, text="said:N", color=colour))
    return alt.layer(*parts).properties(height=ROW_PX * len(rows))


def view(payload: reading.Payload, drawn: dict[str, dict]) -> list[dict[str, str]]:
    """What the page prints of each task."""
    return [
        {
            "title": f"{rows[0]['name']}: {outcome_words.metric(rows[0]['metric'])}, difference from the base",
            "chart": f"ruler_outcome_{order}",
        }
        for order, rows in enumerate(groups(payload))
        if f"ruler_outcome_{order}" in drawn
    ]
