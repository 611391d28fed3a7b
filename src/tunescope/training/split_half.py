"""Whether half the items would put the objectives in the same order as the other half."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from tunescope.geometry.front import procrustes
from tunescope.training.gradient_distances import cosine_distance

SPLITS = 50
MEASURES: Mapping[str, Callable[[Tensor, Tensor], float]] = {
    "procrustes": procrustes,
    "cosine": lambda x, y: cosine_distance(x.double().mean(0), y.double().mean(0)),
}


@dataclass(frozen=True)
class SplitHalf:
    """Agreement of the order of objectives between random halves of the items: the mean over splits, and the range of 95% of them.

    names: the objectives that are ordered, nearest first on all items; the reference, always 0, is not among them. same: share of splits
    whose halves agree on the whole order. reason: why there is none.
    """

    names: tuple[str, ...]
    splits: int
    spearman: float | None = None
    spearman_low: float | None = None
    spearman_high: float | None = None
    kendall: float | None = None
    kendall_low: float | None = None
    kendall_high: float | None = None
    same: float | None = None
    reason: str | None = None

    def row(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"names": list(self.names)}


def split_half(
    measure: str, rows: Mapping[str, Tensor], reference: Tensor, *, splits: int = SPLITS, seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> SplitHalf:
    """Spearman's ρ and Kendall's τ between the distances to the reference in two random halves of the items, over many splits.

    rows: (n, d) gradients by objective. measure: "procrustes" or "cosine". The range is of splits of the same items, which overlap, and no
    confidence interval of what other items would give. A cosine needs no more than each half's mean; Procrustes a decomposition a half.
    """
    distance, every = MEASURES[measure], list(rows)
    order = tuple(sorted(every, key=lambda name: distance(rows[name], reference)))
    if len(every) < 2:
        return SplitHalf(order, 0, reason="an order takes two objectives beside the reference")
    generator = torch.Generator().manual_seed(seed)
    rho, tau, same = [], [], []
    for split in range(splits):
        halves = torch.randperm(len(reference), generator=generator).tensor_split(2)
        one, two = ([distance(rows[name][half], reference[half]) for name in every] for half in halves)
        rho.append(float(stats.spearmanr(one, two).statistic))
        tau.append(float(stats.kendalltau(one, two).statistic))
        same.append(bool((np.argsort(one) == np.argsort(two)).all()))
        if progress is not None:
            progress(split + 1, splits)
    return SplitHalf(order, splits, *_range(rho), *_range(tau), same=float(np.mean(same)))


def _range(values: list[float]) -> tuple[float, float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)
