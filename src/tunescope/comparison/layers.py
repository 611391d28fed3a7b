"""Rows of the profile: every measure at one place, with its interval, chance floor and noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tunescope.errors import ActivationError, Degenerate
from tunescope.geometry.measures import Estimate, Measure
from tunescope.geometry.profile import status
from tunescope.geometry.rows import Rows
from tunescope.geometry.threads import threads_for


@dataclass(frozen=True)
class Place:
    """Where rows were read: a layer (index, depth) or a site; `name` is what reports call it."""

    name: str
    index: int | None = None
    depth: float | None = None


def measure_place(
    place: Place, rows: Rows, measures: Mapping[str, Measure], *, noise: Mapping[str, float | None], seed: int
) -> dict[str, Any]:
    """One row of comparison.json: {index, name, depth, status, identical, saturated, measures}."""
    cells, estimates = {}, {}
    for name, measure in measures.items():
        try:
            estimates[name] = measure.estimate(rows, seed=seed)
            cells[name] = _cell(estimates[name], noise.get(name))
        except Degenerate as error:
            cells[name] = _empty(str(error))
        except ActivationError as error:
            raise ActivationError(f"{place.name}: {error}") from error
    cka = estimates.get("cka")
    row = {
        "name": place.name,
        "status": None if cka is None else status(cka.value, noise=noise.get("cka"), saturated=cka.saturated),
        "identical": rows.same,
        "saturated": cka is not None and cka.saturated,
        "measures": cells,
    }
    return row if place.index is None else {"index": place.index, "depth": place.depth} | row


def _cell(estimate: Estimate, noise: float | None) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "value": estimate.value,
        "change": estimate.change,
        "low": estimate.low,
        "high": estimate.high,
        "null": estimate.null,
        "null_sd": estimate.null_sd,
        "noise": noise,
        "saturated": estimate.saturated,
    }
    if estimate.null_reason is not None:
        cell["null_reason"] = estimate.null_reason
    return cell if estimate.base is None else {**cell, "base": estimate.base}


def _empty(reason: str) -> dict[str, Any]:
    keys = ("value", "change", "low", "high", "null", "null_sd", "noise")
    return dict.fromkeys(keys) | {"saturated": False, "null_reason": reason, "reason": reason}


def value_and_change(x: Tensor, y: Tensor, measures: Mapping[str, Measure]) -> dict[str, dict[str, float | None]]:
    """Values alone, for controls and noise: {measure: {value, change}}; None where a measure has no value here."""
    rows = Rows.of(x, y)
    found: dict[str, dict[str, float | None]] = {}
    for name, measure in measures.items():
        if len(rows) < measure.minimum_rows:
            continue
        try:
            with threads_for(len(x) * min(x.shape) ** 2):
                value, change = measure.moved(rows)
            found[name] = {"value": value, "change": change}
        except Degenerate:
            found[name] = {"value": None, "change": None}
    return found

