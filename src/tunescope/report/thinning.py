"""Long curves for a page: fewer points, and never an extreme or an end lost; and the mean that runs along them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import accumulate
from typing import Any


def thinned(rows: Sequence[dict[str, Any]], key: str, most: int) -> list[dict[str, Any]]:
    """At most about `most` rows of a curve, in order: of every stretch the first, the last, the lowest and the highest by `key`."""
    if len(rows) <= most:
        return list(rows)
    stretches = max(1, most // 4)
    found = []
    for part in range(stretches):
        start, stop = part * len(rows) // stretches, (part + 1) * len(rows) // stretches
        inside = range(start, stop)
        kept = {start, stop - 1, min(inside, key=lambda i: rows[i][key]), max(inside, key=lambda i: rows[i][key])}
        found += [rows[i] for i in sorted(kept)]
    return found


def stretches(rows: Sequence[dict[str, Any]], key: str, most: int) -> list[dict[str, Any]]:
    """At most `most` stretches of a curve, in order: the middle row of each with its median, lowest and highest by `key`.

    A curve of no more rows than that has a row a stretch.
    """
    parts = min(most, len(rows))
    found = []
    for part in range(parts):
        inside = rows[part * len(rows) // parts : (part + 1) * len(rows) // parts]
        values = [row[key] for row in inside]
        told = {"first": inside[0]["step"], "last": inside[-1]["step"], "low": min(values), "high": max(values)}
        found.append(inside[len(inside) // 2] | told | {key: statistics.median(values)})
    return found


def window(steps: int) -> int:
    """How many steps the running mean is taken over: a fiftieth of the run, five at least, an odd number; 1 where there are too few."""
    return 1 if steps < 5 else max(5, steps // 50) | 1


def running_mean(values: Sequence[float], over: int) -> list[float]:
    """The mean of the `over` values around each, of those that there are at the ends."""
    sums = [0.0, *accumulate(values)]
    half = over // 2
    ends = [(max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values))]
    return [(sums[stop] - sums[start]) / (stop - start) for start, stop in ends]


def last_steps(steps: int) -> int:
    """How many steps at the end of a run its last loss is the mean of: ten, but never more than a quarter of it."""
    return max(1, min(10, steps // 4))
