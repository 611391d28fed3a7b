"""Singular values and what is read off them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def singular_of_gram(gram: Float[Tensor, "d d"]) -> Float[Tensor, " d"]:
    """Singular values of a matrix, largest first, from its Gram matrix MᵀM.

    Below √(d·eps) of the largest a square is rounding, but its root would count (1e-16 becomes 1e-8, once for every feature): zero there.
    """
    squares = torch.linalg.eigvalsh(gram).flip(0)
    return torch.where(squares > squares[0] * len(squares) * torch.finfo(squares.dtype).eps, squares, 0.0).sqrt()


def effective_rank(singular: Float[Tensor, " d"]) -> float:
    """exp(−Σ pᵢ ln pᵢ), p the singular values as shares of their sum: r for r equal ones; 0 when all are zero.

    Reference: Roy and Vetterli 2007, https://ieeexplore.ieee.org/document/7098875
    """
    total = singular.sum()
    return float(torch.special.entr(singular / total).sum().exp()) if total > 0 else 0.0


def stable_rank(singular: Float[Tensor, " d"]) -> float:
    """|M|²_F / |M|²₂ = Σσ² / σ₁²: at most the rank, little moved by small singular values; 0 when all are zero.

    Reference: Rudelson and Vershynin 2007, https://doi.org/10.1145/1255443.1255449
    """
    top = singular.max()
    return float((singular / top).square().sum()) if top > 0 else 0.0
