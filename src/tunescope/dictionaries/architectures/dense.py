"""JumpReLU and the L1-trained ReLU: any number of latents fires, and a price brings their mean number to k."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunescope.dictionaries.architectures.base import Step, Tensors, Weights
from tunescope.dictionaries.architectures.coded import add_revival
from tunescope.dictionaries.firing import Firing, Relu, Threshold

_BANDWIDTH = 0.05  # width of the window around a threshold whose pre-activations teach it, in standard deviations of a random direction
_FIRST_THRESHOLD = 0.1
_LEAST_PRESSURE, _MOST_PRESSURE, _GROWTH = 0.001, 100.0, 1.02  # on the way to k of a JumpReLU: first, last, and times a step
_FIRST_PRESSURE = 0.01  # of L1
_HASTE = 0.02  # power of the ratio of active latents to k by which the pressure grows in a step


class Jump(torch.autograd.Function):
    """f = pre where pre > θ, and 1 there for the count; θ learns from a rectangle around it (arXiv:2407.14435, straight-through)."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(pre, threshold)
        fires = (pre > threshold).to(pre.dtype)
        return pre * fires, fires

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor]:
        pre, threshold = ctx.saved_tensors
        to_codes, to_count = slopes
        near = ((pre - threshold).abs() < _BANDWIDTH / 2).to(pre.dtype) / _BANDWIDTH
        return to_codes * (pre > threshold), -(near * (threshold * to_codes + to_count)).sum(0)


@dataclass(frozen=True)
class JumpReluTraining:
    """A threshold per latent, learned with the price (L0 / k − 1)² (Rajamanoharan et al. 2024, arXiv:2407.14435, section 6).

    The price rises from step to step: too high at first, it kills latents before they have learned anything; at the end it leaves L0 at k.
    A training of a few hundred steps is over before, and fires more often than k.
    """

    k: int

    def begin(self, weights: Weights) -> None:
        weights.more["log_threshold"] = torch.full_like(weights.bias, _FIRST_THRESHOLD).log()
        weights.memory["pressure"] = torch.full((), _LEAST_PRESSURE)

    def step(self, weights: Weights, x: Tensor, dead: Tensor | None) -> Step:
        def codes_of(pre: Tensor, leaves: Tensors) -> tuple[Tensor, Tensor]:
            codes, fires = Jump.apply(pre.relu(), leaves["log_threshold"].exp())
            return codes, (fires.sum(1).mean() / self.k - 1).square()

        step = _led_step(weights, x, dead, None, codes_of)
        weights.memory["pressure"].mul_(_GROWTH).clamp_(max=_MOST_PRESSURE)
        return step

    def firing(self, weights: Weights, scale: float) -> Firing:
        return Threshold(weights.more["log_threshold"].exp() * scale)


@dataclass(frozen=True)
class StandardTraining:
    """max(pre, 0), learned with a price on the sum of a row's activations, "L1" (Cunningham et al. 2023, arXiv:2309.08600).

    l1: the coefficient of Σ|f| / √d beside mean |x − x̂|² / d; None leads it until k latents are active.
    """

    k: int
    l1: float | None = None

    def begin(self, weights: Weights) -> None:
        weights.memory["pressure"] = torch.full((), _FIRST_PRESSURE if self.l1 is None else self.l1)

    def step(self, weights: Weights, x: Tensor, dead: Tensor | None) -> Step:
        def codes_of(pre: Tensor, leaves: Tensors) -> tuple[Tensor, Tensor]:
            codes = pre.relu()
            return codes, codes.sum(1).mean() / x.shape[1] ** 0.5

        return _led_step(weights, x, dead, self.k if self.l1 is None else None, codes_of)

    def firing(self, weights: Weights, scale: float) -> Firing:
        return Relu()


def _led_step(
    weights: Weights, x: Tensor, dead: Tensor | None, k: int | None, codes_of: Callable[[Tensor, Tensors], tuple[Tensor, Tensor]]
) -> Step:
    """The step of mean |x − x̂|² / d + pressure · price; the pressure then follows the ratio of active latents to k, if that is given."""
    leaves = {name: value.detach().requires_grad_() for name, value in weights.parameters.items()}
    with torch.enable_grad():
        pre = (x - leaves["offset"]) @ leaves["encoder"].T + leaves["bias"]
        codes, price = codes_of(pre, leaves)
        error = codes @ leaves["decoder"] + leaves["offset"] - x
        slopes = torch.autograd.grad(error.square().mean() + weights.memory["pressure"] * price, list(leaves.values()))
    gradients = dict(zip(leaves, slopes, strict=True))
    if dead is not None and len(dead):
        add_revival(gradients, weights, x - weights.offset, pre.detach(), error.detach(), dead)
    fired = (codes.detach() > 0).sum(0)
    l0 = fired.sum() / len(x)
    if k is not None:
        weights.memory["pressure"] *= (l0 / k).clamp(0.1, 10) ** _HASTE
    return Step(gradients, fired, error.detach().square().sum() / x.square().sum(), l0)
