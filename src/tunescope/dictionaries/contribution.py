"""What one module of a tuned model adds to what it would give as the base's: BAx of a LoRA, (W′ − W)x of a full fine-tune."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunescope.errors import InputError, ModelError, UnknownName
from tunescope.models import Model

Contribution = Callable[[Tensor], Tensor]  # a module's input rows to the float32 rows its tuning adds to its output


def tuned_modules(base: Model, tuned: Model) -> list[str]:
    """The modules a local delta can be asked of: those the adapter is on, or, of two models, those with weights of their own."""
    if tuned.adapter_on:
        layers = [(name, module) for name, module in tuned.module.named_modules() if isinstance(module, BaseTunerLayer)]
        return [name for name, module in layers if set(tuned.adapters) & set(module._all_available_adapter_names())]
    return sorted(_weighted(base.module) & _weighted(tuned.module))


def contribution(base: Model, tuned: Model, name: str) -> Contribution:
    """The contribution of the module called `name`, in float32 whatever the models run in.

    LoRA: Σ scaling · B(A x) of the side's adapters. Other adapters: f(x) − f₀(x), the layer with and without its adapter, both in float32.
    Two models: x (W′ − W)ᵀ + (b′ − b), the weights subtracted in float32. Dropout is off.

    Raises: UnknownName (no such module, or not adapted; the nearest are named), InputError (the base wears an adapter itself).
    """
    if base.adapter_on:
        raise InputError(f"local deltas need a plain base, and '{base.name}' wears an adapter itself; ask for residual deltas")
    known = tuned_modules(base, tuned)
    if name not in known:
        raise UnknownName(f"{'adapted ' if tuned.adapter_on else ''}module of '{tuned.name}'", name, known)
    module = tuned.module.get_submodule(name)
    if tuned.adapter_on and isinstance(module, BaseTunerLayer):
        active = [each for each in tuned.adapters if each in module._all_available_adapter_names()]
        factors = [_factors(module, each) for each in active]
        plain = [pair for pair in factors if pair is not None]
        return partial(_low_rank, plain) if len(plain) == len(factors) else partial(_difference, *_sides(module, active))
    return _weight_change(base.module.get_submodule(name), module, name=name)


def _weighted(body: nn.Module) -> set[str]:
    return {name for name, module in body.named_modules() if next(module.parameters(recurse=False), None) is not None}


def _factors(layer: nn.Module, adapter: str) -> tuple[Tensor, Tensor] | None:
    """Aᵀ (d, r) and scaling · Bᵀ (r, e) of a plain LoRA on a linear layer; None for its variants, for biases and for other layers."""
    if not isinstance(layer, LoraLayer) or adapter not in layer.lora_A or adapter in layer.lora_variant or layer.lora_bias.get(adapter):
        return None
    down, up = layer.lora_A[adapter], layer.lora_B[adapter]
    if not (isinstance(down, nn.Linear) and isinstance(up, nn.Linear)):
        return None
    return down.weight.detach().float().T, layer.scaling[adapter] * up.weight.detach().float().T


def _low_rank(factors: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    rows = x.float()
    return torch.stack([rows @ down @ up for down, up in factors]).sum(dim=0) if len(factors) > 1 else rows @ factors[0][0] @ factors[0][1]


def _sides(layer: Any, active: list[str]) -> tuple[nn.Module, nn.Module]:
    """A float32 copy of the layer with these adapters switched on, and its base layer."""
    tuned = copy.deepcopy(layer).float().eval()
    tuned.enable_adapters(True)
    tuned.set_adapter(active)
    return tuned, tuned.get_base_layer()


def _difference(tuned: nn.Module, base: nn.Module, x: Tensor) -> Tensor:
    rows = x.float() if x.is_floating_point() else x
    return tuned(rows) - base(rows)


def _weight_change(base: Any, tuned: Any, *, name: str) -> Contribution:
    if type(base) is not type(tuned):
        raise ModelError(f"module '{name}' is a {type(base).__name__} in the base and a {type(tuned).__name__} in the tuned model")
    if not isinstance(base, nn.Linear | Conv1D):
        return partial(_difference, copy.deepcopy(tuned).float().eval(), copy.deepcopy(base).float().eval())
    change = tuned.weight.detach().float() - base.weight.detach().float()
    weight = change.T if isinstance(base, nn.Linear) else change
    bias = None if base.bias is None or tuned.bias is None else tuned.bias.detach().float() - base.bias.detach().float()
    return partial(_linear, weight.contiguous(), bias)


def _linear(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    rows = x.float() @ weight
    return rows if bias is None else rows + bias
