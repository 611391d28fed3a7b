"""The published tables: what each is from, and the depth study's runs as curves."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from tunescope.errors import UnknownName
from tunescope.reference.folder import table

_DEPTH = "Decomposing the Depth Profile of Fine-Tuning"
_DRIFT = "Geometric Drift Metrics are Insufficient (Tonmoy 2026)"

TABLES = {
    "anchor_robustness": f"{_DRIFT}, table 3",
    "bert_mlm_trajectory": f"{_DRIFT}, appendix",
    "depth_profiles": f"{_DEPTH}, tables 11–19",
    "distilbert_imdb": "Where Fine-Tuning Rewrites DistilBERT, table of CKA beside the probe",
    "drift_conditions": f"{_DRIFT}, table 1 and section 4.3",
    "objective_distance": f"{_DEPTH}, table 2 and appendices",
    "width_profiles": f"{_DEPTH}, table 3",
}

DEPTH_STUDY = f"{_DEPTH}, tables 3 and 11–19 (https://github.com/jb1999/ft-depth-profile-paper)"

# The study's training rules, in its own short names.
CONDITIONS = {
    "Std": "standard",
    "Unif": "uniform rate",
    "LoRA": "LoRA",
    "FrzLN": "LayerNorm frozen",
    "FrzInt": "bottom half frozen",
    "EqStep": "equal-step",
}
EQUAL_STEP = "EqStep"  # a control, which the study counts apart from training as usual

_METRICS = {"procrustes": "procrustes", "cka": "cka_change"}  # our measure: the column that holds its change


@dataclass(frozen=True)
class PublishedRun:
    """One published fine-tuning run: its change at the study's depths, under one measure (procrustes; cka, as 1 − CKA)."""

    model: str
    objective: str
    condition: str
    depths: tuple[float, ...]
    changes: tuple[float, ...]


@functools.cache
def runs(measure: str) -> tuple[PublishedRun, ...]:
    """The depth study's 210 runs under a measure, in the order printed. Raises UnknownName for a measure it did not publish."""
    if measure not in _METRICS:
        raise UnknownName("published measure", measure, _METRICS)
    curves: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in table("depth_profiles").itertuples():
        if row.metric == _METRICS[measure]:
            curves.setdefault((row.model, row.objective, row.condition), []).append((row.depth, row.value))
    return tuple(PublishedRun(*key, *zip(*sorted(points), strict=True)) for key, points in curves.items())


@functools.cache
def widths() -> dict[str, tuple[float, ...]]:
    """The printed width table: per model the share of the change at each of the seven depths."""
    shares: dict[str, list[tuple[float, float]]] = {}
    for row in table("width_profiles").itertuples():
        shares.setdefault(row.model, []).append((row.depth, row.share))
    return {model: tuple(share for _, share in sorted(points)) for model, points in shares.items()}
