"""A training run as its folder holds it, made up but of realistic size, with hostile names on request."""

from __future__ import annotations

import hashlib
import math
import random
from typing import Any

from example_outcomes import outcome
from example_payload import HOSTILE_NAME, HOSTILE_TEXT


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def example_run(*, steps: int = 60, points: tuple[int, ...] = (0, 10, 30, 60), blocks: int = 3, tau: float | None = None) -> dict:
    """A run of that many steps, watched at `points`; 1 − nps of block b at step s is .4 · b/blocks · s/steps."""
    draw = random.Random(0)
    names = ["embeddings", *(f"block {index}" for index in range(1, blocks + 1))]
    losses = [
        {"step": step, "epoch": step / 20, "learning_rate": 2e-4, "loss": 2 + 2 * math.exp(-step / 20) + draw.gauss(0, 0.1),
         "gradient_norm": 1 + draw.random(), "view_distance": 0.25 + step / 1000}
        for step in range(1, steps + 1)
    ]  # fmt: skip
    sizes = {f"block {b}": 2e-4 * 8 ** ((b - 1) / max(1, blocks - 1)) for b in range(1, blocks + 1)} | {"rest": 8e-4}
    taken = [
        {"step": step, "group": group, "ratio": size * math.exp(draw.gauss(0, 0.2)), "weight": 20 + step / 100, "gradient": draw.random(),
         "agreement": None, "state": "moved"}
        for step in range(1, steps + 1) for group, size in sizes.items()
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    for step in points:
        share = step / steps
        for index, name in enumerate([*names, "output"]):
            layer = index if name != "output" else None
            at = {"kind": "geometry", "step": step, "epoch": step / 20, "where": name, "layer": layer, "n": 128,
                  "depth": None if layer is None else layer / blocks}  # fmt: skip
            moved = min(index, blocks) / blocks * share * 0.4
            rows.append({**at, "measure": "debiased_cka", "value": 1 - moved / 100, "change": moved / 100, "null": 0.0})
            rows.append({**at, "measure": "nps", "value": 1 - moved, "change": moved, "null": 0.08})
            rows.append({**at, "measure": "relative_drift", "value": 2 * moved, "change": 2 * moved, "null": 1.2})
            rows.append({**at, "measure": "isotropy", "value": 0.3 - moved / 7, "change": -moved / 7, "null": None})
        place = {"step": step, "epoch": step / 20}
        rows.append(outcome("retrieval", "scifact", "ndcg@10", 0.645, 0.645 - 0.04 * share, 0.012 * (step > 0), main=True) | place)
        rows.append(outcome("retrieval", "scifact", "recall@100", 0.925, 0.925 - 0.01 * share, 0.014 * (step > 0)) | place)
        rows.append(outcome("probe", "topic", "accuracy", 0.81, 0.81 + 0.05 * math.sqrt(share), 0.02 * (step > 0), main=True,
                            items="held-out texts", layer="output") | place)  # fmt: skip
    return {"record": record(steps, points, blocks, tau), "losses": losses, "steps": taken, "trajectory": rows, "name": "run",
            "created": "2026-11-24T12:00:00"}  # fmt: skip


def record(steps: int, points: tuple[int, ...], blocks: int, tau: float | None) -> dict:
    base = {"name": "intfloat/e5-base-v2", "family": "bert", "layers": blocks, "width": 768, "parameters": 109_482_240, "dtype": "float32",
            "weights_sha256": sha("base"), "tokenizer_sha256": sha("tokenizer"), "revision": None}  # fmt: skip
    rule = "lora+equal-step" if tau else "lora"
    return {
        "schema": "tunescope.run/1", "spec_hash": sha("spec"), "finished": True, "warnings": [], "base": base,
        "spec": {"steps": steps, "epoch_steps": 20, "seed": 7, "processes": 1, "base": base,
                 "data": {"pairs": {"source": "pairs.tsv", "count": 640, "sha256": sha("pairs")}, "items": {"count": 640}},
                 "schedule": {"steps": steps, "epochs": None, "batch_size": 32, "accumulate": 1, "lr": 2e-4, "schedule": "constant",
                              "warmup": 0, "clip": 1.0, "precision": "float32"}},
        "objective": {"name": "contrastive", "temperature": 0.05, "resolved": {"pooling": "mean"}},
        "update": {"rule": rule, "lr": 2e-4, "tau": tau, "parameters": 294_912, "frozen_parameters": 109_482_240,
                   "targets": ["query", "value"]},
        "checkpoints": [{"step": step, "epoch": step / 20, "weights_sha256": sha(f"step {step}")} for step in points],
        "versions": {"python": "3.11.7", "tunescope": "0.1.0", "torch": "2.13.0"},
    }  # fmt: skip


def hostile_run() -> dict:
    """Names and reasons that want to be markup."""
    payload = example_run()
    payload["name"] = HOSTILE_NAME
    payload["record"]["base"]["name"] = payload["record"]["objective"]["name"] = HOSTILE_NAME
    payload["record"]["warnings"] = [HOSTILE_TEXT]
    for row in payload["trajectory"]:
        if row["kind"] != "geometry":
            row["name"], row["reason"] = row["name"] + HOSTILE_TEXT, HOSTILE_TEXT
        elif row["where"] == "block 2":
            row["where"] = HOSTILE_NAME
            row["layer"] = row["depth"] = None
    for row in payload["steps"]:
        if row["group"] == "rest":
            row["group"] = HOSTILE_NAME
    return payload
