"""Every base layer against every tuned layer, for the price of one Gram (or one neighbour graph) per layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.geometry.moments import column_means, resolution
from tunescope.geometry.neighbours import nearest, overlap

BLOCK = 256


def cross_cka(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Float[Tensor, "l m"]:
    """Linear CKA of every layer of `xs` with every layer of `ys`, each (n, d); rows aligned across all.

    Centred rows in float32, products in float32, sums in float64. With few rows, Grams: one b×b block per layer at a time and then
    one matrix product over the flattened blocks for *all* pairs (Grams are symmetric, so half the blocks). With more rows than about
    features × layers, feature products pair by pair. Either way memory does not grow with n².

    A layer without spread has no CKA: its row or column is NaN.
    """
    sides = [[_unit_scale(x) for x in side] for side in (xs, ys)]
    n, width = len(xs[0]), max(x.shape[1] for side in (xs, ys) for x in side)
    layers = len(xs) * len(ys) / (len(xs) + len(ys))
    inner = _by_grams(*sides) if n < 2 * width * (layers + 1) else _by_features(*sides)
    cross, left, right = inner
    return cross / torch.outer(left, right).sqrt()


def _unit_scale(x: Tensor) -> Float[Tensor, "n d"]:
    """Centred float32 rows scaled to a Frobenius norm of √n, so that no product under- or overflows."""
    mean = column_means(x)
    centred = torch.cat([(block.double() - mean).float() for block in x.split(4096)])
    norm = float(torch.linalg.vector_norm(centred, dtype=torch.float64))
    return centred.mul_(len(x) ** 0.5 / norm if norm**2 > resolution(x, mean) else float("nan"))


def _by_grams(xs: list[Tensor], ys: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    n, layers = len(xs[0]), [*xs, *ys]
    total = torch.zeros(len(layers), len(layers), dtype=torch.float64, device=xs[0].device)
    grams = torch.empty(len(layers), BLOCK * BLOCK, dtype=torch.float32, device=xs[0].device)
    for i in range(0, n, BLOCK):
        for j in range(i, n, BLOCK):
            rows, columns = min(BLOCK, n - i), min(BLOCK, n - j)
            flat = grams[:, : rows * columns]
            for gram, layer in zip(flat, layers, strict=True):
                torch.mm(layer[i : i + BLOCK], layer[j : j + BLOCK].T, out=gram.view(rows, columns))
            # cells in runs short enough that float32 sums inside the product stay exact to 1e-7; runs add in float64
            runs = flat.split(4096, dim=1)
            total += sum((run @ run.T).double() for run in runs) * (1 if i == j else 2)
    own, count = total.diagonal(), len(xs)
    return total[:count, count:], own[:count], own[count:]


def _by_features(xs: list[Tensor], ys: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    cross = torch.stack([torch.stack([_square(x, y) for y in ys]) for x in xs])
    return cross, torch.stack([_square(x, x) for x in xs]), torch.stack([_square(y, y) for y in ys])


def _square(x: Tensor, y: Tensor) -> Tensor:
    product = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, device=x.device)
    for xb, yb in zip(x.split(2048), y.split(2048), strict=True):
        product += (xb.T @ yb).double()
    return product.square().sum()


def cross_nps(xs: Sequence[Tensor], ys: Sequence[Tensor], *, k: int = 10, metric: str = "cosine") -> Float[Tensor, "l m"]:
    """NPS of every layer of `xs` with every layer of `ys`: one graph per layer, pairs compare by gathering."""
    left, right = ([nearest(x, k, metric=metric) for x in side] for side in (xs, ys))
    return torch.tensor([[float(overlap(a, b, k).double().mean()) / k for b in right] for a in left], dtype=torch.float64)
