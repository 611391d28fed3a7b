"""Loss and gradients of a batch whose codes are known, at the cost of the few latents that fire."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.dictionaries.architectures.base import Step, Tensors, Weights
from tunescope.dictionaries.architectures.selection import exactly
from tunescope.dictionaries.largest import largest
from tunescope.dictionaries.sparse_products import Places, gathered, summed, written

_EXACT = 1e-10  # mean square error of rows of mean square 1, below which they are rebuilt and nothing is left to learn
REVIVAL = 1 / 32  # weight of the auxiliary loss (Gao et al. 2024, arXiv:2406.04093, A.2)


def coded_step(
    weights: Weights, x: Float[Tensor, "rows d"], centred: Tensor, places: Places, pre: Float[Tensor, " m"]
) -> tuple[Step, Tensor]:
    """The step of mean |x − x̂|² / d for codes max(pre, 0) at `places`, and x̂ − x; the choice of places is held fixed."""
    values = pre.relu().requires_grad_()
    with torch.enable_grad():
        out = written(places, values, weights.decoder)
    error = out.detach() + weights.offset - x
    slope = error * (2 / error.numel())
    to_values = torch.autograd.grad(out, values, slope)[0] * (pre > 0)
    codes = values.detach()
    gradients = _gradients(weights, centred, places, codes, to_values, slope)
    gradients["offset"] = slope.sum(0) - gradients["bias"] @ weights.encoder
    fired = summed(places, (codes > 0).to(codes.dtype))
    return Step(gradients, fired, error.square().sum() / x.square().sum(), fired.sum() / len(x)), error


def add_revival(gradients: Tensors, weights: Weights, centred: Tensor, seen: Tensor, error: Float[Tensor, "rows d"], dead: Tensor) -> None:
    """Let dead latents learn what the living leave: adds the gradients of REVIVAL · |e − ê|² / |e|², ê written by the strongest of them.

    At most d / 2 of them a row, and less weight where they are fewer (Gao et al. 2024, A.2). e = x − x̂ is held fixed.
    """
    k = min(len(dead), max(1, error.shape[1] // 2))
    chosen = largest(seen[:, dead], k)
    places = Places.of(dead[chosen], weights.encoder.shape[0])
    pre = exactly(weights, centred, places)
    values = pre.relu().requires_grad_()
    with torch.enable_grad():
        out = written(places, values, weights.decoder)
    share = REVIVAL * min(1.0, len(dead) / max(1, error.shape[1] // 2))
    slope = (out.detach() + error) * (2 * share / error.square().sum().clamp_min(_EXACT * error.numel()))
    to_values = torch.autograd.grad(out, values, slope)[0] * (pre > 0)
    for name, gradient in _gradients(weights, centred, places, values.detach(), to_values, slope).items():
        gradients[name] += gradient


def _gradients(weights: Weights, centred: Tensor, places: Places, codes: Tensor, to_values: Tensor, slope: Tensor) -> Tensors:
    return {
        "encoder": gathered(places, to_values, centred),
        "bias": summed(places, to_values),
        "decoder": gathered(places, codes, slope),
    }
