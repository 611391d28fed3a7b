"""Hypotheses as a plan states them before anything runs: a number of the ledger, the values that support it, and those that falsify it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from tunescope.errors import InputError, UnknownName
from tunescope.study.known import PLACES, SIDES, SUBJECTS

BASE_INTERVAL = "base interval"
NUMBERS = ("value", "change", "slope")
OVER = ("mean", "each")
END = "end"


@dataclass(frozen=True)
class Selection:
    """Rows of the ledger that have these values; None for any. One number a run must be left.

    at: the checkpoint, "end" or an epoch. number: the row's value, its change, or the least-squares slope of its change over depth.
    """

    measure: str
    subject: str = "geometry"
    model: str | None = None
    condition: str | None = None
    objective: str | None = None
    update: str | None = None
    data: str | None = None
    texts: str | None = None
    task: str | None = None
    side: str | None = None
    where: str | None = None
    layer: int | None = None
    at: str | float = END
    number: str = "change"

    def apart(self, other: Selection) -> str:
        """In what it differs from another, in words."""
        told = {key: value for key, value in asdict(self).items() if value != getattr(other, key) and value is not None}
        return ", ".join(f"layer {value}" if key == "layer" else str(value) for key, value in told.items()) or "the same"

    def describe(self) -> dict[str, Any]:
        """JSON-able: what is asked for."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        of = " ".join(str(each) for each in (self.condition, self.objective, self.update, self.model) if each)
        on = next((f" on {each}" for each in (self.task, self.texts) if each), "")
        place = f" at {self.where}" if self.where not in (None, "output") else "" if self.layer is None else f" at layer {self.layer}"
        when = "" if self.at == END else f", epoch {self.at:g}" if not isinstance(self.at, str) else f", {self.at}"
        return f"{self.number} of {self.measure}{on}{place}{f' of {of}' if of else ''}{when}"


@dataclass(frozen=True)
class Region:
    """low to high, ends belonging to it or not; or the interval of the base (`within`), around no change, which the data decide."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    within: str | None = None

    def holds(self, value: float, reach: tuple[float, float] | None = None) -> bool:
        """Whether a value lies in it. reach: how far below and above no change the interval of the base goes, for `within`."""
        region = self if self.within is None else self.reaching(reach)
        above = value > region.low if region.low_open else value >= region.low
        return above and (value < region.high if region.high_open else value <= region.high)

    def reaching(self, reach: tuple[float, float] | None) -> Region:
        """With the ends that the data gave. Raises InputError without them."""
        if self.within is None:
            return self
        if reach is None:
            raise InputError(f"the {self.within} asked for, and no row has an interval")
        return Region(-abs(reach[0]), abs(reach[1]))

    def describe(self) -> dict[str, Any]:
        """JSON-able, as a plan writes it."""
        if self.within is not None:
            return {"within": self.within}
        low = {"above" if self.low_open else "at_least": self.low} if math.isfinite(self.low) else {}
        return low | ({"below" if self.high_open else "at_most": self.high} if math.isfinite(self.high) else {})

    def __str__(self) -> str:
        words = {"within": "within the", "at_least": "≥", "above": ">", "at_most": "≤", "below": "<"}
        shown = (f"{words[key]} {value if isinstance(value, str) else format(value, 'g')}" for key, value in self.describe().items())
        return " and ".join(shown)


@dataclass(frozen=True)
class Window:
    """An exclusion window: where the mean of `on` lies outside, the hypothesis was not tested."""

    on: Selection
    least: float
    most: float


@dataclass(frozen=True)
class Hypothesis:
    """says: in words. over: whether the mean over runs or each of them must lie in the region. minus: what is subtracted, seed by seed.

    falsified: None for everything outside `supported`. predicted: the outcome expected, in words. set: name of the alternatives it is one
    of, which should neither overlap nor leave gaps.
    """

    name: str
    says: str
    on: Selection
    supported: Region
    predicted: str
    falsified: Region | None = None
    minus: Selection | None = None
    over: str = "mean"
    window: Window | None = None
    set: str | None = None

    @property
    def selections(self) -> tuple[Selection, ...]:
        """Every selection it reads."""
        window = () if self.window is None else (self.window.on,)
        return (self.on, *(() if self.minus is None else (self.minus,)), *window)

    def describe(self) -> dict[str, Any]:
        """JSON-able; `hypothesis_of` reads it back."""
        found: dict[str, Any] = {
            "name": self.name, "says": self.says, "on": self.on.describe(), "supported": self.supported.describe(),
            "predicted": self.predicted, "over": self.over,
        }  # fmt: skip
        if self.falsified is not None:
            found["falsified"] = self.falsified.describe()
        if self.minus is not None:
            found["minus"] = self.minus.describe()
        if self.window is not None:
            found["window"] = self.window.on.describe() | {"least": self.window.least, "most": self.window.most}
        return found | ({} if self.set is None else {"set": self.set})


def hypothesis_of(given: Mapping[str, Any]) -> Hypothesis:
    """From the table of a plan, or what `describe` gave.

    Raises: InputError (regions that are empty or meet, a window of no width), UnknownName (a number, a subject).
    """
    name = given["name"]
    on = _selection(given["on"], where=name)
    minus = None if given.get("minus") is None else _selection({**_shared(given["on"]), **given["minus"]}, where=name)
    supported = _region(given["supported"], where=f"{name}, supported")
    falsified = None if given.get("falsified") is None else _region(given["falsified"], where=f"{name}, falsified")
    if minus is not None and BASE_INTERVAL in (supported.within, None if falsified is None else falsified.within):
        raise InputError(f"hypothesis '{name}': a difference of two numbers has no {BASE_INTERVAL}; give bounds, or leave minus out")
    if given.get("over", OVER[0]) not in OVER:
        raise UnknownName(f"way to take the runs of hypothesis '{name}' together", given["over"], OVER)
    if falsified is not None and _meet(supported, falsified):
        raise InputError(f"hypothesis '{name}': {supported} supports and {falsified} falsifies it, and a value can be both; part them")
    window = None if given.get("window") is None else _window(given["window"], given["on"], name)
    return Hypothesis(
        name, given["says"], on, supported, given["predicted"], falsified, minus, given.get("over", OVER[0]), window, given.get("set")
    )


def _shared(on: Mapping[str, Any]) -> dict[str, Any]:
    """What a second selection takes over from the first where it says nothing."""
    return {key: value for key, value in on.items() if key not in ("condition", "objective", "update", "data")}


def _selection(given: Mapping[str, Any], *, where: str) -> Selection:
    known = {each.name for each in fields(Selection)}
    chosen = {key: value for key, value in given.items() if key in known and value is not None}
    subject = chosen.get("subject", "geometry")
    if subject not in SUBJECTS:
        raise UnknownName(f"subject of hypothesis '{where}'", subject, SUBJECTS)
    chosen.setdefault("number", "change" if subject in ("geometry", "outcome") else "value")
    if chosen["number"] not in NUMBERS:
        raise UnknownName(f"number of hypothesis '{where}'", chosen["number"], NUMBERS)
    found = Selection(**chosen)
    if found.subject == "geometry" and found.number != "slope" and found.where is None and found.layer is None:
        found = replace(found, where="output")  # the embedding that is deployed
    if found.subject == "outcome" and found.side is None:
        found = replace(found, side="tuned")
    _check_place(found, where)
    return found


def _check_place(asked: Selection, where: str) -> None:
    """That there are rows of its place and side, and that they have its number."""
    if asked.where is not None and asked.where not in PLACES and not re.fullmatch(r"block [1-9]\d*", asked.where):
        raise UnknownName(f"where of hypothesis '{where}'", asked.where, [*PLACES, "block 1"])
    if asked.side is not None and asked.side not in SIDES:
        raise UnknownName(f"side of hypothesis '{where}'", asked.side, SIDES)
    if asked.side is not None and asked.subject != "outcome":
        raise InputError(f"hypothesis '{where}': side = '{asked.side}' is of an outcome, and {asked.subject} is of both; leave it out")
    if asked.number != "value" and asked.side == "base":
        raise InputError(f"hypothesis '{where}': the base has no {asked.number}; ask for its value, or for the side \"tuned\"")
    if asked.number != "value" and asked.subject in ("features", "cost"):
        raise InputError(f"hypothesis '{where}': rows of {asked.subject} have no {asked.number}; ask for the value")


def _region(given: Mapping[str, Any], *, where: str) -> Region:
    bounds = {key: value for key, value in given.items() if value is not None}
    if "within" in bounds:
        if len(bounds) > 1 or bounds["within"] != BASE_INTERVAL:
            raise InputError(f"hypothesis '{where}': within = '{BASE_INTERVAL}' stands alone; other regions have bounds")
        return Region(within=BASE_INTERVAL)
    if not bounds or {"at_least", "above"} <= bounds.keys() or {"at_most", "below"} <= bounds.keys():
        raise InputError(f"hypothesis '{where}': give one lower bound (at_least, above), one upper bound (at_most, below), or both")
    if not all(math.isfinite(bound) for bound in bounds.values()):
        raise InputError(f"hypothesis '{where}': a bound must be a finite number; leave out the one that bounds nothing")
    low, high = bounds.get("at_least", bounds.get("above", -math.inf)), bounds.get("at_most", bounds.get("below", math.inf))
    region = Region(float(low), float(high), "above" in bounds, "below" in bounds)
    if low > high or (low == high and (region.low_open or region.high_open)):
        raise InputError(f"hypothesis '{where}': no value is {region}; turn the bounds round")
    return region


def _window(given: Mapping[str, Any], on: Mapping[str, Any], name: str) -> Window:
    shared = {key: on[key] for key in ("model", "condition", "objective", "update", "data", "at") if on.get(key) is not None}
    selection = _selection({"number": "value", **shared, **given}, where=name)
    if not given["least"] < given["most"]:
        raise InputError(f"hypothesis '{name}': its window goes from {given['least']:g} to {given['most']:g}; the first must be smaller")
    return Window(selection, float(given["least"]), float(given["most"]))


def _meet(one: Region, other: Region) -> bool:
    """Whether two regions of fixed bounds share a value. What the data decide is looked at when they are there."""
    if one.within or other.within:
        return False
    low, high = max(one.low, other.low), min(one.high, other.high)
    return low < high or (low == high and one.holds(low) and other.holds(low))
