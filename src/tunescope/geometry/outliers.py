"""A few dimensions of very large variance can own the Gram matrix: how much they hold, and CKA read so that they cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from tunescope.errors import Degenerate, UnknownName
from tunescope.geometry.measures.base import Estimate
from tunescope.geometry.measures.cka import CKA
from tunescope.geometry.moments import BLOCK, Moments, add_norm_sums, centred_blocks, column_means
from tunescope.geometry.rows import Rows

COUNTS = (1, 3, 10)  # the largest dimensions whose share of the variance is told
FEW = 3  # dimensions that count as a few: massive activations sit in very few (Sun et al. 2024, https://arxiv.org/abs/2402.17762)
DEAD = torch.finfo(torch.float32).eps  # a spread this small against a side's typical one is rounding of its arithmetic, no feature


@dataclass(frozen=True, eq=False)
class Columns:
    """Mean and centred sum of squares of every column of one side."""

    mean: Float[Tensor, " d"]
    squares: Float[Tensor, " d"]
    n: int

    @classmethod
    def of(cls, rows: Rows) -> tuple[Columns, Columns]:
        """Both sides, from the moments where they are in the features themselves.

        Raises: Degenerate, where all rows of a side are the same.
        """
        rows.require_spread()
        if _in_features(rows):
            m = rows.moments
            return cls(m.mean_x, m.xx.diagonal(), m.n), cls(m.mean_y, m.yy.diagonal(), m.n)
        return cls._pass(rows.x), cls._pass(rows.y)

    @classmethod
    def _pass(cls, x: Shaped[Tensor, "n d"]) -> Columns:
        mean = column_means(x)
        squares = torch.zeros_like(mean)
        for block in centred_blocks(x, mean):
            squares += block.square().sum(0)
        return cls(mean, squares, len(x))

    @property
    def largest(self) -> Int[Tensor, " d"]:
        """All columns, those of largest variance first."""
        return self.squares.argsort(descending=True, stable=True)

    @property
    def alive(self) -> Bool[Tensor, " d"]:
        """Columns with a spread above rounding: MiniLM's output has some of 1e-33 for every text, and a constant of 1000 has the last
        bits of float32 for a spread; no scaling makes features of these."""
        rounding = 4 * DEAD * self.mean.abs() * self.n**0.5
        return self.squares.sqrt() > torch.maximum(DEAD * self.squares.mean().sqrt(), rounding)


@dataclass(frozen=True)
class Concentration:
    """How the variance of one side lies over its dimensions.

    top: the ten of largest variance, largest first. shares: of the variance, in the top 1, 3 and 10. gram: the share of |x̃ᵀx̃|²_F, of
    which CKA is made, that goes with the top three. dead: columns without spread.
    """

    top: tuple[int, ...]
    shares: tuple[float, ...]
    gram: float
    dead: int


def concentration(rows: Rows) -> tuple[Concentration, Concentration]:
    """Of both sides, in O(nd). Raises: Degenerate, where all rows of a side are the same."""
    columns, wholes = Columns.of(rows), (rows.hsic.xx.cross, rows.hsic.yy.cross)
    left, right = (_concentration(*each) for each in zip((rows.x, rows.y), columns, map(float, wholes), strict=True))
    return left, right


def _in_features(rows: Rows) -> bool:
    return len(rows) >= max(rows.x.shape[1], rows.y.shape[1])


def _concentration(x: Tensor, columns: Columns, whole: float) -> Concentration:
    top = columns.largest[: max(COUNTS)]
    few, total = top[:FEW], float(columns.squares.sum())
    products = torch.zeros(x.shape[1], len(few), dtype=torch.float64, device=x.device)
    for block in centred_blocks(x, columns.mean):
        products.addmm_(block.T, block[:, few])
    lost = 2 * float(products.square().sum()) - float(products[few].square().sum())
    shares = tuple(float(columns.squares[top[:count]].sum()) / total for count in COUNTS)
    return Concentration(tuple(top.tolist()), shares, lost / whole, int((~columns.alive).sum()))


def standardised(rows: Rows) -> Rows:
    """Every column centred and brought to unit variance, dead columns dropped: all dimensions weigh the same.

    Scales are held fixed where rows are left out, as the bandwidth of `rbf_cka` is.

    Raises: Degenerate, where all rows of a side are the same.
    """
    columns = Columns.of(rows)
    kept = [side.alive.nonzero().flatten() for side in columns]
    scales = [(len(rows) / side.squares[keep]).sqrt() for side, keep in zip(columns, kept, strict=True)]
    x, y = (_scaled(*each) for each in zip((rows.x, rows.y), (side.mean for side in columns), kept, scales, strict=True))
    made = Rows(x, y, rows.groups)
    if _in_features(rows):
        made.__dict__["moments"] = _rescaled(rows.moments, made, kept, scales)
    return made


def _scaled(x: Shaped[Tensor, "n d"], mean: Tensor, keep: Tensor, scale: Tensor) -> Float[Tensor, "n k"]:
    """In float32 to hold, centred in float64 first."""
    made = torch.empty(len(x), len(keep), dtype=torch.float32, device=x.device)
    for out, block in zip(made.split(BLOCK), centred_blocks(x, mean), strict=True):
        out.copy_((block if len(keep) == x.shape[1] else block[:, keep]) * scale)
    return made


def _rescaled(m: Moments, rows: Rows, kept: list[Tensor], scales: list[Tensor]) -> Moments:
    """The moments of `rows`, columns of the rows behind m times scales: second moments scale with them, and only the sums that weigh rows
    by their new norms need a pass of their own."""
    (p, q), (s, t) = kept, scales
    sums = Moments.empty(len(s), len(t), rows.x.device)
    for xb, yb in zip(rows.x.split(BLOCK), rows.y.split(BLOCK), strict=True):
        add_norm_sums(sums, xb.double(), yb.double())
    xx, xy, yy = m.xx[p][:, p] * torch.outer(s, s), m.xy[p][:, q] * torch.outer(s, t), m.yy[q][:, q] * torch.outer(t, t)
    return replace(sums, n=m.n, xx=xx, xy=xy, yy=yy)


def without_top(rows: Rows, *, k: int = FEW) -> Rows:
    """The rows without the k dimensions of largest variance of either side (each without its own, where the widths differ).

    Raises: Degenerate, where that leaves none.
    """
    tops = [side.largest[:k] for side in Columns.of(rows)]
    if rows.aligned:
        tops = [torch.cat(tops)] * 2
    kept = [torch.ones(side.shape[1], dtype=torch.bool, device=side.device) for side in (rows.x, rows.y)]
    for keep, top in zip(kept, tops, strict=True):
        keep[top] = False
        if not keep.any():
            raise Degenerate(f"without its {k} largest dimensions a side of {len(keep)} has none left")
    return Rows(rows.x[:, kept[0]], rows.y[:, kept[1]], rows.groups)


# The first is the robust reading of a comparison: no number of dimensions to choose, and any number of massive ones may be there.
ROBUST: dict[str, Callable[[Rows], Rows]] = {"standardised": standardised, "without_top": without_top}


def robust_cka(rows: Rows, *, reading: str = "standardised") -> Estimate:
    """Linear CKA of rows in which no few dimensions own the Gram matrix, with its interval and chance floor.

    Both readings depend on the axes, which is their point: neither is invariant to rotation.

    Args: reading: "standardised", columns of unit variance; "without_top", without the three dimensions of largest variance.

    Raises: UnknownName, Degenerate.
    """
    if reading not in ROBUST:
        raise UnknownName("robust reading", reading, ROBUST)
    return CKA().estimate(rows if rows.same else ROBUST[reading](rows))
