"""The published tables as rows of a ledger, so that one analysis reads them and a user's own runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tunescope.errors import FormatError
from tunescope.identity import spec_hash
from tunescope.reference import table
from tunescope.study.row import COLUMNS, SCHEMA

if TYPE_CHECKING:
    import pandas as pd

# `study` of the rows. Anchor sets and epochs are studies of their own: their tables print numbers of the first again, rounded otherwise.
DEPTH, DRIFT, ANCHORS, TRAJECTORY, LAYERS = "depth", "drift", "drift, anchor sets", "drift, epochs", "layers"

# Table 1 of the depth study: how a model's blocks are wired, and its two families of objectives for causal models.
BLOCKS: Mapping[str, str] = MappingProxyType(
    {
        "BERT-base": "sequential",
        "OPT-125m": "sequential",
        "GPT-2 medium": "sequential",
        "Pythia-160m": "parallel",
        "CodeGen-350M": "parallel",
    }
)
CAUSAL = ("OPT-125m", "GPT-2 medium", "Pythia-160m", "CodeGen-350M")
FAMILIES: Mapping[str, str] = MappingProxyType(
    {"CausalLM": "causal-LM", "CausalSpan": "causal-LM", "SimCSE": "contrastive", "BarlowTwins": "contrastive"}
)

_MEASURES = {"procrustes": "procrustes", "cka_change": "cka"}
_PERTURBED = ("random_rank4", "gaussian_0.16")
_E5 = "e5-base-v2"
_BERT = "bert-base-uncased"
_WHOLE = ("seed", "step", "layer", "n")
_WORDS = ("study", "run", "kind", "model", "subject", "measure", "condition", "objective", "update", "data", "regime", "texts", "task",
          "side", "where", "identity", "versions", "schema")  # fmt: skip
Line = dict[str, Any]


def published_rows(folder: str | Path | None = None) -> pd.DataFrame:
    """All published numbers as rows, `study` saying of which table; columns and dtypes of a ledger's data frame.

    A change under CKA or NPS is 1 − value, under Procrustes the value. Outcomes are fractions: printed percentage points are divided by
    100. Widths are rows of the measure "share". Means over seeds have no seed, and the printed sd. The word for a layer's status is
    left out: it follows from CKA.

    Args: folder: of the same CSV files with other numbers; the bundled tables by default.

    Raises: FormatError, as `reference.table`, and for a metric of depth_profiles.csv other than procrustes and cka_change.
    """
    import pandas as pd

    makers = (_profiles, _widths, _distances, _drift, _anchors, _trajectory, _layers)
    lines = [line for make in makers for line in make(folder)]
    frame = pd.DataFrame([line | {"run": _run(line), "schema": SCHEMA} for line in lines], columns=list(COLUMNS))
    words, whole = dict.fromkeys(_WORDS, "str"), dict.fromkeys(_WHOLE, "Int64")
    return frame.astype({name: "float64" for name in COLUMNS if name not in words and name not in whole} | words | whole)


def _run(line: Line) -> str:
    """Stands for the hash of the spec, which nobody printed: alike for rows of one run of one table."""
    return spec_hash({name: line.get(name) for name in ("study", "model", "condition", "objective", "update")})


def _profiles(folder: str | Path | None) -> Iterator[Line]:
    for row in table("depth_profiles", folder).itertuples():
        if row.metric not in _MEASURES:
            raise FormatError(f"depth_profiles.csv has the metric '{row.metric}'; {' and '.join(_MEASURES)} are read")
        measure = _MEASURES[row.metric]
        yield {
            "study": DEPTH, "kind": "tune", "model": row.model, "condition": f"{row.objective} {row.condition}", "objective": row.objective,
            "update": row.condition, "subject": "geometry", "measure": measure, "where": f"depth {row.depth:.2f}", "depth": row.depth,
            "value": 1 - row.value if measure == "cka" else row.value, "change": row.value,
        }  # fmt: skip


def _widths(folder: str | Path | None) -> Iterator[Line]:
    for row in table("width_profiles", folder).itertuples():
        yield {
            "study": DEPTH, "kind": "tune", "model": row.model, "condition": "mean of all runs", "subject": "geometry", "measure": "share",
            "where": f"depth {row.depth:.2f}", "depth": row.depth, "value": row.share, "change": row.share,
        }  # fmt: skip


def _distances(folder: str | Path | None) -> Iterator[Line]:
    for row in table("objective_distance", folder).itertuples():
        for measure in ("cosine", "procrustes"):
            yield {
                "study": DEPTH, "kind": "tune", "model": row.model, "condition": row.objective, "objective": row.objective,
                "subject": "distance", "measure": measure, "value": getattr(row, measure),
            }  # fmt: skip


def _drift(folder: str | Path | None) -> Iterator[Line]:
    for row in table("drift_conditions", folder).itertuples():
        about = _condition(DRIFT, row.model, row.condition) | {"regime": row.regime}
        yield from _similarities(about, row.anchor, nps=row.nps, cka=row.cka, sds={"nps": row.nps_std, "cka": row.cka_std})
        for task in ("msmarco", "nfcorpus"):
            change, sd = getattr(row, f"{task}_delta_pp") / 100, getattr(row, f"{task}_std") / 100
            if change == change:
                yield about | {"subject": "outcome", "measure": "ndcg@10", "task": task, "where": "output", "change": change, "sd": sd}


def _anchors(folder: str | Path | None) -> Iterator[Line]:
    for row in table("anchor_robustness", folder).itertuples():
        for texts in ("msmarco", "nfcorpus", "wikipedia"):
            about = _condition(ANCHORS, _E5, row.condition)
            yield from _similarities(about, texts, nps=getattr(row, f"nps_{texts}"), cka=getattr(row, f"cka_{texts}"))


def _trajectory(folder: str | Path | None) -> Iterator[Line]:
    rows = table("bert_mlm_trajectory", folder).sort_values("epoch")
    base = float(rows["nfcorpus_ndcg10_percent"].iloc[0])
    if rows["epoch"].iloc[0] != 0:
        raise FormatError(f"bert_mlm_trajectory.csv starts at epoch {rows['epoch'].iloc[0]:g}; it needs epoch 0, the untuned model")
    for row in rows.itertuples():
        about = _condition(TRAJECTORY, _BERT, "mlm_lora_msmarco") | {"epoch": row.epoch}
        yield from _similarities(about, None, nps=row.nps, sds={"nps": row.nps_std})
        percent = row.nfcorpus_ndcg10_percent
        yield about | {
            "subject": "outcome", "measure": "ndcg@10", "task": "nfcorpus", "where": "output", "value": percent / 100,
            "change": (percent - base) / 100, "sd": row.nfcorpus_std / 100,
        }  # fmt: skip


def _layers(folder: str | Path | None) -> Iterator[Line]:
    rows = table("distilbert_imdb", folder)
    last = rows["layer"].max()
    if not last > 0 or (rows["layer"] % 1).any():
        raise FormatError("distilbert_imdb.csv: layer counts from 0, the embeddings, in whole numbers; there must be one above 0")
    for row in rows.itertuples():
        place = {"where": f"block {row.layer:.0f}" if row.layer else "embeddings", "layer": int(row.layer), "depth": row.layer / last}
        about = {"study": LAYERS, "kind": "compare", "model": "distilbert-base-uncased", "condition": "IMDB", **place}
        accuracy = about | {"subject": "outcome", "measure": "accuracy", "task": "IMDB"}
        yield about | {"subject": "geometry", "measure": "cka", "value": row.cka, "change": 1 - row.cka, "texts": "IMDB"}
        yield accuracy | {"side": "base", "value": row.pretrained_accuracy}
        yield accuracy | {"side": "tuned", "value": row.finetuned_accuracy, "change": row.delta_accuracy}


def _condition(study: str, model: str, condition: str) -> Line:
    kind = "perturb" if condition in _PERTURBED else "tune"
    return {"study": study, "kind": kind, "model": model, "condition": condition}


def _similarities(about: Line, texts: str | None, *, sds: Mapping[str, float] = MappingProxyType({}), **values: float) -> Iterator[Line]:
    """Rows of NPS and CKA of the deployed embedding, those that were printed."""
    place = about | {"subject": "geometry", "texts": texts, "where": "output"}
    for measure, value in values.items():
        if value == value:
            yield place | {"measure": measure, "value": value, "change": 1 - value, "sd": sds.get(measure)}
