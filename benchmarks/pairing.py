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
    """One row of the table; cells are as printed."""

    item: str
    ours: str
    other: str
    ratio: str
    target: str
    met: bool

    @property
    def cells(self) -> tuple[str, ...]:
        return self.item, self.ours, self.other, self.ratio, self.target, "yes" if self.met else "no"


@dataclass(frozen=True)
class Pairs:
    """Seconds of both sides, pair by pair."""

    ours: list[float]
    other: list[float]

    clock: ClassVar[Callable[[], float]] = time.perf_counter  # run.py --clock cpu puts process_time here

    @classmethod
    def time(cls, ours: Callable[[], object], other: Callable[[], object], repeats: int) -> Pairs:
        """Each side once to warm up, then `repeats` pairs."""
        ours(), other()
        seconds = [(_seconds(ours), _seconds(other)) for _ in range(repeats)]
        return cls(*map(list, zip(*seconds, strict=True)))

    def times_other(self, scale: float) -> Pairs:
        """The same pairs with the other side, of which only a part was run, scaled up to the whole."""
        return Pairs(self.ours, [seconds * scale for seconds in self.other])

    def faster(self, item: str, target: float) -> Line:
        """How many times faster than the other side: at least `target`."""
        return self._line(item, [b / a for a, b in zip(self.ours, self.other, strict=True)], f"≥ {target:g}", lambda ratio: ratio >= target)

    def costs(self, item: str, target: float) -> Line:
        """How many times the other side's cost: at most `target`."""
        return self._line(item, [a / b for a, b in zip(self.ours, self.other, strict=True)], f"≤ {target:g}", lambda ratio: ratio <= target)

    def _line(self, item: str, ratios: list[float], target: str, met: Callable[[float], bool]) -> Line:
        ratio = statistics.median(ratios)
        spread = f"{ratio:.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        return Line(item, duration(statistics.median(self.ours)), duration(statistics.median(self.other)), spread, target, met(ratio))


def _seconds(call: Callable[[], object]) -> float:
    start = Pairs.clock()
    call()
    return Pairs.clock() - start


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def within(error: float, limit: float, what: str) -> None:
    """Raise when a number is wrong: a fast wrong answer is no answer."""
    if not error <= limit:
        raise AssertionError(f"{what}: off by {error:.2g}, at most {limit:.2g} is right")
