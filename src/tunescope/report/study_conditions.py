"""Conditions as bars: how far each moved beside what came of it, in one order, coloured by regime, with error bars."""

from __future__ import annotations

from typing import Any

from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import count, interval, signed, three
from tunescope.report.study_axes import amounts, domain, rows_axis
from tunescope.report.study_series import Series, shades
from tunescope.report.theme import LIGHT

BAR_PX = 30


def condition_bars(entry: dict[str, Any], column: int, colours: dict[str | None, Series], tables: Tables) -> Any | None:
    """One column: a bar a condition from 0, an error bar of one sd over seeds, or the 95% interval of a single run."""
    import altair as alt

    outcome = entry["columns"][column]["subject"] == "outcome"
    rows = [_row(line, column, row, colours, outcome) for row, line in enumerate(entry["lines"]) if line["cells"][column]]
    if not rows:
        return None
    every = [row[name] for row in rows for name in ("v", "low", "high")]
    low, high = domain(every, room=0.02)
    room = 0.3 * (high - low)
    scale = alt.Scale(
        domain=[low - (room if low < 0 else 0), high + (room if high > 0 and max(r["v"] for r in rows) > 0 else 0)], nice=False, zero=False
    )
    x = alt.X("v:Q", axis=amounts(ticks=4, signed=outcome), scale=scale)
    y, colour = rows_axis([line["condition"] for line in entry["lines"]], limit=150, width=24), shades()
    told = [
        alt.Tooltip("name:N", title="condition"),
        alt.Tooltip("regime:N"),
        alt.Tooltip("said:N", title="change"),
        alt.Tooltip("within:N", title="spread"),
        alt.Tooltip("over:N", title="over"),
    ]
    base = tables(rows)
    whisker = tables([row for row in rows if row["low"] is not None])
    text: dict[str, Any] = {"baseline": "middle", "color": LIGHT["ink"]}
    parts = [
        base.mark_bar(height=15, opacity=1).encode(x=x, x2=alt.datum(0), y=y, color=colour, tooltip=told),
        tables([{"v": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1).encode(x=x),
        whisker.mark_rule(color=LIGHT["ink"], strokeWidth=1.4).encode(x=alt.X("low:Q"), x2="high:Q", y=y),
        tables([row for row in rows if row["v"] >= 0]).mark_text(align="left", dx=5, **text).encode(x=alt.X("edge:Q"), y=y, text="said:N"),
        tables([row for row in rows if row["v"] < 0]).mark_text(align="right", dx=-5, **text).encode(x=alt.X("edge:Q"), y=y, text="said:N"),
    ]
    return alt.layer(*parts).properties(height=BAR_PX * len(entry["lines"]))


def spread(cell: dict[str, Any]) -> tuple[float | None, float | None]:
    """Ends of the error bar."""
    if cell["sd"] is not None:
        return cell["mean"] - cell["sd"], cell["mean"] + cell["sd"]
    return cell["low"], cell["high"]


def within(cell: dict[str, Any]) -> str:
    """What the error bar is, in words: "± .013 over 3 seeds", "[.021, .043]"."""
    if cell["sd"] is not None:
        over = ", as printed" if cell["printed_sd"] else f" over {cell['seeds']} seeds"
        return f"± {three(cell['sd'])}{over}"
    return interval(cell["low"], cell["high"]) if cell["low"] is not None else "one run, no interval"


def _row(line: dict[str, Any], column: int, row: int, colours: dict[str | None, Series], outcome: bool) -> dict[str, Any]:
    cell = line["cells"][column]
    low, high = spread(cell)
    ends = [cell["mean"], *(end for end in (low, high) if end is not None)]
    return {
        "row": row + 0.5,
        "v": cell["mean"],
        "low": low,
        "high": high,
        "edge": max(ends) if cell["mean"] >= 0 else min(ends),
        "colour": colours[line["regime"]].role,
        "name": line["condition"],
        "regime": line["regime"] or "not told",
        "said": signed(cell["mean"]) if outcome else three(cell["mean"]),
        "within": within(cell),
        "over": f"{count(cell['n'])} items" if cell["n"] else "not told",
    }
