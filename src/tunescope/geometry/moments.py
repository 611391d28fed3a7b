"""Co-moments of paired rows up to the fourth order: all that CKA, Procrustes, CCA, regression and isotropy read.

One pass, constant memory, and a `+`: streaming, ranks, resume and group jackknife are the same addition.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

BLOCK = 1024  # rows held in float64 at a time


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over n paired rows, centred on their means, float64.

    With x̃ = x − mean_x, ỹ = y − mean_y, a = |x̃|², b = |ỹ|²: second order xx = Σ x̃x̃ᵀ, xy = Σ x̃ỹᵀ, yy = Σ ỹỹᵀ; fourth order
    aa = Σ a², ab = Σ ab, bb = Σ b²; and the third-order vectors ax = Σ a x̃, ay = Σ a ỹ, bx = Σ b x̃, by = Σ b ỹ that merging needs.
    The fourth-order sums are what makes the *debiased* CKA exact from a stream (Song et al. 2012, closed over centred rows).
    """

    n: int
    mean_x: Float[Tensor, " d"]
    mean_y: Float[Tensor, " e"]
    xx: Float[Tensor, "d d"]
    xy: Float[Tensor, "d e"]
    yy: Float[Tensor, "e e"]
    ax: Float[Tensor, " d"]
    ay: Float[Tensor, " e"]
    bx: Float[Tensor, " d"]
    by: Float[Tensor, " e"]
    aa: Float[Tensor, ""]
    ab: Float[Tensor, ""]
    bb: Float[Tensor, ""]

    @classmethod
    def empty(cls, d: int, e: int, device: torch.device | str = "cpu") -> Moments:
        """The identity of `+` for rows of widths d and e."""
        shapes = [(d,), (e,), (d, d), (d, e), (e, e), (d,), (e,), (d,), (e,), (), (), ()]
        return cls(0, *(torch.zeros(s, dtype=torch.float64, device=device) for s in shapes))

    @classmethod
    def of(cls, x: Shaped[Tensor, "n d"], y: Shaped[Tensor, "n e"]) -> Moments:
        """Two passes over the rows, `BLOCK` at a time in float64: first the means, then the sums about them."""
        n = len(x)
        sums = cls.empty(x.shape[1], y.shape[1], x.device)
        if not n:
            return sums
        mean_x, mean_y = column_means(x), column_means(y)
        for xb, yb in zip(centred_blocks(x, mean_x), centred_blocks(y, mean_y), strict=True):
            sums.xx.addmm_(xb.T, xb)
            sums.xy.addmm_(xb.T, yb)
            sums.yy.addmm_(yb.T, yb)
            add_norm_sums(sums, xb, yb)
        values = {f.name: getattr(sums, f.name) for f in fields(cls)}
        return cls(**values | {"n": n, "mean_x": mean_x, "mean_y": mean_y})

    def __add__(self, other: Moments) -> Moments:
        if not self.n:
            return other
        if not other.n:
            return self
        n = self.n + other.n
        mean_x = self.mean_x + (other.mean_x - self.mean_x) * (other.n / n)
        mean_y = self.mean_y + (other.mean_y - self.mean_y) * (other.n / n)
        left, right = self.about(mean_x, mean_y), other.about(mean_x, mean_y)
        return Moments(n, mean_x, mean_y, *(p + q for p, q in zip(left, right, strict=True)))

    def about(self, cx: Float[Tensor, " d"], cy: Float[Tensor, " e"]) -> list[Tensor]:
        """The ten sums about the centre (cx, cy) instead of the means: additive over disjoint rows, so ranks reduce them with SUM."""
        n, u, v = self.n, self.mean_x - cx, self.mean_y - cy
        p, q = u @ u, v @ v
        s, t = self.xx.trace(), self.yy.trace()
        shift = [
            n * torch.outer(u, u),
            n * torch.outer(u, v),
            n * torch.outer(v, v),
            s * u + 2 * (self.xx @ u) + n * p * u,
            s * v + 2 * (u @ self.xy) + n * p * v,
            t * u + 2 * (self.xy @ v) + n * q * u,
            t * v + 2 * (self.yy @ v) + n * q * v,
            4 * (self.ax @ u) + 2 * p * s + 4 * (u @ self.xx @ u) + n * p * p,
            2 * (self.ay @ v) + 2 * (self.bx @ u) + q * s + p * t + 4 * (u @ self.xy @ v) + n * p * q,
            4 * (self.by @ v) + 2 * q * t + 4 * (v @ self.yy @ v) + n * q * q,
        ]
        return [total + extra for total, extra in zip(self.sums, shift, strict=True)]

    @property
    def sums(self) -> list[Tensor]:
        """The ten centred sums, in the order of the fields."""
        return [getattr(self, f.name) for f in fields(self)[3:]]

    def with_cross(self, xy: Float[Tensor, "d e"]) -> Moments:
        """These two sides, as they would be with their rows paired otherwise: the second order alone."""
        return Moments(self.n, self.mean_x, self.mean_y, self.xx, xy, *self.sums[2:])

    @property
    def traces(self) -> tuple[Tensor, Tensor]:
        """Σ|x̃|² and Σ|ỹ|²."""
        return self.xx.trace(), self.yy.trace()

    def all_reduce(self) -> Moments:
        """The sum over all ranks of the default process group (torch.distributed), by two rounds of SUM."""
        from torch import distributed

        heads = torch.cat([self.mean_x.new_tensor([self.n]), self.n * self.mean_x, self.n * self.mean_y])
        distributed.all_reduce(heads)
        n, d = int(heads[0]), len(self.mean_x)
        if not n:
            return self
        mean_x, mean_y = heads[1 : d + 1] / n, heads[d + 1 :] / n
        totals = self.about(mean_x, mean_y)
        for total in totals:
            distributed.all_reduce(total)
        return Moments(n, mean_x, mean_y, *totals)

    def to_bytes(self) -> bytes:
        """A self-contained byte string; `from_bytes` gives the same moments back, bit for bit."""
        file = io.BytesIO()
        torch.save({f.name: getattr(self, f.name) for f in fields(self)}, file)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Moments:
        return cls(**torch.load(io.BytesIO(data), weights_only=True))


def column_means(x: Shaped[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Means of the columns, summed in float64 without a float64 copy of the rows."""
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for block in x.split(BLOCK):
        total += block.sum(0, dtype=torch.float64)
    return total / len(x)


def add_norm_sums(sums: Moments, xb: Float[Tensor, "b d"], yb: Float[Tensor, "b e"]) -> None:
    """Add a block of centred rows to the third- and fourth-order sums of moments that are being made."""
    a, b = xb.square().sum(1), yb.square().sum(1)
    for total, weights, rows in ((sums.ax, a, xb), (sums.ay, a, yb), (sums.bx, b, xb), (sums.by, b, yb)):
        total.addmv_(rows.T, weights)
    for total, value in ((sums.aa, a @ a), (sums.ab, a @ b), (sums.bb, b @ b)):
        total.add_(value)


def centred_blocks(
    x: Shaped[Tensor, "n d"], mean: Float[Tensor, " d"], order: Int[Tensor, " n"] | None = None
) -> Iterator[Float[Tensor, "b d"]]:
    """The rows (in another order, when given) minus their mean, float64, `BLOCK` rows at a time."""
    blocks = x.split(BLOCK) if order is None else (x[at] for at in order.to(x.device).split(BLOCK))
    return (block.double() - mean for block in blocks)


def unit_blocks(
    x: Shaped[Tensor, "n d"], mean: Float[Tensor, " d"], scale: float, dtype: torch.dtype = torch.float32
) -> Iterator[Float[Tensor, "b d"]]:
    """The rows minus their mean, times `scale`; centred in float64 whatever the dtype, so that an offset costs no digits."""
    return ((block * scale).to(dtype) for block in centred_blocks(x, mean))


def resolution(x: Shaped[Tensor, "n d"], mean: Float[Tensor, " d"]) -> float:
    """The sum of squares about the mean that rounding alone gives n equal rows of this dtype: below it, there is no spread."""
    return centre_resolution(len(x), mean, x.dtype)


def centre_resolution(n: int, mean: Float[Tensor, " d"], dtype: torch.dtype) -> float:
    """`resolution` of n rows of a dtype around a mean."""
    return n * float(mean @ mean) * (4 * torch.finfo(dtype).eps) ** 2


def row_space(x: Shaped[Tensor, "n d"]) -> Float[Tensor, "n r"]:
    """The centred rows in coordinates of their own row space, r = min(n, d): same Gram, so exact for every rotation-invariant measure.

    With fewer rows than features nothing after this ever touches d again.
    """
    if len(x) >= x.shape[1]:
        return x
    centred = x.double() - column_means(x)
    return torch.linalg.qr(centred.T, mode="r").R.T
