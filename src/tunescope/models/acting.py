"""The weights of one side as they act: an adapter's update folded in, one tensor at a time, the model itself untouched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from tunescope.models.adapters import base_tensors
from tunescope.models.model import Model
from tunescope.models.quiet import quietly

_WRAPPERS = (".base_layer.", ".original_module.", ".token_adapter.")


@dataclass(frozen=True, eq=False)
class ActingWeight:
    """One parameter: what is stored, and what the adapter makes of it.

    stored: the base's own tensor. low_rank: makes the (m, r) and (r, n) whose product the adapter adds to `stored` or to its transpose,
    where it is of that form (plain LoRA). merge: makes the tensor the adapter acts with; None where no adapter touches it.
    layer: the module that holds the adapter.
    """

    stored: Tensor
    low_rank: Callable[[], tuple[Tensor, Tensor]] | None = None
    merge: Callable[[], Tensor] | None = None
    layer: nn.Module | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """The same for tied tensors, which are one tensor under several names."""
        stored = self.stored
        return stored.device, stored.data_ptr() or id(stored), tuple(stored.shape), stored.stride(), id(self.layer)

    def tensor(self) -> Tensor:
        """The tensor as it acts; for an adapted layer, merged anew at each call into a copy of that layer alone."""
        return self.stored if self.merge is None else self.merge()


def acting_weights(model: Model) -> dict[str, ActingWeight]:
    """Every floating or quantised parameter of the body by its name without an adapter (no buffers, no pooler)."""
    names = {plain_name(name) for name, _ in model.module.named_parameters(remove_duplicate=False)}
    found = {name: ActingWeight(tensor) for name, tensor in base_tensors(model.module).items() if name in names and tensor.numel()}
    if model.adapter_on:
        for path, module in model.module.named_modules(remove_duplicate=False):
            found |= {name: weight for name, weight in _adapted(path, module, model.adapters) if name in found}
    return found


def _adapted(path: str, module: nn.Module, names: tuple[str, ...]) -> Iterator[tuple[str, ActingWeight]]:
    """The parameters of one module that the adapters of those names replace or add to."""
    if isinstance(module, BaseTunerLayer):
        active = [name for name in names if name in module._all_available_adapter_names()]
        if not active or module.merged:
            return
        low_rank = _low_rank(module, active)
        for key, stored in module.get_base_layer().named_parameters():
            if low_rank is None or key == "weight":
                yield plain_name(f"{path}.{key}"), ActingWeight(stored.detach(), low_rank, partial(_merged, module, key, active), module)
    elif hasattr(module, "original_module") and hasattr(module, "modules_to_save"):
        for name in (name for name in names if name in module.modules_to_save):
            kept = dict(module.original_module.named_parameters())
            for key, trained in module.modules_to_save[name].named_parameters():
                yield plain_name(f"{path}.{key}"), ActingWeight(kept[key].detach(), None, partial(Tensor.detach, trained), module)


def _low_rank(module: nn.Module, active: list[str]) -> Callable[[], tuple[Tensor, Tensor]] | None:
    """Makes scale·B and A of a plain LoRA, several active ones side by side; None for what is no sum of such products."""
    weight = getattr(module.get_base_layer(), "weight", None)
    if not isinstance(module, LoraLayer) or weight is None or hasattr(module, "parameter_name"):
        return None
    pairs = [_pair(module, name) for name in active if name not in module.lora_variant and not module.lora_bias.get(name)]
    fits = (pair is not None and pair[0].ndim == 2 and len(pair[0]) * pair[1].shape[1] == weight.numel() for pair in pairs)
    return partial(_side_by_side, pairs, [module.scaling[name] for name in active]) if len(pairs) == len(active) and all(fits) else None


def _side_by_side(pairs: list[tuple[Tensor, Tensor]], scales: list[float]) -> tuple[Tensor, Tensor]:
    left = [scale * up.detach().cpu().double() for (up, _), scale in zip(pairs, scales, strict=True)]  # not every device has float64
    return torch.cat(left, dim=1), torch.cat([down.detach().cpu().double() for _, down in pairs])


def _pair(module: LoraLayer, name: str) -> tuple[Tensor, Tensor] | None:
    """B (m, r) and A (r, n) of one adapter of a linear or embedding layer."""
    if name in module.lora_embedding_A:
        return module.lora_embedding_B[name], module.lora_embedding_A[name]
    down, up = (side[name] if isinstance(side, nn.ModuleDict) and name in side else None for side in (module.lora_A, module.lora_B))
    return (up.weight, down.weight) if isinstance(down, nn.Linear) and isinstance(up, nn.Linear) else None


def _merged(module: nn.Module, key: str, adapters: list[str]) -> Tensor:
    with torch.no_grad(), quietly():
        layer = copy.deepcopy(module)
        layer.merge(adapter_names=adapters)
        return layer.get_base_layer().get_parameter(key).detach()


def plain_name(name: str) -> str:
    """The name a tensor has without the wrappers that adapters put around its module."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, ".")
    return name
