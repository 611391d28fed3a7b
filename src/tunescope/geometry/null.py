"""Chance: the mean and spread of a measure when the rows of one side are shuffled, in closed form where one exists.

All of these are moments of ⟨A, P B Pᵀ⟩ over uniform permutations P. The space of n×n matrices splits into pieces that permutations
do not mix (a mean, row and column effects, a symmetric and an antisymmetric remainder); on a piece of dimension m,
E⟨u, Pv⟩² = |u|²|v|²/m (Schur orthogonality), which is where every formula below comes from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

DRAWS = 10


@dataclass(frozen=True)
class Null:
    """Mean and standard deviation over row permutations; `reason` says why there is none."""

    mean: float | None
    sd: float | None
    reason: str | None = None


def none(reason: str) -> Null:
    """No permutation null exists, and why."""
    return Null(None, None, reason)


def gram_product(n: int, trace: tuple[float, float], square: tuple[float, float], diagonal: tuple[float, float]) -> tuple[float, float]:
    """Mean and variance of ⟨K, P L Pᵀ⟩ for Gram matrices with zero row sums (Kazi-Aoual et al. 1995).

    Args:
        n: rows, at least 4.
        trace: tr K and tr L.
        square: |K|²_F and |L|²_F.
        diagonal: Σ K²ᵢᵢ and Σ L²ᵢᵢ.
    """
    mean = trace[0] * trace[1] / (n - 1)
    off = [(n - 1) * s - t * t for t, s in zip(trace, square, strict=True)]
    diag = [n * (n + 1) * d - (n - 1) * (t * t + 2 * s) for t, s, d in zip(trace, square, diagonal, strict=True)]
    variance = 2 * off[0] * off[1] / ((n - 1) ** 2 * (n + 1) * (n - 2)) + diag[0] * diag[1] / ((n + 1) * n * (n - 1) * (n - 2) * (n - 3))
    return mean, max(variance, 0.0)


def debiased_sd(n: int) -> float:
    """Standard deviation of the debiased CKA under permutation: √(2/(n(n−3))), whatever the data.

    U-centred Grams lie in the one symmetric piece of dimension n(n−3)/2, so the mean is exactly 0 and no spectrum enters.
    """
    return math.sqrt(2 / (n * (n - 3)))


def mantel_sd(a: Float[Tensor, "n n"], b: Float[Tensor, "n n"]) -> float:
    """Standard deviation of the Pearson correlation of two dissimilarity matrices' off-diagonals; its mean is 0 (Mantel 1967).

    Args: symmetric matrices with zero diagonal.
    """
    (row_a, rest_a), (row_b, rest_b) = _row_effects(a), _row_effects(b)
    n = len(a)
    variance = 4 * (n - 2) ** 2 * (row_a @ row_a) * (row_b @ row_b) / (n - 1) + 2 * rest_a * rest_b / (n * (n - 3))
    total_a = 2 * (n - 2) * (row_a @ row_a) + rest_a
    total_b = 2 * (n - 2) * (row_b @ row_b) + rest_b
    return float((variance / (total_a * total_b)).sqrt())


def _row_effects(a: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, ""]]:
    """Row effects r of a zero-diagonal symmetric matrix (aᵢⱼ = mean + rᵢ + rⱼ + rest) and the squared norm of the rest."""
    n = len(a)
    mean = a.sum() / (n * (n - 1))
    rows = (a.sum(1) - (n - 1) * mean) / (n - 2)
    spread = a.square().sum() - n * (n - 1) * mean**2
    return rows, spread - 2 * (n - 2) * (rows @ rows)


def shared_edges_sd(a: Int[Tensor, "n k"], b: Int[Tensor, "n k"]) -> float:
    """Standard deviation of the number of edges two k-nearest-neighbour graphs share when the rows of one are relabelled.

    The mean is nk²/(n−1). Exact: in-degree effects, plus reciprocated (symmetric) and one-way (antisymmetric) remainders.
    """
    n = len(a)
    (col_a, sym_a, anti_a), (col_b, sym_b, anti_b) = _edge_pieces(a), _edge_pieces(b)
    effects = ((n - 1) - 1 / (n - 1)) ** 2 * (col_a @ col_a) * (col_b @ col_b) / (n - 1)
    variance = effects + 2 * sym_a * sym_b / (n * (n - 3)) + 2 * anti_a * anti_b / ((n - 1) * (n - 2))
    return float(variance.clamp_min(0).sqrt())


def _edge_pieces(graph: Int[Tensor, "n k"]) -> tuple[Float[Tensor, " n"], Float[Tensor, ""], Float[Tensor, ""]]:
    """In-degree effects of a directed k-out graph, and the squared norms of its symmetric and antisymmetric remainders."""
    n, k = graph.shape
    heads = graph.long()
    tails = torch.arange(n, device=graph.device)[:, None].expand_as(heads)
    edges, reverse = (tails * n + heads).flatten(), (heads * n + tails).flatten()
    mutual = torch.isin(edges, reverse).sum().double()
    columns = (torch.bincount(heads.flatten(), minlength=n).double() - k) / ((n - 1) - 1 / (n - 1))
    effect = columns @ columns
    symmetric = (n * k + mutual) / 2 - n * k * k / (n - 1) - 2 * (n - 2) * (n / (n - 1) / 2) ** 2 * effect
    antisymmetric = (n * k - mutual) / 2 - 2 * n * ((n - 2) / (n - 1) / 2) ** 2 * effect
    return columns, symmetric, antisymmetric


def from_draws(value: Callable[[Int[Tensor, " n"]], float], n: int, *, seed: int, draws: int = DRAWS) -> Null:
    """Mean and spread over a few seeded permutations, for measures whose every draw needs a new decomposition."""
    generator = torch.Generator().manual_seed(seed)
    return from_values(value(torch.randperm(n, generator=generator)) for _ in range(draws))


def from_values(values: Iterable[float]) -> Null:
    """Mean and spread of values drawn from chance."""
    drawn = torch.tensor([*values], dtype=torch.float64)
    return Null(float(drawn.mean()), float(drawn.std()))
