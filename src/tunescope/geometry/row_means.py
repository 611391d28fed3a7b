"""Averages of what happened to each single row, mergeable."""

from __future__ import annotations

import io
from dataclasses import astuple, dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from tunescope.geometry.moments import BLOCK


@dataclass(frozen=True)
class RowMeans:
    """Count, and mean and centred square sum of two per-row numbers: relative drift |y−x|/|x| and cosine x·y/(|x||y|)."""

    n: int = 0
    drift: float = 0.0
    drift_m2: float = 0.0
    cosine: float = 0.0
    cosine_m2: float = 0.0

    @classmethod
    def of(cls, x: Shaped[Tensor, "n d"], y: Shaped[Tensor, "n d"]) -> RowMeans:
        if not len(x):
            return cls()
        drift, cosine = per_row(x, y)
        return cls(len(x), *(float(v) for r in (drift, cosine) for v in (r.mean(), (r - r.mean()).square().sum())))

    def __add__(self, other: RowMeans) -> RowMeans:
        n = self.n + other.n
        if not n:
            return self

        def merged(mean: float, m2: float, other_mean: float, other_m2: float) -> tuple[float, float]:
            gap = other_mean - mean
            return mean + gap * other.n / n, m2 + other_m2 + gap * gap * self.n * other.n / n

        return RowMeans(
            n,
            *merged(self.drift, self.drift_m2, other.drift, other.drift_m2),
            *merged(self.cosine, self.cosine_m2, other.cosine, other.cosine_m2),
        )

    def all_reduce(self) -> RowMeans:
        """The sum over all ranks of the default process group, by two rounds of SUM."""
        from torch import distributed

        heads = torch.tensor([self.n, self.n * self.drift, self.n * self.cosine], dtype=torch.float64)
        distributed.all_reduce(heads)
        n = int(heads[0])
        if not n:
            return self
        drift, cosine = float(heads[1] / n), float(heads[2] / n)
        squares = torch.tensor(
            [self.drift_m2 + self.n * (self.drift - drift) ** 2, self.cosine_m2 + self.n * (self.cosine - cosine) ** 2], dtype=torch.float64
        )
        distributed.all_reduce(squares)
        return RowMeans(n, drift, float(squares[0]), cosine, float(squares[1]))

    def to_bytes(self) -> bytes:
        file = io.BytesIO()
        torch.save(astuple(self), file)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> RowMeans:
        return cls(*torch.load(io.BytesIO(data), weights_only=True))


def per_row(x: Shaped[Tensor, "n d"], y: Shaped[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Relative drift and cosine of each row, float64. A row of zeros has drift 0 (unmoved) or Inf-free 1 (moved), and cosine 0 unless
    both are zero."""
    drifts, cosines = [], []
    for xb, yb in zip(x.split(BLOCK), y.split(BLOCK), strict=True):
        xd, yd = xb.double(), yb.double()
        nx, ny, moved = xd.norm(dim=1), yd.norm(dim=1), (yd - xd).norm(dim=1)
        drifts.append(torch.where(nx > 0, moved / nx.clamp_min(1e-300), (moved > 0).double()))
        both = nx * ny
        cosines.append(torch.where(both > 0, (xd * yd).sum(1) / both.clamp_min(1e-300), ((nx == 0) & (ny == 0)).double()))
    return torch.cat(drifts), torch.cat(cosines)
