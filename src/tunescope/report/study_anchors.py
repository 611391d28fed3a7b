"""Ranks of the conditions on every text set: lines that do not cross are an order that does not depend on the texts."""

from __future__ import annotations

import json
from typing import Any

from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import one_decimal, three
from tunescope.report.study_series import listed, shades
from tunescope.report.theme import LIGHT

RANK_PX = 28


def anchor_ranks(entry: dict[str, Any], tables: Tables) -> Any | None:
    """Text sets across, rank 1 (moved most) on top; ties share their mean rank."""
    import altair as alt

    lines, texts = entry["lines"], entry.get("texts") or []
    if not lines:
        return None
    ordered = sorted(lines, key=lambda line: line["ranks"][texts[0]])
    colours = listed([line["condition"] for line in ordered])
    rows = [
        {
            "i": i,
            "rank": line["ranks"][name],
            "name": line["condition"],
            "texts": name,
            "change": three(line["changes"][name]),
            "said": one_decimal(line["ranks"][name]),
            "colour": colours[line["condition"]].role,
            "dash": list(colours[line["condition"]].dash),
        }
        for line in ordered
        for i, name in enumerate(texts)
    ]
    axis = alt.Axis(
        values=list(range(len(texts))),
        labelExpr=f"{json.dumps(texts)}[datum.value]",
        grid=False,
        ticks=False,
        domain=False,
        orient="top",
        title=None,
        labelPadding=6,
        labelLimit=120,
    )
    x = alt.X("i:Q", axis=axis, scale=alt.Scale(domain=[-0.15, (len(texts) - 1) * 1.7 + 0.2], nice=False, zero=False))
    ranks = alt.Axis(values=list(range(1, len(lines) + 1)), grid=False, ticks=False, domain=False, title=None, labelPadding=6)
    y = alt.Y("rank:Q", axis=ranks, scale=alt.Scale(domain=[0.5, len(lines) + 0.5], reverse=True, nice=False, zero=False))
    colour = shades()
    told = [alt.Tooltip("name:N", title="condition"), alt.Tooltip("texts:N"), alt.Tooltip("said:N", title="rank"), alt.Tooltip("change:N")]
    base = tables(rows)
    tied: dict[float, list[dict[str, Any]]] = {}  # lines that end at one place share a label
    for row in [row for row in rows if row["i"] == len(texts) - 1]:
        tied.setdefault(row["rank"], []).append(row)
    last = [group[0] | {"label": ", ".join(row["name"] for row in group)} for group in tied.values()]
    parts = [
        base.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour, detail="name:N", strokeDash=alt.StrokeDash("dash:N", scale=None)),
        base.mark_point(filled=True, size=64, opacity=1).encode(x=x, y=y, color=colour, tooltip=told),
        tables(last).mark_text(align="left", dx=10, baseline="middle", color=LIGHT["ink"]).encode(x=x, y=y, text="label:N"),
    ]
    return alt.layer(*parts).properties(height=RANK_PX * len(lines))
