"""The nearest neighbours kept, over the number looked at."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading
from tunescope.report.chart_parts import Tables, amount_axis
from tunescope.report.numbers import three
from tunescope.report.theme import LIGHT, RAMP

HEIGHT = 220


def neighbourhood_curve(payload: reading.Payload, tables: Tables) -> Any | None:
    """The share of nearest neighbours kept, over k, one line per layer; the ends named where they don't collide."""
    import altair as alt

    curve = payload["nps_curve"]
    series = []
    for order, (name, values) in enumerate(zip(curve["names"], curve["values"], strict=False)):
        for k, value in zip(curve["k"], values, strict=False):
            if value is not None:
                series.append({"k": k, "v": value, "layer": str(name), "said": three(value), "order": order})
    if not series:
        return None
    low = min(0.0, *(point["v"] for point in series), 0.0)
    last_k = curve["k"][-1]
    ends = [point | {"name": point["layer"].replace("embeddings", "emb")} for point in series if point["k"] == last_k]
    ends.sort(key=lambda point: (point["order"] != len(curve["names"]) - 1, point["v"]))
    named: list[dict] = []
    for end in ends:
        if all(abs(end["v"] - other["v"]) / (1 - low) * HEIGHT > 12 for other in named):
            named.append(end)
    axis = alt.Axis(values=curve["k"], title="neighbours looked at, k", grid=False, ticks=False, domain=False, format="d")
    x = alt.X("k:Q", axis=axis, scale=alt.Scale(type="log", nice=False, domain=[curve["k"][0] * 0.9, max(last_k, curve["k"][0] + 1)]))
    y = alt.Y("v:Q", scale=alt.Scale(domain=[low, 1], nice=False), axis=amount_axis("share kept"))
    depth = alt.Color(
        "order:Q", scale=alt.Scale(domain=[-0.6 * len(curve["names"]), max(len(curve["names"]) - 1, 1)], range=RAMP), legend=None
    )
    told = [alt.Tooltip("layer:N"), alt.Tooltip("k:Q"), alt.Tooltip("said:N", title="share kept")]
    base = tables(series)
    labels = tables([end | {"name": end["name"] if len(end["name"]) <= 12 else end["name"][:11] + "…"} for end in named])
    parts = [
        base.mark_line(strokeWidth=1.6).encode(x=x, y=y, color=depth, detail=alt.Detail("layer:N")),
        base.mark_point(filled=True, size=22, opacity=1).encode(x=x, y=y, color=depth, tooltip=told),
        labels.mark_text(align="left", dx=7, color=LIGHT["muted"]).encode(x=x, y=y, text=alt.Text("name:N")),
    ]
    return alt.layer(*parts).properties(height=HEIGHT)
