"""The five numbers from which linear CKA, debiased CKA and IsoScore follow, and the same five with each row left out in turn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.geometry.moments import Moments, centred_blocks

CANCELLED = 1e-12  # a difference this small against its terms is rounding: equidistant rows, or one row 10⁷ times the others


@dataclass(frozen=True, eq=False)
class Hsic:
    """Sums over centred rows x̃, ỹ of one pair of sides; every field a scalar, or a vector over left-out rows.

    cross = |x̃ᵀỹ|²_F, fourth = Σ|x̃|²|ỹ|², trace_x = Σ|x̃|², trace_y = Σ|ỹ|², over n rows.
    """

    n: int
    cross: Float[Tensor, "*i"]
    fourth: Float[Tensor, "*i"]
    trace_x: Float[Tensor, "*i"]
    trace_y: Float[Tensor, "*i"]

    def biased(self) -> Float[Tensor, "*i"]:
        """tr(KHLH), the biased HSIC up to 1/(n−1)² (Gretton et al. 2005)."""
        return self.cross

    def unbiased(self) -> Float[Tensor, "*i"]:
        """n(n−3) times the unbiased HSIC of Song et al. 2012; on centred rows only the diagonal needs correcting."""
        n = self.n
        terms = self.cross + self.trace_x * self.trace_y / ((n - 1) * (n - 2))
        rest = terms - self.fourth * (n / (n - 2))
        return torch.where(rest.abs() > CANCELLED * terms, rest, 0.0)


@dataclass(frozen=True, eq=False)
class HsicTriple:
    """Hsic of (x, x), (x, y) and (y, y)."""

    xx: Hsic
    xy: Hsic
    yy: Hsic

    @property
    def cka(self) -> Float[Tensor, "*i"]:
        """The cosine of the centred Grams: the biased CKA."""
        return self.xy.biased() / (self.xx.biased() * self.yy.biased()).sqrt()

    @property
    def debiased_cka(self) -> Float[Tensor, "*i"]:
        """The same of unbiased HSIC: 0 in expectation for unrelated rows; NaN where a side's own estimate is not positive."""
        return self.xy.unbiased() / (self.xx.unbiased() * self.yy.unbiased()).sqrt()

    @classmethod
    def of(cls, m: Moments) -> HsicTriple:
        s, t = m.xx.trace(), m.yy.trace()
        square = [c.square().sum() for c in (m.xx, m.xy, m.yy)]
        return cls(Hsic(m.n, square[0], m.aa, s, s), Hsic(m.n, square[1], m.ab, s, t), Hsic(m.n, square[2], m.bb, t, t))

    @classmethod
    def without_each(cls, m: Moments, x: Float[Tensor, "n d"], y: Float[Tensor, "n e"]) -> HsicTriple:
        """The triples of the n data sets with one row removed, exactly, for the price of one more pass.

        Removing row i shifts the mean by x̃ᵢ/(n−1): |x̃ᵀỹ|² loses 2c·x̃ᵢᵀCỹᵢ − c²aᵢbᵢ with c = n/(n−1), and the fourth-order
        sum follows from the third-order ones.
        """
        parts = [_row_products(m, xb, yb) for xb, yb in zip(centred_blocks(x, m.mean_x), centred_blocks(y, m.mean_y), strict=True)]
        a, b, qxx, qxy, qyy, pxx, pxy, pyy = (torch.cat(p) for p in zip(*parts, strict=True))
        s, t = m.xx.trace(), m.yy.trace()
        whole = cls.of(m)
        return cls(
            _left_out(whole.xx, a, a, qxx, pxx, s, s), _left_out(whole.xy, a, b, qxy, pxy, s, t), _left_out(whole.yy, b, b, qyy, pyy, t, t)
        )

    def with_entry(self, row: int, one: HsicTriple) -> HsicTriple:
        """These vectors with the entry of one row taken from the scalars of `one`."""

        def put(vectors: Hsic, scalars: Hsic) -> Hsic:
            names = ("cross", "fourth", "trace_x", "trace_y")
            at = torch.tensor([row], device=vectors.cross.device)
            return Hsic(vectors.n, *(getattr(vectors, name).index_fill(0, at, getattr(scalars, name)) for name in names))

        return HsicTriple(put(self.xx, one.xx), put(self.xy, one.xy), put(self.yy, one.yy))


def _row_products(m: Moments, xb: Float[Tensor, "b d"], yb: Float[Tensor, "b e"]) -> tuple[Tensor, ...]:
    """Per row: squared norms, the quadratic forms x̃ᵀCỹ, and the third-order terms, for xx, xy, yy."""
    return (
        xb.square().sum(1),
        yb.square().sum(1),
        ((xb @ m.xx) * xb).sum(1),
        ((xb @ m.xy) * yb).sum(1),
        ((yb @ m.yy) * yb).sum(1),
        2 * (xb @ m.ax),
        yb @ m.ay + xb @ m.bx,
        2 * (yb @ m.by),
    )


def _left_out(whole: Hsic, a: Tensor, b: Tensor, q: Tensor, p: Tensor, s: Tensor, t: Tensor) -> Hsic:
    n = whole.n
    c, r = n / (n - 1), 1 / (n - 1)
    cross = whole.cross - 2 * c * q + c * c * a * b
    fourth = whole.fourth + 2 * r * p + r * r * (b * s + a * t + 4 * q) + (n * r**4 - c**4) * a * b
    return Hsic(n - 1, cross, fourth, s - c * a, t - c * b)
