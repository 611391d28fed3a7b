"""The page of objective distances: what pulls the model like its pretraining, and like a task, before anything is trained."""

from __future__ import annotations

from typing import Any

from tunescope.report import objective_words as words
from tunescope.report import provenance, reading
from tunescope.report.page import filled


def render_distances(payload: reading.Payload) -> str:
    """The self-contained page of distance.json, as text to write in UTF-8; it makes no request."""
    from tunescope.report.objective_charts import objective_charts

    payload = reading.printable(payload)
    drawn = objective_charts(payload)
    return filled("distance.html.j2", _view(payload, drawn), drawn)


def _view(payload: reading.Payload, drawn: dict[str, dict]) -> dict[str, Any]:
    base = payload["base"]
    return {
        "version": payload["tunescope"], "base": {"name": base["name"]}, "subject": words.subject(payload),
        "headline": words.headline(payload), "warnings": payload.get("warnings") or [],
        "reference": payload["reference"]["name"], "rows": [words.cells(row) for row in words.measured(payload)],
        "refused": [{"name": name, "why": why} for name, why in words.refusals(payload)],
        "noise": words.noise(payload), "agreement": words.agreement(payload), "drawn": set(drawn),
        "projected": "; ".join(words.projections(payload)),
        "measures": [{"name": name, "title": title} for name, title in payload["distances"].items()],
        "task": _task(payload, drawn), "identity": provenance.identity(base, {}), "kept": provenance.kept(payload),
        "footer": f"Written by tunescope {payload['tunescope']} on {payload['created'][:16].replace('T', ' ')}. "
                  "This file loads nothing and sends nothing.",
    }  # fmt: skip


def _task(payload: reading.Payload, drawn: dict[str, dict]) -> dict[str, Any] | None:
    posed = payload.get("alignment")
    if not posed:
        return None
    panels = [
        {"name": row["name"], "chart": f"alignment_{order}" if f"alignment_{order}" in drawn else None,
         "said": words.alignment_cells(row["overall"])["shown"], "cells": [words.alignment_cells(cell) for cell in row["blocks"]]}
        for order, row in enumerate(posed["rows"])
    ]  # fmt: skip
    return {"said": words.task_words(payload), "rows": words.alignment_rows(payload), "panels": panels, "map": "objective_map" in drawn}
