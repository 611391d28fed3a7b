"""Charts of objective distances: how far each is against chance, where each pulls as the task would, and both at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tunescope.report import objective_words as words
from tunescope.report import point_labels, reading
from tunescope.report.chart_parts import DROP_ZERO, Tables, amount_axis
from tunescope.report.charts import finished
from tunescope.report.numbers import interval, signed, three
from tunescope.report.outcome_whiskers import SIGNED
from tunescope.report.theme import LIGHT

ROW_PX = 34
HEIGHT = 300
WIDE, NARROW, TURN = 660.0, 300.0, 520  # plot widths for which labels are placed, and the width that parts them
FAR = 2**0.5


def objective_charts(payload: reading.Payload) -> dict[str, dict]:
    """Every chart of a distance payload, by name."""
    draw: dict[str, Callable[[Tables], Any]] = {"objective_distance": functools.partial(distance_marks, payload)}
    if payload.get("alignment"):
        draw["objective_map"] = functools.partial(joint_map, payload)
        for order, _ in enumerate(payload["alignment"]["rows"]):
            draw[f"alignment_{order}"] = functools.partial(alignment_profile, payload, order)
    return finished(draw)


def distance_marks(payload: reading.Payload, tables: Tables) -> Any | None:
    """A line an objective from 0 to √2: its distance with the interval, and chance as a tick."""
    import altair as alt

    rows = _marks(payload)
    others = [row for row in rows if row["null"] is not None]
    if not others:
        return None
    axis = alt.Axis(title="Procrustes distance of the gradients · → pulls otherwise", labelExpr=DROP_ZERO, ticks=False, domain=False,
                    values=[0, 0.25, 0.5, 0.75, 1, 1.25], grid=False, titleAlign="right", titleAnchor="end", titlePadding=6)  # fmt: skip
    names = alt.Axis(title=None, ticks=False, domain=False, labelPadding=8, labelLimit=150, grid=False)
    y = alt.Y("name:N", sort=[row["name"] for row in rows], axis=names)

    def across(key: str) -> Any:
        return alt.X(f"{key}:Q", axis=axis, scale=alt.Scale(domain=[0, FAR], nice=False, zero=True))

    told = [alt.Tooltip("name:N", title="objective"), alt.Tooltip("said:N", title="distance")]
    told.append(alt.Tooltip("chance:N", title="items shuffled"))
    thick, tick = {"color": LIGHT["main"], "strokeWidth": 3, "opacity": 0.4}, {"color": LIGHT["floor"], "thickness": 2, "size": 16}
    word = {"dy": 15, "baseline": "middle", "color": LIGHT["floor"]}
    return alt.layer(
        tables(rows).mark_rule(color=LIGHT["rule"]).encode(x=across("start"), x2="end:Q", y=y),
        tables(others).mark_rule(**thick).encode(x=across("low"), x2="high:Q", y=y),
        tables(others).mark_tick(**tick).encode(x=across("null"), y=y, tooltip=told),
        tables(rows).mark_circle(size=80, opacity=1, color=LIGHT["main"]).encode(x=across("v"), y=y, tooltip=told),
        tables(rows).mark_text(dy=-11, baseline="middle", color=LIGHT["ink"]).encode(x=across("v"), y=y, text="short:N"),
        tables(others[-1:]).mark_text(**word).encode(x=across("null"), y=y, text=alt.value("chance")),
    ).properties(height=ROW_PX * len(rows) + 6)


def _marks(payload: reading.Payload) -> list[dict[str, Any]]:
    rows = []
    for row in words.measured(payload):
        found = row["distances"]["procrustes"]
        shown = three(found["value"]) + ("" if row["is_reference"] else f" {interval(found['low'], found['high'])}")
        numbers = {"v": found["value"], "low": found["low"], "high": found["high"], "null": found["null"], "start": 0, "end": FAR}
        rows.append({"name": row["name"], **numbers, "said": shown, "short": three(found["value"]), "chance": three(found["null"])})
    return rows


def alignment_profile(payload: reading.Payload, order: int, tables: Tables) -> Any | None:
    """One direction: its cosine with the task's, block by block, over the band of the shuffled task."""
    import altair as alt

    rows = payload["alignment"]["rows"]
    cells = [cell for cell in rows[order]["blocks"] if cell["cosine"] is not None]
    if not cells:
        return None
    ends = [cell[key] for row in rows for cell in row["blocks"] for key in ("cosine", "low", "high") if cell[key] is not None]
    room = 0.08 * (max(*ends, 0) - min(*ends, 0)) or 0.01
    domain = [min(*ends, 0) - room, max(*ends, 0) + room]
    last = max(cell["layer"] for cell in rows[order]["blocks"])
    data = [{"i": cell["layer"], "v": cell["cosine"], "low": cell["low"], "high": cell["high"], "floor": cell["floor"],
             **words.alignment_cells(cell)} for cell in cells]  # fmt: skip
    step = -(-last // 12)
    ticks = alt.Axis(title="block", values=list(range(1, last + 1, step)), grid=False, ticks=False, domain=False, labelPadding=4)
    x = alt.X("i:Q", axis=ticks, scale=alt.Scale(domain=[0.5, last + 0.5], nice=False, zero=False))
    up = amount_axis("cosine with the task").copy()
    up.labelExpr = SIGNED
    scale = alt.Scale(domain=domain, nice=False, zero=False)
    y = alt.Y("v:Q", axis=up, scale=scale)
    told = [alt.Tooltip("where:N"), alt.Tooltip("cosine:N"), alt.Tooltip("between:N", title="shuffled"), alt.Tooltip("shown:N")]
    banded = [row for row in data if row["low"] is not None]
    parts = [tables([{"y": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1).encode(y=alt.Y("y:Q", axis=up, scale=scale))]
    if len(banded) > 1:
        lower = alt.Y("low:Q", axis=up, scale=scale)
        parts.append(tables(banded).mark_area(color=LIGHT["floor"], opacity=0.22).encode(x=x, y=lower, y2="high:Q"))
    parts.append(tables(data).mark_line(color=LIGHT["main"], strokeWidth=1.8).encode(x=x, y=y))
    parts.append(tables(data).mark_circle(color=LIGHT["main"], size=46, opacity=1).encode(x=x, y=y, tooltip=told))
    return alt.layer(*parts).properties(height=170)


def joint_map(payload: reading.Payload, tables: Tables) -> Any | None:
    """Distance to the reference across, cosine with the task upwards, the shuffled task's range as a thin line beside each dot."""
    import altair as alt

    points = map_points(payload)
    if len(points) < 2:
        return None
    right = max(point["x"] for point in points) * 1.12 or 1.0
    ends = [point[key] for point in points for key in ("y", "low", "high") if point[key] is not None] + [0.0]
    room = 0.14 * (max(ends) - min(ends)) or 0.01
    low, high = min(ends) - room, max(ends) + room
    axis = alt.Axis(title=f"distance to {payload['reference']['name']} · → pulls otherwise", labelExpr=DROP_ZERO, tickCount=6, grid=False,
                    ticks=False, domain=False, titleAlign="right", titleAnchor="end", titlePadding=6)  # fmt: skip
    up = amount_axis("cosine with the task · ↑ pulls the same way").copy()
    up.labelExpr = SIGNED
    x = alt.X("x:Q", axis=axis, scale=alt.Scale(domain=[-0.06 * right, right], nice=False, zero=False))
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    y = alt.Y("y:Q", axis=up, scale=scale)
    told = [alt.Tooltip("name:N", title="objective"), alt.Tooltip("distance:N"), alt.Tooltip("said:N", title="cosine"),
            alt.Tooltip("between:N", title="shuffled")]  # fmt: skip
    parts = [tables([{"y": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1).encode(y=alt.Y("y:Q", axis=up, scale=scale))]
    banded = tables([point for point in points if point["low"] is not None])
    bar = {"color": LIGHT["floor"], "strokeWidth": 7, "opacity": 0.35}
    parts.append(banded.mark_rule(**bar).encode(x=x, y=alt.Y("low:Q", axis=up, scale=scale), y2="high:Q"))
    ink = alt.condition("datum.reference", alt.value(LIGHT["muted"]), alt.value(LIGHT["main"]))
    parts.append(tables(points).mark_circle(size=90, opacity=1).encode(x=x, y=y, color=ink, tooltip=told))
    for width, fits in ((WIDE, f"width >= {TURN} ? 1 : 0"), (NARROW, f"width < {TURN} ? 1 : 0")):
        parts += _names(tables, points, x, y, (right, low, high), width, fits)
    return alt.layer(*parts).properties(height=HEIGHT)


def map_points(payload: reading.Payload) -> list[dict[str, Any]]:
    """The objectives that have both a distance and a cosine."""
    posed = {row["name"]: row["overall"] for row in (payload.get("alignment") or {"rows": []})["rows"] if row["kind"] == "objective"}
    points = []
    for row in words.measured(payload):
        cell, found = posed.get(row["name"]), row["distances"]["procrustes"]
        if cell is not None and cell["cosine"] is not None:
            place = {"x": found["value"], "y": cell["cosine"], "low": cell["low"], "high": cell["high"]}
            said = {"distance": three(found["value"]), "said": signed(cell["cosine"]), "between": words.alignment_cells(cell)["between"]}
            points.append({"name": row["name"], "reference": row["is_reference"], **place, **said})
    return points


def _names(tables: Tables, points: list[dict], x: Any, y: Any, domain: tuple[float, float, float], width: float, fits: str) -> list:
    """The names of the objectives, placed for one plot width and seen only near it."""
    right, low, high = domain
    left = -0.06 * right
    pixels = [((point["x"] - left) / (right - left) * width, (high - point["y"]) / (high - low) * HEIGHT) for point in points]
    named = [point["name"] for point in points]
    offsets = point_labels.place(pixels, named, width=width, height=HEIGHT, lines=[high / (high - low) * HEIGHT])
    parts = []
    for point, offset in zip(points, offsets, strict=True):
        if offset is not None:
            mark = {"dx": offset[0], "dy": offset[1], "baseline": "middle", "color": LIGHT["ink"], "opacity": {"expr": fits}}
            parts.append(tables([point]).mark_text(**mark).encode(x=x, y=y, text="name:N"))
    return parts
