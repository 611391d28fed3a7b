"""Captions of a run's charts: each names what its chart holds, and nothing that this run does not have."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading, run_reading
from tunescope.report.loss_curve import MOST, loss_rows
from tunescope.report.numbers import count
from tunescope.report.step_sizes_chart import size_rows
from tunescope.report.thinning import window
from tunescope.report.trajectory_depth import shown_points

Charts = dict[str, dict[str, Any]]


def loss(payload: reading.Payload) -> str:
    """What the lines of the loss are."""
    steps = len(loss_rows(payload))
    each = "every step" if steps <= MOST else "of every stretch of steps its first, last, lowest and highest"
    plain = "A line from step to step." if steps > 1 else "The only step."
    said = f"Thin: {each}. Thick: the running mean." if window(steps) > 1 else plain
    return f"{said} Dashed uprights: the models that were kept." if payload["record"].get("checkpoints") else said


def depth(payload: reading.Payload, drawn: Charts) -> str:
    """What the panels of change by layer show."""
    panels = [name for name in run_reading.measures(payload) if f"trajectory_{name}" in drawn]
    rows = [row for name in panels for row in _rows(drawn[f"trajectory_{name}"])]
    points = {name: shown_points(payload, name) for name in panels}
    measured = run_reading.points(run_reading.geometry(payload))
    several = any(len(shown) > 1 for shown in points.values())
    layers, sites = (any(row.get("site") is site for row in rows) for site in (False, True))
    said = [f"A line a point of the run{', stronger as it goes on' if several else ''}"] if layers else []
    said += ["diamonds lie beyond the layers" if layers else "Diamonds lie beyond the layers"] if sites else []
    parts = ["; ".join(said)] if said else []
    if layers:
        parts.append("Change is cumulative over depth: a block’s output moves when any block before it moved")
    if any(row.get("said") == "chance" for row in rows):
        parts.append("Dashed: the change of an unrelated representation, at the last point")
    if measured and any(measured[0] not in shown for shown in points.values()):
        parts.append("A start from which nothing is away yet is not drawn")
    fewer = [len(shown) for shown in points.values() if len(shown) < len(measured) - 1]
    parts += [f"Of {count(len(measured))} points {count(min(fewer))} are drawn, and all are in the table"] if fewer else []
    return "".join(f"{part}. " for part in parts).strip()


def sizes(payload: reading.Payload) -> str:
    """What the lines of the step sizes are."""
    rows = size_rows(payload)
    blocks, rest = (any((row["block"] is None) == outside for row in rows) for outside in (False, True))
    several = len({row["block"] for row in rows if row["block"] is not None}) > 1
    kinds = ([f"one a block{', stronger with depth' if several else ''}"] if blocks else []) + (["what is in no block"] if rest else [])
    tau = "; dashed: τ, what every step was brought to" if run_reading.tau(payload) else ""
    said = f"Logarithmic. A line a group of tensors: {', and '.join(kinds)}. |Δ| / |W|: Frobenius norms over the group’s trainable "
    said += f"tensors, Δ as the optimizer made it{tau}."
    return f"{said} Lines are medians of stretches of steps; shades reach to their extremes." if any(row["reach"] for row in rows) else said


def outcomes(payload: reading.Payload) -> str:
    """How the panels of the outcomes are read."""
    rows = [row for found in run_reading.tasks(payload).values() for row in found if row.get("delta") is not None]
    sure = ", with its 95% interval" if any(row.get("low") is not None for row in rows) else ""
    said = f"Each task’s score less that of the start, paired by item{sure}."
    said += " Shaded: differences that would not matter." if any(row.get("margin") for row in rows) else ""
    several = len(run_reading.points(rows)) > 2
    return f"{said} Points share their items, so one lucky point among many is no finding." if several else said


def _rows(chart: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for rows in chart["datasets"].values() for row in rows]
