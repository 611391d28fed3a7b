"""Every chart of a comparison, as Vega-Lite specifications made with Altair: light palette, direct labels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from altair.utils.schemapi import debug_mode

from tunescope.report import outcome_section, reading
from tunescope.report.chart_parts import Tables
from tunescope.report.cross_layer import cross_layer
from tunescope.report.depth_curve import depth_curve
from tunescope.report.elsewhere import elsewhere_chart, panels
from tunescope.report.neighbourhood import neighbourhood_curve
from tunescope.report.published_axis import published_slopes, published_width
from tunescope.report.ruler_marks import ruler_marks
from tunescope.report.theme import chart_config
from tunescope.report.two_sides import two_sides
from tunescope.report.weight_slopes import representation_change, weight_change
from tunescope.report.width_bars import width_bars


def charts(payload: reading.Payload, *, width: int | str = "container") -> dict[str, dict]:
    """Every chart this comparison can show, by name (depth_curve_<measure>, isotropy, cross_layer, …)."""
    draw: dict[str, Callable[[Tables], Any]] = {}
    if reading.layers(payload):
        for measure in reading.comparing(payload):
            draw[f"depth_curve_{measure}"] = functools.partial(depth_curve, payload, measure)
        for measure in reading.one_sided(payload):
            draw[measure] = functools.partial(two_sides, payload, measure)
    if (payload.get("cross") or {}).get("values"):
        draw["cross_layer"] = functools.partial(cross_layer, payload)
    if (payload.get("width") or {}).get("shares"):
        draw["width"] = functools.partial(width_bars, payload)
    if (payload.get("published") or {}).get("among"):
        draw["published_slopes"] = functools.partial(published_slopes, payload)
        draw["published_width"] = functools.partial(published_width, payload)
    if (payload.get("nps_curve") or {}).get("values"):
        draw["neighbourhood_curve"] = functools.partial(neighbourhood_curve, payload)
    if payload.get("ruler"):
        draw["ruler"] = functools.partial(ruler_marks, payload)
    if (payload.get("weights") or {}).get("blocks"):
        draw["weight_change"] = functools.partial(weight_change, payload)
        draw["representation_change"] = functools.partial(representation_change, payload)
    if reading.comparing(payload):
        draw |= {f"elsewhere_{order}": functools.partial(elsewhere_chart, payload, order) for order in range(len(panels(payload)))}
    return finished(draw | outcome_section.drawings(payload), width)


def finished(draw: dict[str, Callable[[Tables], Any]], width: int | str = "container") -> dict[str, dict]:
    """The drawings by name as Vega-Lite dicts, without those that have nothing to show."""
    with debug_mode(False):  # the schema was checked when the chart was written, and takes as long as drawing it
        made = {name: _finish(drawing, width) for name, drawing in draw.items()}
    return {name: spec for name, spec in made.items() if spec}


def _finish(drawing: Callable[[Tables], Any], width: int | str) -> dict:
    """The chart as a Vega-Lite dict: its rows, its width and the shared configuration put in; empty when there is nothing to draw."""
    tables = Tables()
    chart = drawing(tables)
    if chart is None:
        return {}
    spec = chart.to_dict(validate=False)
    spec |= {"datasets": tables.datasets, "width": width, "config": chart_config()}
    spec["padding"] = {"left": 2, "top": 8, "right": 10, "bottom": 4}
    if width == "container":
        spec["autosize"] = {"type": "fit" if spec["height"] == "container" else "fit-x", "contains": "padding"}
    elif spec["height"] == "container":
        spec["height"] = width
    return spec
