"""Controls: the same model moved by something other than training, by a stated amount."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from tunescope.errors import InputError, UnknownName
from tunescope.models import Model
from tunescope.models.placement import check_in_memory
from tunescope.training.disturb import leave_dropout_on, rounded_weights
from tunescope.training.interpolate import interpolate
from tunescope.training.layer_amounts import Amount, LayerAmounts
from tunescope.training.number_ranges import SEED, check_numbers
from tunescope.training.tuned_change import TunedChange, plain_copy, tuned_changes

# What every kind is told its size by, beside seed and name.
TAKES: dict[str, tuple[str, ...]] = {
    "dropout": (),
    "gaussian": ("sigma", "layers"),
    "interpolate": ("alpha", "like", "layers"),
    "random-direction": ("scale", "like", "layers"),
    "random-rank": ("scale", "like", "layers"),
    "rounding": ("bits",),
}
KINDS = tuple(TAKES)
AMOUNTS = {kind: name for kind, takes in TAKES.items() for name in takes[:1] if name != "bits"}


def perturb(
    model: Model,
    *,
    kind: str,
    sigma: Amount | None = None,
    bits: int | None = None,
    scale: Amount | None = None,
    alpha: Amount | None = None,
    like: Model | None = None,
    layers: Iterable[int | str] | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Model:
    """A copy of `model`, moved by noise, along a fine-tune, or by a disturbance everyone knows; the model itself is untouched.

    Args:
        kind: `gaussian`: w + N(0, (σ|w|)²) on every weight matrix and embedding (tensors of two or more dimensions).
            `random-direction`: per tensor, noise of `scale` times the Frobenius norm of `like` − model (any tuned model of the same base).
            `random-rank`: per adapted matrix, a random B′A′ of the same rank and `scale` times the |ΔW|_F of the adapter of `like`.
            `interpolate`: model + α (`like` − model), see `ts.interpolate`.
            `rounding`: every weight matrix of the blocks rounded to `bits`, one scale per output and 128 inputs.
            `dropout`: dropout modules at work although the model is only read, each at its own rate.
        sigma: for gaussian; the spread relative to each weight. bits: for rounding; 2 to 8. scale: for the random updates, 1 by default.
        alpha: for interpolate. Each of sigma, scale and alpha may be {layer: amount}; layers it does not name stay as they are.
        like: the tuned model that is interpolated to, or whose size of change is matched.
        layers: the only ones to be moved; 0 is the embeddings, "rest" what stands outside the blocks. A layer's noise is what it is
            when all layers are moved.
        seed: of the draw.

    Raises: UnknownName (kind), InputError (a missing, unfitting or idle argument; no dropout to leave on), ModelError (offloaded).
    """
    check_numbers("", {"seed": seed}, {"seed": SEED})
    given = {"sigma": sigma, "bits": bits, "scale": scale, "alpha": alpha, "like": like, "layers": layers}
    _check_given(kind, {key for key, value in given.items() if value is not None}, like)
    check_in_memory(model.module, name=model.name, what="perturb")
    if kind == "interpolate" and like is not None:
        return interpolate(model, like, alpha=alpha if alpha is not None else 1.0, layers=layers, name=name)
    amounts = _amounts(kind, model, sigma if kind == "gaussian" else scale, layers)
    label, note = _described(kind, amounts, bits, like)
    moved = plain_copy(model, name=name or label, warnings=[note])
    if kind == "dropout":
        leave_dropout_on(moved, seed, asked=model.name)
    elif kind == "rounding":
        _set(moved, dict(rounded_weights(moved, bits or 0)))
    elif kind == "gaussian":
        _add(moved, _gaussian(moved, amounts, torch.Generator().manual_seed(seed)))
    elif like is not None:
        changes = _changes(kind, model, like)
        _add(moved, _random(kind, moved, changes, amounts, torch.Generator().manual_seed(seed)))
    return moved


def _check_given(kind: str, given: set[str], like: Model | None) -> None:
    if kind not in KINDS:
        raise UnknownName("kind of perturbation", kind, KINDS)
    if idle := sorted(given - set(TAKES[kind])):
        takes = ", ".join(TAKES[kind]) or "nothing but a seed"
        raise InputError(f"perturb(kind='{kind}') does nothing with {', '.join(idle)}; it takes {takes}")
    if kind == "interpolate" and "alpha" not in given:
        raise InputError("perturb(kind='interpolate') needs alpha, the share of the way to like (0 the model, 1 the tuned one)")
    if "like" in TAKES[kind] and like is None:
        what = "to which it goes" if kind == "interpolate" else "whose size of change it matches"
        raise InputError(f"perturb(kind='{kind}') needs like=, the tuned model {what}")


def _amounts(kind: str, model: Model, amount: Amount | None, layers: Iterable[int | str] | None) -> LayerAmounts:
    """Checked to be above 0, as a spread and a size must be."""
    if kind not in AMOUNTS:
        return LayerAmounts.of(1.0, None, model)
    if amount is None and kind == "gaussian":
        raise InputError("perturb(kind='gaussian') needs sigma above 0, got None; the studied grid is .005 to .16")
    amounts = LayerAmounts.of(1.0 if amount is None else amount, layers, model)
    if amounts.values[0] <= 0:
        studied = "; the studied grid is .005 to .16" if kind == "gaussian" else ""
        raise InputError(f"perturb(kind='{kind}') needs {AMOUNTS[kind]} above 0, got {amounts}{studied}")
    return amounts


def _described(kind: str, amounts: LayerAmounts, bits: int | None, like: Model | None) -> tuple[str, str]:
    """What reports call the disturbance, and what it does."""
    if kind == "gaussian":
        return f"gaussian noise, σ = {amounts}", f"each weight w of every matrix and embedding + N(0, (σ·|w|)²), σ = {amounts}"
    if kind == "rounding":
        return f"rounding to {bits} bits", f"weight matrices of the blocks rounded to {bits} bits, a scale per output and 128 inputs"
    if kind == "dropout" or like is None:
        return "dropout on", "every dropout module at work, at its own rate"
    times = "" if amounts.everywhere == 1 else f", times {amounts}"
    if kind == "random-rank":
        note = f"per adapted matrix, a random update of the rank and norm of {like.name}'s{times}"
        return f"random update, same rank and norm{times}", note
    return f"random update, same norm{times}", f"per tensor, noise of the norm of {like.name}'s change{times}"


def _changes(kind: str, model: Model, like: Model) -> dict[str, TunedChange]:
    changes = tuned_changes(model, like)
    if kind == "random-rank" and not any(change.rank for change in changes.values()):
        raise InputError(f"perturb(kind='random-rank') needs a LoRA adapter; '{like.name}' has none, use kind='random-direction'")
    if not changes:
        raise InputError(f"'{like.name}' has the very weights of '{model.name}', so there is no size of change to match")
    return changes


def _gaussian(moved: Model, amounts: LayerAmounts, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    for key, weight in moved.tensors().items():
        if weight.ndim >= 2 and weight.is_floating_point():
            draw = torch.randn(weight.shape, generator=generator)
            if sigma := amounts.at(key):
                yield key, sigma * weight.detach().cpu().float().abs() * draw


def _random(
    kind: str, moved: Model, changes: dict[str, TunedChange], amounts: LayerAmounts, generator: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    weights = moved.tensors()
    for key, change in changes.items():
        shape, rank = weights[key].shape, change.rank
        draw = torch.randn(shape, generator=generator)
        if kind == "random-rank" and rank:
            draw = torch.randn(shape[0], rank, generator=generator) @ torch.randn(rank, shape[1], generator=generator)
        if scale := amounts.at(key):
            yield key, draw * (scale * change.norm / float(draw.double().norm()))


def _add(moved: Model, noise: Iterator[tuple[str, Tensor]]) -> None:
    """Add the noise in float32 or wider; a warning says how much of it the rounding to a narrow format took or added."""
    weights, done = moved.tensors(), set()
    wanted = lost = 0.0
    with torch.no_grad():
        for key, added in noise:
            weight, added = weights[key], added.to(weights[key].device)
            if weight.data_ptr() in done:  # one tensor under two names is moved once
                continue
            done.add(weight.data_ptr())
            sum_ = (weight.float() if weight.dtype.itemsize < 4 else weight) + added
            weight.copy_(sum_)
            wanted += float(added.square().sum())
            lost += float((weight.float() - sum_).square().sum()) if weight.dtype.itemsize < 4 else 0.0
    if lost > (0.01**2) * wanted:
        share, dtype = (lost / wanted) ** 0.5, str(moved.dtype).removeprefix("torch.")
        moved.warnings.append(f"the update is off by {share:.0%} of its norm, because the weights are {dtype}; load the model in float32")


def _set(moved: Model, values: dict[str, Any]) -> None:
    weights = moved.tensors()
    with torch.no_grad():
        for key, value in values.items():
            weights[key].copy_(value)
