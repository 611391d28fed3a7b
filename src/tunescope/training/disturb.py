"""Disturbances everyone knows: weights rounded to few bits, and dropout left on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tunescope.errors import InputError
from tunescope.models import Model

GROUP = 128  # inputs that share a scale
BITS = (2, 3, 4, 5, 6, 7, 8)


def rounded_weights(model: Model, bits: int) -> Iterator[tuple[str, Tensor]]:
    """Every weight matrix of the blocks, rounded to `bits`; norms, biases and embeddings stay, as quantised models have it.

    Raises: InputError for another number of bits.
    """
    if bits not in BITS:
        raise InputError(f"perturb(kind='rounding') rounds to {BITS[0]} to {BITS[-1]} bits, got {bits}")
    blocks = f"{model.anatomy.blocks}."
    transposed = {f"{path}.weight" for path, module in model.module.named_modules() if type(module).__name__ == "Conv1D"}
    for key, weight in model.tensors().items():
        if key.startswith(blocks) and weight.ndim == 2 and weight.is_floating_point():
            yield key, rounded(weight.T, bits).T if key in transposed else rounded(weight, bits)


def rounded(weight: Float[Tensor, "o i"], bits: int) -> Float[Tensor, "o i"]:
    """Round to nearest on a symmetric grid of 2^bits − 1 levels, one scale (the largest |w|) per output and group of 128 inputs."""
    top = 2 ** (bits - 1) - 1
    groups = []
    for group in weight.detach().float().split(GROUP, dim=1):
        scale = group.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / top
        groups.append((group / scale).round() * scale)
    return torch.cat(groups, dim=1).to(weight.dtype)


def leave_dropout_on(model: Model, seed: int, *, asked: str) -> None:
    """Make every dropout module of `model` (in place) drop in evaluation too, at its own rate. asked: what messages call it.

    Dropout inside fused attention is not a module and stays off. Raises: InputError when no module drops anything.
    """
    dropping = [(path, module.p) for path, module in model.module.named_modules() if isinstance(module, nn.Dropout) and module.p > 0]
    if not dropping:
        raise InputError(f"perturb(kind='dropout') needs dropout, and every rate of '{asked}' is 0; use gaussian noise or rounding")
    generator = torch.Generator(model.device).manual_seed(seed)
    for path, rate in dropping:
        parent, _, name = path.rpartition(".")
        setattr(model.module.get_submodule(parent), name, AlwaysDropout(rate, generator))


class AlwaysDropout(nn.Module):
    """Zeros with probability `p`, the rest times 1/(1 − p), in training and evaluation alike, from a generator of its own."""

    def __init__(self, p: float, generator: torch.Generator):
        super().__init__()
        self.p, self.generator = p, generator

    def forward(self, states: Tensor) -> Tensor:
        keep = torch.rand(states.shape, generator=self.generator, device=states.device) >= self.p
        return states * keep / (1 - self.p)
