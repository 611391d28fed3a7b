"""How large deltas are, by layer and adapter: the table behind the heat map of layer × rank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tunescope.dictionaries.partial_forward import Place
from tunescope.errors import NotEnoughRows

if TYPE_CHECKING:
    from tunescope.dictionaries.delta_pass import DeltaBatch


@dataclass(frozen=True, eq=False)
class DeltaNorms:
    """Sums over rows of Δ (rows, d) and the base's x (rows, d); pieces add up, so rows may pass by once."""

    rows: int
    norms: float  # Σ |Δ|
    base_norms: float  # Σ |x|
    squares: float  # Σ |Δ|²
    total: Tensor  # (d,) float64, Σ Δ

    @classmethod
    def of(cls, delta: Tensor, x: Tensor) -> DeltaNorms:
        """The sums of these rows, in float64."""
        wide = delta.double()
        lengths = wide.norm(dim=1)
        norms, squares = float(lengths.sum()), float(lengths.square().sum())
        return cls(len(delta), norms, float(x.double().norm(dim=1).sum()), squares, wide.sum(dim=0))

    def __add__(self, other: DeltaNorms) -> DeltaNorms:
        numbers = (getattr(self, name) + getattr(other, name) for name in ("rows", "norms", "base_norms", "squares", "total"))
        return DeltaNorms(*numbers)

    @property
    def mean(self) -> Tensor:
        """EΔ (d,)."""
        return self.total / max(self.rows, 1)

    def summary(self) -> NormSummary:
        """The figures. Raises NotEnoughRows when no row came by."""
        if not self.rows:
            raise NotEnoughRows("no token was kept, so deltas have no norm; give more or longer texts")
        squares = self.squares / self.rows
        share = float(self.mean.square().sum()) / squares if squares else 0.0
        return NormSummary(self.rows, self.norms / self.rows, self.norms / self.base_norms, squares, share)


@dataclass(frozen=True)
class NormSummary:
    """norm: E|Δ|. relative: E|Δ| / E|x|, against the base's rows there. squared: E|Δ|². constant: |EΔ|² / E|Δ|², the share of Δ that is
    one constant vector; 0 where Δ is 0 everywhere."""

    rows: int
    norm: float
    relative: float
    squared: float
    constant: float


def norm_table(batches: Iterable[DeltaBatch], *, split: str | None = None) -> dict[tuple[str, Place], NormSummary]:
    """The table by (adapter, place) of deltas that pass by. split: "train" or "held_out" rows only.

    Raises NotEnoughRows when no row came by.
    """
    table: dict[tuple[str, Place], DeltaNorms] = {}
    for batch in batches:
        mine = slice(None) if split is None else batch.held_out == (split == "held_out")
        for key, delta in batch.deltas.items():
            piece = DeltaNorms.of(delta[mine], batch.x[key[1]][mine])
            table[key] = table[key] + piece if key in table else piece
    return {key: sums.summary() for key, sums in table.items()}


def root_mean_square(rows: int, squares: float, mean: Tensor) -> float:
    """√(E|Δ − EΔ|² / d): what a dictionary's training divides by."""
    spread = squares / max(rows, 1) - float(mean.square().sum())
    return (max(spread, 0.0) / len(mean)) ** 0.5


def row_lengths(rows: Tensor) -> Tensor:
    """|row| of each of (rows, d), in float64."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
