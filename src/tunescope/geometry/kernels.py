"""Gaussian-kernel HSIC in row blocks: the n×n kernels are never held."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from tunescope.geometry.hsic import Hsic, HsicTriple
from tunescope.geometry.moments import column_means
from tunescope.geometry.rows import Rows, sampled

CELLS = 2 << 20


def gaussian_hsic(rows: Rows, bandwidth: float) -> tuple[HsicTriple, HsicTriple]:
    """The HSIC sums of both kernels, and the same with each row left out (bandwidths held fixed).

    In the kernel's feature space rows are centred vectors like any others, so the delete-one formulas of linear CKA apply with the
    centred kernel's rows.
    """
    cache = rows.__dict__.setdefault("_gaussian", {})
    if bandwidth not in cache:
        cache[bandwidth] = _gaussian_hsic(rows, bandwidth)
    return cache[bandwidth]


def _gaussian_hsic(rows: Rows, bandwidth: float) -> tuple[HsicTriple, HsicTriple]:
    sides = [_centred(side) for side in (rows.x, rows.y)]
    scales = [2 * bandwidth**2 * median_square(x, norms) for x, norms in sides]
    n, step = len(rows), max(1, CELLS // len(rows))
    means = [
        torch.cat([_kernel(x, norms, s, i, step).mean(1) for i in range(0, n, step)]) for (x, norms), s in zip(sides, scales, strict=True)
    ]
    parts = []
    for start in range(0, n, step):
        left, right = (
            _kernel(x, norms, s, start, step) - m[start : start + step, None] - m[None] + m.mean()
            for (x, norms), s, m in zip(sides, scales, means, strict=True)
        )
        at = torch.arange(len(left), device=left.device)
        diagonals = left[at, start + at], right[at, start + at]
        parts.append((*diagonals, (left * left).sum(1), (left * right).sum(1), (right * right).sum(1)))
    a, b, qxx, qxy, qyy = (torch.cat(p) for p in zip(*parts, strict=True))
    pairs = ((a, a, qxx), (a, b, qxy), (b, b, qyy))
    whole = HsicTriple(*(Hsic(n, q.sum(), one @ two, one.sum(), two.sum()) for one, two, q in pairs))
    c = n / (n - 1)
    zero = torch.zeros_like(a)  # the fourth-order sum enters only debiased alignments
    each = HsicTriple(*(Hsic(n - 1, q.sum() - 2 * c * q + c * c * one * two, zero, zero, zero) for one, two, q in pairs))
    return whole, each


def _centred(x: Shaped[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
    x = x.double() - column_means(x)
    return x, x.square().sum(1)


def _squares(x: Tensor, norms: Tensor, start: int, step: int) -> Float[Tensor, "b n"]:
    """Squared distances of a block of rows to all, exactly 0 to themselves."""
    block = slice(start, start + step)
    squares = torch.addmm(norms[None] + norms[block, None], x[block], x.T, alpha=-2).clamp_min_(0)
    at = torch.arange(len(squares), device=x.device)
    squares[at, start + at] = 0
    return squares


def _kernel(x: Tensor, norms: Tensor, scale: float, start: int, step: int) -> Float[Tensor, "b n"]:
    return _squares(x, norms, start, step).div_(-scale).exp_()


def median_square(x: Float[Tensor, "n d"], norms: Float[Tensor, " n"]) -> float:
    """Median squared distance over all ordered pairs of (at most 4,000 seeded) rows, the diagonal included."""
    keep = sampled(len(x)).to(x.device)
    x, norms = x[keep], norms[keep]
    flat = _squares(x, norms, 0, len(x)).flatten()
    half = len(flat) // 2
    upper = flat.kthvalue(half + 1).values
    lower = flat.kthvalue(half).values if len(flat) % 2 == 0 else upper
    return float((lower + upper) / 2)
