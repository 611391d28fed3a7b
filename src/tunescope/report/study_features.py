"""Features by tuned model and layer: one measure a panel, each value with its interval, floor and ceiling."""

from __future__ import annotations

import math
from typing import Any

from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import amount, interval, three, two_digits
from tunescope.report.study_axes import amounts, domain, rows_axis
from tunescope.report.study_series import Series, shades
from tunescope.report.theme import CONTROLS, LIGHT

FEATURE_PX, SPAN = 36, 0.56
CUT = 1.5  # of the variance left unexplained: beyond, a dictionary does worse than none, and is written out


def feature_panel(entry: dict[str, Any], colours: dict[str, Series], tables: Tables) -> Any | None:
    """A row a tuned model, a colour a layer; grey ticks: the floor, green ticks: the ceiling."""
    import altair as alt

    lines = [line for line in entry["lines"] if str(line["layer"]) in colours]
    names = list(dict.fromkeys(line["shown"] for line in lines))
    rows = [_row(line, names, list(colours), colours) for line in lines]
    most = CUT if entry["measure"] == "unexplained_share" else math.inf
    cut, rows = [row for row in rows if row["v"] > most], [row for row in rows if row["v"] <= most]
    every = [row[name] for row in rows for name in ("v", "low", "high", "floor", "ceiling")]
    scale = alt.Scale(domain=list(domain(every)), nice=False, zero=False)
    y, colour = rows_axis(names, limit=160, width=26), shades()
    told = [
        alt.Tooltip("name:N", title="of"),
        alt.Tooltip("layer:N"),
        alt.Tooltip("said:N", title="value"),
        alt.Tooltip("chance:N", title="floor"),
        alt.Tooltip("top:N", title="ceiling"),
        alt.Tooltip("n:N"),
    ]

    def across(key: str) -> Any:
        return alt.X(f"{key}:Q", axis=amounts(ticks=5), scale=scale)

    tick = {"thickness": 2, "size": 11, "orient": "vertical", "opacity": 1}
    parts = [
        tables([{"row": row} for row in range(len(names) + 1)]).mark_rule(color=LIGHT["rule"], strokeWidth=1).encode(y=y),
        tables([row for row in rows if row["floor"] is not None])
        .mark_tick(color=LIGHT["floor"], **tick)
        .encode(x=across("floor"), y=y, tooltip=told),
        tables([row for row in rows if row["ceiling"] is not None])
        .mark_tick(color=CONTROLS[1], **tick)
        .encode(x=across("ceiling"), y=y, tooltip=told),
        tables([row for row in rows if row["low"] is not None])
        .mark_rule(strokeWidth=1.6)
        .encode(x=across("low"), x2="high:Q", y=y, color=colour),
        tables(cut).mark_text(align="right", x="width", baseline="middle").encode(y=y, text="cut:N", color=colour, tooltip=told),
        tables(rows).mark_point(filled=True, size=48, opacity=1).encode(x=across("v"), y=y, color=colour, tooltip=told),
    ]
    return alt.layer(*parts).properties(height=FEATURE_PX * len(names))


def _row(line: dict[str, Any], names: list[str], layers: list[str], colours: dict[str, Series]) -> dict[str, Any]:
    layer = str(line["layer"])
    place = 0.0 if len(layers) < 2 else SPAN * (layers.index(layer) / (len(layers) - 1) - 0.5)
    said = amount(line["value"]) if abs(line["value"]) >= 0.1 else two_digits(line["value"])
    floor = None if line["floor"] is None else three(line["floor"]) + (f" ± {two_digits(line['floor_sd'])}" if line["floor_sd"] else "")
    return {
        "row": names.index(line["shown"]) + 0.5 + place,
        "v": line["value"],
        "low": line["low"],
        "high": line["high"],
        "floor": line["floor"],
        "ceiling": line["ceiling"],
        "name": f"{line['name']} {line['detail']}".strip(),
        "layer": layer,
        "colour": colours[layer].role,
        "said": said + (f" {interval(line['low'], line['high'])}" if line["low"] is not None else ""),
        "chance": floor or "–",
        "top": three(line["ceiling"]),
        "n": str(line["n"] or "–"),
        "cut": f"{amount(line['value'])} →",
    }
