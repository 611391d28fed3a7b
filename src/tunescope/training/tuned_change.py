"""What tuning added to a base, tensor by tensor: its size and rank, and the tuned weights as they act."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tunescope.errors import InputError
from tunescope.models import ActingWeight, Model, acting_weights


@dataclass(frozen=True)
class TunedChange:
    """|ΔW|_F of one tensor, and the rank of the LoRA adapter that made it, where one did."""

    norm: float
    rank: int | None = None


def plain_copy(model: Model, *, name: str, warnings: list[str]) -> Model:
    """A copy whose weights are those `model` acts with: an adapter that is on is merged, one that is off stays off."""
    module, peft = copy.deepcopy((model.module, model.peft))
    if model.adapter_on:
        peft.merge_and_unload(adapter_names=list(model.adapters))
        peft = None
    off: dict = {"adapter_on": False, "adapters": (), "adapter": None, "worn": None}
    return replace(model, name=name, module=module, peft=peft, warnings=warnings, **off)


def merged_tensors(model: Model) -> dict[str, Tensor]:
    """The weights as they act, by the base's names."""
    return plain_copy(model, name=model.name, warnings=[]).tensors() if model.adapter_on else model.tensors()


def pairs(before: Mapping[str, Tensor], after: Mapping[str, Tensor], *, names: tuple[str, str]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Every floating tensor of both. Raises InputError when the second has none of that name and shape."""
    for key, old in before.items():
        if key not in after or after[key].shape != old.shape:
            raise InputError(f"'{names[1]}' has no tensor {key} of shape {tuple(old.shape)}; it must be tuned from '{names[0]}'")
        if old.is_floating_point():
            yield key, old, after[key]


def tuned_changes(model: Model, like: Model) -> dict[str, TunedChange]:
    """The change of every tensor in which `like` differs from `model`; of a plain LoRA on these weights from its factors, with its rank.

    Raises: InputError, when `like` was not tuned from `model`.
    """
    before = merged_tensors(model)
    factors, ranks = lora_factors(like, on=before), _ranks(like)
    found = {}
    for key, old, new in pairs(before, merged_tensors(like), names=(model.name, like.name)):
        if key in factors:
            found[key] = factors[key]
        else:
            found[key] = TunedChange(float((new.detach().cpu().double() - old.detach().cpu().double()).norm()), ranks.get(key))
    return {key: change for key, change in found.items() if change.norm}


def lora_factors(like: Model, *, on: Mapping[str, Tensor]) -> dict[str, TunedChange]:
    """Norm and rank of every matrix to which a plain LoRA of `like` adds a product of factors, its base weights being those of `on`."""
    acting = acting_weights(like) if like.adapter_on else {}
    return {key: _change(weight) for key, weight in acting.items() if weight.low_rank and key in on and same(weight.stored, on[key])}


def _ranks(like: Model) -> dict[str, int]:
    """Rank of every matrix a LoRA adapter of any variant changes, by the name of the base's weight; several active adapters add up."""
    found = {}
    for path, module in like.module.named_modules() if like.adapter_on else ():
        ranks = getattr(module, "r", None)
        if hasattr(module, "lora_A") and isinstance(ranks, dict):
            found[f"{path}.weight"] = sum(int(ranks[name]) for name in like.adapters if name in ranks)
    return found


def same(one: Tensor, two: Tensor) -> bool:
    """Bit for bit the same values in the same format."""
    if one.data_ptr() == two.data_ptr() and one.shape == two.shape:
        return True
    return one.dtype == two.dtype and one.shape == two.shape and torch.equal(one.detach().cpu(), two.detach().cpu())


def _change(weight: ActingWeight) -> TunedChange:
    """|BA|² = tr(BᵀB AAᵀ), without the product."""
    up, down = weight.low_rank()
    square = float(((up.T @ up) * (down @ down.T)).sum())
    return TunedChange(max(square, 0.0) ** 0.5, up.shape[1])
