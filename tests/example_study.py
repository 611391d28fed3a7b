"""A small study made up: two models, two objectives, four rules, three seeds; outcomes at checkpoints; features; verdicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from example_features import example_features
from example_payload import HOSTILE_NAME
from tunescope.study.published import published_rows
from tunescope.study.row import COLUMNS, Row
from tunescope.study.work.featured import feature_numbers

OBJECTIVES, RULES, SEEDS, BLOCKS = ("causal-lm", "simcse"), ("standard", "uniform", "lora", "equal-step"), (0, 1, 2), 6
VERDICTS: list[dict[str, Any]] = [
    {"name": "rises", "says": "Slopes rise.", "state": "falsified", "why": "slope of procrustes is .3 over 2 runs: not > .4",
     "predicted": "supported", "value": 0.3, "numbers": [{"value": 0.2}, {"value": 0.4}], "window": None},
    {"name": "matched", "says": "At one drift.", "state": "invalid window", "why": "nps is .2", "predicted": "open", "value": 0.1,
     "numbers": [{"value": 0.1}], "window": 0.2},
    {"name": "unseen", "says": "Nothing.", "state": "not evaluable", "why": "no row has it", "predicted": "open", "value": None,
     "numbers": [], "window": None},
]  # fmt: skip
RUNS = [
    {"name": "simcse lora m seed 9", "state": "failed", "errors": ["first", "OutOfMemory: tried 3 GB"]},
    {"name": "mlm lora m seed 9", "state": "running", "step": 3, "steps": 100},
    *({"name": f"run {number}", "state": "done"} for number in range(49)),
]
SEALED = {"sealed": "2026-11-25T10:00:00+00:00", "hash": "ab" * 32, "warnings": ["A and B overlap"]}
DEVIATIONS = ["1 run was never registered and is not judged: 'x' of m seed 1"]


def example_study(*, hostile: bool = False) -> pd.DataFrame:
    """Its ledger."""
    models = (HOSTILE_NAME, "pythia-160m") if hostile else ("neox-sequential", "pythia-160m")
    rows = [row for model in models for row in _curves(model)] + list(_outcomes(models[0])) + list(_features())
    frame = pd.DataFrame([row.describe() for row in rows], columns=list(COLUMNS))
    return frame.astype(published_rows().dtypes.to_dict())


def _row(model: str, run: str, **more: Any) -> Row:
    return Row(**{"study": "mine", "run": run, "kind": "tune", "model": model, "subject": "geometry", "texts": "docs", "n": 290, **more})


def _curves(model: str):
    draw = np.random.default_rng(len(model))
    for objective in OBJECTIVES:
        for rule in RULES:
            for seed in SEEDS:
                steep = 0.5 + 0.2 * (objective == "simcse") + 0.05 * draw.normal()
                change = np.linspace(0.05, steep, BLOCKS) if rule != "equal-step" else 1.15 + 0.03 * draw.normal(size=BLOCKS)
                about = {"condition": f"{objective} {rule}", "objective": objective, "update": rule, "seed": seed}
                for block, moved in enumerate(change, 1):
                    place = {"where": f"block {block}", "layer": block, "depth": block / BLOCKS}
                    run = f"{model} {objective} {rule} {seed}"
                    yield _row(model, run, measure="procrustes", value=moved, change=moved, null=1.2, null_sd=0.06, **about, **place)
                    yield _row(model, run, measure="cka", value=1 - moved / 2, change=moved / 2, null=0.1, null_sd=0.01, **about, **place)


def _outcomes(model: str):
    """NPS on two text sets and nDCG on two tasks, at two checkpoints, of three conditions and two seeds."""
    for order, (condition, regime) in enumerate((("contrast", "aligned"), ("gaps", "misaligned"), ("noise", "control"))):
        for seed in SEEDS[:2]:
            for step in (10, 20):
                about = {"condition": condition, "seed": seed, "step": step, "regime": regime, "kind": "perturb" if order == 2 else "tune"}
                run, far = f"{condition} {seed}", (0.1 + 0.05 * order + 0.01 * seed) * step / 20
                for texts in ("docs", "prose"):
                    moved = far * (1 if texts == "docs" else 1.3)
                    yield _row(model, run, measure="nps", value=1 - moved, change=moved, where="output", **about | {"texts": texts})
                for task, gain in (("search", -0.02 * order * step / 20 - 0.001 * seed), ("docs", 0.01 * order)):
                    yield _row(model, run, subject="outcome", measure="ndcg@10", task=task, value=0.5 + gain, change=gain, side="tuned",
                               low=gain - 0.01, high=gain + 0.01, **about | {"texts": None, "n": 64})  # fmt: skip


def _features():
    for numbers in feature_numbers(example_features(layers=(3, 5), models=("r4", "r16"))):
        yield _row("gemma", "features", kind="features", subject="features", condition="features", seed=0, **{"n": None} | numbers)
