"""Which features fire: from pre-activations to feature activations, one small class per architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tunescope.errors import InputError


class Firing(Protocol):
    """A pure function of pre-activations (…, n) to feature activations (…, n) that are zero where a feature does not fire."""

    @property
    def architecture(self) -> str: ...
    def __call__(self, pre: Tensor) -> Tensor: ...
    def to(self, device: torch.device | str) -> Firing: ...


@dataclass(frozen=True)
class Relu:
    """f = max(pre, 0): the standard, L1-trained autoencoder."""

    architecture = "standard"

    def __call__(self, pre: Tensor) -> Tensor:
        return pre.relu()

    def to(self, device: torch.device | str) -> Relu:
        return self


@dataclass(frozen=True)
class TopK:
    """The k largest of max(pre, 0) in each row (Gao et al. 2024, arXiv:2406.04093)."""

    k: int
    architecture = "topk"

    def __call__(self, pre: Tensor) -> Tensor:
        if self.k > pre.shape[-1]:
            raise InputError(f"top {self.k} asked of {pre.shape[-1]} latents")
        values, indices = pre.relu().topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter_(-1, indices, values)

    def to(self, device: torch.device | str) -> TopK:
        return self


@dataclass(frozen=True)
class GroupMax:
    """Latents in k groups of n/k neighbours; in each the largest of max(pre, 0) fires (sparsify's `groupmax`)."""

    k: int
    architecture = "groupmax"

    def __call__(self, pre: Tensor) -> Tensor:
        if pre.shape[-1] % self.k:
            raise InputError(f"{pre.shape[-1]} latents do not divide into {self.k} groups")
        groups = pre.relu().unflatten(-1, (self.k, -1))
        values, indices = groups.max(dim=-1, keepdim=True)
        return torch.zeros_like(groups).scatter_(-1, indices, values).flatten(-2)

    def to(self, device: torch.device | str) -> GroupMax:
        return self


@dataclass(frozen=True, eq=False)
class Threshold:
    """f = max(pre, 0) where pre > threshold, strictly: JumpReLU with a threshold per latent (n,), BatchTopK at inference with one ()."""

    threshold: Tensor
    architecture: str = "jumprelu"

    def __call__(self, pre: Tensor) -> Tensor:
        return pre.relu() * (pre > self.threshold)

    def to(self, device: torch.device | str) -> Threshold:
        return Threshold(self.threshold.to(device), self.architecture)


@dataclass(frozen=True, eq=False)
class Gated:
    """f = max(pre · scale + shift, 0) where pre > 0 (Rajamanoharan et al. 2024, arXiv:2404.16014); scale, shift (n,).

    pre holds the gate's bias; with magnitude weights W_enc · exp(r_mag) and bias b_mag: scale = exp(r_mag), shift = b_mag − b_gate · scale.
    """

    scale: Tensor
    shift: Tensor
    architecture = "gated"

    def __call__(self, pre: Tensor) -> Tensor:
        return (pre * self.scale + self.shift).relu() * (pre > 0)

    def to(self, device: torch.device | str) -> Gated:
        return Gated(self.scale.to(device), self.shift.to(device))
