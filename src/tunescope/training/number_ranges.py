"""Numbers that may be asked for: whole or not, from where to where; refused before anything is made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunescope.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Number:
    """A finite number from `least` or above `above`, up to `most` or below `below`; True and False are none. optional: None is allowed."""

    whole: bool = False
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    optional: bool = False

    def holds(self, value: Any) -> bool:
        """Whether `value` is one of them."""
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float) or not math.isfinite(value):
            return False
        high_enough = (self.least is None or value >= self.least) and (self.above is None or value > self.above)
        return high_enough and (self.most is None or value <= self.most) and (self.below is None or value < self.below)

    def __str__(self) -> str:
        ends = (("from", self.least), ("above", self.above), ("to", self.most), ("below", self.below))
        said = " and ".join(f"{word} {end:,}" for word, end in ends if end is not None)
        return f"a {'whole ' if self.whole else ''}number {said.replace(' and to ', ' to ')}".rstrip()


SEED = Number(whole=True, least=0, most=2**32 - 1)


def check_numbers(of: str, values: Mapping[str, Any], ranges: Mapping[str, Number]) -> None:
    """Raise InputError for the first value that is outside its range. of: how the message begins, such as "LoRA: "."""
    for name, range_ in ranges.items():
        if not range_.holds(values[name]):
            raise InputError(f"{of}{name}={values[name]!r} was asked for; give {range_}")
