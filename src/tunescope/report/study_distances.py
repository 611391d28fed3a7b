"""Objective distance against slope: all models with their common line and what lies off it; each model by itself."""

from __future__ import annotations

from typing import Any

from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import signed, three
from tunescope.report.study_axes import amounts, domain
from tunescope.report.theme import LIGHT

HEIGHT, SMALL_PX = 300, 120


def _scales(entry: dict[str, Any], *, titled: bool) -> tuple[Any, Any]:
    import altair as alt

    xs, ys = ([point[name] for point in entry["points"]] for name in ("distance", "slope"))
    x = alt.X(
        "distance:Q",
        axis=amounts("objective distance" if titled else None, ticks=5 if titled else 3),
        scale=alt.Scale(domain=list(domain(xs, zero=False, room=0.07)), nice=False, zero=False),
    )
    axis = amounts(ticks=5 if titled else 3, grid=True)
    return x, alt.Y("slope:Q", axis=axis, scale=alt.Scale(domain=list(domain(ys, room=0.08)), nice=False, zero=False))


def _rows(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        point | {"of": f"{point['model']}, {point['objective']}", "d": three(point["distance"]), "s": signed(point["slope"])}
        for point in points
    ]


def _told() -> list[Any]:
    import altair as alt

    return [alt.Tooltip("of:N"), alt.Tooltip("d:N", title="distance"), alt.Tooltip("s:N", title="slope")]


def distance_scatter(entry: dict[str, Any], tables: Tables) -> Any | None:
    """Every model and objective, the line of all, anomalies named."""
    import altair as alt

    if not entry["points"]:
        return None
    x, y = _scales(entry, titled=True)
    found = entry["residuals"]
    parts = [tables([{"slope": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1).encode(y=y)]
    odd = []
    if not found.get("reason"):
        ends = [
            {"distance": at, "slope": found["intercept"] + found["gradient"] * at}
            for at in (min(p["distance"] for p in entry["points"]), max(p["distance"] for p in entry["points"]))
        ]
        parts.append(tables(ends).mark_line(color=LIGHT["floor"], strokeDash=[4, 3], strokeWidth=1.4).encode(x=x, y=y))
        odd = [point for point in found["table"] if point["anomaly"]]
        parts.append(tables(odd).mark_rule(color=LIGHT["control_0"], strokeWidth=1.2).encode(x=x, y=alt.Y("fitted:Q"), y2="slope:Q"))
    names = {(point["model"], point["objective"]) for point in odd}
    usual = [point for point in entry["points"] if (point["model"], point["objective"]) not in names]
    parts.append(tables(_rows(usual)).mark_point(filled=True, size=52, opacity=0.75, color=LIGHT["main"]).encode(x=x, y=y, tooltip=_told()))
    if odd:
        half = sum(x_ for x_ in (min(p["distance"] for p in entry["points"]), max(p["distance"] for p in entry["points"]))) / 2
        base = _rows(odd)
        parts.append(tables(base).mark_point(filled=True, size=64, opacity=1, color=LIGHT["control_0"]).encode(x=x, y=y, tooltip=_told()))
        for align, dx, side in (("right", -9, True), ("left", 9, False)):
            some = tables([row for row in base if (row["distance"] > half) == side])
            parts.append(some.mark_text(align=align, dx=dx, color=LIGHT["control_0"]).encode(x=x, y=y, text="of:N"))
    return alt.layer(*parts).properties(height=HEIGHT)


def distance_panel(entry: dict[str, Any], model: str, tables: Tables) -> Any | None:
    """One model's objectives on the axes that all share."""
    import altair as alt

    points = [point for point in entry["points"] if point["model"] == model]
    if not points:
        return None
    x, y = _scales(entry, titled=False)
    ordered = sorted(points, key=lambda point: point["distance"])
    parts = [
        tables([{"slope": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1).encode(y=y),
        tables(ordered).mark_line(color=LIGHT["quiet_bar"], strokeWidth=1.4).encode(x=x, y=y),
        tables(_rows(points)).mark_point(filled=True, size=44, opacity=1, color=LIGHT["main"]).encode(x=x, y=y, tooltip=_told()),
    ]
    return alt.layer(*parts).properties(height=SMALL_PX)
