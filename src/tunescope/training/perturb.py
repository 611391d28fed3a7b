"""Controls: the same model moved by something other than training, by a stated amount."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from tunescope.errors import InputError, UnknownName
from tunescope.models import Model
from tunescope.models.placement import check_in_memory
from tunescope.training.disturb import leave_dropout_on, rounded_weights

KINDS = ("dropout", "gaussian", "random-direction", "random-rank", "rounding")


def perturb(
    model: Model,
    *,
    kind: str,
    sigma: float | None = None,
    bits: int | None = None,
    like: Model | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Model:
    """A copy of `model`, moved by noise or by a disturbance everyone knows; the model itself is untouched.

    Args:
        kind: `gaussian`: w + N(0, (σ|w|)²) on every weight matrix and embedding (tensors of two or more dimensions).
            `random-direction`: per tensor, noise of the same Frobenius norm as `like` − model (any tuned model of the same base).
            `random-rank`: per adapted matrix, a random B′A′ of the same rank and the same |ΔW|_F as the adapter of `like`.
            `rounding`: every weight matrix of the blocks rounded to `bits`, one scale per output and 128 inputs.
            `dropout`: dropout modules at work although the model is only read, each at its own rate.
        sigma: for gaussian; the spread relative to each weight. bits: for rounding; 2 to 8.
        like: the tuned model whose size of change is matched, for random-direction and random-rank.
        seed: of the draw.

    Raises: UnknownName (kind), InputError (a missing or unfitting sigma, bits or like; no dropout to leave on), ModelError (offloaded).
    """
    if kind not in KINDS:
        raise UnknownName("kind of perturbation", kind, KINDS)
    label, note = _described(kind, sigma, bits, like)
    check_in_memory(model.module, name=model.name, what="perturb")
    module, peft = copy.deepcopy((model.module, model.peft))
    moved = replace(model, name=name or label, module=module, peft=peft, adapter_on=False, adapter=None, warnings=[note])
    if kind == "dropout":
        leave_dropout_on(moved, seed, asked=model.name)
        return moved
    weights = moved.tensors()
    with torch.no_grad():
        if kind == "rounding":
            for key, weight in rounded_weights(moved, bits or 0):
                weights[key].copy_(weight)
        else:
            for key, noise in _noise(kind, weights, model, like, sigma, torch.Generator().manual_seed(seed)):
                weights[key].add_(noise.to(weights[key]))
    return moved


def _described(kind: str, sigma: float | None, bits: int | None, like: Model | None) -> tuple[str, str]:
    """What reports call the disturbance, and what it does. Raises InputError when what it needs is missing."""
    if kind == "gaussian":
        if sigma is None or not 0 < sigma < float("inf"):
            raise InputError(f"perturb(kind='gaussian') needs sigma above 0, got {sigma}; the studied grid is .005 to .16")
        return f"gaussian noise, σ = {sigma:g}", f"each weight w of every matrix and embedding + N(0, ({sigma:g}·|w|)²)"
    if kind == "rounding":
        return f"rounding to {bits} bits", f"weight matrices of the blocks rounded to {bits} bits, a scale per output and 128 inputs"
    if kind == "dropout":
        return "dropout on", "every dropout module at work, at its own rate"
    if like is None:
        raise InputError(f"perturb(kind='{kind}') needs like=, the tuned model whose size of change it matches")
    if kind == "random-rank":
        return "random update, same rank and norm", f"per adapted matrix, a random update of the rank and norm of {like.name}'s"
    return "random update, same norm", f"per tensor, noise of the norm of {like.name}'s change"


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
    peft.merge_and_unload(adapter_names=list(like.adapters))
    return replace(like, module=module, peft=None, adapter_on=False, adapter=None).tensors()


def _ranks(like: Model) -> dict[str, int]:
    """Rank of every matrix a LoRA adapter changes, by the name of the base's weight; several active adapters add up."""
    found = {}
    for path, module in like.module.named_modules() if like.adapter_on else ():
        ranks = getattr(module, "r", None)
        if hasattr(module, "lora_A") and isinstance(ranks, dict):
            found[f"{path}.weight"] = sum(int(ranks[name]) for name in like.adapters if name in ranks)
    return found
