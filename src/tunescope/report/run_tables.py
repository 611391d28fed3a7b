"""The tables of a run's page: its points, every distance by place, every outcome, every group of tensors."""

from __future__ import annotations

import statistics
from typing import Any

from tunescope.report import outcome_words, reading, run_reading, run_words
from tunescope.report.loss_curve import loss_rows
from tunescope.report.numbers import MISSING, amount, count, one_decimal, short_hash, signed, three, two_digits
from tunescope.report.outcome_cards import verdict
from tunescope.report.run_reading import Row


def points(payload: reading.Payload) -> dict[str, Any]:
    """A line a point: where in the run, the loss around it, distance of the output, task scores, weights kept."""
    kept = {each["step"]: each for each in payload["record"].get("checkpoints") or []}
    rows = payload.get("trajectory") or []
    epochs = {row["step"]: row.get("epoch") for row in [*(payload.get("losses") or []), *rows, *kept.values()]}
    losses = {row["step"]: row["smooth"] for row in loss_rows(payload)}
    places = run_reading.places(payload)
    last = places[-1]["name"] if places else ""
    distances = {name: run_reading.numbers(payload, name) for name in run_reading.measures(payload)[:1]}
    tasks = {key: {row["step"]: row for row in found} for key, found in run_reading.tasks(payload).items()}
    lines = [
        {
            "step": count(step), "epoch": one_decimal(epochs.get(step)), "loss": losses.get(step, MISSING),
            "changes": [three((found.get((step, last)) or {}).get("change")) for found in distances.values()],
            "scores": [run_words.score(found.get(step)) for found in tasks.values()],
            "weights": short_hash(kept[step].get("weights_sha256")) if step in kept else "",
            "full": str(kept[step].get("weights_sha256") or "") if step in kept else "",
        }
        for step in sorted({*kept, *run_reading.points(rows)})
    ]  # fmt: skip
    heads = [run_reading.change_name(payload, name) for name in distances]
    metrics = [(name, outcome_words.metric(next(iter(found.values()))["metric"])) for (_, name), found in tasks.items()]
    return {"lines": lines, "place": last, "changes": heads, "tasks": [{"name": name, "metric": metric} for name, metric in metrics]}


def distances(payload: reading.Payload) -> list[dict[str, Any]]:
    """A table a measure: places down, points across, and the chance floor of the last point."""
    return [_distance(payload, measure) for measure in run_reading.measures(payload)]


def _distance(payload: reading.Payload, measure: str) -> dict[str, Any]:
    steps = run_reading.points(run_reading.geometry(payload))
    cells, places = run_reading.numbers(payload, measure), run_reading.places(payload)
    about = reading.about(payload, measure)
    first = next((place["name"] for place in places if place["site"]), None)
    rows = []
    for place in places:
        across = [cells.get((step, place["name"])) or {} for step in steps]
        floors = [cell["floor"] for cell in across if cell.get("floor") is not None]
        changes = [three(cell.get("change")) for cell in across]
        floor = three(floors[-1] if floors else None)
        rows.append({"name": place["name"], "cells": changes, "floor": floor, "site_first": place["name"] == first})
    return {"name": measure, "short": about["title"].split(",")[0], "title": about["title"], "steps": [count(step) for step in steps],
            "change": run_reading.change_name(payload, measure), "rows": rows,
            "distance": run_reading.is_distance(payload, measure)}  # fmt: skip


def outcomes(payload: reading.Payload) -> list[dict[str, Any]]:
    """A line an outcome and point, every metric."""
    return [
        {
            "step": count(row["step"]), "name": row["name"], "kind": outcome_words.KINDS.get(row["kind"], row["kind"]),
            "where": outcome_words.where(row), "metric": outcome_words.metric(row["metric"]), "n": count(row.get("n")),
            "base": amount(row.get("base")), "tuned": amount(row.get("tuned")), "delta": signed(row.get("delta")),
            "interval": f"[{outcome_words.reach(row).replace(' to ', ', ')}]" if outcome_words.reach(row) else MISSING,
            "reason": row.get("reason") or "", **verdict(row),
        }
        for row in run_reading.outcomes(payload)
    ]  # fmt: skip


def groups(payload: reading.Payload) -> dict[str, Any]:
    """A line a group of tensors: its steps, its size, its gradient, and what became of it."""
    tau = run_reading.tau(payload)
    lines = [_group(name, rows, tau) for name, rows in run_reading.groups(payload).items()]
    return {"lines": lines, "equal": tau is not None, "agreement": any(line["agreement"] != MISSING for line in lines)}


def _group(name: str, rows: list[Row], tau: float | None) -> dict[str, Any]:
    found = run_reading.ratios(rows)
    middle = statistics.median(found) if found else None
    trained = [row for row in rows if row["state"] != run_reading.FROZEN]
    gradients = [row["gradient"] for row in trained if row.get("gradient") is not None]
    agreed = run_reading.agreements(rows)
    states = [state for state in dict.fromkeys(row["state"] for row in rows) if state != run_reading.MOVED]
    return {
        "name": name, "median": two_digits(middle),
        "low": two_digits(min(found, default=None)), "high": two_digits(max(found, default=None)),
        "factor": f"× {two_digits(tau / middle)}" if tau and middle else MISSING, "steps": count(len(found)),
        "weight": f"{amount(trained[0].get('weight'))} → {amount(trained[-1].get('weight'))}" if trained else MISSING,
        "gradient": two_digits(statistics.median(gradients) if gradients else None),
        "agreement": signed(statistics.fmean(agreed)) if agreed else MISSING, "noise": run_reading.by_noise(rows),
        "aside": ", ".join(f"{state} at {count(sum(row['state'] == state for row in rows))}" for state in states),
    }  # fmt: skip
