"""How evenly one space uses its directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tunescope.geometry.hsic import Hsic, HsicTriple
from tunescope.geometry.measures.base import OneSided, from_each, from_groups
from tunescope.geometry.moments import BLOCK, Moments
from tunescope.geometry.rows import Rows
from tunescope.stats import Spread


@dataclass(frozen=True)
class Isotropy(OneSided):
    """IsoScore (PR − 1)/(D − 1) with the participation ratio PR = (tr C)²/|C|²_F estimated without bias: 1 for white noise at any n.

    The plug-in reads .32 on perfectly isotropic data at n=32, D=64. Both (tr C)² and |C|²_F are replaced by their U-statistics over
    distinct rows; σmin/σmax is never used (0 whenever n ≤ D).
    """

    name: ClassVar[str] = "isotropy"
    title: ClassVar[str] = "Isotropy (IsoScore)"
    reads: ClassVar[str] = "self"
    bounds: ClassVar[tuple[float, float]] = (-float("inf"), float("inf"))
    invariances: ClassVar[frozenset[str]] = frozenset({"rotation", "isotropic scale", "translation", "feature permutation"})
    streams: ClassVar[bool] = True
    interval: ClassVar[str] = "exact delete-one jackknife over rows, 95%"
    reference: ClassVar[str] = "Rudman et al. 2022, https://arxiv.org/abs/2108.07344"

    def view(self, rows: Rows) -> tuple[HsicTriple, int]:
        return rows.hsic, rows.y.shape[1]

    def value(self, view: tuple[HsicTriple, int] | Moments) -> float:
        triple, width = (HsicTriple.of(view), len(view.mean_y)) if isinstance(view, Moments) else view
        return float(_iso_score(triple.yy, width))

    def of_base(self, rows: Rows) -> float:
        return float(_iso_score(rows.hsic.xx, rows.x.shape[1]))

    def spread(self, rows: Rows) -> Spread:
        return from_each(rows, self.of_rows(rows), _iso_score(rows.hsic_without_each.yy, rows.y.shape[1]))


def _iso_score(side: Hsic, width: int) -> Tensor:
    n, s, a2, h = side.n, side.trace_x, side.fourth, side.cross
    # Σ over distinct quadruples of ½|xᵢ−xⱼ|²·½|xₖ−xₗ|², from dᵢⱼ = ½|xᵢ−xⱼ|²: (Σd)² − 4Σᵢ(Σⱼd)² + 2Σd²
    total_square = (n * s) ** 2 - (n * n * a2 + 3 * n * s * s) + (n * a2 + s * s + 2 * h)
    trace_square = total_square / ((n - 1) * (n - 2))  # n(n−3) times the unbiased (tr C)², the same factor as unbiased()
    ratio = trace_square / side.unbiased()
    return (ratio - 1) / max(width - 1, 1)


@dataclass(frozen=True)
class MeanCosine(OneSided):
    """Mean cosine over all pairs of distinct rows: (|Σû|² − n)/(n(n − 1)), exact in O(nD). High: the rows share a direction."""

    name: ClassVar[str] = "mean_cosine"
    title: ClassVar[str] = "Mean cosine of two texts"
    reads: ClassVar[str] = "self"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    invariances: ClassVar[frozenset[str]] = frozenset({"rotation", "isotropic scale", "feature permutation"})
    interval: ClassVar[str] = "exact delete-one jackknife over rows, 95%"
    reference: ClassVar[str] = "Ethayarajh 2019, https://arxiv.org/abs/1909.00512"

    def view(self, rows: Rows) -> Tensor:
        return rows.y

    def value(self, view: Tensor) -> float:
        return _mean_cosine(view)

    def of_base(self, rows: Rows) -> float:
        return _mean_cosine(rows.x)

    def spread(self, rows: Rows) -> Spread:
        return from_each(rows, self.of_rows(rows), self.without_each(rows))

    def without_each(self, rows: Rows) -> Tensor:
        """(n,) the mean cosine with each row left out."""
        total, squares, n = _unit_sum(rows.y)
        own = torch.cat([_unit(block) @ total for block in rows.y.split(BLOCK)])
        unit = torch.cat([_unit(block).square().sum(1) for block in rows.y.split(BLOCK)])
        return (total @ total - 2 * own + unit - (squares - unit)) / ((n - 1) * (n - 2))


def _unit(block: Tensor) -> Tensor:
    block = block.double()
    return block / block.norm(dim=1, keepdim=True).clamp_min(1e-300)


def _unit_sum(x: Tensor) -> tuple[Tensor, Tensor, int]:
    total, squares = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device), torch.zeros((), dtype=torch.float64, device=x.device)
    for block in x.split(BLOCK):
        unit = _unit(block)
        total += unit.sum(0)
        squares += unit.square().sum()
    return total, squares, len(x)


def _mean_cosine(x: Tensor) -> float:
    total, squares, n = _unit_sum(x)
    return float((total @ total - squares) / (n * (n - 1)))


@dataclass(frozen=True)
class PartitionRatio(OneSided):
    """min_c Z(c) / max_c Z(c) with Z(c) = Σᵢ exp(c·xᵢ) over the ± eigenvectors c of XᵀX: 1 for an isotropic cloud around the origin.

    Not scale-free: rows of large norm read near 0. Its interval deletes ten groups of rows.
    """

    name: ClassVar[str] = "partition_ratio"
    title: ClassVar[str] = "Partition-function ratio"
    reads: ClassVar[str] = "self"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    invariances: ClassVar[frozenset[str]] = frozenset({"rotation", "feature permutation"})
    interval: ClassVar[str] = "jackknife over ten groups of rows, 95%"
    reference: ClassVar[str] = "Mu and Viswanath 2018, https://arxiv.org/abs/1702.01417"

    def view(self, rows: Rows) -> Tensor:
        return rows.y

    def value(self, view: Tensor) -> float:
        return _partition_ratio(view)

    def of_base(self, rows: Rows) -> float:
        return _partition_ratio(rows.x)

    def spread(self, rows: Rows) -> Spread:
        return from_groups(rows, self)


def _partition_ratio(x: Tensor) -> float:
    square = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for block in x.split(BLOCK):
        square.addmm_(block.double().T, block.double())
    directions = torch.linalg.eigh(square).eigenvectors
    parts = []
    for block in x.split(BLOCK):
        along = block.double() @ directions
        parts.append(torch.stack([along.logsumexp(0), (-along).logsumexp(0)]))
    log_z = torch.stack(parts).logsumexp(0)
    return float((log_z.min() - log_z.max()).exp())
