"""Every tensor that base and tuned have in common, with its change: adapters one layer at a time, tied tensors once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tunescope.geometry.weight_change import WeightChange, low_rank_change, rank_work, weight_change
from tunescope.models import ActingWeight
from tunescope.models.anatomy import Anatomy

EMBEDDINGS, FINAL_NORM, OTHER = "embeddings", "final norm", "other"
DEAD = "the base's tensor is all zeros, so there is nothing to be relative to"
LEFT_OUT = "ranks left out: the singular values of tensors this large take long; --weights-only takes the time"

Weights = Mapping[str, ActingWeight]


@dataclass(frozen=True)
class TensorChange:
    """One tensor of the pair: its name, the part it belongs to (a block's number, or a word), the base's shape, and its change.

    change: None with the reason where the two cannot be compared. rows_compared: of a resized table, the rows both have.
    """

    name: str
    part: int | str
    shape: tuple[int, ...]
    change: WeightChange | None
    reason: str | None = None
    rows_compared: int | None = None

    def row(self) -> dict[str, Any]:
        """One row of `matrices`."""
        change, reason = self.change, self.reason
        if change is not None:
            reason = DEAD if change.relative is None else change.rank_reason
        row = {
            "name": self.name,
            "block": self.part,
            "shape": list(self.shape),
            "relative_change": change and change.relative,
            "stable_rank": change and change.stable_rank,
            "effective_rank": change and change.effective_rank,
            "frozen": change and change.frozen,
            "within_rounding": change and change.within_rounding,
        }
        row |= {"rows_compared": self.rows_compared} if self.rows_compared else {}
        return row | ({"reason": reason} if reason else {})


def compare_tensors(
    before: Weights, after: Weights, anatomy: Anatomy, *, work: float | None, step: Callable[[int, int], None]
) -> Iterator[TensorChange]:
    """The change of every tensor both sides have, in the base's order.

    work: multiply-adds that ranks may cost altogether (None: no limit); beyond it they are left out of full tensors. step: (done, total).
    """
    names: dict[Any, str] = {}
    for name in (name for name in before if name in after):
        names.setdefault((before[name].key, after[name].key), name)
    ranks = work is None or sum(_cost(before[name], after[name]) for name in names.values()) <= work
    for done, name in enumerate(names.values()):
        step(done, len(names))
        yield _compare(name, before[name], after[name], anatomy, ranks=ranks)
    step(len(names), len(names))


def _cost(before: ActingWeight, after: ActingWeight) -> float:
    closed = after.low_rank is not None or (before.merge is None and after.merge is None and _same(before.stored, after.stored))
    return 0.0 if closed else rank_work(before.stored.shape)


def _same(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and (one.data_ptr() == two.data_ptr() or torch.equal(one, two.to(one)))


def _compare(name: str, before: ActingWeight, after: ActingWeight, anatomy: Anatomy, *, ranks: bool) -> TensorChange:
    old, new = before.stored, after.stored
    found = TensorChange(name, _part(name, anatomy), tuple(old.shape), None)
    if old.is_meta or new.is_meta:
        return replace(found, reason="its weights are not in memory")
    if not (old.is_floating_point() and new.is_floating_point()):
        return replace(found, reason="stored as the codes of a quantised tensor, whose norm is not that of the weights")
    if before.merge is None and after.low_rank is not None and _same(old, new):
        return replace(found, change=low_rank_change(old, *after.low_rank()))
    rows = min(len(old), len(new)) if old.ndim else None
    table = found.part == EMBEDDINGS and old.shape[1:] == new.shape[1:]
    if old.shape != new.shape and not table:
        return replace(found, reason=f"{_size(old)} in the base, {_size(new)} in the tuned model")
    change = weight_change(before.tensor()[:rows], after.tensor()[:rows], ranks=ranks)
    if not ranks and not change.frozen and old.ndim > 1:
        change = replace(change, rank_reason=LEFT_OUT)
    return replace(found, change=change, rows_compared=rows if old.shape != new.shape else None)


def _part(name: str, anatomy: Anatomy) -> int | str:
    """The number of the block a tensor belongs to (from 1), or the word for where else it stands."""
    first = name.removeprefix(f"{anatomy.blocks}.").split(".")[0]
    if name.startswith(f"{anatomy.blocks}.") and first.isdecimal():
        return int(first) + 1
    if any(name.startswith(f"{path}.") for path in anatomy.embeddings):
        return EMBEDDINGS
    return FINAL_NORM if anatomy.final_norm and name.startswith(f"{anatomy.final_norm}.") else OTHER


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
