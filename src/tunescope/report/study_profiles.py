"""Depth profiles as small multiples: a panel a model and objective, a line an update rule, one scale for all."""

from __future__ import annotations

from typing import Any

from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import three
from tunescope.report.study_axes import amounts, domain
from tunescope.report.study_series import Series, shades
from tunescope.report.theme import LIGHT

PANEL_PX = 104
FULL = [0, 0.5, 1]


def profile_panel(
    entry: dict[str, Any], model: str, objective: str, colours: dict[str, Series], tables: Tables, *, grey: dict[str, Any] | None = None
) -> Any | None:
    """The mean curve of every rule in one cell, with its spread over seeds; grey: a band of other runs behind it."""
    import altair as alt

    lines = [line for line in entry["lines"] if (line["model"], line["objective"]) == (model, objective)]
    points = [point for line in lines for point in _points(line, colours)]
    if not points:
        return None
    x = alt.X("depth:Q", axis=amounts(values=FULL), scale=alt.Scale(domain=[0, 1.02], nice=False))
    every = [
        end
        for line in entry["lines"]
        for change, sd in zip(line["changes"], line["sd"], strict=True)
        if change is not None
        for end in (change - (sd or 0), change + (sd or 0))
    ] + (list(grey["high"]) if grey else [])
    y = alt.Y("change:Q", axis=amounts(ticks=3, grid=True), scale=alt.Scale(domain=list(domain(every)), nice=False, zero=False))
    colour = shades()
    told = [
        alt.Tooltip("rule:N"),
        alt.Tooltip("at:N", title="depth"),
        alt.Tooltip("said:N", title="change"),
        alt.Tooltip("of:N", title="curves"),
    ]
    base = tables(points)
    parts = _grey(grey, tables, x) if grey else []
    if any(point["low"] is not None for point in points):
        sure = tables([point for point in points if point["low"] is not None])
        parts.append(sure.mark_area(opacity=0.14).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour, detail="rule:N"))
    parts += [
        base.mark_line(strokeWidth=1.6).encode(x=x, y=y, color=colour, detail="rule:N", strokeDash=alt.StrokeDash("dash:N", scale=None)),
        base.mark_point(filled=True, size=26, opacity=0).encode(x=x, y=y, color=colour, tooltip=told),
    ]
    return alt.layer(*parts).properties(height=PANEL_PX)


def _points(line: dict[str, Any], colours: dict[str, Series]) -> list[dict[str, Any]]:
    series = colours[line["update"]]
    return [
        {
            "depth": depth,
            "change": change,
            "low": None if sd is None else change - sd,
            "high": None if sd is None else change + sd,
            "rule": line["update"] or "its run",
            "colour": series.role,
            "dash": list(series.dash),
            "at": f"{depth:.2f}",
            "of": str(line["curves"]),
            "said": three(change) + (f" ± {three(sd)}" if sd is not None else ""),
        }
        for depth, change, sd in zip(line["depths"], line["changes"], line["sd"], strict=True)
        if change is not None
    ]


def _grey(band: dict[str, Any], tables: Tables, x: Any) -> list[Any]:
    """The middle 80% of other runs and their median."""
    import altair as alt

    rows = [
        {"depth": depth, "from": low, "to": high, "middle": middle}
        for depth, low, middle, high in zip(band["depths"], band["low"], band["middle"], band["high"], strict=True)
    ]
    base = tables(rows)
    return [
        base.mark_area(color=LIGHT["floor"], opacity=0.2).encode(x=x, y=alt.Y("from:Q"), y2="to:Q"),
        base.mark_line(color=LIGHT["floor"], strokeWidth=1.2).encode(x=x, y=alt.Y("middle:Q")),
    ]
