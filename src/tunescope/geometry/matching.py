"""Which base layer each tuned layer carries now: its own (kept), clearly another (moved), or none above chance (new)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from tunescope.errors import Degenerate
from tunescope.geometry.cross import cross_hsic
from tunescope.geometry.measures.base import finite, from_each
from tunescope.geometry.measures.cka import DebiasedCKA
from tunescope.geometry.null import debiased_sd
from tunescope.geometry.profile import UNTOUCHED
from tunescope.geometry.rows import Rows
from tunescope.stats import t_interval

LEVEL = 0.95
TIED = 1e-6  # differences within the rounding of the map, 2e-7 a cell, are none: the own layer is then the best
RULE = (
    "kept, moved and new are decided on the debiased CKA. A layer is new when its best match is not above the floor, which the best of "
    f"all base layers exceeds by chance at most once in {1 / (1 - LEVEL):.0f} times. It moved when another base layer is clearly better "
    "than its own, at the joint 95% level over every layer pair of the map; when fine-tuning brought it closer to that other layer than "
    f"its own layer already was; and when neither that closeness nor its closeness to its own layer reaches {UNTOUCHED:.2f}, above which "
    "layers count as one. Everything else is kept."
)


@dataclass(frozen=True, eq=False)
class Fit:
    """The debiased CKA of one pair of layers, and the same without each row: paired rows make paired differences."""

    value: float
    without: Float[Tensor, " n"]

    @classmethod
    def of(cls, rows: Rows) -> Fit:
        """Raises: Degenerate, where a side has no geometry."""
        if rows.same:
            return cls(1.0, torch.ones(len(rows), dtype=torch.float64))
        return cls(finite(DebiasedCKA().of_rows(rows), "debiased_cka"), rows.hsic_without_each.debiased_cka)

    def interval(self, rows: Rows) -> tuple[float | None, float | None]:
        """95%, over rows or, when they are tokens, over texts."""
        return _interval(rows, self.value, self.without, LEVEL, most=1.0)


@dataclass(frozen=True)
class Match:
    """The best base layer of one tuned layer; `own` and `best` count in the list of base layers.

    low, high: 95% interval of `value`. difference = value − own_value, its ends at the joint level. similarity: of the base's own two
    layers, best and own, to each other. verdict: kept, moved or new; None with the reason where nothing can be said.
    """

    own: int
    best: int | None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    own_value: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    similarity: float | None = None
    verdict: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Matching:
    """One match a tuned layer, and what they were judged against: null and null_sd of the debiased CKA, the floor that the best of all
    base layers must pass, and the number of differences tested."""

    matches: tuple[Match, ...]
    null: float
    null_sd: float
    floor: float
    tested: int


def match_layers(
    xs: Sequence[Tensor],
    ys: Sequence[Tensor],
    own: Sequence[int],
    *,
    groups: Int[Tensor, " n"] | None = None,
    fits: Sequence[Fit | None] | None = None,
    similarity: Float[Tensor, "l m"] | None = None,
) -> Matching:
    """The best match of every layer of `ys` among the layers of `xs`, rows aligned, and whether it is clearly not its own.

    d = dCKA(best, tuned) − dCKA(own, tuned), dCKA the debiased CKA: the biased one has a floor of its own for every layer, and with few
    rows that would pick the best. Interval of d: exact delete-one jackknife of the difference, Bonferroni over all (l − 1)·m that could
    have been the largest. Layers that follow each other are alike without any tuning, so d > 0 is not yet a move: see `RULE`.

    Args:
        own: for each layer of ys, the index in xs of the layer it is expected to match.
        groups: the text of each row, when rows are tokens; intervals are then over texts.
        fits: the fits of the own pairs where they are known already. similarity: the debiased CKA of all pairs, likewise.

    Raises: NotEnoughRows (fewer than five rows).
    """
    n = len(xs[0])
    DebiasedCKA().check(n)
    table = cross_hsic(xs, ys).debiased_cka if similarity is None else similarity
    sd, tested = debiased_sd(n), (len(xs) - 1) * len(ys)
    judge = _Judge(xs, groups, table, chance_ceiling(n, len(xs)), 1 - (1 - LEVEL) / max(tested, 1))
    known = fits or [None] * len(ys)
    return Matching(tuple(judge.match(*each) for each in zip(range(len(ys)), ys, own, known, strict=True)), 0.0, sd, judge.floor, tested)


def chance_ceiling(n: int, candidates: int) -> float:
    """The debiased CKA that the best of several unrelated layers stays below with probability 95%.

    Under permutation the centred inner product of two Grams tends to Σ w(χ²₁ − 1), the weights w products of eigenvalues. Spread for
    spread, every higher cumulant of such a sum is largest when one dimension owns both sides (Σ wʳ ≤ (Σ w²)^(r/2)), so the reach is
    that case's, whatever the spectra: (q − 1)/√2 standard deviations, q the χ²₁ quantile at tail probability .05/candidates.
    """
    return debiased_sd(n) * float(stats.chi2.ppf(1 - (1 - LEVEL) / candidates, 1) - 1) / 2**0.5


@dataclass(frozen=True, eq=False)
class _Judge:
    xs: Sequence[Tensor]
    groups: Tensor | None
    table: Tensor
    floor: float
    level: float

    def match(self, column: int, y: Tensor, own: int, known: Fit | None) -> Match:
        rows = self._rows(own, y)
        try:
            ours = known or Fit.of(rows)
            best = own if rows.same else self._best(column, own)
            theirs = ours if best == own else Fit.of(self._rows(best, y))
        except Degenerate as error:
            return Match(own, None, reason=str(error))
        low, high = theirs.interval(rows)
        found = Match(own, best, theirs.value, low, high, ours.value, theirs.value - ours.value)
        if best == own:
            return replace(found, verdict="kept" if theirs.value > self.floor else "new")
        least, most = _interval(rows, theirs.value - ours.value, theirs.without - ours.without, self.level)
        natural = finite(DebiasedCKA().of_rows(Rows(self.xs[own], self.xs[best])), "debiased_cka")
        verdict = self._verdict(theirs.value, ours.value, least, natural)
        return replace(found, difference_low=least, difference_high=most, similarity=natural, verdict=verdict)

    def _rows(self, index: int, y: Tensor) -> Rows:
        return Rows(self.xs[index], y, self.groups)

    def _best(self, column: int, own: int) -> int:
        values = self.table[:, column].nan_to_num(nan=-torch.inf)
        return own if values[own] >= values.max() - TIED else int(values.argmax())

    def _verdict(self, value: float, own_value: float, least: float | None, natural: float) -> str:
        if value <= self.floor:
            return "new"
        clear = least is not None and least > 0
        return "moved" if clear and value > natural and max(natural, own_value) < UNTOUCHED else "kept"


def _interval(rows: Rows, value: float, without: Tensor, level: float, *, most: float = math.inf) -> tuple[float | None, float | None]:
    try:
        return t_interval(value, from_each(rows, value, without), bounds=(-math.inf, most), level=level)
    except Degenerate:
        return None, None
