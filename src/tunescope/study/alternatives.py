"""Alternatives that a set of hypotheses names: values on which two of them hold, and values on which none does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from tunescope.study.hypotheses import Hypothesis, Region

REACH = "the base interval's end"


def warnings_of(hypotheses: Iterable[Hypothesis]) -> tuple[str, ...]:
    """What is wrong with the sets of alternatives, one line each, in the order of the plan.

    Alternatives should part the line of values: overlaps and gaps are named with their ends. Where one of them is the base interval,
    which only the data decide, every width it might have is gone through, and a line says for which it is so.
    """
    sets: dict[str, list[Hypothesis]] = {}
    for hypothesis in hypotheses:
        if hypothesis.set is not None:
            sets.setdefault(hypothesis.set, []).append(hypothesis)
    return tuple(f"set '{name}': {line}" for name, members in sets.items() for line in _of_set(members))


def _of_set(members: Sequence[Hypothesis]) -> Iterator[str]:
    if len(members) < 2:
        yield f"'{members[0].name}' has no alternative; add the others, or leave set out"
        return
    first = members[0]
    other = next((each for each in members if (each.on, each.minus) != (first.on, first.minus)), None)
    if other is not None:
        yield f"'{first.name}' and '{other.name}' are not about the same number, so they are no alternatives"
        return
    widths = _widths(members)
    found: dict[str, list[int]] = {}
    for number, width in enumerate(widths):
        for line in _cells(members, width):
            found.setdefault(line, []).append(number)
    bounds = _bounds(members)
    for line, where in found.items():
        yield line if len(where) == len(widths) else f"{line}, {_when(where, bounds)}"


def _bounds(members: Sequence[Hypothesis]) -> list[float]:
    """Distances from no change of all fixed ends, sorted."""
    ends = (end for each in members for end in (each.supported.low, each.supported.high))
    return sorted({abs(end) for end in ends if math.isfinite(end) and end != 0})


def _widths(members: Sequence[Hypothesis]) -> list[float]:
    """One width of the base interval for every band between the fixed ends."""
    if not any(each.supported.within for each in members):
        return [0.0]
    edges = [0.0, *_bounds(members)]
    return [(low + high) / 2 for low, high in zip(edges, edges[1:], strict=False)] + [edges[-1] + 1.0]


def _when(where: Sequence[int], bounds: Sequence[float]) -> str:
    """The widths for which a line is so; they are always neighbours."""
    low, high = min(where), max(where)
    if high == len(bounds):
        return f"where the base interval reaches beyond {bounds[low - 1]:g}"
    if low == 0:
        return f"where the base interval ends before {bounds[high]:g}"
    return f"where the base interval ends between {bounds[low - 1]:g} and {bounds[high]:g}"


def _cells(members: Sequence[Hypothesis], width: float) -> Iterator[str]:
    """Overlaps of every pair, then gaps of all, at one width of the base interval."""
    data = {-width, width} if any(each.supported.within for each in members) else set()
    regions = {each.name: _fixed(each.supported, width) for each in members}
    for (one, first), (other, second) in combinations(regions.items(), 2):
        for low, high in _stretches((first, second), wanted=2):
            yield f"'{one}' and '{other}' both hold {_between(low, high, data)}"
    for low, high in _stretches(tuple(regions.values()), wanted=0):
        yield f"none holds {_between(low, high, data)}"


def _stretches(regions: Sequence[Region], *, wanted: int) -> list[tuple[float, float]]:
    """Where exactly so many of the regions hold; neighbouring values are one stretch."""
    ends = sorted({end for region in regions for end in (region.low, region.high) if math.isfinite(end)})
    found: list[tuple[float, float]] = []
    before = False
    for low, high, value in _pieces(ends):
        now = sum(region.holds(value) for region in regions) == wanted
        if now and before:
            found[-1] = found[-1][0], high
        elif now:
            found.append((low, high))
        before = now
    return found


def _fixed(region: Region, width: float) -> Region:
    return replace(region, low=-width, high=width, within=None) if region.within else region


def _pieces(ends: Sequence[float]) -> Iterator[tuple[float, float, float]]:
    """Every end, and what lies between and beyond them: (low, high, a value in it)."""
    if not ends:
        yield -math.inf, math.inf, 0.0
        return
    yield -math.inf, ends[0], ends[0] - 1
    for place, end in enumerate(ends):
        yield end, end, end
        if place + 1 < len(ends):
            yield end, ends[place + 1], (end + ends[place + 1]) / 2
    yield ends[-1], math.inf, ends[-1] + 1


def _between(low: float, high: float, data: set[float]) -> str:
    def told(end: float) -> str:
        return f"{REACH} {'below' if end < 0 else 'above'} no change" if end in data else f"{end:g}"

    if low == high:
        return f"at {told(low)}"
    if low == -math.inf:
        return f"below {told(high)}" if high < math.inf else "anywhere"
    return f"above {told(low)}" if high == math.inf else f"between {told(low)} and {told(high)}"
