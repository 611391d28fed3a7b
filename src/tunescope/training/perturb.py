"""Controls: the same model moved by noise instead of training, by a stated amount."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from tunescope.errors import InputError, UnknownName
from tunescope.models import Model

KINDS = ("gaussian", "random-direction", "random-rank")


def perturb(
    model: Model, *, kind: str, sigma: float | None = None, like: Model | None = None, seed: int = 0, name: str | None = None
) -> Model:
    """A copy of `model` whose weights are moved by noise; the model itself is untouched.

    Args:
        kind: `gaussian`: w + N(0, (σ|w|)²) on every weight matrix and embedding (tensors of two or more dimensions).
            `random-direction`: per tensor, noise of the same Frobenius norm as `like` − model (any tuned model of the same base).
            `random-rank`: per adapted matrix, a random B′A′ of the same rank and the same |ΔW|_F as the adapter of `like`.
        sigma: for gaussian; the spread relative to each weight.
        like: the tuned model whose size of change is matched, for the other two kinds.
        seed: of the draw.

    Raises: UnknownName (kind), InputError (a missing or unfitting sigma or like).
    """
    if kind not in KINDS:
        raise UnknownName("kind of perturbation", kind, KINDS)
    if kind == "gaussian":
        if sigma is None or not sigma > 0:
            raise InputError(f"perturb(kind='gaussian') needs sigma above 0, got {sigma}; the studied grid is .005 to .16")
        note, label = f"each weight w of every matrix and embedding + N(0, ({sigma:g}·|w|)²)", f"gaussian noise, σ = {sigma:g}"
    elif like is None:
        raise InputError(f"perturb(kind='{kind}') needs like=, the tuned model whose size of change it matches")
    elif kind == "random-rank":
        note, label = f"per adapted matrix, a random update of the rank and norm of {like.name}'s", "random update, same rank and norm"
    else:
        note, label = f"per tensor, noise of the norm of {like.name}'s change", "random update, same norm"
    module, peft = copy.deepcopy((model.module, model.peft))
    moved = replace(model, name=name or label, module=module, peft=peft, adapter_on=False, adapter=None, warnings=[note])
    generator = torch.Generator().manual_seed(seed)
    weights = moved.tensors()
    with torch.no_grad():
        for key, noise in _noise(kind, weights, model, like, sigma, generator):
            weights[key].add_(noise.to(weights[key]))
    return moved


def _noise(
    kind: str, weights: dict[str, Tensor], model: Model, like: Model | None, sigma: float | None, generator: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    if kind == "gaussian":
        for key, weight in weights.items():
            if weight.ndim >= 2 and weight.is_floating_point():
                yield key, sigma * weight.detach().cpu().float().abs() * torch.randn(weight.shape, generator=generator)
        return
    updates = dict(_adapter_updates(like))
    if kind == "random-rank":
        if not updates:
            raise InputError(f"perturb(kind='random-rank') needs a LoRA adapter; '{like.name}' has none, use kind='random-direction'")
        for key, (update, rank) in updates.items():
            rows, columns = weights[key].shape
            draw = torch.randn(rows, rank, generator=generator) @ torch.randn(rank, columns, generator=generator)
            yield key, draw * (update.norm() / draw.norm())
        return
    before, after = model.tensors(), like.tensors()
    for key, weight in weights.items():
        if key not in after or after[key].shape != weight.shape:
            raise InputError(f"'{like.name}' has no tensor {key} of shape {tuple(weight.shape)}; it must be tuned from '{model.name}'")
        if not weight.is_floating_point():
            continue
        update = (after[key].float() - before[key].float()).cpu() + (updates[key][0] if key in updates else 0)
        if norm := float(update.norm()):
            draw = torch.randn(weight.shape, generator=generator)
            yield key, draw * (norm / draw.norm())


def _adapter_updates(like: Model) -> Iterator[tuple[str, tuple[Tensor, int]]]:
    """ΔW and rank of every matrix a LoRA adapter changes, by the name of the base's weight."""
    if not like.adapter_on:
        return
    for path, module in like.module.named_modules():
        if isinstance(module, nn.Module) and hasattr(module, "get_delta_weight") and getattr(module, "lora_A", None):
            active = module.active_adapters[0]
            yield f"{path}.weight", (module.get_delta_weight(active).detach().cpu().float(), int(module.r[active]))
