"""Centred kernel alignment: linear (biased and debiased) and Gaussian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tunescope.geometry import null
from tunescope.geometry.hsic import HsicTriple
from tunescope.geometry.kernels import gaussian_hsic
from tunescope.geometry.measures.base import Measure, from_each
from tunescope.geometry.moments import Moments
from tunescope.geometry.null import Null
from tunescope.geometry.rows import Rows
from tunescope.stats import Spread


class Alignment(Measure):
    """What the three have in common: a cosine of centred Grams, exact delete-one values, a closed-form permutation null."""

    change_formula = "1 − value"
    interval = "exact delete-one jackknife over rows, 95%"
    invariances = frozenset({"rotation", "isotropic scale", "translation", "feature permutation"})

    def without_each(self, rows: Rows) -> Tensor:
        """(n,) the alignment with each row left out in turn."""
        raise NotImplementedError

    def spread(self, rows: Rows) -> Spread:
        return from_each(rows, self.of_rows(rows), self.without_each(rows))

    def permutation(self, triple: HsicTriple) -> Null:
        """Null of the biased alignment: closed-form moments of ⟨K, PLPᵀ⟩ over |K||L|."""
        xx, xy, yy = triple.xx, triple.xy, triple.yy
        mean, variance = null.gram_product(
            xy.n,
            (float(xy.trace_x), float(xy.trace_y)),
            (float(xx.cross), float(yy.cross)),
            (float(xx.fourth), float(yy.fourth)),
        )
        scale = float((xx.cross * yy.cross).sqrt())
        return Null(mean / scale, variance**0.5 / scale)


@dataclass(frozen=True)
class CKA(Alignment):
    """Linear CKA |x̃ᵀỹ|²_F / (|x̃ᵀx̃|_F |ỹᵀỹ|_F) on centred rows.

    Biased upwards when n is small against the features: unrelated flat-spectrum data read .725 at n=290, d=768. Read it against its
    null, or read `debiased_cka`.
    """

    name: ClassVar[str] = "cka"
    title: ClassVar[str] = "Linear CKA"
    reads: ClassVar[str] = "moments"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    streams: ClassVar[bool] = True
    ideal_floor: ClassVar[float] = 0.0
    chance_method: ClassVar[str] = "row permutation, closed form"
    reference: ClassVar[str] = "Kornblith et al. 2019, https://arxiv.org/abs/1905.00414"

    def value(self, view: Moments) -> float:
        return float(HsicTriple.of(view).cka)

    def without_each(self, rows: Rows) -> Tensor:
        return rows.hsic_without_each.cka

    def chance(self, rows: Rows, *, seed: int) -> Null:
        return self.permutation(rows.hsic)


@dataclass(frozen=True)
class DebiasedCKA(Alignment):
    """CKA from unbiased HSIC: 0 in expectation for unrelated data at any n, and then often below 0. Never clamped."""

    name: ClassVar[str] = "debiased_cka"
    title: ClassVar[str] = "Debiased CKA"
    reads: ClassVar[str] = "moments"
    bounds: ClassVar[tuple[float, float]] = (-float("inf"), 1.0)
    streams: ClassVar[bool] = True
    chance_method: ClassVar[str] = "row permutation, closed form: mean 0, sd √(2/(n(n−3)))"
    reference: ClassVar[str] = (
        "Song et al. 2012, https://jmlr.org/papers/v13/song12a.html; Nguyen et al. 2021, https://arxiv.org/abs/2010.15327"
    )

    def value(self, view: Moments) -> float:
        return float(HsicTriple.of(view).debiased_cka)

    def without_each(self, rows: Rows) -> Tensor:
        return rows.hsic_without_each.debiased_cka

    def chance(self, rows: Rows, *, seed: int) -> Null:
        return Null(0.0, null.debiased_sd(len(rows)))


@dataclass(frozen=True)
class RBFCKA(Alignment):
    """CKA of Gaussian kernels exp(−|xᵢ−xⱼ|² / 2σ²), σ = `bandwidth` × the median distance of the side (held fixed in the interval).

    The median is over all ordered pairs, the diagonal included, as in Kornblith et al.'s own code; above 4,000 rows over a fixed
    sample of 4,000.
    """

    bandwidth: float = 1.0

    name: ClassVar[str] = "rbf_cka"
    title: ClassVar[str] = "Gaussian CKA"
    reads: ClassVar[str] = "self"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    ideal_floor: ClassVar[float] = 0.0
    chance_method: ClassVar[str] = "row permutation, closed form"
    reference: ClassVar[str] = "Kornblith et al. 2019, https://arxiv.org/abs/1905.00414"

    def view(self, rows: Rows) -> Rows:
        rows.require_spread()
        return rows

    def value(self, view: Rows) -> float:
        return float(gaussian_hsic(view, self.bandwidth)[0].cka)

    def without_each(self, rows: Rows) -> Tensor:
        return gaussian_hsic(rows, self.bandwidth)[1].cka

    def chance(self, rows: Rows, *, seed: int) -> Null:
        return self.permutation(gaussian_hsic(self.view(rows), self.bandwidth)[0])
