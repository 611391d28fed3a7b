"""What a measure is: a name, the view of the rows it reads, a pure function of that view, and what it declares about itself."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tunescope.errors import Degenerate, NotEnoughRows
from tunescope.geometry import null
from tunescope.geometry.moments import Moments
from tunescope.geometry.null import Null
from tunescope.geometry.rows import Rows
from tunescope.geometry.threads import threads_for
from tunescope.stats import Spread, jackknife, t_interval

INVARIANCES = ("rotation", "isotropic scale", "translation", "invertible linear map", "feature permutation")


@dataclass(frozen=True)
class Estimate:
    """A value with what is needed to read it: chance, interval, and how it counts as change (larger = moved more)."""

    value: float
    change: float
    low: float | None
    high: float | None
    null: float | None
    null_sd: float | None
    null_reason: str | None = None
    saturated: bool = False  # within two of the null's standard deviations of it: no closer than shuffled rows would be
    base: float | None = None  # for measures of one side: the same measure of the base


class Measure(ABC):
    """A comparison of paired rows. Subclasses are frozen dataclasses whose fields are the measure's options.

    `value` is a pure function of the view named by `reads` (an attribute of `Rows`, or a streamed summary of that kind); `spread` gives
    its standard error, `chance` its permutation null.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reads: ClassVar[str]
    bounds: ClassVar[tuple[float, float]]
    identity: ClassVar[float] = 1.0  # the value of two equal arrays
    higher_is_closer: ClassVar[bool] = True
    change_formula: ClassVar[str]
    invariances: ClassVar[frozenset[str]]
    streams: ClassVar[bool] = False
    interval: ClassVar[str]
    chance_method: ClassVar[str]
    reference: ClassVar[str]
    one_sided: ClassVar[bool] = False  # a property of each side rather than of the pair
    saturates: ClassVar[bool] = True  # whether a value at its null means no closer than chance; not so where it counts something else
    ideal_floor: ClassVar[float | None] = None  # what its null would be with endless rows; None: nothing to be far from

    def __call__(self, x: Any, y: Any) -> float:
        """The measure of two arrays, (n, d) and (n, e), row i of both being the same item."""
        rows = Rows.of(x, y)
        self.check(len(rows))
        with threads_for(len(rows) * min(rows.x.shape) ** 2):
            return finite(self.value(self.view(rows)), self.name)

    def view(self, rows: Rows) -> Any:
        return getattr(rows, self.reads)

    def of_rows(self, rows: Rows) -> float:
        """The value on kept rows; overridden where a view made for the interval gives it for nothing."""
        return self.value(self.view(rows))

    @property
    def minimum_rows(self) -> int:
        """Rows below which the measure or its null is not defined."""
        return 5

    def check(self, n: int) -> None:
        if n < self.minimum_rows:
            raise NotEnoughRows(f"{self.name} needs at least {self.minimum_rows} rows, got {n}")

    @abstractmethod
    def value(self, view: Any) -> float:
        """The measure, from the view it reads."""

    @abstractmethod
    def spread(self, rows: Rows) -> Spread:
        """Standard error over rows (over texts, when rows are their tokens)."""

    @abstractmethod
    def chance(self, rows: Rows, *, seed: int) -> Null:
        """Mean and spread of the value when the rows of y are shuffled."""

    def change(self, value: float) -> float:
        """How far it moved: 0 for two equal arrays, larger for more."""
        return self.identity - value if self.higher_is_closer else value - self.identity

    def moved(self, rows: Rows) -> tuple[float, float]:
        """Value and change alone. Raises: NotEnoughRows, Degenerate."""
        self.check(len(rows))
        value = self.identity if rows.same else finite(self.of_rows(rows), self.name)
        return value, self.change(value)

    def estimate(self, rows: Rows, *, seed: int = 0) -> Estimate:
        """Value, change, 95% interval and null on the same rows.

        Raises: NotEnoughRows, Degenerate.
        """
        self.check(len(rows))
        if rows.same:
            return self._of_equals(rows, seed)
        value = finite(self.of_rows(rows), self.name)
        low, high = self._interval(rows, value)
        floor = self.chance(rows, seed=seed)
        return Estimate(value, self.change(value), low, high, floor.mean, floor.sd, floor.reason, self._saturated(value, floor))

    def _saturated(self, value: float, floor: Null) -> bool:
        if not self.saturates or floor.mean is None or floor.sd is None:
            return False
        return self.change(value) >= self.change(floor.mean) - 2 * floor.sd

    def _interval(self, rows: Rows, value: float) -> tuple[float | None, float | None]:
        """None where there is a value but no spread: one single text, or one whose absence leaves nothing to compare."""
        try:
            return t_interval(value, self.spread(rows), bounds=self.bounds)
        except Degenerate:
            return None, None

    def _of_equals(self, rows: Rows, seed: int) -> Estimate:
        """Bit-identical sides: the value is known without arithmetic, and defined even where all rows are alike."""
        try:
            floor = self.chance(rows, seed=seed)
        except Degenerate as error:
            floor = null.none(str(error))
        return Estimate(self.identity, 0.0, self.identity, self.identity, floor.mean, floor.sd, floor.reason)


class OneSided(Measure):
    """A property of each array alone (isotropy): the tuned side's value, the base's beside it, and the difference as change."""

    one_sided = True
    change_formula = "tuned − base"
    chance_method = "none: shuffling rows changes nothing"

    def __call__(self, x: Any) -> float:  # type: ignore[override]
        """The property of one array (n, d)."""
        rows = Rows.of(x, x)
        self.check(len(rows))
        return finite(self.of_base(rows), self.name)

    @abstractmethod
    def of_base(self, rows: Rows) -> float:
        """The property of x."""

    def change(self, value: float) -> float:
        raise Degenerate(f"{self.name} is a property of one side; its change is tuned − base")

    def moved(self, rows: Rows) -> tuple[float, float]:
        self.check(len(rows))
        value = finite(self.of_rows(rows), self.name)
        return value, value - finite(self.of_base(rows), self.name)

    def chance(self, rows: Rows, *, seed: int) -> Null:
        return null.none("a property of one side: shuffling its rows changes nothing")

    def estimate(self, rows: Rows, *, seed: int = 0) -> Estimate:
        self.check(len(rows))
        value, base = finite(self.value(self.view(rows)), self.name), finite(self.of_base(rows), self.name)
        low, high = self._interval(rows, value)
        return Estimate(value, value - base, low, high, None, None, self.chance(rows, seed=seed).reason, False, base)


def finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise Degenerate(f"{name} is not defined on these rows (its denominator is zero)")
    return float(value)


def from_each(rows: Rows, value: float, deletions: Tensor) -> Spread:
    """Delete-one jackknife; the effects of the tokens of one text are summed.

    Raises: Degenerate, when the measure has no value without some row.
    """
    lost = (~torch.isfinite(deletions)).nonzero().flatten()
    if len(lost):
        raise Degenerate(f"without row {int(lost[0]):,} the measure has no value: that row alone makes the difference")
    groups = None if rows.groups is None else rows.groups.numpy(force=True)
    weights = None if rows.effects_weights is None else rows.effects_weights.numpy(force=True)
    return jackknife(deletions.numpy(force=True), value, groups=groups, weights=weights)


def from_groups(rows: Rows, measure: Measure) -> Spread:
    """Jackknife over ten groups of rows; for measures of moments by adding moments, with no new pass over the rows."""
    if measure.reads in ("moments", "features", "change"):
        parts = rows.parts(measure.reads)
        empty = Moments.empty(len(parts[0].mean_x), len(parts[0].mean_y), rows.x.device)
        values = [measure.value(sum(parts[:g] + parts[g + 1 :], empty)) for g in range(len(parts))]
    else:
        deal = rows.deal()
        values = [measure.of_rows(Rows(rows.x[deal != g], rows.y[deal != g])) for g in range(int(deal.max()) + 1)]
    if not np.isfinite(values).all():
        raise Degenerate("without some group of rows the measure has no value: those rows alone make the difference")
    return jackknife(np.array(values), float(np.mean(values)))


def permutation_p(measure: Measure, rows: Rows, *, draws: int = 200, seed: int = 0) -> float:
    """One-sided permutation p-value (1 + #{shuffled at least as close}) / (1 + draws); never 0 (Phipson and Smyth 2010)."""
    observed = measure.of_rows(rows)
    sign = 1.0 if measure.higher_is_closer else -1.0
    generator = torch.Generator().manual_seed(seed)
    shuffled = (measure.of_rows(rows.permuted(torch.randperm(len(rows), generator=generator))) for _ in range(draws))
    return (1 + sum(sign * value >= sign * observed for value in shuffled)) / (1 + draws)
