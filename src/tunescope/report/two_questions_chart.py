"""Changed against helped: a dot per layer, change across, difference of the probes' accuracies upwards."""

from __future__ import annotations

from typing import Any

from tunescope.report import point_labels, reading, two_questions
from tunescope.report.chart_parts import DROP_ZERO, Tables, amount_axis
from tunescope.report.numbers import interval, signed, three
from tunescope.report.outcome_whiskers import SIGNED
from tunescope.report.theme import LIGHT, RAMP

HEIGHT = 330
WIDE, NARROW, TURN = 660.0, 300.0, 520  # plot widths for which labels are placed, and the width that parts them


def two_questions_chart(payload: reading.Payload, probe: two_questions.Probe, tables: Tables) -> Any | None:
    """A dot per layer with both intervals as thin lines, joined in depth order; the deployed embedding a diamond; zero marked."""
    import altair as alt

    points = _points(two_questions.rows(payload, probe))
    if len(points) < 2:
        return None
    right, low, high = _domain(points)
    change = reading.about(payload, two_questions.measure(payload) or "")["change"]
    across = alt.Axis(title=f"{change} · → moved more", labelExpr=DROP_ZERO, tickCount=6, grid=False, ticks=False, domain=False,
                      titlePadding=6, titleAlign="right", titleAnchor="end")  # fmt: skip
    up = amount_axis("difference in accuracy · ↑ tuned better").copy()
    up.labelExpr = SIGNED
    x = alt.X(
        "x:Q", axis=across, scale=alt.Scale(domain=[min(0.0, *(p["x"] for p in points)) - 0.05 * right, right], nice=False, zero=False)
    )
    y = alt.Y("y:Q", axis=up, scale=alt.Scale(domain=[low, high], nice=False, zero=False))
    parts = [tables([{"y": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1.2).encode(y=y)]
    layers = [point for point in points if point["i"] is not None]
    if len(layers) > 1:
        parts.append(tables(layers).mark_line(color=LIGHT["floor"], strokeWidth=1, strokeDash=[2, 3]).encode(x=x, y=y, order="i:Q"))
    parts += _whiskers(tables, points, x, y) + _dots(tables, points, x, y)
    for width, fits in ((WIDE, f"width >= {TURN} ? 1 : 0"), (NARROW, f"width < {TURN} ? 1 : 0")):
        parts += _labels(tables, points, x, y, (right, low, high), width, fits)
    return alt.layer(*parts).properties(height=HEIGHT)


def _points(rows: list[dict]) -> list[dict]:
    return [
        {
            "i": row["index"],
            "layer": row["name"],
            "x": row["change"],
            "y": row["delta"],
            "depth": row["depth"] if row["index"] is not None else None,
            "x_low": row["change_low"],
            "x_high": row["change_high"],
            "y_low": row["low"],
            "y_high": row["high"],
            "word": row["name"] if row["index"] is None else reading.short_name(row),
            "change": three(row["change"]),
            "change_interval": interval(row["change_low"], row["change_high"]),
            "said": signed(row["delta"]),
            "base": three(row["base"]),
            "tuned": three(row["tuned"]),
            "status": row["status"],
            "between": interval(row["low"], row["high"]),
        }
        for row in rows
        if row["change"] is not None and row["delta"] is not None
    ]


def _domain(points: list[dict]) -> tuple[float, float, float]:
    """The right end, and the lowest and highest difference, with room around the intervals."""
    across = [point[key] for point in points for key in ("x", "x_high") if point[key] is not None]
    up = [point[key] for point in points for key in ("y", "y_low", "y_high") if point[key] is not None] + [0.0]
    room = 0.1 * (max(up) - min(up)) or 0.01
    return (max(across) * 1.07 or 0.01), min(up) - room, max(up) + room


def _whiskers(tables: Tables, points: list[dict], x: Any, y: Any) -> list:
    """Both intervals of every point as thin lines."""
    thin = {"strokeWidth": 1, "color": LIGHT["main"], "opacity": 0.3 if len(points) > 30 else 0.55}
    up = tables([point for point in points if point["y_low"] is not None and point["y_high"] is not None])
    across = tables([point for point in points if point["x_low"] is not None and point["x_high"] is not None])
    lower, left = y.copy(), x.copy()
    lower.shorthand, left.shorthand = "y_low:Q", "x_low:Q"
    return [up.mark_rule(**thin).encode(x=x, y=lower, y2="y_high:Q"), across.mark_rule(**thin).encode(x=left, x2="x_high:Q", y=y)]


def _dots(tables: Tables, points: list[dict], x: Any, y: Any) -> list:
    """Layers as dots, darker with depth; places outside the profile as hollow diamonds."""
    import altair as alt

    told = [alt.Tooltip("layer:N"), alt.Tooltip("change:N"), alt.Tooltip("change_interval:N", title="95%")]
    told += [alt.Tooltip("base:N", title="base accuracy"), alt.Tooltip("tuned:N", title="tuned accuracy")]
    told += [alt.Tooltip("said:N", title="difference"), alt.Tooltip("between:N", title="95%"), alt.Tooltip("status:N")]
    layers = [point for point in points if point["i"] is not None]
    others = [point for point in points if point["i"] is None]
    ramp = alt.Color("depth:Q", scale=alt.Scale(domain=[0, 1], range=RAMP[2:]), legend=None)
    size = 30 if len(layers) > 30 else 80
    parts = [
        tables(layers).mark_circle(size=size, opacity=1, stroke=LIGHT["paper"], strokeWidth=1).encode(x=x, y=y, color=ramp, tooltip=told)
    ]
    if others:
        diamond = {"shape": "diamond", "size": size + 30, "opacity": 1, "stroke": LIGHT["ink"], "fill": LIGHT["paper"], "strokeWidth": 1.6}
        parts.append(tables(others).mark_point(**diamond).encode(x=x, y=y, tooltip=told))
    return parts


def _labels(tables: Tables, points: list[dict], x: Any, y: Any, domain: tuple[float, float, float], width: float, fits: str) -> list:
    """The names of the points, placed for one plot width and seen only near it."""
    right, low, high = domain
    left = min(0.0, *(point["x"] for point in points)) - 0.05 * right
    pixels = [((point["x"] - left) / (right - left) * width, (high - point["y"]) / (high - low) * HEIGHT) for point in points]
    offsets = point_labels.place(
        pixels, [point["word"] for point in points], width=width, height=HEIGHT, lines=[high / (high - low) * HEIGHT]
    )
    parts = []
    for point, offset in zip(points, offsets, strict=True):
        if offset is not None:
            mark = {
                "dx": offset[0],
                "dy": offset[1],
                "baseline": "middle",
                "fontSize": 11.5,
                "color": LIGHT["ink"],
                "opacity": {"expr": fits},
            }
            parts.append(tables([point]).mark_text(**mark).encode(x=x, y=y, text="word:N"))
    return parts
