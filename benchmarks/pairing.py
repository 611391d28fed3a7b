"""Paired, interleaved timing: run A, B, A, B, …; the ratio is the median of the ratios of the pairs, with the smallest and the largest.

A slow moment of the machine then falls on both sides of a pair, and the spread says how far a ratio can be trusted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Line:
    """One row of the table, cells as printed; `note` goes below it."""

    item: str
    against: str
    ours: str
    theirs: str
    ratio: str
    target: str
    met: bool
    note: str = ""


@dataclass(frozen=True)
class Pairs:
    """Seconds of both sides, pair by pair."""

    ours: list[float]
    theirs: list[float]

    clock: ClassVar[Callable[[], float]] = time.perf_counter  # run.py --clock cpu puts process_time here

    @classmethod
    def time(cls, ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> Pairs:
        """Each side once to warm up, then `repeats` pairs."""
        ours(), theirs()
        seconds = [(_seconds(ours), _seconds(theirs)) for _ in range(repeats)]
        return cls(*map(list, zip(*seconds, strict=True)))

    def scaled(self, times: float) -> Pairs:
        """The same pairs with their side, of which only a part was run, scaled up to the whole."""
        return Pairs(self.ours, [seconds * times for seconds in self.theirs])

    def faster(self, item: str, against: str, *, target: float) -> Line:
        """How many times faster than their side: at least `target`."""
        ratios = [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]
        return self._line(item, against, ratios, f"≥ {target:g}", lambda ratio: ratio >= target)

    def costs(self, item: str, against: str, *, target: float) -> Line:
        """How many times their cost: at most `target`."""
        ratios = [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]
        return self._line(item, against, ratios, f"≤ {target:g}", lambda ratio: ratio <= target)

    def _line(self, item: str, against: str, ratios: list[float], target: str, met: Callable[[float], bool]) -> Line:
        ratio = statistics.median(ratios)
        spread = f"{ratio:.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        ours, theirs = (duration(statistics.median(side)) for side in (self.ours, self.theirs))
        return Line(item, against, ours, theirs, spread, target, met(ratio))


def _seconds(call: Callable[[], object]) -> float:
    start = Pairs.clock()
    call()
    return Pairs.clock() - start


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if abs(seconds) >= 1 else f"{seconds * 1e3:.1f} ms"


def within(error: float, limit: float, what: str) -> None:
    """Raise when a number is wrong: a fast wrong answer is no answer."""
    if not error <= limit:
        raise AssertionError(f"{what}: off by {error:.2g}, at most {limit:.2g} is right")
