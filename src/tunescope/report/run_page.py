"""The page of a training run: what was asked, how the loss went, how far the model moved, what came of it, how large the steps were."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tunescope.report import provenance, reading, run_captions, run_objective, run_reading, run_tables, run_words
from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import count
from tunescope.report.page import filled

_OBJECTIVE = {"name": "objective", "resolved": "settled as", "head_fitted_steps": "head fitted for, steps"}
_UPDATE = {"rule": "update rule", "options": "its options", "lr": "learning rate", "tau": "τ", "parameters": "parameters that train",
           "frozen_parameters": "parameters that do not", "targets": "adapted modules"}  # fmt: skip
_LEFT = ("groups", "tensors", "frozen_tensors", "turned_on", "turned_off", "family", "weight_decay_policy")  # long, or said elsewhere
_PLAIN = {"processes": 1, "accumulate": 1, "warmup": 0, "activation_checkpointing": False, "head_fitted_steps": 0}  # go without saying
_SCHEDULE = {"batch_size": "items a pass", "accumulate": "passes a step", "schedule": "schedule", "clip": "gradients clipped at"}
_SPEC = {"seed": "seed", "epoch_steps": "steps an epoch", "processes": "processes"}


def run_report(payload: reading.Payload) -> str:
    """The self-contained page of a run, as text to write in UTF-8; it makes no request.

    payload: "record" is what run.json says; "losses", "steps" and "trajectory" are the rows of the files beside it, or none. "measures"
    may say of each measure what comparison.json says (title, change, one_sided, …), "name" what to call the run.
    """
    payload = reading.printable(payload)
    drawn = run_charts(payload)
    return filled("run.html.j2", _view(payload, drawn), drawn)


def run_charts(payload: reading.Payload) -> dict[str, dict]:
    """Every chart of a run, by name: loss, trajectory_<measure>, outcome_<order>, step_sizes."""
    from tunescope.report.charts import finished
    from tunescope.report.loss_curve import loss_curve
    from tunescope.report.outcome_path import outcome_path
    from tunescope.report.step_sizes_chart import step_sizes
    from tunescope.report.trajectory_depth import trajectory_depth

    draw: dict[str, Callable[[Tables], Any]] = {"loss": functools.partial(loss_curve, payload)}
    for measure in run_reading.measures(payload):
        draw[f"trajectory_{measure}"] = functools.partial(trajectory_depth, payload, measure)
    for order, rows in enumerate(run_reading.tasks(payload).values()):
        draw[f"outcome_{order}"] = functools.partial(outcome_path, rows)
    draw["step_sizes"] = functools.partial(step_sizes, payload)
    return finished(draw)


def _view(payload: reading.Payload, drawn: dict[str, dict]) -> dict[str, Any]:
    """Everything the template prints, as strings."""
    record = payload["record"]
    versions = record.get("versions") or {}
    made = str(payload.get("created") or "")[:16].replace("T", " ")
    return {
        "version": versions.get("tunescope", ""), "name": payload.get("name") or "the run",
        "base": (record.get("base") or {}).get("name") or "the base", "headline": run_words.headline(payload),
        "outcome_headline": run_words.outcome_headline(payload), "warnings": record.get("warnings") or [],
        "judged": bool(run_reading.outcomes(payload)), "drawn": set(drawn),
        "loss": run_words.loss(payload), "beside": run_words.beside_the_loss(payload), "points": run_tables.points(payload),
        "trajectory": run_words.trajectory(payload), "panels": _panels(payload, drawn), "missing": run_words.missing(payload),
        "distances": run_tables.distances(payload), "paths": _paths(payload, drawn), "outcomes": run_tables.outcomes(payload),
        "sizes": run_words.step_sizes(payload), "groups": run_tables.groups(payload),
        "captions": _captions(payload, drawn), "asked": _asked(record), "identity": provenance.identity(record.get("base") or {}, {}),
        "definitions": [provenance.definition(payload, name) for name in run_reading.measures(payload)] if payload.get("measures") else [],
        "footer": f"Written by tunescope {versions.get('tunescope', '')}{f' on {made}' if made else ''}. "
                  "This file loads nothing and sends nothing.",
    }  # fmt: skip


def _captions(payload: reading.Payload, drawn: dict[str, dict]) -> dict[str, str]:
    return {"loss": run_captions.loss(payload), "depth": run_captions.depth(payload, drawn), "sizes": run_captions.sizes(payload),
            "outcomes": run_captions.outcomes(payload)}  # fmt: skip


def _panels(payload: reading.Payload, drawn: dict[str, dict]) -> list[dict[str, str]]:
    names = [name for name in run_reading.measures(payload) if f"trajectory_{name}" in drawn]
    return [{"chart": f"trajectory_{name}", "title": reading.about(payload, name)["title"]} for name in names]


def _paths(payload: reading.Payload, drawn: dict[str, dict]) -> list[dict[str, str]]:
    """A panel a task: its name, and the verdict of its last point."""
    found = []
    for order, ((_, name), rows) in enumerate(run_reading.tasks(payload).items()):
        last = rows[-1]
        at = f"step {count(last['step'])}"
        word = last["verdict"] if last["step"] else "judged at the start alone"
        found.append({"name": name, "chart": f"outcome_{order}" if f"outcome_{order}" in drawn else "", "said": f"{at}: {word}"})
    return found


def _asked(record: dict[str, Any]) -> list[dict[str, str]]:
    """The run as it was asked for, and the hash that names it."""
    spec = record.get("spec") or {}
    update = {key: value for key, value in (record.get("update") or {}).items() if key not in _LEFT}
    update = {key: value for key, value in update.items() if key not in (update.get("options") or {})}
    schedule = _telling({key: value for key, value in (spec.get("schedule") or {}).items() if key not in ("lr", "steps", "epochs")})
    asked = _telling(run_objective.settings(record.get("objective") or {}))
    rows = provenance.told(asked, _OBJECTIVE) + provenance.told(update, _UPDATE)
    for name, data in (spec.get("data") or {}).items():
        rows += provenance.told({name: data} if not isinstance(data, dict) else _data(name, data), {})
    rows += provenance.told(_telling({key: spec[key] for key in _SPEC if key in spec}), _SPEC) + provenance.told(schedule, _SCHEDULE)
    rows += provenance.told({"spec_sha256": record.get("spec_hash")}, {"spec_sha256": "hash of all this"})
    versions = ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items())
    return rows + provenance.told({"versions": versions}, {})


def _telling(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without those at values that go without saying, and without the seed of heads, which is the run's."""
    return {key: value for key, value in settings.items() if key != "head_seed" and (key not in _PLAIN or value != _PLAIN[key])}


def _data(name: str, data: dict[str, Any]) -> dict[str, Any]:
    names = {"sha256": f"{name}_sha256", "count": name}
    return {names.get(key, f"{name} {key}"): value for key, value in data.items()}
