"""Do texts keep their neighbours?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.geometry.measures.base import Measure, from_groups
from tunescope.geometry.moments import column_means
from tunescope.geometry.neighbours import METRICS, overlap, overlap_se, positions
from tunescope.geometry.null import Null, from_draws, shared_edges_sd
from tunescope.geometry.rows import Rows
from tunescope.stats import Spread

CURVE = (5, 10, 25, 50)
TIE = 32 * torch.finfo(torch.float64).eps


def _invariances(metric: str) -> frozenset[str]:
    """Cosine and inner product look from the origin: shifting a space changes who is near."""
    common = {"rotation", "isotropic scale", "feature permutation"}
    return frozenset(common | {"translation"} if metric in ("euclidean", "centred_cosine") else common)


@dataclass(frozen=True)
class NPS(Measure):
    """Neighbourhood preservation: mean over rows of |kNN_X ∩ kNN_Y| / k, self excluded by index. Unrelated spaces give k/(n−1)."""

    k: int = 10
    metric: str = "cosine"

    name: ClassVar[str] = "nps"
    title: ClassVar[str] = "Neighbours kept"
    reads: ClassVar[str] = "self"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    change_formula: ClassVar[str] = "1 − value"
    interval: ClassVar[str] = "standard error over rows whose neighbourhoods depend on each other, 95%"
    chance_method: ClassVar[str] = "row permutation, closed form: mean k/(n−1); ten draws where rows repeat more than k/2 times"
    reference: ClassVar[str] = "neighbourhood overlap; cf. Huh et al. 2024, https://arxiv.org/abs/2405.07987"

    @property
    def invariances(self) -> frozenset[str]:  # type: ignore[override]
        return _invariances(self.metric)

    @property
    def minimum_rows(self) -> int:
        return self.k + 2

    def view(self, rows: Rows) -> Rows:
        return rows

    def value(self, view: Rows) -> float:
        return float(overlap(*view.graphs(self.k, self.metric), self.k).double().mean() / self.k)

    def spread(self, rows: Rows) -> Spread:
        n = len(rows) if rows.groups is None else len(rows.groups.unique())
        return Spread(overlap_se(*rows.graphs(self.k, self.metric), groups=rows.groups), n - 1)

    def chance(self, rows: Rows, *, seed: int) -> Null:
        n = len(rows)
        if _ties_decide(rows, self.k):
            return from_draws(lambda order: self.value(rows.permuted(order)), n, seed=seed)
        return Null(self.k / (n - 1), shared_edges_sd(*rows.graphs(self.k, self.metric)) / (n * self.k))


@dataclass(frozen=True)
class MutualKNN(NPS):
    """Mutual k-nearest-neighbour alignment with the inner product as its similarity (Huh et al. 2024, before their normalisation)."""

    k: int = 10
    metric: str = "inner_product"

    name: ClassVar[str] = "mutual_knn"
    title: ClassVar[str] = "Mutual kNN (inner product)"
    reference: ClassVar[str] = "Huh et al. 2024, https://arxiv.org/abs/2405.07987"


def nps_curve(rows: Rows, ks: tuple[int, ...] = CURVE, *, metric: str = "cosine") -> dict[int, float]:
    """NPS at several k from one pair of graphs; k beyond n−2 are left out."""
    ks = tuple(k for k in ks if k <= len(rows) - 2)
    if not ks:
        return {}
    left, right = rows.graphs(max(ks), metric)
    rank = torch.arange(left.shape[1], device=left.device)
    latest = torch.maximum(rank.expand_as(left), positions(left, right))  # both ranks below k: the neighbour is shared at k
    return {k: int((latest < k).sum()) / (len(rows) * k) for k in ks}


@dataclass(frozen=True)
class Trustworthiness(Measure):
    """1 minus the rank penalty of rows that are near in Y without being near in X (Venna and Kaski 2001): are new neighbours old ones?

    T = 1 − 2/(nk(2n−3k−1)) Σᵢ Σ_{j ∈ kNN_Y(i)} max(0, rank_X(i, j) − k). Ranks are counted against all rows, at any n.
    """

    k: int = 10
    metric: str = "cosine"

    name: ClassVar[str] = "trustworthiness"
    title: ClassVar[str] = "Trustworthiness"
    reads: ClassVar[str] = "self"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    change_formula: ClassVar[str] = "1 − value"
    interval: ClassVar[str] = "jackknife over ten groups of rows, 95%"
    chance_method: ClassVar[str] = (
        "row permutation: exact mean, spread with rows taken as independent; ten draws where rows repeat more than k/2 times"
    )
    reference: ClassVar[str] = "Venna and Kaski 2001, https://doi.org/10.1007/3-540-44668-0_68"
    swap: ClassVar[bool] = False

    @property
    def invariances(self) -> frozenset[str]:  # type: ignore[override]
        return _invariances(self.metric)

    @property
    def minimum_rows(self) -> int:
        return 2 * self.k + 4  # and still with a tenth of the rows left out

    def view(self, rows: Rows) -> Rows:
        return rows

    def value(self, view: Rows) -> float:
        return 1 - float(self.penalties(view).sum()) * self._scale(len(view))

    def penalties(self, rows: Rows) -> Float[Tensor, " n"]:
        """Per row, how far beyond k its k nearest on the one side rank on the other."""
        left, right = rows.graphs(self.k, self.metric)
        near, space = (left, rows.y) if self.swap else (right, rows.x)
        return (rank_of(space, near, self.metric) - self.k).clamp_min(0).sum(1).double()

    def _scale(self, n: int) -> float:
        return 2 / (n * self.k * (2 * n - 3 * self.k - 1))

    def spread(self, rows: Rows) -> Spread:
        return from_groups(rows, self)

    def chance(self, rows: Rows, *, seed: int) -> Null:
        n, k = len(rows), self.k
        if _ties_decide(rows, k):
            return from_draws(lambda order: self.value(rows.permuted(order)), n, seed=seed)
        beyond = (torch.arange(1, n, dtype=torch.float64) - k).clamp_min(0)  # the penalty of each rank, all equally likely
        variance = n * k * float(beyond.var(unbiased=False)) * (n - 1 - k) / (n - 2)
        return Null(1 - self._scale(n) * n * k * float(beyond.mean()), self._scale(n) * variance**0.5)


@dataclass(frozen=True)
class Continuity(Trustworthiness):
    """Trustworthiness with the sides swapped: did old neighbours stay near?"""

    name: ClassVar[str] = "continuity"
    title: ClassVar[str] = "Continuity"
    swap: ClassVar[bool] = True


def _ties_decide(rows: Rows, k: int) -> bool:
    """Whether rows repeat so often that lists are filled from ties. These go to the lower index on both sides, shuffled or not, so that
    relabelling a graph is no longer what shuffling its rows would give."""
    return rows.repeated > max(1, k / 2)


def rank_of(x: Tensor, others: Tensor, metric: str) -> Tensor:
    """1-based rank, among all rows but i, of each listed row j by nearness to i: counted, never sorted. Ties to the lower index.

    Similarities within rounding of each other tie: a product of matrices gives equal rows values that differ in the last digits.
    """
    rows, bias = METRICS[metric](x.double(), column_means(x))
    size = rows.norm(dim=1)
    n, step = len(x), max(1, (1 << 20) // len(x))
    column = torch.arange(n, device=x.device)
    ranks = []
    for start in range(0, n, step):
        near = others[start : start + step].long()
        similar = rows[start : start + step] @ rows.T
        if bias is not None:
            similar += bias
        at = torch.arange(len(similar), device=x.device)
        similar[at, start + at] = -torch.inf
        own = similar.gather(1, near)
        tie = TIE * size[start : start + step, None] * size[near] + (0 if bias is None else TIE * bias[near].abs())
        ahead = [
            ((similar > s + t) | ((similar >= s - t) & (column < j))).sum(1)
            for s, t, j in zip(own.T[..., None], tie.T[..., None], near.T[..., None], strict=True)
        ]
        ranks.append(torch.stack(ahead, 1) + 1)
    return torch.cat(ranks)
