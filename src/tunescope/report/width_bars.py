"""Width: how the change is shared out over the blocks."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading
from tunescope.report.chart_parts import Tables, block_axis
from tunescope.report.numbers import percent
from tunescope.report.theme import LIGHT

LABEL = (30, 14)  # pixels of paper behind a bar's label, so that the dashed line does not cross it


def width_bars(payload: reading.Payload, tables: Tables) -> Any | None:
    """Each block's share of the total change; the last one named."""
    import altair as alt

    width = payload["width"]
    index_of = {row["name"]: row["index"] for row in reading.layers(payload)}
    bars = []
    for order, (name, share) in enumerate(zip(width["layers"], width["shares"], strict=False)):
        place = index_of.get(name, order + 1)
        last = order == len(width["layers"]) - 1
        said = percent(share)
        bars.append(
            {"i": place, "a": place - 0.38, "b": place + 0.38, "index": place, "layer": name, "share": share, "said": said, "last": last}
        )
    if all(bar["share"] is None for bar in bars):
        return None
    axis, scale = block_axis(bars)
    x = alt.X("a:Q", axis=axis, scale=scale)
    even = 1 / len(bars)
    top = max([bar["share"] for bar in bars if bar["share"] is not None] + [even]) * 1.16
    y = alt.Y("share:Q", axis=None, scale=alt.Scale(domain=[0, top], nice=False))
    base = tables(bars)
    colour = alt.condition("datum.last", alt.value(LIGHT["main"]), alt.value(LIGHT["quiet_bar"]))
    told = [alt.Tooltip("layer:N"), alt.Tooltip("said:N", title="share of the change")]
    fits = {"expr": f"(width / {len(bars)} > 30 || datum.last) ? 1 : 0"}
    rule = tables([{"share": even}]).mark_rule(color=LIGHT["floor"], strokeDash=[4, 3], strokeWidth=1).encode(y=y)
    note = tables([{"share": even, "said": f"an even share, {percent(even)}"}])
    middle = alt.X("i:Q", axis=axis, scale=scale)
    ink = alt.condition("datum.last", alt.value(LIGHT["main"]), alt.value(LIGHT["muted"]))
    parts = [rule] if len(bars) > 1 else []
    parts += [
        base.mark_rect(cornerRadius=1, opacity=1).encode(x=x, x2=alt.X2("b:Q"), y=y, y2=alt.datum(0), color=colour, tooltip=told),
        base.mark_rect(color=LIGHT["paper"], width=LABEL[0], height=LABEL[1], yOffset=-8, opacity=fits).encode(x=middle, y=y),
        base.mark_text(dy=-7, opacity=fits).encode(x=middle, y=y, text=alt.Text("said:N"), color=ink, tooltip=told),
    ]
    if len(bars) > 1:
        parts.append(note.mark_text(align="left", x=2, dy=-6, color=LIGHT["floor"]).encode(y=y, text=alt.Text("said:N")))
    return alt.layer(*parts).properties(height=150)
