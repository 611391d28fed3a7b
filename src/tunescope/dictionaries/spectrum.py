"""How many dimensions rows have: the spectrum of their covariance, and what is read off it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.errors import Degenerate, InputError, NotEnoughRows
from tunescope.geometry import Moments
from tunescope.geometry.moments import column_means, resolution
from tunescope.geometry.rows import as_array

SHARES = (0.9, 0.99)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Variances of n rows along their principal directions, largest first, and those directions as the columns of `vectors`."""

    n: int
    mean: Float[Tensor, " d"]
    values: Float[Tensor, " r"]
    vectors: Float[Tensor, "d r"]

    @classmethod
    def of(cls, x: Any) -> Spectrum:
        """Of rows (n, d) in memory. Raises: NotEnoughRows (one row), Degenerate (all rows alike), ActivationError (NaN or Inf)."""
        x = as_array(x, "rows")
        if len(x) < 2:
            raise NotEnoughRows(f"a spectrum needs at least 2 rows, got {len(x)}")
        mean = column_means(x)
        if len(x) >= x.shape[1]:
            return cls.of_moments(Moments.of(x, x[:, :0]), least=resolution(x, mean))
        _, singular, axes = torch.linalg.svd(x.double() - mean, full_matrices=False)
        return cls._checked(len(x), mean, singular.square(), axes.T, least=resolution(x, mean))

    @classmethod
    def of_moments(cls, moments: Moments, *, least: float = 0.0) -> Spectrum:
        """Of the x side of moments that were summed in a stream. least: the sum of squares below which there is no spread."""
        values, vectors = torch.linalg.eigh(moments.xx)
        return cls._checked(moments.n, moments.mean_x, values.flip(0), vectors.flip(1), least=least)

    @classmethod
    def _checked(cls, n: int, mean: Tensor, squares: Tensor, vectors: Tensor, *, least: float) -> Spectrum:
        if not float(squares.sum()) > least:
            raise Degenerate(f"all {n:,} rows are the same, so they have no spectrum; a zero delta has no dimensions")
        # what is below the rounding of the largest is none: a delta of rank r has r dimensions
        kept = squares > squares[0] * len(squares) * torch.finfo(squares.dtype).eps
        return cls(n, mean, torch.where(kept, squares, 0.0) / n, vectors)

    @property
    def participation_ratio(self) -> float:
        """(Σλ)² / Σλ²: r for r equal variances; of a dictionary of random directions, how many dimensions their cosines feel."""
        return float(self.values.sum() ** 2 / self.values.square().sum())

    def dimensions(self, share: float) -> int:
        """How many principal directions hold `share` of the variance. Raises InputError outside 0–1."""
        if not 0 < share <= 1:
            raise InputError(f"dimensions for a share of {share} asked for; a share is above 0 and at most 1")
        held = self.values.cumsum(0) / self.values.sum()
        return int((held < share - 1e-12).sum()) + 1

    @property
    def root(self) -> Float[Tensor, "r d"]:
        """R with RᵀR = Σ: Gaussian rows times R have the rows' covariance."""
        return self.values.sqrt()[:, None] * self.vectors.T

    def largest(self, k: int) -> Float[Tensor, "d k"]:
        """The k directions of largest variance; fewer where the rows have fewer."""
        return self.vectors[:, :k]


@dataclass(frozen=True)
class Dimensions:
    """What a spectrum says in numbers. against_rank: participation ratio over the rank of the update, where it has one."""

    name: str
    rows: int
    width: int
    participation_ratio: float
    dimensions_90: int
    dimensions_99: int
    rank: int | None = None
    against_rank: float | None = None


def dimensions(spectrum: Spectrum, *, name: str, rank: int | None = None) -> Dimensions:
    """The numbers of one spectrum, beside the rank of the LoRA that made the rows (a residual delta may have more: it passed blocks)."""
    ratio = spectrum.participation_ratio
    nine, most = (spectrum.dimensions(share) for share in SHARES)
    return Dimensions(name, spectrum.n, len(spectrum.mean), ratio, nine, most, rank, ratio / rank if rank else None)
