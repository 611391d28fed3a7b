"""Dot and whisker: one mean difference, its 95% interval, the margin that would not matter, and zero."""

from __future__ import annotations

from typing import Any

from tunescope.report import outcome_words
from tunescope.report.chart_parts import DROP_ZERO, Tables
from tunescope.report.numbers import signed, stated
from tunescope.report.theme import LIGHT

HEIGHT = 44
SIGNED = f"(datum.value > 0 ? '+' : '') + {DROP_ZERO}"
_MIDDLE = 26
COLOURS = {"better": LIGHT["main"], "worse": LIGHT["control_0"]}


def colour(verdict: str) -> str:
    return COLOURS.get(verdict, LIGHT["muted"])


def span(rows: list[dict]) -> tuple[float, float]:
    """The range that holds zero, every interval and every margin of these rows, with room for a label at either end."""
    seen = [row[key] for row in rows for key in ("delta", "low", "high") if row.get(key) is not None]
    margin = max((row.get("margin") or 0.0 for row in rows), default=0.0)
    low, high = min(seen + [0.0, -margin]), max(seen + [0.0, margin])
    room = 0.16 * (high - low) or 0.01
    return low - room, high + room


def outcome_whisker(row: dict, alike: list[dict], tables: Tables) -> Any | None:
    """The difference of one task, on the scale of all tasks of its metric (`alike`)."""
    import altair as alt

    if row.get("delta") is None:
        return None
    low, high = span(alike)
    left, right = ("worse", "better") if row["higher_is_better"] else ("better", "worse")
    axis = alt.Axis(title=f"← {left} · tuned − base · {right} →", tickCount=5, ticks=False,
                    domain=False, grid=False, labelExpr=SIGNED, labelPadding=3, titlePadding=5)  # fmt: skip
    x = alt.X("v:Q", axis=axis, scale=alt.Scale(domain=[low, high], nice=False, zero=False))
    ink = colour(row["verdict"])
    point = {"v": row["delta"], "low": row.get("low"), "high": row.get("high"), "said": signed(row["delta"]),
             "interval": outcome_words.reach(row), "verdict": row["verdict"]}  # fmt: skip
    told = [alt.Tooltip("said:N", title="difference"), alt.Tooltip("interval:N", title="95%"), alt.Tooltip("verdict:N")]
    mark = tables([point])
    parts = _band(row, x, tables)
    parts.append(tables([{"v": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1.2, y=_MIDDLE - 8, y2=HEIGHT).encode(x=x))
    if point["interval"]:
        ends = alt.X("low:Q", axis=axis, scale=alt.Scale(domain=[low, high], nice=False, zero=False))
        parts.append(mark.mark_rule(color=ink, strokeWidth=2, y=_MIDDLE).encode(x=ends, x2="high:Q", tooltip=told))
    hollow = row["verdict"] == "no difference shown"
    dot = {"stroke": ink, "fill": LIGHT["paper"] if hollow else ink, "strokeWidth": 2, "size": 74, "opacity": 1, "y": _MIDDLE}
    parts.append(mark.mark_point(**dot).encode(x=x, tooltip=told))
    parts.append(mark.mark_text(y=_MIDDLE - 15, fontWeight="bold", color=ink).encode(x=x, text="said:N"))
    return alt.layer(*parts).properties(height=HEIGHT)


def _band(row: dict, x: Any, tables: Tables) -> list:
    """The margin, where one was stated."""
    margin = row.get("margin") or 0.0
    if margin <= 0:
        return []
    band = tables([{"v": -margin, "to": margin, "said": f"±{stated(margin)}"}])
    box = {"color": LIGHT["untouched"], "opacity": 1, "y": 0, "y2": HEIGHT}
    return [band.mark_rect(**box).encode(x=x, x2="to:Q", tooltip="said:N")]
