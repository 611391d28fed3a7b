"""The comparison beside the published architectures: slopes as a strip, widths as rows of bars, one row a model."""

from __future__ import annotations

import json
from typing import Any

from tunescope.report import reading
from tunescope.report.chart_parts import DROP_ZERO, Tables, wrap
from tunescope.report.numbers import percent, signed
from tunescope.report.theme import LIGHT

OWN = "this fine-tuning"
CHANGE = {"procrustes": "Procrustes distance", "cka": "1 − CKA"}  # of the measures the study published
STRIP_PX = 30
BARS_PX = 40
SIDE = 0.22  # of the axis: from there on the name of this run stands left of its line, where the models' names leave it room
FULL = 0.82  # of a row's height, for a share of 1
FOOT = 0.8  # where a row of bars has its name: by its foot


def published(payload: reading.Payload) -> dict[str, Any]:
    """The comparison on the published axis; empty in a payload from before there was one."""
    return payload.get("published") or {}


def placed_measure(payload: reading.Payload) -> str | None:
    """The measure whose slopes are drawn: Procrustes, on which the study's slopes were printed, else CKA."""
    slopes = (published(payload).get("nearest") or {}).get("slope") or {}
    return next((name for name in ("procrustes", "cka") if name in slopes), None)


def published_slopes(payload: reading.Payload, tables: Tables) -> Any | None:
    """One tick a published run on its model's row, by slope; this run a line through all rows, named; the nearest runs longer."""
    import altair as alt

    found, measure = published(payload), placed_measure(payload)
    if measure is None or (own := found["measures"][measure]["slope"]) is None:
        return None
    ticks, names = _ticks(found, measure)
    low, high = min(0.0, own, *(tick["slope"] for tick in ticks)), max(own, *(tick["slope"] for tick in ticks))
    room = (high - low) * 0.03
    scale = alt.Scale(domain=[low - room, high + room], nice=False, zero=False)
    axis = alt.Axis(title=f"slope, {CHANGE[measure]}", labelExpr=DROP_ZERO, tickCount=6,
                    grid=False, ticks=False, domain=False, labelPadding=4, titlePadding=6)  # fmt: skip
    x, y = alt.X("slope:Q", axis=axis, scale=scale), _rows(names)
    left = own > low + SIDE * (high - low)
    said = {"align": "right" if left else "left", "dx": -6 if left else 6, "fontWeight": "bold", "color": LIGHT["main"], "y": -9}
    told = [alt.Tooltip("model:N"), alt.Tooltip("run:N"), alt.Tooltip("said:N", title="slope")]
    usual, equal = ([tick for tick in ticks if (tick["kind"] == kind)] for kind in ("usual", "equal-step"))
    near = [tick for tick in ticks if tick["near"]]
    line = tables([{"slope": own, "said": f"{OWN} {signed(own)}"}])
    zero = tables([{"slope": 0}]).mark_rule(color=LIGHT["rule"], strokeWidth=1).encode(x=x)
    thick = {"filled": True, "thickness": 1.6}
    parts = [
        zero,
        tables(usual).mark_tick(color=LIGHT["floor"], opacity=0.5, size=14, **thick).encode(x=x, y=y, tooltip=told),
        tables(equal).mark_point(shape="circle", color=LIGHT["floor"], filled=False, size=22).encode(x=x, y=y, tooltip=told),
        line.mark_rule(color=LIGHT["main"], strokeWidth=1.6).encode(x=x),
        tables(near).mark_tick(color=LIGHT["ink"], opacity=1, size=20, **thick).encode(x=x, y=y, tooltip=told),
        line.mark_text(**said).encode(x=x, text=alt.Text("said:N")),
    ]
    return alt.layer(*parts).properties(height=STRIP_PX * len(names))


def _ticks(found: dict, measure: str) -> tuple[list[dict], list[str]]:
    """Every published run as a tick, and the models from the flattest to the steepest by their median run."""
    slopes = {model["model"]: sorted(slope for slope in model["slopes"][measure] if slope is not None) for model in found["among"]}
    names = sorted(slopes, key=lambda name: slopes[name][len(slopes[name]) // 2])
    near = {(run["model"], f"{run['objective']}, {run['condition']}") for run in found["nearest"]["slope"][measure]["runs"]}
    ticks = [
        {
            "row": names.index(model["model"]) + 0.5, "slope": slope, "model": model["model"], "run": run, "said": signed(slope),
            "kind": "equal-step" if run.endswith("equal-step") else "usual", "near": (model["model"], run) in near,
        }
        for model in found["among"]
        for run, slope in zip(model["runs"], model["slopes"][measure], strict=True)
        if slope is not None
    ]  # fmt: skip
    return ticks, names


def published_width(payload: reading.Payload, tables: Tables) -> Any | None:
    """Seven bars a row, each depth's share of the change: the published models and this run, from the widest to the narrowest."""
    import altair as alt

    found = published(payload)
    shares = (found.get("width") or {}).get("shares")
    if not shares or not found.get("among"):
        return None
    models = [{"model": OWN, "shares": shares}, *found["among"]]
    models.sort(key=lambda model: model["shares"][-1])
    names = [model["model"] for model in models]
    bars = [_bar(model, row, place, found["depths"]) for row, model in enumerate(models) for place in range(len(model["shares"]))]
    depths = json.dumps([f"{depth:.2f}".removeprefix("0") for depth in found["depths"]])
    axis = alt.Axis(values=[place + 0.5 for place in range(len(found["depths"]))], labelExpr=f"{depths}[datum.value - 0.5]", grid=False,
                    ticks=False, domain=False, labelPadding=4, title="relative depth", titlePadding=6)  # fmt: skip
    scale = alt.Scale(domain=[0, len(found["depths"])], nice=False)
    x, y = alt.X("a:Q", axis=axis, scale=scale), _rows(names, "top", at=FOOT)
    colour = alt.condition("datum.own", alt.value(LIGHT["main"]), alt.value(LIGHT["quiet_bar"]))
    ink = alt.condition("datum.own", alt.value(LIGHT["main"]), alt.value(LIGHT["muted"]))
    told = [alt.Tooltip("model:N"), alt.Tooltip("depth:N"), alt.Tooltip("said:N", title="share of the change")]
    base, last = tables(bars), tables([bar for bar in bars if bar["last"]])
    own = tables([bar | {"middle": (bar["a"] + bar["b"]) / 2} for bar in bars if bar["own"] and not bar["last"]])
    fits = {"expr": f"width / {len(found['depths'])} > 30 ? 1 : 0"}
    middle, foot = alt.X("middle:Q", axis=axis, scale=scale), _rows(names, "foot", at=FOOT)
    lines = tables([{"row": row + 1} for row in range(len(names))])
    parts = [
        lines.mark_rule(color=LIGHT["rule"], strokeWidth=1).encode(y=_rows(names, at=FOOT)),
        base.mark_rect(opacity=1).encode(x=x, x2=alt.X2("b:Q"), y=y, y2=alt.Y2("foot:Q"), color=colour, tooltip=told),
        last.mark_text(align="left", x="width", dx=5, baseline="bottom", dy=2).encode(y=foot, text=alt.Text("said:N"), color=ink),
        own.mark_text(dy=-6, opacity=fits, color=LIGHT["main"]).encode(x=middle, y=y, text=alt.Text("said:N")),
    ]  # fmt: skip
    return alt.layer(*parts).properties(height=BARS_PX * len(names))


def _bar(model: dict, row: int, place: int, depths: list[float]) -> dict:
    share = model["shares"][place]
    return {
        "a": place + 0.1, "b": place + 0.9, "row": row + 0.5, "foot": row + 1, "top": row + 1 - FULL * max(share, 0),
        "model": model["model"], "own": model["model"] == OWN, "last": place == len(depths) - 1, "depth": f"{depths[place]:.2f}",
        "said": percent(share),
    }  # fmt: skip


def _rows(names: list[str], field: str = "row", *, at: float = 0.5) -> Any:
    """The y axis of rows from the top, each named at this share of its height; this run's name in its colour."""
    import altair as alt

    own = f"datum.value == {names.index(OWN) + at}" if OWN in names else "false"
    labels = json.dumps([wrap(name, width=16, lines=2) for name in names], ensure_ascii=False)
    axis = alt.Axis(values=[row + at for row in range(len(names))], labelExpr=f"{labels}[floor(datum.value)]", grid=False, ticks=False,
                    domain=False, title=None, labelPadding=8, labelLimit=140)  # fmt: skip
    axis.labelColor = {"condition": {"test": own, "value": LIGHT["main"]}, "value": LIGHT["muted"]}
    axis.labelFontWeight = {"condition": {"test": own, "value": "bold"}, "value": "normal"}
    return alt.Y(f"{field}:Q", axis=axis, scale=alt.Scale(domain=[0, len(names)], nice=False, reverse=True))
