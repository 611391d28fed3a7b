"""Whether the gradients of an objective have a mean at all, or pull every item its own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

LEVEL = 0.05  # of the test, one-sided
FLIPS = 999


@dataclass(frozen=True)
class GradientMean:
    """What is to be known of n gradient rows gᵢ before their mean ḡ is compared with another.

    norm, norm_sd: of |gᵢ| over items, in loss a unit of state. coherence: |ḡ| / √(mean |gᵢ − ḡ|²). chance: the same when every row has
    a random sign, 1/√(n − 1). p: share of 999 random signings with |Σ sᵢgᵢ| ≥ |Σ gᵢ| (itself counted, so never 0), the sign-flip test that
    the mean is 0; total_p and total_coherence: of the sums over tokens. nonzero: share of rows that are not 0 everywhere.
    """

    norm: float
    norm_sd: float
    coherence: float
    total_coherence: float
    chance: float
    p: float
    total_p: float
    nonzero: float
    level: float = LEVEL

    @property
    def noise(self) -> bool:
        """Whether the mean cannot be told from 0 at the level, be it of token means or of token sums.

        Both, since one can be 0 where the other is not: a loss that no common shift of all states changes (Barlow Twins) has gradients that
        sum to 0 over a batch, and what is left in the mean of token means is that short texts weigh more. Refusing unless both tests reject
        keeps the level (an intersection-union test, Berger 1982, https://doi.org/10.1080/00401706.1982.10487790).
        """
        return max(self.p, self.total_p) > self.level

    @classmethod
    def of(cls, rows: Float[Tensor, "n d"], totals: Float[Tensor, "n d"] | None = None, *, seed: int) -> GradientMean:
        """Of n ≥ 2 rows, and of their sums over tokens. Under random signs E|Σ sᵢgᵢ|² = Σ|gᵢ|², whence the chance level."""
        rows = rows.double()
        norms, sums = rows.norm(dim=1), rows if totals is None else totals.double()
        return cls(
            norm=float(norms.mean()),
            norm_sd=float(norms.std()),
            coherence=_coherence(rows),
            total_coherence=_coherence(sums),
            chance=(len(rows) - 1) ** -0.5,
            p=_sign_flip_p(rows, seed),
            total_p=_sign_flip_p(sums, seed),
            nonzero=float((norms > 0).double().mean()),
        )

    def row(self) -> dict[str, Any]:
        """JSON-able."""
        own, total = (value if value < float("inf") else None for value in (self.coherence, self.total_coherence))
        plain = {name: getattr(self, name) for name in ("norm", "norm_sd", "p", "total_p", "level", "noise", "nonzero")}
        return plain | {"coherence": own, "total_coherence": total, "coherence_chance": self.chance}

    def refusal(self, name: str) -> str:
        """Why a cosine of this mean would say nothing, in words."""
        of_rows = self.p > self.level
        size, p = (self.coherence, self.p) if of_rows else (self.total_coherence, self.total_p)
        why = "" if of_rows else "summed over tokens its rows cancel out, and what is left in their mean is that short texts weigh more: "
        return (
            f"the mean gradient of {name} is noise: {why}its size is {size:.2g} of the rows' spread where random signs give "
            f"{self.chance:.2g} (p = {p:.2g}, level {self.level:g})"
        )


def _coherence(rows: Tensor) -> float:
    mean = rows.mean(0)
    around = (rows - mean).square().sum(1).mean().sqrt()
    return float(mean.norm() / around) if around > 0 else float("inf") if mean.any() else 0.0


def _sign_flip_p(rows: Tensor, seed: int) -> float:
    rows = rows / rows.norm().clamp_min(torch.finfo(rows.dtype).tiny)
    generator = torch.Generator().manual_seed(seed)
    observed, hits, done = float(rows.sum(0).norm()), 0, 0
    while done < FLIPS:
        count = min(FLIPS - done, 256)
        signs = torch.randint(2, (count, len(rows)), generator=generator).to(rows.dtype) * 2 - 1
        hits += int(((signs @ rows).norm(dim=1) >= observed * (1 - 1e-12)).sum())
        done += count
    return (1 + hits) / (1 + FLIPS)
