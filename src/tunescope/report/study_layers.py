"""Layer by layer: similarity as a curve, and beside it the change of a probe's score as bars."""

from __future__ import annotations

from typing import Any

from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import signed, three
from tunescope.report.study_axes import amounts, domain
from tunescope.report.theme import LIGHT

HEIGHT = 180


def _layer_axis(rows: list[dict[str, Any]], field: str = "layer") -> Any:
    import altair as alt

    layers = [row["layer"] for row in rows]
    axis = alt.Axis(
        values=layers,
        labelExpr="datum.value == 0 ? 'emb' : format(datum.value, 'd')",
        grid=False,
        ticks=False,
        domain=False,
        labelPadding=4,
        labelOverlap="greedy",
        title="layer",
        titlePadding=6,
    )
    return alt.X(f"{field}:Q", axis=axis, scale=alt.Scale(domain=[layers[0] - 0.5, layers[-1] + 0.5], nice=False, zero=False))


def layer_curve(group: dict[str, Any], tables: Tables) -> Any | None:
    """The measure's value at every layer."""
    import altair as alt

    rows = [row | {"said": three(row["value"])} for row in group["rows"] if row["value"] is not None]
    if not rows:
        return None
    x = _layer_axis(rows)
    top = max([1.0, *(row["value"] for row in rows)])
    low = min(0.0, *(row["value"] for row in rows))
    y = alt.Y("value:Q", axis=amounts(ticks=4, grid=True), scale=alt.Scale(domain=[low, top * 1.06], nice=False, zero=False))
    base = tables(rows)
    told = [alt.Tooltip("layer:N"), alt.Tooltip("said:N", title="value"), alt.Tooltip("runs:N")]
    parts = [
        base.mark_line(color=LIGHT["main"], strokeWidth=2).encode(x=x, y=y),
        base.mark_point(color=LIGHT["main"], filled=True, size=46, opacity=1).encode(x=x, y=y, tooltip=told),
        tables(rows if len(rows) < 9 else rows[-1:]).mark_text(dy=-11, color=LIGHT["ink"]).encode(x=x, y=y, text="said:N"),
    ]
    return alt.layer(*parts).properties(height=HEIGHT)


def layer_gains(group: dict[str, Any], tables: Tables) -> Any | None:
    """Tuned − base at every layer."""
    import altair as alt

    rows = [
        row | {"said": signed(row["gain"]), "a": row["layer"] - 0.34, "b": row["layer"] + 0.34}
        for row in group["rows"]
        if row["gain"] is not None
    ]
    if not rows:
        return None
    x = _layer_axis(rows)
    low, high = domain([row["gain"] for row in rows], room=0.12)
    y = alt.Y("gain:Q", axis=amounts(ticks=4, grid=True, signed=True), scale=alt.Scale(domain=[low, high], nice=False, zero=False))
    base = tables(rows)
    told = [alt.Tooltip("layer:N"), alt.Tooltip("said:N", title="gain"), alt.Tooltip("runs:N")]
    edge = _layer_axis(rows, "a")
    parts = [
        base.mark_rect(color=LIGHT["main"], opacity=1).encode(x=edge, x2="b:Q", y=y, y2=alt.datum(0), tooltip=told),
        tables([{"gain": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1).encode(y=y),
    ]
    if len(rows) < 9:
        parts += [
            tables([row for row in rows if (row["gain"] >= 0) == up])
            .mark_text(dy=-8 if up else 10, color=LIGHT["ink"])
            .encode(x=x, y=y, text="said:N")
            for up in (True, False)
        ]
    return alt.layer(*parts).properties(height=HEIGHT)
