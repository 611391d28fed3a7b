"""Does it hold elsewhere? The depth curve on every text set and under every pooling, on one scale, with what was found in words."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading
from tunescope.report.chart_parts import Tables, amount_axis, block_axis
from tunescope.report.depth_curve import depth_rows
from tunescope.report.numbers import count, interval, percent, signed, three
from tunescope.report.theme import LIGHT

HEIGHT = 132
_WORDS = ("untouched", "refined", "rewritten")


def panels(payload: reading.Payload) -> list[dict]:
    """The profiles to draw: the main text set, the others, then the other poolings; none when there is only the main one."""
    found = payload.get("text_sets") or {}
    sets, poolings = found.get("sets") or [], found.get("pooling") or []
    return [*sets, *poolings] if len(sets) + len(poolings) > 1 else []


def elsewhere_chart(payload: reading.Payload, order: int, tables: Tables) -> Any | None:
    """One small depth curve with its interval and chance floor; the main one grey behind it. All panels share their scale."""
    import altair as alt

    measure, shown = reading.comparing(payload)[0], panels(payload)
    drawn = [[point for point in depth_rows(payload, measure, reading.layers(panel)) if point["change"] is not None] for panel in shown]
    points = drawn[order]
    if not points:
        return None
    low, top = _domain(drawn)
    axis, scale = block_axis(reading.layers(shown[order]))
    x = alt.X("i:Q", axis=axis, scale=scale)
    y = alt.Y("change:Q", axis=amount_axis(reading.about(payload, measure)["change"]), scale=alt.Scale(domain=[low, top], nice=False))
    told = [alt.Tooltip("layer:N"), alt.Tooltip("said:N", title="change"), alt.Tooltip("interval:N", title="95%")]
    told += [alt.Tooltip("chance:N", title="chance floor"), alt.Tooltip("status:N")]
    own, floors = tables(points), [point for point in points if point["floor"] is not None and point["floor"] <= top]
    parts = []
    if floors:
        parts.append(tables(floors).mark_line(color=LIGHT["floor"], strokeDash=[4, 3], strokeWidth=1).encode(x=x, y=alt.Y("floor:Q")))
    if order and drawn[0]:
        parts.append(tables(drawn[0]).mark_line(color=LIGHT["floor"], strokeWidth=1.3).encode(x=x, y=y))
    sure = tables([point for point in points if point["low"] is not None])
    parts += [
        sure.mark_area(color=LIGHT["main"], opacity=0.16).encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q")),
        own.mark_line(color=LIGHT["main"], strokeWidth=2).encode(x=x, y=y),
        own.mark_point(color=LIGHT["main"], filled=True, size=12 if len(points) > 20 else 30, opacity=1).encode(x=x, y=y, tooltip=told),
        *_peak(points, tables, x, y),
    ]
    return alt.layer(*parts).properties(height=HEIGHT)


def view(payload: reading.Payload, drawn: dict[str, dict]) -> dict[str, Any] | None:
    """What the page prints of it."""
    shown = panels(payload)
    if not shown:
        return None
    found = payload["text_sets"]
    about = reading.about(payload, reading.comparing(payload)[0])
    lead = (found.get("survives") or {}).get("said") or ""
    caption = (
        f"{about['title']} as its change, {about['change']}, on one scale. Blue: this set or pooling, its 95% interval shaded; grey: the "
        "first panel; dashed: the chance floor, where it is in range. The headline holds where the block it names is not clearly short of "
        "the one that moved most there, and no block’s interval there excludes its status word."
    )
    return {"lead": lead, "caption": caption, "panels": [_panel(found, panel, order, drawn) for order, panel in enumerate(shown)],
            "overlaps": [said for row in found.get("overlap") or [] if (said := _overlap(row))]}  # fmt: skip


def figure_title(payload: reading.Payload, order: int) -> dict[str, str]:
    """A panel standing alone as a figure: which set or pooling, and whether the headline holds there."""
    panel = _panel(payload["text_sets"], panels(payload)[order], order, {})
    held = f"the headline {panel['holds']}" if order else "the main comparison"
    return {"text": f"Change by layer: {panel['title']}", "subtitle": f"{panel['aside']}; {held}"}


def lines(payload: reading.Payload) -> list[str]:
    """What the terminal prints of it: the sentence."""
    said = ((payload.get("text_sets") or {}).get("survives") or {}).get("said")
    return [f"elsewhere: {said}"] if said and panels(payload) else []


def _domain(drawn: list[list[dict]]) -> tuple[float, float]:
    values = [point[key] for points in drawn for point in points for key in ("change", "low", "high") if point.get(key) is not None]
    top = max(values, default=0.0)
    return min(0.0, *values, 0.0) * 1.08, top * 1.12 if top > 0 else 0.01


def _peak(points: list[dict], tables: Tables, x: Any, y: Any) -> list:
    import altair as alt

    peak = max(points, key=lambda point: point["change"])
    if peak["change"] <= 0:
        return []
    right = peak["i"] > (points[0]["i"] + points[-1]["i"]) / 2
    mark = {"align": "right" if right else "left", "dx": -7 if right else 7, "dy": -7, "fontWeight": "bold", "color": LIGHT["main"]}
    return [tables([peak]).mark_text(**mark).encode(x=x, y=y, text=alt.Text("said:N"))]


def _panel(found: dict, panel: dict, order: int, drawn: dict[str, dict]) -> dict[str, Any]:
    pooling = panel.get("pooling")
    title = f"{pooling} pooling" if pooling else str(panel.get("name"))
    aside = "the same pass" if pooling else f"{panel.get('role')}, {count(panel.get('n'))} texts"
    chart = f"elsewhere_{order}"
    words = [str(row.get("status")) for row in reading.layers(panel) if row["index"] > 0]
    said = [", ".join(f"{words.count(word)} {word}" for word in _WORDS if word in words) or "no block has a value"]
    if panel.get("peak"):
        peak = panel["peak"]
        said.append(f"{peak['name']} moved most, CKA {three(peak['value'])} {interval(peak['low'], peak['high'])}")
    if order:
        said.append(_agreement(found, panel))
    return {"title": title, "aside": aside, "chart": chart if chart in drawn else None, "said": "; ".join(said) + ".",
            "holds": _holds(panel) if order else "the main comparison"}  # fmt: skip


def _holds(panel: dict) -> str:
    if panel.get("counts") is False:
        return "does not count"
    holds = (panel.get("verdict") or {}).get("holds")
    return "cannot be judged" if holds is None else "holds" if holds else "does not hold"


def _agreement(found: dict, panel: dict) -> str:
    """How alike the blocks are ordered here and in the main profile, by the measure of the headline."""
    if panel.get("pooling"):
        rows = panel.get("agreement") or []
    else:
        first = found["sets"][0]["name"]
        rows = [row for row in found.get("agreement") or [] if (row["a"], row["b"]) == (first, panel["name"])]
    cka: dict[str, Any] = next((row for row in rows if row["measure"] == "cka"), {})
    if cka.get("rank_correlation") is None:
        return f"no rank correlation with the first: {cka.get('reason') or 'it was not taken'}"
    return f"rank correlation with the first {signed(cka['rank_correlation'])} over {count(cka['n'])} blocks"


def _overlap(row: dict) -> str:
    """How far two sets share their texts; nothing when they share none."""
    exact, folded = row["exact"], row["folded"]
    if not folded["of_a"]["texts"]:
        return ""
    sides = [f"{percent(folded[side]['share'])} of {row[name]}" for side, name in (("of_a", "a"), ("of_b", "b"))]
    return f"{' and '.join(sides)} in common ({count(exact['of_a']['texts'])} and {count(exact['of_b']['texts'])} texts letter for letter)"
