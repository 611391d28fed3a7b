"""The depth curve: change by layer, its interval, the chance floor, and the controls."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading
from tunescope.report.chart_parts import CHAR_PX, LINE_PX, Tables, amount_axis, block_axis, spread, wrap
from tunescope.report.numbers import interval, three
from tunescope.report.theme import CONTROLS, LIGHT

HEIGHT = 300


def depth_curve(payload: reading.Payload, measure: str, tables: Tables) -> Any | None:
    """Change by layer with its interval, the chance floor and the controls as directly labelled lines."""
    import altair as alt

    rows = reading.layers(payload)
    points = depth_rows(payload, measure, rows)
    if not any(point["change"] is not None for point in points):
        return None
    lines = _controls(payload, measure)
    low, top, floor_inside = _domain(points, lines)
    axis, scale = block_axis(rows, offset=24)
    x = alt.X("i:Q", axis=axis, scale=scale)
    amount = amount_axis(f"{reading.about(payload, measure)['change']} · ↑ moved more")
    y = alt.Y("change:Q", axis=amount, scale=alt.Scale(domain=[low, top], nice=False, zero=False))
    parts = _floor_parts(tables, points, x, y, top, floor_inside)
    for line in lines:
        mark = {"strokeWidth": 1.3, "color": line["colour"], "strokeDash": line["dash"]}
        parts.append(tables(line["points"]).mark_line(**mark).encode(x=x, y=y))
    parts += _main_parts(tables, points, x, y)
    parts += _end_labels(tables, points, lines, low, top, x) + _status_parts(tables, rows, axis, scale)
    return alt.layer(*parts).properties(height=HEIGHT)


def depth_rows(payload: reading.Payload, measure: str, rows: list[dict]) -> list[dict]:
    """What the depth curve draws: per layer the change, its interval and floor, and the words of its tooltip."""
    out = []
    for row in rows:
        numbers = reading.entry(row, measure)
        change, floor = numbers.get("change"), reading.floor(payload, measure, numbers)
        band = reading.change_interval(payload, measure, numbers)
        sd = numbers.get("null_sd") or 0
        out.append({
            "i": row["index"], "layer": row["name"], "change": change, "low": band and band[0], "high": band and band[1],
            "floor": floor, "floor_low": None if floor is None else floor - 2 * sd, "floor_high": None if floor is None else floor + 2 * sd,
            "said": three(change), "interval": interval(*band) if band else "–", "chance": three(floor),
            "noise": three(numbers.get("noise")), "status": reading.status(row),
        })  # fmt: skip
    return out


def _controls(payload: reading.Payload, measure: str) -> list[dict]:
    """The controls as lines: name, colour, points."""
    lines = []
    for order, control in enumerate(payload.get("controls") or []):
        points = [{"i": row["index"], "layer": row["name"], "change": reading.entry(row, measure).get("change")}
                  for row in reading.layers(control)]  # fmt: skip
        points = [point | {"said": three(point["change"])} for point in points if point["change"] is not None]
        if points:
            colour = CONTROLS[order] if order < len(CONTROLS) else LIGHT["muted"]
            lines.append({"name": str(control["name"]), "colour": colour, "dash": [[], [5, 3], [2, 2]][order % 3], "points": points})
    return lines


def _domain(points: list[dict], lines: list[dict]) -> tuple[float, float, bool]:
    """The y range, and whether the chance floor lies inside it: it does unless nothing comes near it."""
    shown = [point[key] for point in points for key in ("change", "low", "high") if point.get(key) is not None]
    shown += [point["change"] for line in lines for point in line["points"]]
    highest, lowest = max(shown, default=0.0), min(0.0, *shown, 0.0)
    floors = [point["floor_high"] for point in points if point.get("floor") is not None]
    inside = bool(floors) and highest >= 0.2 * max(floors)
    top = max(highest, *floors) if inside else highest
    top = top * 1.08 if top > 0 else 0.01
    return (lowest * 1.08, top, inside)


def _floor_parts(tables: Tables, points: list[dict], x: Any, y: Any, top: float, inside: bool) -> list:
    """The chance floor: a dashed line with its spread, everything above it shaded; a note at the edge when it is off the scale."""
    import altair as alt

    known = [point for point in points if point["floor"] is not None]
    if not known:
        return []
    left = {"align": "left", "dx": 0, "fontSize": 11.5, "color": LIGHT["floor"]}
    first = known[0]["i"] - 0.45
    if not inside:
        said = f"↑ chance floor {three(min(point['floor'] for point in known))}: far above this scale"
        note = tables([{"i": first, "said": said}])
        return [note.mark_text(**left, baseline="top", y=2).encode(x=x, text=alt.Text("said:N"))]
    ends = [known[0] | {"i": first}, *known, known[-1] | {"i": known[-1]["i"] + 0.5}]
    base = tables(ends)
    above = [point | {"top": top} for point in ends]
    word = {"i": first, "floor": known[0]["floor"], "said": "chance floor: an unrelated representation"}
    return [
        tables(above).mark_area(color=LIGHT["faint"]).encode(x=x, y=alt.Y("floor:Q"), y2=alt.Y2("top:Q")),
        base.mark_area(color=LIGHT["floor"], opacity=0.22).encode(x=x, y=alt.Y("floor_low:Q"), y2=alt.Y2("floor_high:Q")),
        base.mark_line(color=LIGHT["floor"], strokeDash=[4, 3], strokeWidth=1.3).encode(x=x, y=alt.Y("floor:Q")),
        tables([word]).mark_text(**left, baseline="top", dy=6).encode(x=x, y=alt.Y("floor:Q"), text=alt.Text("said:N")),
    ]


def _main_parts(tables: Tables, points: list[dict], x: Any, y: Any) -> list:
    """The curve itself: interval, line, dots, the value at the peak, and the hover."""
    import altair as alt

    known = [point for point in points if point["change"] is not None]
    base = tables(known)
    sure = tables([point for point in known if point["low"] is not None])
    hover = alt.selection_point(name="layer_hover", on="pointerover", clear="pointerout", nearest=True, empty=False, encodings=["x"])
    told = [alt.Tooltip("layer:N"), alt.Tooltip("said:N", title="change"), alt.Tooltip("interval:N", title="95%")]
    told += [alt.Tooltip("chance:N", title="chance floor"), alt.Tooltip("noise:N", title="noise"), alt.Tooltip("status:N")]
    peak = max(known, key=lambda point: point["change"])
    crowded = len(known) > 40
    parts = [
        sure.mark_area(color=LIGHT["main"], opacity=0.16).encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q")),
        base.mark_line(color=LIGHT["main"], strokeWidth=2.2).encode(x=x, y=y),
        sure.mark_rule(color=LIGHT["main"], strokeWidth=1.4).encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q")),
        base.mark_rule(color=LIGHT["muted"], strokeWidth=1).encode(x=x, opacity=alt.condition(hover, alt.value(0.5), alt.value(0))),
        base.mark_point(color=LIGHT["main"], filled=True, size=14 if crowded else 46, opacity=1)
        .encode(x=x, y=y, tooltip=told)
        .add_params(hover),
    ]
    if peak["change"] > 0:
        align = "right" if peak["i"] > (known[0]["i"] + known[-1]["i"]) / 2 else "left"
        mark = {"align": align, "dx": -9 if align == "right" else 9, "dy": -9, "fontWeight": "bold", "color": LIGHT["main"]}
        parts.append(tables([peak]).mark_text(**mark).encode(x=x, y=y, text=alt.Text("said:N")))
    return parts


def _end_labels(tables: Tables, points: list[dict], lines: list[dict], low: float, top: float, x: Any) -> list:
    """Names at the lines' right ends, kept apart."""
    import altair as alt


    last = next(point for point in reversed(points) if point["change"] is not None)
    ends = [{"change": last["change"], "said": ["this", "fine-tuning"], "colour": LIGHT["main"], "weight": "bold"}] if lines else []
    ends += [
        {"change": line["points"][-1]["change"], "said": wrap(line["name"]), "colour": line["colour"], "weight": "normal"} for line in lines
    ]
    pixel = [(top - end["change"]) / (top - low) * HEIGHT for end in ends]
    heights = [len(end["said"]) * LINE_PX + 2.0 for end in ends]
    labels = []
    for end, centre, height in zip(ends, spread(pixel, heights, -4, HEIGHT + 4), heights, strict=True):
        chart = tables([{"said": end["said"], "i": last["i"]}])
        text = {"align": "left", "baseline": "top", "lineHeight": LINE_PX, "fontWeight": end["weight"], "color": end["colour"]}
        labels.append(chart.mark_text(**text, dx=10, y=centre - height / 2 + 1).encode(x=x, text=alt.Text("said:N")))
    return labels


def _status_parts(tables: Tables, rows: list[dict], axis: Any, scale: Any) -> list:
    """A strip under the curve: runs of layers with the same status word, named where the word fits."""
    import altair as alt

    runs: list[dict] = []
    for row in rows:
        word = str(row.get("status") or "")
        if runs and runs[-1]["word"] == word and row["index"] == runs[-1]["last"] + 1:
            runs[-1]["last"] = row["index"]
        else:
            runs.append({"word": word, "first": row["index"], "last": row["index"]})
    span = rows[-1]["index"] - rows[0]["index"] + 1
    parts = []
    for run in runs:
        if run["word"] not in ("untouched", "refined", "rewritten"):
            continue
        share = (run["last"] - run["first"] + 1) / span
        strip = tables([{"a": run["first"] - 0.5, "b": run["last"] + 0.5, "i": (run["first"] + run["last"]) / 2, "said": run["word"]}])
        told = alt.Tooltip("said:N", title="status")
        box = {"color": LIGHT[run["word"]], "stroke": LIGHT["paper"], "strokeWidth": 1.5, "opacity": 1}
        parts.append(strip.mark_rect(**box, y={"expr": "height + 6"}, y2={"expr": "height + 24"})
                     .encode(x=alt.X("a:Q", axis=axis, scale=scale), x2=alt.X2("b:Q"), tooltip=told))  # fmt: skip
        ink = LIGHT["on_rewritten"] if run["word"] == "rewritten" else LIGHT["ink"]
        fits = {"expr": f"width * {share:.4f} > {len(run['word']) * CHAR_PX + 2:.0f} ? 1 : 0"}
        words = {"color": ink, "opacity": fits, "y": {"expr": "height + 15"}, "baseline": "middle", "fontSize": 11}
        parts.append(strip.mark_text(**words).encode(x=alt.X("i:Q", axis=axis, scale=scale), text=alt.Text("said:N")))
    return parts
