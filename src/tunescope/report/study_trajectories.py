"""Trajectories: the measure and the outcome over checkpoints, a line a condition, one sd over seeds as whiskers."""

from __future__ import annotations

from typing import Any

from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import signed, stated, three
from tunescope.report.study_axes import amounts, domain
from tunescope.report.study_series import Series, shades
from tunescope.report.theme import LIGHT

HEIGHT = 190


def trajectory(entry: dict[str, Any], value: str, colours: dict[str, Series], tables: Tables) -> Any | None:
    """value: "drift" or "gain"; the clock on a symmetric logarithmic axis where the points crowd at its start."""
    import altair as alt

    rows = [
        {
            "at": point["at"],
            "v": point[value],
            "low": _less(point, value, -1),
            "high": _less(point, value, 1),
            "name": path["condition"],
            "colour": colours[path["condition"]].role,
            "dash": list(colours[path["condition"]].dash),
            "said": (signed if value == "gain" else three)(point[value]) + _spread(point, value),
            "when": f"{path['clock']} {stated(point['at'])}",
        }
        for path in entry["paths"]
        for point in path["points"]
        if point[value] is not None
    ]
    if not rows:
        return None
    clocks = sorted({row["at"] for row in rows})
    crowded = len(clocks) > 2 and clocks[-1] > 6 * (clocks[len(clocks) // 2] or clocks[-1])
    unit = min(at for at in clocks if at > 0) if clocks[-1] > 0 else 1.0
    scale = (
        alt.Scale(type="symlog", constant=unit, domain=[clocks[0], clocks[-1]], nice=False)
        if crowded
        else alt.Scale(domain=[clocks[0], max(clocks[-1], clocks[0] + 1)], nice=False, zero=False)
    )
    axis = alt.Axis(
        title=entry["paths"][0]["clock"],
        values=clocks,
        labelExpr="format(datum.value, '~r')",
        grid=False,
        ticks=False,
        domain=False,
        labelPadding=4,
        labelOverlap="greedy",
        titlePadding=6,
    )
    x = alt.X("at:Q", axis=axis, scale=scale)
    low, high = domain([row[name] for row in rows for name in ("v", "low", "high")], room=0.06)
    y = alt.Y("v:Q", axis=amounts(ticks=4, grid=True, signed=value == "gain"), scale=alt.Scale(domain=[low, high], nice=False, zero=False))
    colour = shades()
    told = [alt.Tooltip("name:N", title="condition"), alt.Tooltip("when:N", title="at"), alt.Tooltip("said:N", title=value)]
    base = tables(rows)
    parts = [
        tables([{"v": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1).encode(y=y),
        tables([row for row in rows if row["low"] is not None])
        .mark_rule(strokeWidth=1.2)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        base.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour, detail="name:N", strokeDash=alt.StrokeDash("dash:N", scale=None)),
        base.mark_point(filled=True, size=40, opacity=1).encode(x=x, y=y, color=colour, tooltip=told),
    ]
    return alt.layer(*parts).properties(height=HEIGHT)


def _less(point: dict[str, Any], value: str, sign: int) -> float | None:
    sd = point.get(f"{value}_sd")
    return None if sd is None else point[value] + sign * sd


def _spread(point: dict[str, Any], value: str) -> str:
    sd = point.get(f"{value}_sd")
    return "" if sd is None else f" ± {three(sd)}"
