"""How differently two objectives pull one representation: distances of two stacks of gradients, row i of both being the same item.

Axis legend: n items, d features of the last block's output, k features after a projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.geometry.measures.cka import DebiasedCKA
from tunescope.geometry.measures.procrustes import Procrustes
from tunescope.geometry.rows import Rows
from tunescope.stats import jackknife, t_interval
from tunescope.training.gradient_mean import GradientMean

WIDTHS = (128, 32)  # features that mean gradients are projected to, as published
PROJECTIONS = 20

# By the name in the payload. All are 0 for equal gradients and blind to the size of either side.
DISTANCES: Mapping[str, str] = MappingProxyType(
    {
        "procrustes": "Procrustes distance of the stacked rows",
        "cosine": "1 − cosine of the mean gradients",
        "cosine_128": "the same in 128 random dimensions",
        "cosine_32": "the same in 32 random dimensions",
        "pearson": "1 − Pearson correlation of the mean gradients",
        "fisher_cosine": "1 − cosine of the mean squared gradients",
        "debiased_cka": "1 − debiased CKA of the rows",
    }
)
OF_MEANS = ("cosine", "cosine_128", "cosine_32", "pearson")  # refused where a mean is noise


@dataclass(frozen=True)
class Distance:
    """A distance with its 95% interval over items, its chance value (rows shuffled) and, of projections, its spread over them.

    reason: why there is no value.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    null: float | None = None
    null_sd: float | None = None
    spread: float | None = None
    reason: str | None = None

    def row(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def unit_rows(gradients: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """The rows in float64, divided by the root mean square of their norms: no distance sees the size, and nothing underflows."""
    rows = gradients.double()
    return rows / rows.square().sum(1).mean().sqrt()


def gradient_distances(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], means: tuple[GradientMean, GradientMean], *, names: tuple[str, str], seed: int
) -> dict[str, Distance]:
    """The distances of `DISTANCES` between the rows of two objectives; all exactly 0 when these are one and the same.

    procrustes: √(2 − 2|X̃ᵀỸ|_*) of centred rows of norm 1, in [0, √2], with a jackknife interval and ten row permutations as chance.
    cosine: 1 − cos(x̄, ȳ), in [0, 2]; cosine_128 and cosine_32 of x̄P, ȳP, P gaussian (Johnson and Lindenstrauss), averaged over 20
    seeded P; pearson: centred over features; fisher_cosine: of the means of x², y² elementwise; debiased_cka: 1 − CKA from unbiased HSIC.
    means: of the rows of x and y; where one is noise, what compares means is refused. names: of the two objectives.

    Reference: https://arxiv.org/abs/1905.00414 (CKA); Schönemann 1966, https://doi.org/10.1007/BF02289451.
    """
    if torch.equal(x, y):
        return {name: Distance(0.0, 0.0, 0.0) for name in DISTANCES}
    x, y = unit_rows(x), unit_rows(y)
    rows = Rows.of(x, y)
    found = {"procrustes": _of_measure(Procrustes(), rows, seed), "debiased_cka": _of_measure(DebiasedCKA(), rows, seed)}
    found["fisher_cosine"] = _cosine(x.square(), y.square())
    refused = next((mean.refusal(name) for mean, name in zip(means, names, strict=True) if mean.noise), None)
    for name in OF_MEANS:
        found[name] = Distance(None, reason=refused) if refused else _of_means(name, x, y, seed)
    return {name: found[name] for name in DISTANCES}


def _of_means(name: str, x: Tensor, y: Tensor, seed: int) -> Distance:
    if name == "cosine":
        return _cosine(x, y)
    if name == "pearson":
        return _cosine(x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True))
    return _projected(x.mean(0), y.mean(0), int(name.removeprefix("cosine_")), seed)


def _of_measure(measure: Procrustes | DebiasedCKA, rows: Rows, seed: int) -> Distance:
    found = measure.estimate(rows, seed=seed)
    if not measure.higher_is_closer:
        return Distance(found.change, found.low, found.high, found.null, found.null_sd)
    low, high, null = (None if value is None else measure.change(value) for value in (found.high, found.low, found.null))
    return Distance(found.change, low, high, null, found.null_sd)


def _cosine(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Distance:
    """1 − cos of the means, with the interval of the exact delete-one values: (nx̄ − xᵢ)·(nȳ − yᵢ) needs products with x̄ and ȳ only."""
    n, a, b = len(x), x.mean(0), y.mean(0)

    def dots(p: Tensor, q: Tensor, of_p: Tensor, of_q: Tensor) -> Tensor:
        return n * n * (of_p @ of_q) - n * (q @ of_p) - n * (p @ of_q) + (p * q).sum(1)

    value = cosine_distance(a, b)
    norms = (dots(x, x, a, a).clamp_min(0) * dots(y, y, b, b).clamp_min(0)).sqrt()
    without = torch.where(norms > 0, 1 - dots(x, y, a, b) / norms, value)
    low, high = t_interval(value, jackknife(without.numpy(), value), bounds=(0.0, 2.0))
    return Distance(value, low, high)


def cosine_distance(a: Float[Tensor, " d"], b: Float[Tensor, " d"]) -> float:
    """1 − a·b/(|a||b|), in [0, 2]."""
    return float((1 - a @ b / (a.norm() * b.norm())).clamp(0.0, 2.0))


def _projected(a: Float[Tensor, " d"], b: Float[Tensor, " d"], width: int, seed: int) -> Distance:
    if len(a) <= width:
        return Distance(None, reason=f"the gradients have {len(a)} features: nothing to reduce to {width}")
    values = []
    for draw in range(PROJECTIONS):
        projection = torch.randn(len(a), width, dtype=a.dtype, generator=torch.Generator().manual_seed(seed + draw))
        values.append(cosine_distance(a @ projection, b @ projection))
    spread = torch.tensor(values, dtype=torch.float64)
    return Distance(float(spread.mean()), spread=float(spread.std()))
