"""In words: where the comparison falls among the published runs, and what that rests on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunescope.report import reading
from tunescope.report.numbers import count, percent, signed, three
from tunescope.report.published_axis import CHANGE, placed_measure, published


def published_place(payload: reading.Payload, drawn: dict[str, dict]) -> dict[str, Any] | None:
    """The section's sentences: a lead and a caption for each of the two charts that were drawn, the source and the caveats."""
    found = published(payload)
    if not found:
        return None
    places = found.get("nearest") or {}
    measure = placed_measure(payload)
    view: dict[str, Any] = {"lead": None, "slopes": None, "width": None, "source": None}
    if measure and "published_slopes" in drawn:
        place = places["slope"][measure]
        lead = f"Read at the seven depths of a published study, the slope of {CHANGE[measure]} over depth is {signed(place['value'])}: "
        caption = "One tick a published run, on its model’s row; rings: the study’s equal-step control. "
        caption += f"The long ticks are the nearest: {_nearest(place, signed)}."
        view["slopes"] = {"lead": lead + _larger(place, "is steeper", "are steeper"), "caption": caption}
    if places.get("final_share") and "published_width" in drawn:
        place = places["final_share"]
        lead = f"Of the change summed over the seven depths, {percent(place['value'])} lies at depth 1.00: "
        lead += _larger(place, "has more there", "have more there")
        caption = f"Each depth’s share of the sum of {CHANGE['cka']} over the seven; a published row is the mean of its model’s runs, the "
        caption += f"equal-step control left out. Nearest in their share at 1.00: {_nearest(place, three)}."
        view["width"] = {"lead": lead, "caption": caption}
    if view["slopes"] or view["width"]:
        return view | {"source": f"{found.get('note') or ''} Source: {found['source']}."}
    return view | {"lead": f"No place among published runs: {found.get('reason') or 'no slope or width was found'}."}


def _larger(place: dict, one: str, many: str) -> str:
    larger, others = place["rank"] - 1, place["of"] - 1
    return f"{count(larger) if larger else 'none'} of the {count(others)} published runs {one if larger == 1 else many}."


def _nearest(place: dict, say: Callable[[float], str]) -> str:
    runs = [f"{run['model']} {run['objective']}, {run['condition']} ({say(run['value'])})" for run in place["runs"]]
    return "; ".join(runs)
