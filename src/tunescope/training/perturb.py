"""Controls: the same model moved by noise instead of training, by a stated amount."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

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
        if sigma is None or not 0 < sigma < float("inf"):
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
    updates, ranks = _updates(weights, model, like), _ranks(like)
    if kind == "random-rank" and not ranks:
        raise InputError(f"perturb(kind='random-rank') needs a LoRA adapter; '{like.name}' has none, use kind='random-direction'")
    for key, update in updates.items():
        draw = torch.randn(update.shape, generator=generator)
        if kind == "random-rank" and key in ranks:
            draw = torch.randn(len(update), ranks[key], generator=generator) @ torch.randn(ranks[key], update.shape[1], generator=generator)
        yield key, draw * (update.norm() / draw.norm())


def _updates(weights: dict[str, Tensor], model: Model, like: Model) -> dict[str, Tensor]:
    """What tuning added to every tensor it changed; an adapter of any kind counts as it is when merged."""
    before, after = model.tensors(), _merged(like)
    found = {}
    for key, weight in weights.items():
        if key not in after or after[key].shape != weight.shape:
            raise InputError(f"'{like.name}' has no tensor {key} of shape {tuple(weight.shape)}; it must be tuned from '{model.name}'")
        if weight.is_floating_point():
            update = after[key].cpu().float() - before[key].cpu().float()
            if update.any():
                found[key] = update
    return found


def _merged(like: Model) -> dict[str, Tensor]:
    if not like.adapter_on:
        return like.tensors()
    module, peft = copy.deepcopy((like.module, like.peft))
    peft.merge_and_unload()
    return replace(like, module=module, peft=None, adapter_on=False, adapter=None).tensors()


def _ranks(like: Model) -> dict[str, int]:
    """Rank of every matrix a LoRA adapter changes, by the name of the base's weight; several active adapters add up."""
    found = {}
    for path, module in like.module.named_modules() if like.adapter_on else ():
        ranks = getattr(module, "r", None)
        if hasattr(module, "lora_A") and isinstance(ranks, dict):
            found[f"{path}.weight"] = sum(int(ranks[name]) for name in module.active_adapters if name in ranks)
    return found
