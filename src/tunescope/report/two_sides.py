"""A measure of each side by itself (isotropy): base and tuned, by layer."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading
from tunescope.report.chart_parts import Tables, amount_axis, block_axis, spread
from tunescope.report.numbers import three
from tunescope.report.theme import LIGHT

HEIGHT = 220


def two_sides(payload: reading.Payload, measure: str, tables: Tables) -> Any | None:
    """A measure of each side by itself (isotropy), base and tuned, by layer."""
    import altair as alt

    rows = reading.layers(payload)
    sides: dict[str, list[dict]] = {"base": [], "tuned": []}
    for row in rows:
        numbers = reading.entry(row, measure)
        for side, key in (("base", "base"), ("tuned", "value")):
            if numbers.get(key) is not None:
                band = {"low": numbers.get("low"), "high": numbers.get("high")} if side == "tuned" else {}
                sides[side].append(
                    {"i": row["index"], "layer": row["name"], "side": side, "v": numbers[key], "said": three(numbers[key])} | band
                )
    seen = [point[key] for points in sides.values() for point in points for key in ("v", "low", "high") if point.get(key) is not None]
    if not sides["base"] or not sides["tuned"]:
        return None
    top, low = max(*seen, 0.0) * 1.08 or 0.01, min(*seen, 0.0) * 1.08
    axis, scale = block_axis(rows)
    x = alt.X("i:Q", axis=axis, scale=scale)
    y = alt.Y("v:Q", axis=amount_axis(measure), scale=alt.Scale(domain=[low, top], nice=False))
    told = [alt.Tooltip("layer:N"), alt.Tooltip("side:N"), alt.Tooltip("said:N", title=measure)]
    parts = []
    pixel = [(top - sides[side][-1]["v"]) / (top - low) * HEIGHT for side in ("base", "tuned")]
    centres = spread(pixel, [14.0, 14.0], 0, HEIGHT)
    for (side, points), centre in zip(sides.items(), centres, strict=True):
        colour = LIGHT["main"] if side == "tuned" else LIGHT["floor"]
        chart = tables(points)
        if any(point.get("low") is not None for point in points):
            parts.append(chart.mark_area(color=colour, opacity=0.16).encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q")))
        parts.append(chart.mark_line(color=colour, strokeWidth=1.8).encode(x=x, y=y))
        parts.append(chart.mark_point(stroke=colour, fill=colour if side == "tuned" else LIGHT["paper"], opacity=1,
                                      size=12 if len(rows) > 40 else 34).encode(x=x, y=y, tooltip=told))  # fmt: skip
        word = {
            "align": "left",
            "x": "width",
            "dx": -2,
            "y": centre,
            "color": colour,
            "fontWeight": "bold" if side == "tuned" else "normal",
        }
        parts.append(tables([{"said": side}]).mark_text(**word).encode(text=alt.Text("said:N")))
    return alt.layer(*parts).properties(height=HEIGHT)
