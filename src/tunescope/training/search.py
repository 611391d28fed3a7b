"""The size of a disturbance that moves a model by a given distance: bracketed by doubling, then closed in on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MOST = 40  # readings before giving up: the curve has a step at the target


@dataclass(frozen=True)
class Search:
    """What was tried: (parameter, change), in the order of trying; the last one is within the tolerance where `found`."""

    tried: tuple[tuple[float, float], ...]
    found: bool

    def falls(self, by: float) -> tuple[float, float] | None:
        """The first two parameters tried between which the change falls by more than `by`; None where it never does."""
        ordered = sorted(self.tried)
        steps = zip(ordered, ordered[1:], strict=False)
        return next(((low, high) for (low, one), (high, two) in steps if two < one - by), None)


def search(
    change: Callable[[float], float], target: float, *, start: float, most: float, tolerance: float, origin: float = 0.0
) -> Search:
    """A parameter at which `change` is within `tolerance` of `target`, the smallest where the curve rises steadily.

    From `start` the parameter doubles until the target is passed, up to `most`; then the bracket is closed by false position with the
    Illinois rule, a bisection that weighs its ends (https://en.wikipedia.org/wiki/Regula_falsi). change(0) is `origin`.
    """
    tried: list[tuple[float, float]] = []

    def reach(parameter: float) -> float:
        tried.append((parameter, change(parameter)))
        return tried[-1][1] - target

    low, below, high = 0.0, origin - target, min(start, most)
    above = reach(high)
    while above < -tolerance and high < most:
        low, below, high = high, above, min(2 * high, most)
        above = reach(high)
    kept_high: bool | None = None
    while abs(tried[-1][1] - target) > tolerance and above > 0 > below and len(tried) < MOST:
        middle = low + (high - low) * min(max(below / (below - above), 0.02), 0.98)
        gap = reach(middle)
        if gap > 0:
            high, above, below = middle, gap, below / 2 if kept_high is False else below
        else:
            low, below, above = middle, gap, above / 2 if kept_high is True else above
        kept_high = gap <= 0
    return Search(tuple(tried), abs(tried[-1][1] - target) <= tolerance)
