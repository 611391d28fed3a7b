"""Widths: each depth's share of the change, a row a model, the spread over its runs as whiskers."""

from __future__ import annotations

from typing import Any

from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import percent
from tunescope.report.study_axes import rows_axis
from tunescope.report.theme import LIGHT

WIDTH_PX, FULL, FOOT = 44, 0.8, 0.8


def ordered_widths(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """From the widest to the most concentrated."""
    return sorted(entry["lines"], key=lambda line: line["shares"][-1])


def width_rows(entry: dict[str, Any], tables: Tables) -> Any | None:
    """Bars of shares; the last one named, with its whisker of one sd."""
    import altair as alt

    lines = ordered_widths(entry)
    most = max((share + (sd or 0) for line in lines for share, sd in zip(line["shares"], line["sd"], strict=True)), default=1)
    bars = [bar for row, line in enumerate(lines) for bar in _bars(line, row, FULL / (most or 1))]
    if not bars:
        return None
    same = len({tuple(line["depths"]) for line in lines}) == 1
    depths = lines[0]["depths"]
    axis = (
        alt.Axis(
            values=[(place + 0.5) / len(depths) for place in range(len(depths))],
            grid=False,
            ticks=False,
            domain=False,
            labelExpr=f"{[f'{depth:.2f}'.removeprefix('0') for depth in depths]}[round(datum.value * {len(depths)} - .5)]",
            title="relative depth",
            titlePadding=6,
            labelOverlap="greedy",
        )
        if same
        else alt.Axis(values=[], title="from the first block to the last", domain=False)
    )
    x = alt.X("a:Q", axis=axis, scale=alt.Scale(domain=[0, 1], nice=False))
    y = rows_axis([line["model"] for line in lines], field="top", width=24, at=FOOT, limit=150)
    colour = alt.condition("datum.last", alt.value(LIGHT["main"]), alt.value(LIGHT["quiet_bar"]))
    told = [alt.Tooltip("model:N"), alt.Tooltip("depth:N"), alt.Tooltip("said:N", title="share of the change"), alt.Tooltip("runs:N")]
    base, last = tables(bars), tables([bar for bar in bars if bar["last"]])
    middle = alt.X("middle:Q", axis=axis, scale=alt.Scale(domain=[0, 1], nice=False))
    foot = rows_axis([line["model"] for line in lines], field="foot", width=24, at=FOOT, limit=150)
    parts = [
        tables([{"foot": row + 1} for row in range(len(lines))]).mark_rule(color=LIGHT["rule"]).encode(y=foot),
        base.mark_rect(opacity=1).encode(x=x, x2="b:Q", y=y, y2="foot:Q", color=colour, tooltip=told),
        tables([bar for bar in bars if bar["low"] is not None])
        .mark_rule(color=LIGHT["ink"], opacity=0.75, strokeWidth=1.2)
        .encode(x=middle, y=alt.Y("low:Q"), y2="high:Q"),
        last.mark_text(align="left", x="width", dx=6, baseline="bottom", dy=1, color=LIGHT["main"]).encode(y=foot, text="share_said:N"),
    ]
    return alt.layer(*parts).properties(height=WIDTH_PX * len(lines))


def _bars(line: dict[str, Any], row: int, full: float) -> list[dict[str, Any]]:
    """full: the height of the whole, in rows."""
    many = len(line["shares"])
    out = []
    for place, (depth, share, sd) in enumerate(zip(line["depths"], line["shares"], line["sd"], strict=True)):
        top, reach = row + 1 - full * max(share, 0), full * (sd or 0)
        out.append(
            {
                "a": (place + 0.12) / many,
                "b": (place + 0.88) / many,
                "middle": (place + 0.5) / many,
                "top": top,
                "foot": row + 1,
                "low": None if sd is None else max(top - reach, row + 0.02),
                "high": None if sd is None else min(top + reach, row + 1),
                "model": line["model"],
                "depth": f"{depth:.2f}",
                "last": place == many - 1,
                "runs": str(line["runs"]),
                "share_said": percent(share),
                "said": percent(share) + (f" ± {percent(sd)}" if sd is not None else ""),
            }
        )
    return out
