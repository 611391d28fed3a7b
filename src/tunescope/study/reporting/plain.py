"""Figures as JSON has them, and a section's reason where it cannot be computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from tunescope.errors import Degenerate, InputError, NotEnoughRows, UnknownName

CANNOT = (NotEnoughRows, InputError, Degenerate, UnknownName)


def plain(value: Any) -> Any:
    """Data frames as lists of lines, dataclasses as dicts, NaN, NA and infinities as None, numpy's numbers as Python's."""
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        return [plain(line) for line in value.to_dict("records")]
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if value is None or value is pd.NA:
        return None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tried(make: Callable[..., Any], *given: Any, **named: Any) -> tuple[Any, str | None]:
    """What is made of what is given, or None with the line that says why not."""
    try:
        return make(*given, **named), None
    except CANNOT as error:
        return None, " ".join(str(error).split())
