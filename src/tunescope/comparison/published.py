"""The comparison on the published axis, and where it falls among the depth study's runs: slopes and final-depth share, nothing else."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from tunescope.geometry.published import (
    NOMINAL_DEPTHS,
    SHALLOWEST,
    PublishedProfile,
    at_nominal_depths,
    blocks_read,
    mean_shares,
    published_profile,
)
from tunescope.reference import CONDITIONS, DEPTH_STUDY, EQUAL_STEP, PublishedRun, runs

PLACED = ("procrustes", "cka")  # the measures the study published
NEAREST = 3
CAVEAT = (
    "The published runs were read on 290 mathematical and relational sentences, mean-pooled, and were printed to three decimals. "
    "Other texts move a slope (BERT-base NSP: 1.163 on those, 1.290 on Wikipedia), and so does the number of texts. "
    "A place among them says how the change is spread over depth, not that the cause is the same."
)
Layers = Sequence[Mapping[str, Any]]


def published(layers: Layers, sites: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """The payload's `published`: every measure at the seven depths, the width there, and the place of both among the published runs.

    Args: the layers' rows and the sites' of a comparison, and the number of blocks of the tuned model. Where the axis cannot be had,
    `measures`, `width` and `nearest` are None and `reason` says why; where only the place cannot be, `nearest` is.
    """
    blocks = [row for row in layers if row["index"] > 0]
    found: dict[str, Any] = {"depths": list(NOMINAL_DEPTHS), "measures": None, "width": None, "nearest": None, "among": None}
    found |= {"interpolated": depth < SHALLOWEST, "source": DEPTH_STUDY}
    if depth < 2:
        return found | {"reason": "there are fewer than 2 blocks, and the published axis needs at least 2"}
    if len(blocks) != depth:
        return found | {"reason": f"{len(blocks)} of {depth} blocks were measured, and the published axis needs all"}
    embeddings = next((row for row in layers if row["index"] == 0), None)
    profiles = {name: profile for name in blocks[0]["measures"] if (profile := _profile(blocks, embeddings, name))}
    if not profiles:
        return found | {"reason": "no measure has a change at every block"}
    normed = _differs(blocks[-1], sites.get("final"))
    measures = {name: {"values": list(p.values), "slope": p.slope, "rank_slope": p.rank_slope} for name, p in profiles.items()}
    found |= {"measures": measures, "width": _width(profiles.get("cka")), "note": _note(depth, embeddings is not None, normed)}
    placed = {name: profiles[name] for name in PLACED if name in profiles and any(profiles[name].values)}
    if not placed:
        missing = not any(name in profiles for name in PLACED)
        why = "neither Procrustes nor CKA was measured at every block" if missing else "nothing changed"
        return found | {"reason": f"{why}, so there is no place among the published runs"}
    return found | {"nearest": _nearest(placed), "among": _among(tuple(placed))}


def _profile(blocks: Layers, embeddings: Mapping[str, Any] | None, measure: str) -> PublishedProfile | None:
    """The curve of one measure on the published axis; None where a block has no change."""
    changes = [row["measures"].get(measure, {}).get("change") for row in blocks]
    if any(change is None for change in changes):
        return None
    below = None if embeddings is None else embeddings["measures"].get(measure, {}).get("change")
    return published_profile(changes, embeddings=below)


def _width(cka: PublishedProfile | None) -> dict[str, Any]:
    if cka is not None and (shares := cka.shares):
        return {"shares": shares, "final_share": shares[-1]}
    reason = "CKA was not measured at every block" if cka is None else "no block changed, so there are no shares"
    return {"shares": None, "final_share": None, "reason": reason}


def _differs(last: Mapping[str, Any], final: Mapping[str, Any] | None) -> bool:
    """Whether the model has a norm after its last block: its final state then changed otherwise than that block."""
    if final is None:
        return False
    pairs = [(cell.get("change"), final["measures"].get(name, {}).get("change")) for name, cell in last["measures"].items()]
    return any(abs(own - other) > 1e-9 for own, other in pairs if own is not None and other is not None)


def _note(depth: int, embeddings: bool, normed: bool) -> str:
    first = "the embeddings at 0" if embeddings else "the first block's change held above it"
    said = (
        f"The model has {depth} blocks, fewer than {SHALLOWEST}, so its curve is interpolated linearly between blocks ({first}). "
        if depth < SHALLOWEST
        else f"Read at blocks {', '.join(map(str, blocks_read(depth)))} of {depth}, the nearest to the seven depths. "
    )
    if normed:
        said += "Depth 1.00 is the last block before the final norm; whether the study read it before or after is not published. "
    return said + CAVEAT


@functools.cache
def _profiles(measure: str) -> tuple[tuple[PublishedRun, PublishedProfile], ...]:
    """Every published run under a measure, read by the same code as the comparison."""
    return tuple((run, at_nominal_depths(run.changes)) for run in runs(measure))


def _nearest(placed: Mapping[str, PublishedProfile]) -> dict[str, Any]:
    """Per number its place among the published runs of the same measure: rank (1 is the largest) of how many, and the nearest runs."""
    slopes = {}
    for name, profile in placed.items():
        if profile.slope is not None:
            slopes[name] = _place(profile.slope, [(run, other.slope) for run, other in _profiles(name) if other.slope is not None])
    shares = placed["cka"].shares if "cka" in placed else None
    finals = [(run, other.shares[-1]) for run, other in _profiles("cka") if other.shares]
    return {"slope": slopes, "final_share": _place(shares[-1], finals) if shares else None}


def _place(value: float, others: Sequence[tuple[PublishedRun, float]]) -> dict[str, Any]:
    near = sorted(others, key=lambda pair: abs(pair[1] - value))[:NEAREST]
    return {
        "value": value,
        "rank": 1 + sum(other > value for _, other in others),
        "of": len(others) + 1,
        "runs": [{"model": r.model, "objective": r.objective, "condition": CONDITIONS[r.condition], "value": v} for r, v in near],
    }


def _among(measures: Sequence[str]) -> list[dict[str, Any]]:
    """Per published model its runs, their slopes, and its width: what a chart draws beside the comparison.

    The width is the mean over the runs of training as usual, as in the printed table.
    """
    models = []
    for model in dict.fromkeys(run.model for run in runs(measures[0])):
        own = {name: [(run, profile) for run, profile in _profiles(name) if run.model == model] for name in (*measures, "cka")}
        usual = [profile for run, profile in own["cka"] if run.condition != EQUAL_STEP]
        models.append({
            "model": model,
            "runs": [f"{run.objective}, {CONDITIONS[run.condition]}" for run, _ in own[measures[0]]],
            "slopes": {name: [_four(profile.slope) for _, profile in own[name]] for name in measures},
            "shares": [_four(share) for share in mean_shares(usual)],
        })  # fmt: skip
    return models


def _four(value: float | None) -> float | None:
    """Four decimals: the printed curves have three."""
    return None if value is None else round(value, 4)
