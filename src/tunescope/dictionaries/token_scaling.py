"""What some dictionaries do to a token before they read it, undone on what they write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

Undo = Callable[[Tensor], Tensor]


class TokenScaling(Protocol):
    """x (…, d) to x scaled, and what undoes it on a reconstruction."""

    def __call__(self, x: Tensor) -> tuple[Tensor, Undo]: ...


def to_constant_norm(x: Tensor) -> tuple[Tensor, Undo]:
    """Each token to norm √d (SAELens' `constant_norm_rescale`)."""
    scale = x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True)
    return x * scale, lambda out: out / scale


def to_layer_norm(x: Tensor) -> tuple[Tensor, Undo]:
    """Each token to mean 0 and standard deviation 1, of d − 1, with 1e-5 added to it (SAELens' `layer_norm`)."""
    mean = x.mean(dim=-1, keepdim=True)
    deviation = (x - mean).std(dim=-1, keepdim=True)
    return (x - mean) / (deviation + 1e-5), lambda out: out * deviation + mean
