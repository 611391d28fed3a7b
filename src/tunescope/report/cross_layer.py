"""The heat map: every base layer against every tuned layer."""

from __future__ import annotations

import json
import math
from typing import Any

from tunescope.report import reading
from tunescope.report.chart_parts import DROP_ZERO, Tables
from tunescope.report.numbers import three
from tunescope.report.theme import LIGHT, RAMP

LABELLED_CELLS = 14


def cross_layer(payload: reading.Payload, tables: Tables) -> Any:
    """Every base layer against every tuned layer; layers of the same name outlined, values in the cells where they fit."""
    import altair as alt

    cross = payload["cross"]
    about = reading.about(payload, cross["measure"])
    closer = "closest" if str(about.get("direction", "higher")).startswith("higher") else "least moved"
    rows, columns = [str(n) for n in cross["base_names"]], [str(n) for n in cross["tuned_names"]]
    null = cross.get("null")
    cells = []
    for r, line in enumerate(cross["values"]):
        for c, value in enumerate(line):
            if value is None:
                continue
            cell = {
                "r": r,
                "c": c,
                "base": rows[r],
                "tuned": columns[c],
                "v": value,
                "said": three(value),
                "own": rows[r] == columns[c] or None,
            }
            cells.append(cell | ({"chance": three(null[r][c])} if null else {}))
    seen = [cell["v"] for cell in cells] or [0.0]
    low, high = (about.get("range") or [None, None])[:2]
    domain = [min(0.0, *seen) if low is None else min(low, *seen), max(1.0, *seen) if high is None else max(high, *seen)]
    higher = closer == "closest"
    cut = domain[0] + (0.66 if higher else 0.34) * (domain[1] - domain[0])
    dark = f"datum.v {'>' if higher else '<'} {cut}"

    def axis(names: list[str], title: str, **more: Any) -> Any:
        step = math.ceil(len(names) / 16)
        short = json.dumps({str(i): "emb" if name == "embeddings" else name.removeprefix("block ")[:12] for i, name in enumerate(names)})
        shown = [i for i in range(len(names)) if i % step == 0]
        return alt.Axis(
            title=title, values=shown, labelExpr=f"{short}[datum.value]", ticks=False, domain=False, labelAngle=0, grid=False, **more
        )

    x = alt.X("c:O", axis=axis(columns, "tuned layer", orient="bottom", titlePadding=6), scale=alt.Scale(paddingInner=0.03))
    y = alt.Y("r:O", axis=axis(rows, "base layer", titlePadding=8), scale=alt.Scale(paddingInner=0.03))
    legend = alt.Legend(title=about["title"], orient="top", direction="horizontal", gradientLength=150, gradientThickness=9,
                        tickCount=2, titlePadding=6, labelExpr=DROP_ZERO, gradientStrokeColor=LIGHT["rule"])  # fmt: skip
    ramp = alt.Color("v:Q", scale=alt.Scale(domain=domain, range=RAMP if higher else RAMP[::-1]), legend=legend)
    told = [alt.Tooltip("base:N"), alt.Tooltip("tuned:N"), alt.Tooltip("said:N", title=about["title"])]
    told += [alt.Tooltip("chance:N", title="chance")] if null else []
    grid = tables(cells)
    parts = [grid.mark_rect().encode(x=x, y=y, color=ramp, tooltip=told)]
    few = max(len(rows), len(columns)) <= LABELLED_CELLS
    own = grid.transform_filter("datum.own").mark_rect(filled=False, stroke=LIGHT["ink"], strokeWidth=1.4 if few else 0.6)
    parts.append(own.encode(x=x, y=y, tooltip=told))
    if few:
        fits = {"expr": f"width / {len(columns)} > 33 ? 1 : 0"}
        ink = alt.condition(dark, alt.value(LIGHT["on_high"]), alt.value(LIGHT["on_low"]))
        parts.append(grid.mark_text(fontSize=11.5, opacity=fits).encode(x=x, y=y, text=alt.Text("said:N"), color=ink, tooltip=told))
    return alt.layer(*parts).properties(height="container")
