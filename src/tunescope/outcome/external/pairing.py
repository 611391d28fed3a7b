"""The same items of both sides, found by id and checked to be the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tunescope.errors import AlignmentError
from tunescope.outcome.external.measured import Measured

SHOWN = 3


@dataclass(frozen=True)
class Matched:
    """Scores (n,) of the n items that both sides have, in the order of the base side, and what was left over."""

    ids: tuple[str, ...]
    base: np.ndarray
    tuned: np.ndarray
    groups: np.ndarray | None
    only_base: int
    only_tuned: int
    warnings: tuple[str, ...]


def match(base: Measured, tuned: Measured) -> Matched:
    """Pair two sides by item id.

    A score that is a sum over an item's words or bytes becomes its share of the weighted mean, sᵢ · n / Σw, so that the plain mean of
    the items is the corpus figure Σs / Σw.

    Raises AlignmentError, naming the item: no id on both sides, another text under the same id, another version of the data.
    """
    if base.version != tuned.version:
        found = f"'{base.version}' in {base.source}, '{tuned.version}' in {tuned.source}"
        raise AlignmentError(f"{_named(base)}: the two sides measured different revisions of the data ({found}); measure both on one")
    ids = tuple(item for item in base.scores if item in tuned.scores)
    if not ids:
        raise AlignmentError(
            f"{_named(base)}: no item is on both sides; {base.source} has {_some(base.scores)}, {tuned.source} has {_some(tuned.scores)}"
        )
    for name in base.checks.keys() & tuned.checks.keys():
        _same(base, tuned, ids, name)
    scale = _scale(base, tuned, ids)
    return Matched(
        ids=ids,
        base=np.array([base.scores[item] for item in ids]) * scale,
        tuned=np.array([tuned.scores[item] for item in ids]) * scale,
        groups=np.unique([base.groups[item] for item in ids], return_inverse=True)[1] if base.groups else None,
        only_base=len(base.scores) - len(ids),
        only_tuned=len(tuned.scores) - len(ids),
        warnings=_warnings(base, tuned, ids),
    )


def _same(base: Measured, tuned: Measured, ids: tuple[str, ...], name: str) -> None:
    ours, theirs = base.checks[name], tuned.checks[name]
    other = [item for item in ids if item in ours and item in theirs and ours[item] != theirs[item]]
    if other:
        what = f"{len(other):,} of {len(ids):,} items differ" if len(other) > 1 else "only this item differs"
        raise AlignmentError(
            f"{_named(base)}: item '{other[0]}' is not the same on both sides: {name} {ours[other[0]]!r:.40} in {base.source}, "
            f"{theirs[other[0]]!r:.40} in {tuned.source} ({what}); measure both models on one version of the task"
        )


def _scale(base: Measured, tuned: Measured, ids: tuple[str, ...]) -> float:
    if not base.weights or not tuned.weights:
        return 1.0
    other = next((item for item in ids if base.weights[item] != tuned.weights[item]), None)
    if other is not None:
        counts = f"{base.weights[other]:g} words or bytes in {base.source}, {tuned.weights[other]:g} in {tuned.source}"
        raise AlignmentError(f"{_named(base)}: item '{other}' is not the same text on both sides: {counts}")
    return len(ids) / sum(base.weights[item] for item in ids)


def _warnings(base: Measured, tuned: Measured, ids: tuple[str, ...]) -> tuple[str, ...]:
    said = []
    for one, other in ((base, tuned), (tuned, base)):
        if missing := [item for item in one.scores if item not in other.scores]:
            said.append(f"{_named(one)}: {len(missing):,} scored only in {one.source} ({_some(missing)}) and left out")
        if one.unscored:
            said.append(f"{_named(one)}: {one.unscored:,} without a score in {one.source} and left out")
    prompts = [item for item in ids if base.prompts.get(item) != tuned.prompts.get(item)]
    if prompts and base.prompts and tuned.prompts:
        said.append(
            f"{_named(base)}: {len(prompts):,} of {len(ids):,} items have another prompt on each side (examples, chat template): "
            "the difference is that of model and prompt together"
        )
    if base.made_by != tuned.made_by:
        said.append(f"{_named(base)}: measured with {base.made_by} on the base side and {tuned.made_by} on the tuned side")
    return tuple(said)


def _named(measured: Measured) -> str:
    return measured.task or measured.metric


def _some(ids: Mapping[str, float] | list[str]) -> str:
    shown = ", ".join(f"'{item}'" for item in list(ids)[:SHOWN])
    return f"{shown}, …" if len(ids) > SHOWN else shown
