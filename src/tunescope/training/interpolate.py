"""Part of the way from a base to a tuned model, or beyond it: the control in which only the distance differs."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from torch import Tensor

from tunescope.models import Model, acting_weights
from tunescope.models.adapters import adapter_tensors
from tunescope.models.placement import check_in_memory
from tunescope.models.sources import Folder
from tunescope.models.weights import ADAPTER_FILES
from tunescope.training.layer_amounts import Amount, LayerAmounts
from tunescope.training.tuned_change import merged_tensors, pairs, plain_copy, same


def interpolate(
    model: Model, tuned: Model, *, alpha: Amount, layers: Iterable[int | str] | None = None, name: str | None = None
) -> Model:
    """The model with weights W + α (W′ − W), W those of `model` and W′ those of `tuned`; both are left as they are.

    α = 0 gives the weights of `model` bit for bit, α = 1 those of `tuned` and its output head; α may be negative or above 1. A plain
    LoRA on the very weights of `model` stays one, its B scaled by α; every other adapter counts as it is when merged.

    Args:
        alpha: for all tensors, or {layer: α}; 0 is the embeddings, "rest" what stands outside the blocks. Layers that are not named
            stay as `model` has them.
        layers: the only ones to be moved.

    Raises: InputError (a layer the model lacks, no number, tensors that do not fit), ModelError (offloaded).
        Wortsman et al. 2022, https://arxiv.org/abs/2109.01903.
    """
    for side in (model, tuned):
        check_in_memory(side.module, name=side.name, what="interpolation")
    amounts = LayerAmounts.of(alpha, layers, model)
    name = name or f"{model.name} to {tuned.name}, α = {amounts}"
    note = f"weights W + α (W′ − W) between '{model.name}' and '{tuned.name}', α = {amounts}"
    if amounts.everywhere == 1:
        return _copied(tuned, name, note)
    if amounts.everywhere == 0:
        return _copied(model, name, note)
    if _is_lora_on(model, tuned):
        return _scaled(tuned, amounts, name=name, note=note)
    moved = plain_copy(model, name=name, warnings=[note, *_other_head(model, tuned)])
    weights, done = moved.tensors(), set()
    with torch.no_grad():
        for key, _, after in pairs(weights, merged_tensors(tuned), names=(model.name, tuned.name)):
            if weights[key].data_ptr() not in done:
                weights[key].copy_(between(weights[key], after.to(weights[key].device), amounts.at(key)))
                done.add(weights[key].data_ptr())
    return moved


def between(before: Tensor, after: Tensor, alpha: float) -> Tensor:
    """before + α (after − before), in float32 or wider; `before` and `after` themselves for 0 and 1."""
    if alpha in (0, 1):
        return after if alpha else before
    wide = torch.promote_types(torch.promote_types(before.dtype, after.dtype), torch.float32)
    return before.to(wide) + alpha * (after.to(wide) - before.to(wide))


def _copied(model: Model, name: str, note: str) -> Model:
    module, peft = copy.deepcopy((model.module, model.peft))
    return replace(model, name=name, module=module, peft=peft, warnings=[note])


def _other_head(model: Model, tuned: Model) -> list[str]:
    if model.output.describe() == tuned.output.describe():
        return []
    return [f"'{tuned.name}' makes its embedding another way than '{model.name}', whose pooling and dense layers are kept here"]


def _is_lora_on(model: Model, tuned: Model) -> bool:
    """Whether all that `tuned` adds to the weights of `model` are products of LoRA factors."""
    if not tuned.adapter_on or model.adapter_on or len(tuned.adapters) != 1:
        return False
    if any(weight.merge is not None and weight.low_rank is None for weight in acting_weights(tuned).values()) or _reaches_out(tuned):
        return False
    own, other = model.tensors(), replace(tuned, adapter_on=False).tensors()
    return own.keys() == other.keys() and all(same(own[key], other[key]) for key in own)


def _reaches_out(tuned: Model) -> bool:
    """Whether the adapter also changes a task head, or anything else outside the body, which would go the whole way."""
    if isinstance(tuned.worn, Folder):
        with safe_open(tuned.worn.path / ADAPTER_FILES[0], framework="pt") as file:
            return len(file.keys()) != len(adapter_tensors(tuned.module, tuned.adapters))
    inside = {id(part) for part in tuned.module.modules()}
    changed = (part for part in tuned.peft.modules() if isinstance(part, BaseTunerLayer) or hasattr(part, "modules_to_save"))
    return any(id(part) not in inside for part in changed if part is not tuned.peft)


def _scaled(tuned: Model, amounts: LayerAmounts, *, name: str, note: str) -> Model:
    described = {key: value for key, value in (tuned.adapter or {}).items() if key != "sha256"} | {"name": name}
    moved = replace(_copied(tuned, name, note), adapter=described)
    with torch.no_grad():
        for path, module in moved.module.named_modules():
            if isinstance(module, LoraLayer):
                for tensor in (tensor for adapter in moved.adapters for tensor in _outer(module, adapter)):
                    tensor.mul_(amounts.at(f"{path}.weight"))
    return moved


def _outer(module: LoraLayer, adapter: str) -> list[Tensor]:
    """The B of one adapter, of a linear or an embedding layer."""
    found: list[Tensor] = [module.lora_B[adapter].get_parameter("weight")] if adapter in module.lora_B else []
    return found + ([module.lora_embedding_B[adapter]] if adapter in module.lora_embedding_B else [])
