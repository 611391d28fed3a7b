"""Bars of a place: how much of Δ each way of reconstructing it leaves, and how often features fire."""

from __future__ import annotations

import math
from typing import Any

from tunescope.report import features_reading as found
from tunescope.report import features_words as words
from tunescope.report.chart_parts import DROP_ZERO, Tables
from tunescope.report.features_marks import CEILING
from tunescope.report.numbers import count, interval, two_digits
from tunescope.report.reading import Payload
from tunescope.report.theme import LIGHT

BAR_PX, HEIGHT = 24, 104
MOST = 1.6  # unexplained share at which bars are cut: an encoder that fails leaves up to a hundred times the variance
_EDGES = (-6.0, 0.0)  # decades of the density histogram, in equal bins


def reconstruction_bars(payload: Payload, place: found.Place, tables: Tables) -> Any | None:
    """The unexplained share of each way, with the random dictionary's and the tuned model's as lines through all bars."""
    import altair as alt

    rows = [row for row in found.reconstruction(payload, place) if row["value"] is not None]
    if not rows:
        return None
    names: list[str] = [words.WAYS.get(row["sides"]) or str(row["sides"]) for row in rows]
    most = min(max(1.05, *(row["value"] for row in rows)), MOST)
    data = [
        {
            "name": name, "v": min(row["value"], most), "cut": row["value"] > most, "own": row["sides"] in _OWN,
            "short": words.share(row["value"]) + (" →" if row["value"] > most else ""),
            "said": f"{words.share(row['value'])} {interval(row['low'], row['high']) if row.get('low') is not None else ''}".strip(),
            "note": row.get("note") or "",
        }
        for name, row in zip(names, rows, strict=True)
    ]  # fmt: skip
    axis = alt.Axis(title=None, labelExpr=DROP_ZERO, ticks=False, domain=False, values=[0, 0.5, 1, 1.5], grid=False, labelPadding=4)
    scale = alt.Scale(domain=[0, most * (1.3 if any(row["cut"] for row in data) else 1.22)], nice=False, zero=True)
    side = alt.Axis(title=None, ticks=False, domain=False, labelPadding=6, labelLimit=130, grid=False)
    x, y = (
        alt.X("v:Q", axis=axis, scale=scale),
        alt.Y("name:N", sort=names, axis=side, scale=alt.Scale(paddingInner=0.34, paddingOuter=0.3)),
    )
    told = [alt.Tooltip("name:N", title="by"), alt.Tooltip("said:N", title="unexplained"), alt.Tooltip("note:N", title="features")]
    ink = alt.condition("datum.own", alt.value(LIGHT["main"]), alt.value(LIGHT["quiet_bar"]))
    grid = tables(data)
    parts = [grid.mark_bar().encode(x=x, y=y, color=ink, tooltip=told)]
    for end, colour in (("floor", LIGHT["floor"]), ("ceiling", CEILING)):
        if rows[0].get(end) is not None:
            line = tables([{"v": min(rows[0][end], most)}]).mark_rule(color=colour, strokeWidth=1.6)
            parts.append(line.encode(x=x))
    for style in ({"stroke": LIGHT["paper"], "strokeWidth": 4, "fill": LIGHT["paper"]}, {"color": LIGHT["ink"]}):  # a label over a line
        parts.append(grid.mark_text(align="left", dx=5, baseline="middle", **style).encode(x=x, y=y, text="short:N"))
    return alt.layer(*parts).properties(height=BAR_PX * len(rows) + 6)


_OWN = ("the adapter's dictionary, its own encoder", "the adapter's decoder, re-coded")


def histograms(payload: Payload, place: found.Place) -> list[found.Row]:
    """The dictionaries of a place whose density was counted."""
    return [row for row in found.at(payload, "quality", place) if row.get("histogram")]


def density_panel(payload: Payload, place: found.Place, tables: Tables) -> Any | None:
    """How many features fire how often: bars of the first seed, thin outlines of the others; the same axes at every place."""
    import altair as alt

    rows = histograms(payload, place)
    if not rows:
        return None
    everywhere = [row["histogram"] for each in found.places(payload) for row in histograms(payload, each)]
    most = max(max(counts) for counts in everywhere) or 1
    used = [number for counts in everywhere for number, value in enumerate(counts) if value]
    bins = len(rows[0]["histogram"])
    edges = [_EDGES[0] + (_EDGES[1] - _EDGES[0]) * number / bins for number in range(bins + 1)]
    first = math.floor(edges[min(used, default=0)])
    bars = [row for seed in rows for row in _bins(seed, edges) if row["b"] > first]
    values = list(range(first, 1))
    names = "{'0': '1', '-1': '.1', '-2': '.01', '-3': '.001', '-4': '1e−4', '-5': '1e−5', '-6': '1e−6'}"
    axis = alt.Axis(title=None, values=values, labelExpr=f"{names}[datum.value]", ticks=False, domainColor=LIGHT["rule"], grid=False,
                    labelPadding=3, labelFlush=False)  # fmt: skip
    x = alt.X("a:Q", axis=axis, scale=alt.Scale(domain=[first - 0.12, 0.12], nice=False, zero=False))
    up = alt.Axis(title=None, labels=True, values=[most], ticks=False, domain=False, grid=False, minExtent=20, labelExpr=f"'{count(most)}'")
    y = alt.Y("n:Q", axis=up, scale=alt.Scale(domain=[0, most * 1.08], nice=False))
    told = [alt.Tooltip("between:N", title="density"), alt.Tooltip("n:Q", title="features"), alt.Tooltip("seed:N")]
    own = tables([row for row in bars if row["seed"] == str(rows[0]["seed"])])
    parts = [
        own.mark_bar(color=LIGHT["quiet_bar"], stroke=LIGHT["paper"], strokeWidth=0.7).encode(x=x, x2="b:Q", y=y, y2="zero:Q", tooltip=told)
    ]
    others = [row for row in bars if row["seed"] != str(rows[0]["seed"])]
    if others:
        parts.append(tables(others).mark_rule(color=LIGHT["main"], strokeWidth=1.6).encode(x=x, x2="b:Q", y=y, tooltip=told))
    middle = rows[0].get("median_density")
    if middle:
        line = tables([{"a": math.log10(middle), "said": two_digits(middle)}]).mark_rule(color=LIGHT["ink"], strokeWidth=1.2)
        parts.append(line.encode(x=x, tooltip=alt.Tooltip("said:N", title="median density")))
    return alt.layer(*parts).properties(height=HEIGHT)


def _bins(row: found.Row, edges: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "a": low,
            "b": high,
            "n": value,
            "zero": 0,
            "seed": str(row["seed"]),
            "between": f"{two_digits(10**low)} to {two_digits(10**high)}",
        }
        for low, high, value in zip(edges, edges[1:], row["histogram"], strict=False)
    ]
