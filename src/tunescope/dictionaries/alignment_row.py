"""One line of a comparison: a number with what chance gives, what a second seed gives, and what that says in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tunescope.stats import jackknife, t_interval

ABOVE, NOTHING = "above its floor", "nothing above its floor"
SPREADS = 3.0  # standard deviations of chance that a value must clear
SHARE = 0.05  # and the part of the way from floor to ceiling
RULE = (
    f"A value is above its floor when it passes it by more than {SPREADS:g} standard deviations of chance and by more than {SHARE:.0%} of "
    "the way from the floor to the ceiling (to the best value there is, where no ceiling was measured)."
)


@dataclass(frozen=True)
class Figure:
    """A number and its 95% interval over documents; no interval from fewer than two of them."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, value: float, without: np.ndarray, *, bounds: tuple[float, float] = (-math.inf, math.inf)) -> Figure:
        """From the values (g,) without each document in turn: the jackknife, Student's t; none where a value without some
        document is not known (NaN)."""
        if len(without) < 2 or not np.isfinite(without).all():
            return cls(value)
        return cls(value, *t_interval(value, jackknife(without, value), bounds=bounds))


@dataclass(frozen=True)
class AlignmentRow:
    """One comparison, flat, as it goes into `features.json` and a table.

    comparison: what was compared, and how; sides: of what with what. floor: the mean of chance, floor_sd its spread, floor_of what was
    drawn; ceiling_of likewise. low, high: 95% interval of value. best: the best value there is (1 for a cosine, 0 for an error).
    n: what the value is a mean over (`unit`).
    """

    comparison: str
    sides: str
    value: float | None
    floor: float | None = None
    floor_sd: float | None = None
    floor_of: str | None = None
    ceiling: float | None = None
    ceiling_of: str | None = None
    low: float | None = None
    high: float | None = None
    best: float = 1.0
    n: int = 0
    unit: str = "features"
    verdict: str | None = None
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """All fields, for a payload."""
        return asdict(self)


def way(value: float, floor: float, top: float) -> float:
    """How much of the way from the floor to the top a value has gone: 0 at the floor, 1 at the top, NaN where there is no way to go."""
    return (value - floor) / (top - floor) if top != floor else math.nan


def above(value: float, floor: float, *, sd: float | None = None, ceiling: float | None = None, best: float = 1.0) -> str:
    """`RULE` in words; for a number that is better when larger (best > floor) or smaller."""
    gone = way(value, floor, best if ceiling is None or (ceiling - floor) * (best - floor) <= 0 else ceiling)
    clear = (value - floor) * math.copysign(1, best - floor) > SPREADS * (sd or 0.0)
    return ABOVE if clear and gone > SHARE else NOTHING


def mean_and_sd(draws: Sequence[float]) -> tuple[float, float]:
    """Of values drawn from chance; the spread of a single draw is 0."""
    values = np.asarray(draws, dtype=np.float64)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
