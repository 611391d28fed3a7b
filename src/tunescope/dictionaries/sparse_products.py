"""Products of a matrix with codes of which few entries are not zero, at the cost of those entries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag


@dataclass(frozen=True, eq=False)
class Places:
    """Which latents are active in which rows: m places (row, latent), row by row."""

    row: Int[Tensor, " m"]  # ascending
    latent: Int[Tensor, " m"]
    rows: int
    latents: int

    @classmethod
    def of(cls, latent: Int[Tensor, "rows k"], latents: int) -> Places:
        """As many in each row: latent (rows, k)."""
        rows, k = latent.shape
        return cls(torch.arange(rows, device=latent.device).repeat_interleave(k), latent.reshape(-1), rows, latents)

    @cached_property
    def by_row(self) -> Int[Tensor, " rows"]:
        """Where each row's places start."""
        return _starts(self.row, self.rows)

    @cached_property
    def by_latent(self) -> tuple[Int[Tensor, " m"], Int[Tensor, " n"]]:
        """The order that puts places latent by latent, and where each latent's start."""
        return self.latent.argsort(stable=True), _starts(self.latent, self.latents)


def written(places: Places, values: Float[Tensor, " m"], decoder: Float[Tensor, "n d"]) -> Float[Tensor, "rows d"]:
    """What codes write: f D, for codes f (rows, n) with `values` at `places`. Differentiable in values."""
    return embedding_bag(places.latent, decoder, places.by_row, per_sample_weights=values, mode="sum")


def read(places: Places, x: Float[Tensor, "rows d"], directions: Float[Tensor, "n d"]) -> Float[Tensor, " m"]:
    """x Dᵀ at the places only: the derivative of `written` by its values."""
    ones = torch.ones(len(places.latent), device=x.device, dtype=x.dtype, requires_grad=True)
    with torch.enable_grad():
        out = written(places, ones, directions.detach())
    return torch.autograd.grad(out, ones, x)[0]


def gathered(places: Places, values: Float[Tensor, " m"], x: Float[Tensor, "rows d"]) -> Float[Tensor, "n d"]:
    """fᵀ x: for each latent, the sum of the rows it is active in, each times its value."""
    order, starts = places.by_latent
    return embedding_bag(places.row[order], x, starts, per_sample_weights=values[order], mode="sum")


def summed(places: Places, values: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
    """The sum of each latent's values. In the order of the places, so the same on every run."""
    order, starts = places.by_latent
    return embedding_bag(torch.arange(len(order), device=order.device), values[order][:, None], starts, mode="sum")[:, 0]


def _starts(index: Tensor, size: int) -> Tensor:
    counts = torch.bincount(index, minlength=size)
    return counts.cumsum(0) - counts
