"""Every base layer against every tuned layer, for the price of one Gram (or one neighbour graph) per layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.errors import AlignmentError
from tunescope.geometry.hsic import Hsic, HsicTriple
from tunescope.geometry.moments import centred_blocks, column_means, resolution, unit_blocks
from tunescope.geometry.neighbours import nearest, overlap
from tunescope.geometry.rows import as_array
from tunescope.ranks import ALONE, Ranks

BLOCK = 256
FEW = 4 * BLOCK  # rows


def cross_cka(xs: Sequence[Any], ys: Sequence[Any]) -> Float[Tensor, "l m"]:
    """Linear CKA of every layer of `xs` with every layer of `ys`, each (n, d); rows aligned across all.

    Centred rows and their products in float32 (float64 below a thousand rows), sums in float64. With few rows, Grams: one b×b block
    per layer at a time and then one matrix product over the flattened blocks for *all* pairs (Grams are symmetric, so half the
    blocks). With more rows than about features × layers, feature products pair by pair, rows centred block by block as they pass.
    Memory does not grow with n²: beyond the layers it is one copy of them while rows are few, a block of rows when they are many.

    A layer without spread has no CKA: its row or column is NaN.

    Raises: AlignmentError (no layers, or not the same rows in all), ActivationError (NaN or Inf).
    """
    return cross_hsic(xs, ys).cka


def cross_hsic(xs: Sequence[Any], ys: Sequence[Any], *, ranks: Ranks = ALONE) -> HsicTriple:
    """The sums behind `cross_cka` and its debiased twin: xy (l, m), xx (l, 1), yy (1, m), of layers brought to a trace of n.

    ranks: processes that all hold the rows and take a share of the blocks (or of the layers) each, and sum up.
    """
    sides = _checked(xs, ys)
    left, right = ([_Layer.of(x) for x in side] for side in sides)
    n, width = len(sides[0][0]), max(x.shape[1] for side in sides for x in side)
    layers = len(xs) * len(ys) / (len(xs) + len(ys))
    cross, own, others = (_by_grams if n < 2 * width * (layers + 1) else _by_features)(left, right, ranks)
    a, b = (torch.stack([layer.squares() for layer in side]) for side in (left, right))
    trace = torch.full_like(cross, n)
    return HsicTriple(
        Hsic(n, own[:, None], a.square().sum(1)[:, None], trace[:, :1], trace[:, :1]),
        Hsic(n, cross, a @ b.T, trace, trace),
        Hsic(n, others[None], b.square().sum(1)[None], trace[:1], trace[:1]),
    )


def _checked(*sides: Sequence[Any]) -> list[list[Tensor]]:
    """The layers of both sides as arrays of the same rows."""
    checked = [[as_array(x, f"layer {index} of {name}") for index, x in enumerate(side)] for name, side in zip("xy", sides, strict=True)]
    if not all(checked):
        raise AlignmentError("a side has no layers; give a list of arrays (rows, features) for each")
    counts = {len(x) for side in checked for x in side}
    if len(counts) > 1:
        raise AlignmentError(f"the layers have {' and '.join(f'{n:,}' for n in sorted(counts))} rows; row i must be the same text in all")
    return checked


@dataclass(frozen=True, eq=False)
class _Layer:
    """Rows, with what brings them to mean 0 and a Frobenius norm of √n, so that no product under- or overflows."""

    x: Tensor
    mean: Tensor
    scale: float

    @classmethod
    def of(cls, x: Tensor) -> _Layer:
        mean = column_means(x)
        square = sum(float(block.square().sum()) for block in centred_blocks(x, mean))
        return cls(x, mean, (len(x) / square) ** 0.5 if square > resolution(x, mean) else float("nan"))

    def blocks(self) -> Iterator[Tensor]:
        """The centred rows, block by block. Rounding to float32 averages out over many short sums; with few rows float64 is cheap."""
        return unit_blocks(self.x, self.mean, self.scale, torch.float32 if len(self.x) > FEW else torch.float64)

    def squares(self) -> Float[Tensor, " n"]:
        """Squared norm of every centred row; the debiased CKA takes the Gram's diagonal out."""
        return torch.cat([block.square().sum(1) for block in unit_blocks(self.x, self.mean, self.scale, torch.float64)])


def _by_grams(left: list[_Layer], right: list[_Layer], ranks: Ranks = ALONE) -> tuple[Tensor, Tensor, Tensor]:
    layers = [torch.cat([*layer.blocks()]) for layer in (*left, *right)]
    n, device = len(layers[0]), layers[0].device
    total = torch.zeros(len(layers), len(layers), dtype=torch.float64, device=device)
    grams = torch.empty(len(layers), BLOCK * BLOCK, dtype=layers[0].dtype, device=device)
    blocks = [(start, other) for start in range(0, n, BLOCK) for other in range(start, n, BLOCK)]
    for i, j in ranks.share(blocks):
        rows, columns = min(BLOCK, n - i), min(BLOCK, n - j)
        flat = grams[:, : rows * columns]
        for gram, layer in zip(flat, layers, strict=True):
            torch.mm(layer[i : i + BLOCK], layer[j : j + BLOCK].T, out=gram.view(rows, columns))
        # cells in runs short enough that float32 sums inside the product stay exact to 1e-7; runs add in float64
        runs = flat.split(4096, dim=1)
        total += sum((run @ run.T).double() for run in runs) * (1 if i == j else 2)
    ranks.sum(total)
    own, count = total.diagonal(), len(left)
    return total[:count, count:], own[:count], own[count:]


def _by_features(left: list[_Layer], right: list[_Layer], ranks: Ranks = ALONE) -> tuple[Tensor, Tensor, Tensor]:
    total = torch.zeros(len(left) + 1, len(right) + 1, dtype=torch.float64, device=left[0].x.device)  # last column and row: own squares
    for i in ranks.share(range(len(left))):
        total[i] = _squares(left[i], [*right, left[i]])
    for j in ranks.share(range(len(right))):
        total[-1, j] = _squares(right[j], [right[j]])[0]
    ranks.sum(total)
    return total[:-1, :-1], total[:-1, -1], total[-1, :-1]


def _squares(x: _Layer, others: Sequence[_Layer]) -> Float[Tensor, " m"]:
    """|x̃ᵀỹ|²_F for every y of the others; x is centred once and held, the others block by block as they pass."""
    held, found = [*x.blocks()], []
    for y in others:
        product = torch.zeros(x.x.shape[1], y.x.shape[1], dtype=torch.float64, device=x.x.device)
        for xb, yb in zip(held, y.blocks(), strict=True):
            for xs, ys in zip(xb.split(BLOCK), yb.split(BLOCK), strict=True):
                product += xs.T @ ys
        found.append(product.square().sum())
    return torch.stack(found)


def cross_nps(xs: Sequence[Any], ys: Sequence[Any], *, k: int = 10, metric: str = "cosine") -> Float[Tensor, "l m"]:
    """NPS of every layer of `xs` with every layer of `ys`: one graph per layer, pairs compare by gathering. Raises as `cross_cka`."""
    left, right = ([nearest(x, k, metric=metric) for x in side] for side in _checked(xs, ys))
    return torch.tensor([[float(overlap(a, b, k).double().mean()) / k for b in right] for a in left], dtype=torch.float64)
