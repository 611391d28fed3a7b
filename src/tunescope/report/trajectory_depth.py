"""Change by layer at every point of a run: one panel a measure, one line a point, in the order of the points."""

from __future__ import annotations

import json
from typing import Any

from tunescope.report import reading, run_reading
from tunescope.report.chart_parts import LINE_PX, Tables, amount_axis
from tunescope.report.numbers import count, three
from tunescope.report.run_reading import Row
from tunescope.report.theme import LIGHT, RAMP

HEIGHT = 210
MOST = 24  # lines of a panel
_WORD = 0.3  # of a panel's width, at most, that a word takes


def shown_points(payload: reading.Payload, measure: str) -> list[int]:
    """The points that are drawn: all but a start from which nothing is away yet; of very many, evenly chosen with the first and last."""
    rows = [row for row in run_reading.geometry(payload) if row["measure"] == measure and row.get("change") is not None]
    found = run_reading.points(rows)
    still = all(row["change"] == 0 for row in rows if row["step"] == 0)
    found = [step for step in found if step or not still] or found
    if len(found) <= MOST:
        return found
    return [found[round(place * (len(found) - 1) / (MOST - 1))] for place in range(MOST)]


def depth_rows(payload: reading.Payload, measure: str) -> list[Row]:
    """What a panel draws: change and chance floor by point and place, with the words of the tooltip."""
    found, out = run_reading.numbers(payload, measure), []
    for order, step in enumerate(shown_points(payload, measure)):
        for place in run_reading.places(payload):
            row = found.get((step, place["name"]))
            if row is not None and row.get("change") is not None:
                out.append({"i": place["index"], "site": place["site"], "layer": place["name"], "step": step, "order": order,
                            "change": row["change"], "floor": row["floor"], "at": count(step), "said": three(row["change"]),
                            "value": three(row.get("value")), "chance": three(row["floor"])})  # fmt: skip
    return out


def trajectory_depth(payload: reading.Payload, measure: str, tables: Tables) -> Any | None:
    """The panel of one measure: layers joined by a line at each point, light to dark in order; sites as diamonds; chance dashed."""
    import altair as alt

    rows = depth_rows(payload, measure)
    if not rows:
        return None
    x = _across(run_reading.places(payload))
    low, top, inside = _domain(rows)
    title = f"{run_reading.change_name(payload, measure)} · ↑ farther" if run_reading.is_distance(payload, measure) else "now − start"
    y = alt.Y("change:Q", axis=amount_axis(title), scale=alt.Scale(domain=[low, top], nice=False, zero=False))
    last = max(row["order"] for row in rows)
    colour = alt.Color("order:Q", scale=alt.Scale(domain=[-0.5 * last - 1, max(last, 0)], range=RAMP), legend=None)
    told = [alt.Tooltip("layer:N"), alt.Tooltip("at:N", title="step"), alt.Tooltip("said:N", title="change")]
    told += [alt.Tooltip("value:N", title=measure), alt.Tooltip("chance:N", title="chance floor")]
    layers, sites = ([row for row in rows if row["site"] == site] for site in (False, True))
    size = 10 if len(layers) > 300 else 24
    parts = _floor(tables, rows, x, y, inside=inside)
    if layers:
        lines = tables(layers)
        parts.append(lines.mark_line(strokeWidth=1.7).encode(x=x, y=y, color=colour, detail="step:N"))
        parts.append(lines.mark_point(filled=True, size=size, opacity=1).encode(x=x, y=y, color=colour, tooltip=told))
    if sites:
        diamond = tables(sites).mark_point(filled=True, shape="diamond", size=54, opacity=1)
        parts.append(diamond.encode(x=x, y=y, color=colour, tooltip=told))
    parts += _names(tables, rows, low, top, x)
    said = f"{reading.about(payload, measure)['title']}: change from the start by layer at {count(last + 1)} points of the run"
    return alt.layer(*parts).properties(height=HEIGHT, description=said)


def _across(places: list[Row]) -> Any:
    """The x axis: embeddings, blocks (thinned where many), and what lies beyond them by name."""
    import altair as alt

    layers, sites = ([place for place in places if place["site"] == site] for site in (False, True))
    step = next((s for s in (1, 2, 4, 6, 8, 12, 16, 24, 32) if len(layers) / s <= 9), 64)
    ticks = [place["index"] for place in layers if place["index"] % step == 0] + [place["index"] for place in sites]
    names = {f"{place['index']:g}": place["name"][:6] if place["site"] else reading.short_name(place) for place in places}
    axis = alt.Axis(values=ticks, labelExpr=f"{json.dumps(names)}[datum.value]", grid=False, ticks=False, domain=False, labelPadding=4,
                    labelOverlap="greedy", title="block" if layers else None, titlePadding=4)  # fmt: skip
    ends = [place["index"] for place in places]
    return alt.X("i:Q", axis=axis, scale=alt.Scale(domain=[min(ends) - 0.5, max(ends) + 0.5], nice=False, zero=False))


def _domain(rows: list[Row]) -> tuple[float, float, bool]:
    """The y range, and whether the chance floor lies inside it: it does unless nothing comes near it."""
    highest, lowest = max(0.0, *(row["change"] for row in rows), 0.0), min(0.0, *(row["change"] for row in rows), 0.0)
    floors = [row["floor"] for row in rows if row["floor"] is not None]
    inside = bool(floors) and highest >= 0.2 * max(floors)
    top = max(highest, *floors) if inside else highest
    return lowest * 1.08, top * 1.1 or (0.01 if not lowest else -0.1 * lowest), inside


def _floor(tables: Tables, rows: list[Row], x: Any, y: Any, *, inside: bool) -> list:
    """The chance floor at the last point, or a note where it is far above."""
    import altair as alt

    known = [row for row in rows if row["floor"] is not None and row["order"] == rows[-1]["order"]]
    if not known:
        return []
    word = {"align": "left", "fontSize": 11, "color": LIGHT["floor"]}
    first = known[0]["i"] - 0.4
    if not inside:
        note = tables([{"i": first, "said": f"↑ chance {three(min(row['floor'] for row in known))}, above this scale"}])
        return [note.mark_text(**word, baseline="bottom", y=8).encode(x=x, text="said:N")]
    height = alt.Y("floor:Q", axis=y["axis"], scale=y["scale"])
    ends = [known[0] | {"i": first}, *known, known[-1] | {"i": known[-1]["i"] + 0.45}]
    line = tables(ends).mark_line(color=LIGHT["floor"], strokeDash=[4, 3], strokeWidth=1.2).encode(x=x, y=height)
    beside = [row["floor"] for row in ends if row["i"] <= first + _WORD * (ends[-1]["i"] - first)]
    said = tables([{"i": first, "floor": max(beside), "said": "chance"}])  # above the line wherever the word reaches
    return [line, said.mark_text(**word, baseline="bottom", dx=4, dy=-4).encode(x=x, y=height, text="said:N")]


def _names(tables: Tables, rows: list[Row], low: float, top: float, x: Any) -> list:
    """The points' steps at the right ends of their lines: the last one, and of the others those that meet none named before."""
    import altair as alt

    ends = sorted({row["step"]: row for row in rows}.values(), key=lambda row: -row["order"])
    named: list[tuple[Row, float]] = []
    for end in ends:
        centre = (top - end["change"]) / (top - low) * HEIGHT
        if all(abs(centre - other) >= LINE_PX for _, other in named):
            named.append((end, centre))
    labels = []
    for end, centre in named:
        latest = end is ends[0]
        mark = {"align": "left", "baseline": "middle", "dx": 9, "y": centre, "fontWeight": "bold" if latest else "normal"}
        mark["color"] = LIGHT["ink"] if latest else LIGHT["muted"]
        word = tables([{"i": max(row["i"] for row in rows), "said": f"step {end['at']}" if latest else end["at"]}])
        labels.append(word.mark_text(**mark).encode(x=x, text=alt.Text("said:N")))
    return labels
