"""Two small multiples: how far each block's weights were moved, and how far its output moved, each with its slope over depth."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading
from tunescope.report.chart_parts import Tables, amount_axis, block_axis
from tunescope.report.numbers import MINUS, one_decimal, signed, three, two_digits
from tunescope.report.theme import LIGHT
from tunescope.report.weight_table import weights_of

HEIGHT = 190


def weight_change(payload: reading.Payload, tables: Tables) -> Any | None:
    """|ΔW|/|W| by block; frozen blocks hollow and named."""
    slope = weights_of(payload).get("slope")
    said = None if not slope else ("+" if slope > 0 else MINUS) + two_digits(abs(slope))
    points = _points(payload, "relative_change", two_digits)
    return _slopes(tables, points, "|ΔW| / |W| · ↑ moved more", slope, said, LIGHT["control_0"], named=True)


def representation_change(payload: reading.Payload, tables: Tables) -> Any | None:
    """The change of every block's output, on the same axis of blocks."""
    slope = ((payload.get("locality") or {}).get("cka") or {}).get("slope")
    points = _points(payload, "representation_change", three)
    return _slopes(tables, points, "1 − CKA · ↑ moved more", slope, signed(slope), LIGHT["main"])


def _points(payload: reading.Payload, key: str, say: Any) -> list[dict[str, Any]]:
    return [
        {
            "index": row["index"], "i": row["index"], "layer": row["name"], "depth": row["depth"],
            "v": row.get(key), "said": say(row.get(key)),
            "frozen": bool(row["frozen"]), "weights": "frozen" if row["frozen"] else two_digits(row["relative_change"]),
            "rank": one_decimal(row["effective_rank"]),
        }
        for row in weights_of(payload).get("blocks") or [] if row["index"]
    ]  # fmt: skip


def _slopes(
    tables: Tables, points: list[dict], title: str, slope: float | None, said: str | None, colour: str, *, named: bool = False
) -> Any | None:
    """Dots joined by a line over the blocks, hollow where frozen (and named so), and the least-squares line with its slope."""
    import altair as alt

    known = [point for point in points if point["v"] is not None]
    if not known:
        return None
    top = max(point["v"] for point in known) * 1.12 or 0.01
    low = min(0.0, *(point["v"] for point in known), 0.0) * 1.12
    axis, scale = block_axis(points)
    x = alt.X("i:Q", axis=axis, scale=scale)
    y = alt.Y("v:Q", axis=amount_axis(title), scale=alt.Scale(domain=[low, top], nice=False, zero=False))
    told = [alt.Tooltip("layer:N"), alt.Tooltip("said:N", title=title.split(" · ")[0])]
    told += [alt.Tooltip("weights:N", title="weight change"), alt.Tooltip("rank:N", title="effective rank of the update")]
    size = 14 if len(known) > 40 else 46
    parts = _fit(tables, known, slope, said, x, y)
    parts.append(tables(known).mark_line(color=colour, strokeWidth=1.8).encode(x=x, y=y))
    for frozen in (False, True):
        dots = [point for point in known if point["frozen"] == frozen]
        if dots:
            ink = {"stroke": LIGHT["floor"], "fill": LIGHT["paper"]} if frozen else {"stroke": colour, "fill": colour}
            parts.append(tables(dots).mark_point(**ink, opacity=1, size=size).encode(x=x, y=y, tooltip=told))
    if named:
        parts += _frozen(tables, known, x)
    return alt.layer(*parts).properties(height=HEIGHT)


def _fit(tables: Tables, known: list[dict], slope: float | None, said: str | None, x: Any, y: Any) -> list:
    """The least-squares line through (depth, v), dashed, and its slope above the right end."""
    import altair as alt

    if slope is None or len(known) < 2:
        return []
    depth, value = (sum(point[key] for point in known) / len(known) for key in ("depth", "v"))
    ends = [{"i": point["i"], "v": value + slope * (point["depth"] - depth)} for point in (known[0], known[-1])]
    line = tables(ends).mark_line(color=LIGHT["floor"], strokeDash=[4, 3], strokeWidth=1.3, clip=True).encode(x=x, y=y)
    word = {"align": "right", "baseline": "bottom", "x": "width", "y": -10, "color": LIGHT["floor"]}
    return [line, tables([{"said": f"╌ slope {said}"}]).mark_text(**word).encode(text=alt.Text("said:N"))]


def _frozen(tables: Tables, known: list[dict], x: Any) -> list:
    """Runs of frozen blocks, each named once above its dots."""
    import altair as alt

    runs: list[list[float]] = []
    for point in known:
        if point["frozen"] and runs and runs[-1][1] == point["i"] - 1:
            runs[-1][1] = point["i"]
        elif point["frozen"]:
            runs.append([point["i"], point["i"]])
    words = [{"i": sum(run) / 2, "said": "frozen"} for run in runs]
    mark = {"color": LIGHT["muted"], "baseline": "bottom", "y": {"expr": "height - 8"}, "fontSize": 11}
    return [tables(words).mark_text(**mark).encode(x=x, text=alt.Text("said:N"))] if words else []
