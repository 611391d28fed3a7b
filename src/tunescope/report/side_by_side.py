"""The tuned model beside the controls: how far each lies from the base, and what each did to the same tasks."""

from __future__ import annotations

from typing import Any

from tunescope.report import outcome_cards, outcome_words, reading
from tunescope.report.numbers import signed, three

_SITE = "output"
NEAR = 0.02  # two values of a measure that count as one distance
_FIRST = ("nps", "debiased_cka", "cka")  # measures of distance a reader looks for, at most two of which are shown


def view(payload: reading.Payload) -> dict[str, Any] | None:
    """What the page prints; None without controls that were judged by a task."""
    controls = [control for control in payload.get("controls") or [] if control.get("outcomes")]
    if not controls:
        return None
    tasks = [(row["kind"], row["name"], row["metric"]) for row in controls[0]["outcomes"]]
    measures = [name for name in _FIRST if reading.entry(_site(payload), name).get("value") is not None][:2]
    name = (payload.get("tuned") or {}).get("name") or "the tuned model"
    tuned = {"name": name, "sites": payload.get("sites"), "outcomes": payload["outcomes"]}
    return {
        "measures": [reading.about(payload, name)["title"].split(",")[0] for name in measures],
        "tasks": [f"{name}: {outcome_words.metric(metric)}" for _, name, metric in tasks],
        "rows": [_row(each, tasks, measures, own=each is tuned) for each in (tuned, *controls)],
        "lead": _lead(payload, controls, measures),
    }


def table(payload: reading.Payload) -> list[Any]:
    """The same for a terminal; nothing without judged controls."""
    found = view(payload)
    if found is None:
        return []
    from rich.table import Table
    from rich.text import Text

    from tunescope.report.terminal import plain

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row("", *(Text(plain(name), style="dim") for name in (*found["measures"], *found["tasks"])))
    for row in found["rows"]:
        cells = (Text(f"{cell['delta']} {cell['interval']} {cell['word']}") for cell in row["cells"])
        grid.add_row(Text(plain(row["name"])), *map(Text, row["distances"]), *cells)
    return [Text("beside the controls, distance at the output", style="dim"), grid]


def _site(side: dict[str, Any]) -> dict[str, Any]:
    return (side.get("sites") or {}).get(_SITE) or {}


def _row(side: dict[str, Any], tasks: list[tuple[str, str, str]], measures: list[str], *, own: bool) -> dict[str, Any]:
    known = {(row["kind"], row["name"], row["metric"]): row for row in side["outcomes"]}
    distances = [three(reading.entry(_site(side), name).get("value")) for name in measures]
    return {"name": side["name"], "own": own, "distances": distances, "cells": [_cell(known.get(task)) for task in tasks]}


def _cell(row: dict[str, Any] | None) -> dict[str, str]:
    if row is None or row.get("delta") is None:
        return {"delta": "–", "interval": "", **outcome_cards.verdict({"verdict": "not evaluable"})}
    return {"delta": signed(row["delta"]), "interval": _reach(row), **outcome_cards.verdict(row)}


def _reach(row: dict[str, Any]) -> str:
    return "" if row.get("low") is None else f"[{signed(row['low'])}, {signed(row['high'])}]"


def _lead(payload: reading.Payload, controls: list[dict[str, Any]], measures: list[str]) -> str:
    """How well the distances are matched, in the first measure."""
    said = "Every model went through the same queries as the base, and is paired with it query by query."
    if not measures:
        return said
    own = reading.entry(_site(payload), measures[0]).get("value")
    values = [(reading.entry(_site(each), measures[0]).get("value"), each["name"]) for each in controls]
    known = [(abs(value - own), name) for value, name in values if value is not None]
    if not known:
        return said
    near = [name for far, name in known if far <= NEAR]
    title = reading.about(payload, measures[0])["title"].split(",")[0]
    return f"{said} Within {NEAR:g} of the tuned model’s {title}: {', '.join(near) if near else 'none of the controls'}."
