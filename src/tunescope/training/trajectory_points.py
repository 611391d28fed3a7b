"""When a run is measured: at given points, or spaced so that measuring costs a stated share of the training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from tunescope.errors import InputError

_TIE = 1e-9  # an epoch is a quotient of whole numbers, and a point given as .1 is not exactly one
_SETTLED = 5  # steps after which the pace of training is known: the first ones are slower


@dataclass(frozen=True)
class Points:
    """Steps and epochs at which to measure. every: (steps, epochs) at whose multiples to measure, 0 for none."""

    steps: tuple[int, ...] = ()
    epochs: tuple[float, ...] = ()
    every: tuple[int, float] = (0, 0.0)

    @classmethod
    def of(cls, steps: int | Iterable[int] | None, epochs: float | Iterable[float] | None) -> Points | None:
        """A number means every so many, a sequence these; None where neither was given. Raises InputError."""
        if steps is None and epochs is None:
            return None
        every_step, at_steps = _read("steps", steps, whole=True)
        every_epoch, at_epochs = _read("epochs", epochs, whole=False)
        return cls(tuple(int(step) for step in at_steps), at_epochs, (int(every_step), every_epoch))

    def describe(self) -> list[str]:
        """JSON-able: each rule in words."""
        found = [f"{unit} {at:.15g}" for unit, given in (("step", self.steps), ("epoch", self.epochs)) for at in given]
        return found + [f"every {every:.15g} {unit}" for unit, every in zip(("steps", "epochs"), self.every, strict=True) if every]

    def due(self, step: int, epoch: float, before: float) -> bool:
        """Whether to measure at this step, which took training from epoch `before` to `epoch`."""
        every_step, every_epoch = self.every
        if step in self.steps or (every_step and step % every_step == 0):
            return True
        if any(before < at - _TIE <= epoch for at in self.epochs):
            return True
        return bool(every_epoch) and math.floor(epoch / every_epoch + _TIE) > math.floor(before / every_epoch + _TIE)

    def left(self, step: int, epoch: float, last: int) -> int:
        """How many points lie beyond this step in a run that ends with step `last`."""
        end = epoch * last / step if step else math.inf
        every_step, every_epoch = self.every
        count = sum(step < at <= last for at in self.steps) + sum(epoch + _TIE < at <= end + _TIE for at in self.epochs)
        count += last // every_step - step // every_step if every_step else 0
        return count + (math.floor(end / every_epoch + _TIE) - math.floor(epoch / every_epoch + _TIE) if every_epoch else 0)


def _read(name: str, given: float | Iterable[float] | None, *, whole: bool) -> tuple[float, tuple[float, ...]]:
    if given is None:
        return 0, ()
    single = isinstance(given, int | float)
    values = [given] if isinstance(given, int | float) else list(given)
    kind = int if whole else int | float
    if not values or any(isinstance(v, bool) or not isinstance(v, kind) or not 0 <= v < math.inf or (single and not v) for v in values):
        what = "a whole number of steps" if whole else "a number of epochs"
        raise InputError(f"{name}={given!r} asked for; give {what} to measure at its multiples, or a list of points, 0 or more")
    return (values[0], ()) if single else (0, tuple(sorted(set(values))))


@dataclass
class Spending:
    """What measuring has cost in this session, and where the budget puts the next point.

    budget: seconds of measuring a second of training. spent: all of it so far. each: what one more costs, by the last one. at: the step
    of the last one.
    """

    budget: float
    spent: float = 0.0
    each: float = 0.0
    at: int = 0
    count: int = 0

    def measured(self, step: int, seconds: float, *, each: float | None = None) -> None:
        """Enter a measurement; each: what the next one will cost, where this one was another kind."""
        self.spent, self.each, self.at, self.count = self.spent + seconds, seconds if each is None else each, step, self.count + 1

    def due(self, step: int, *, first: int, last: int, trained: float) -> bool:
        """Whether the budget has a measurement at this step of first … last, when training alone has taken `trained` seconds.

        What is left of the budget of the whole session pays for a number of measurements, spread evenly over the steps to come, the last
        one at the end.
        """
        done, session = step - first, last - first
        if done < min(_SETTLED, session):
            return False
        if not self.each:  # resumed: what a point costs is found out by the first
            return True
        left = int((self.budget * trained * session / done - self.spent) / self.each)
        return left >= 1 and (step - self.at) * left >= last - self.at


def check_share(name: str, value: float | None) -> None:
    """Raise InputError for a budget that is no share of the training time above 0; infinity is no limit."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0 or math.isnan(value)):
        raise InputError(f"{name}={value!r} asked for; give a share of the training time above 0, such as .05, or math.inf for no limit")


@dataclass(frozen=True)
class Cost:
    """What a trajectory cost so far, in this session: seconds of training alone, of geometry and of outcomes, and how often each."""

    training: float
    geometry: float
    outcomes: float = 0.0
    measured: int = 0
    judged: int = field(default=0)

    @property
    def share(self) -> float:
        """Seconds of geometry a second of training."""
        return self.geometry / self.training if self.training else math.nan

    @property
    def outcome_share(self) -> float:
        """Seconds of outcomes a second of training."""
        return self.outcomes / self.training if self.training else math.nan

    def __str__(self) -> str:
        outcomes = f", outcomes {self.outcome_share:.1%} ({self.judged:,} points)" if self.judged else ""
        return f"geometry {self.share:.1%} of {self.training:.1f} s of training ({self.measured:,} points){outcomes}"
