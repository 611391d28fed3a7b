"""How many items a stated effect needs, and what the items in hand detect: from assumptions, or from a finished comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tunescope.errors import InputError
from tunescope.stats import detectable_effect, paired_sample_size

POWER, LEVEL = 0.8, 0.05


@dataclass(frozen=True)
class Plan:
    """Items that a difference needs. n: items in hand; detectable: the smallest difference they show; sd: of the paired differences.

    needed and detectable are None where nothing can be planned, with the reason. A clustered result's sd is that of independent items
    with the same power.
    """

    name: str | None
    metric: str | None
    items: str
    effect: float
    power: float
    level: float
    sd: float | None
    n: int | None
    needed: int | None
    detectable: float | None
    reason: str | None = None


@dataclass(frozen=True)
class TextsPlan:
    """Texts for an interval of a measure ± effect. half_width: with the n texts in hand, at the layer where it is widest."""

    measure: str
    where: str
    effect: float
    half_width: float
    n: int
    needed: int


@dataclass(frozen=True)
class Plans:
    """What `tunescope power` prints: a plan per main outcome, and how many texts the geometry needs."""

    outcomes: tuple[Plan, ...]
    texts: TextsPlan | None

    def row(self) -> dict[str, Any]:
        """JSON-able."""
        return {"outcomes": [asdict(plan) for plan in self.outcomes], "texts": self.texts and asdict(self.texts)}


def plan(effect: float, *, sd: float, n: int | None = None, power: float = POWER, level: float = LEVEL) -> Plan:
    """Items needed for a difference `effect`, given the sd of the paired differences, and what n items detect (two-sided).

    Raises: InputError for an effect of 0, an sd of 0 or less, fewer than two items, or a power or level that is no share.
    """
    size = abs(effect)
    needed = paired_sample_size(size, sd=sd, power=power, level=level)
    detectable = None if n is None else detectable_effect(sd=sd, n=n, power=power, level=level)
    return Plan(None, None, "items", size, power, level, sd, n, needed, detectable)


def plans_from_result(payload: Mapping[str, Any], effect: float, *, power: float = POWER, level: float = LEVEL) -> Plans:
    """Plans for the main outcomes of a comparison, from the sd and n they found, and for the intervals of its geometry.

    The sd of n normal differences is itself uncertain by about 1/√(2n) of its size. Intervals of the geometry shrink as 1/√texts.

    Args:
        payload: comparison.json. effect: the difference to detect, and the half width to reach, in the units of each metric.

    Raises: InputError as `plan`, and when the comparison has neither an outcome nor an interval.
    """
    plan(effect, sd=1, power=power, level=level)  # refuses what cannot be planned for any row
    rows = [row for row in payload.get("outcomes") or [] if row.get("main")]
    found = Plans(tuple(_of_outcome(row, effect, power, level) for row in rows), _of_geometry(payload, abs(effect)))
    if not rows and found.texts is None:
        raise InputError("the comparison has no outcomes and its geometry no intervals to plan from; give --sd, or measure an outcome")
    return found


def _of_outcome(row: Mapping[str, Any], effect: float, power: float, level: float) -> Plan:
    about = {"name": row["name"], "metric": row["metric"], "items": row.get("items") or "items"}
    sd, n, known = row.get("sd"), row["n"], row.get("detectable")
    if known and n > 1:
        sd = known / detectable_effect(sd=1, n=n)  # the sd itself, or what clusters make of it
    if not sd or n < 2:
        reason = row.get("reason") or ("no item differs, so their spread is not known" if sd == 0 else "its spread was not measured")
        return Plan(**about, effect=abs(effect), power=power, level=level, sd=sd, n=n, needed=None, detectable=None, reason=reason)
    return Plan(**asdict(plan(effect, sd=sd, n=n, power=power, level=level)) | about)


def _of_geometry(payload: Mapping[str, Any], effect: float) -> TextsPlan | None:
    """The layer whose interval of the default measure is widest."""
    measure, places = payload.get("default_measure"), [(row["name"], row) for row in payload.get("layers") or []]
    places += list((payload.get("sites") or {}).items())
    cells = [(name, place["measures"].get(measure) or {}) for name, place in places]
    widths = [
        ((cell["high"] - cell["low"]) / 2, name) for name, cell in cells if cell.get("low") is not None and cell.get("high") is not None
    ]
    half, where = max(widths, default=(0.0, ""))
    if not half:
        return None
    n = payload["data"]["n"]
    title = payload["measures"].get(measure, {}).get("title", measure)
    return TextsPlan(title, where, effect, half, n, max(2, math.ceil(n * (half / effect) ** 2 - 1e-9)))
