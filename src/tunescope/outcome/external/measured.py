"""What one model scored at one task by one metric, item by item, as some file or other says it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunescope.errors import FormatError, InputError


@dataclass(frozen=True)
class Measured:
    """One side's scores at a task by a metric.

    scores: by item id. checks: what must be the same on both sides, by name and item id, such as the hash of an item's text. prompts:
    what should be, such as the hash of the prompt around it. weights: how much of the text an item holds, for a score that is a sum
    over its words or bytes. groups: what an item belongs to, where items are not independent. higher_is_better: as the file says, None
    where it does not. unscored: items that are in the file without a score. version: of the data; must be the same. made_by: the
    program and its version; should be the same.
    """

    task: str
    metric: str
    scores: Mapping[str, float]
    source: str
    checks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    higher_is_better: bool | None = None
    items: str = "items"
    unscored: int = 0
    version: str | None = None
    made_by: str | None = None
    warnings: tuple[str, ...] = ()


def number(value: Any, place: str, metric: str) -> float:
    """A finite score; true and false are 1 and 0, and a cell of a csv is read as Python reads a number.

    Raises InputError, naming the place, for what is none.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise InputError(f"{place}: {metric} is {value!r:.40}, not a number; correct it or remove the item from both sides") from None
    if not isinstance(value, (bool, int, float)):
        shown = "missing" if value is None else f"{value!r:.40} ({type(value).__name__})"
        raise InputError(f"{place}: {metric} is {shown}, not a number; correct it or remove the item from both sides")
    if not math.isfinite(value):
        raise InputError(f"{place}: {metric} is {value}, not a finite number; a mean over it says nothing: correct it or remove the item")
    return float(value)


def once(places: dict[str, str], item: str, place: str, source: str) -> None:
    """Note where an item stands. Raises InputError where it already stood elsewhere: then nobody knows which score is meant."""
    if item in places:
        raise InputError(f"{source}: item '{item}' is there twice ({places[item]} and {place}); every id may have one score")
    places[item] = place


def read_json(file: Path) -> dict[str, Any]:
    """The object a .json holds. Raises FormatError for a file that holds none."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise FormatError(f"{file}: not UTF-8 at byte {error.start:,}; is it a text file?") from None
    except json.JSONDecodeError as error:
        raise FormatError(f"{file}: not JSON ({error.msg}, line {error.lineno:,}); was the evaluation cut short?") from None
    if not isinstance(held, dict):
        raise FormatError(f"{file}: a {type(held).__name__}, not an object as a log or a result is")
    return held
