"""One printed claim beside what the tables give, and the numbers as a claim prints them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

YES, NO, SILENT, NONE = "yes", "no", "not reported", "not computable"
VERDICTS = (YES, NO, SILENT, NONE)


@dataclass(frozen=True)
class Found:
    """What the tables give for a claim; see `Claim`."""

    recomputed: str
    agrees: str
    words: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Printed:
    """A claim as printed, and how it is recomputed from its study's tables."""

    claim: str
    paper: str
    recompute: Callable[[Any], Found]


@dataclass(frozen=True)
class Claim:
    """study: whose. claim: what it is about. recomputed: from the tables, to the digits printed. paper: what was printed, or "–".

    agrees: of recomputed with paper: yes, no, not reported (the paper says nothing of it) or not computable (the tables do not give it).
    words: what differs, or the reason. figures: the recomputed numbers, not rounded.
    """

    study: str
    claim: str
    recomputed: str
    paper: str
    agrees: str
    words: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def agreement(same: bool) -> str:
    """Yes or no."""
    return YES if same else NO


def printed(value: float, places: int, *, sign: bool = False) -> str:
    """To so many decimals as the papers print them: ".0021", "−.032", "1.40", "+.52"; what only rounds to 0 or 1 is "<.01", ">.99"."""
    text, least = f"{abs(value):.{places}f}", f"{10**-places:.{places}f}".removeprefix("0")
    mark = "−" if value < 0 else "+" if sign else ""
    if float(text) == 0 != value:
        return f">−{least}" if value < 0 else f"<{least}"
    if float(text) == 1 and abs(value) < 1:
        return f"<−.{'9' * places}" if value < 0 else f">{mark}.{'9' * places}"
    return mark + text.removeprefix("0" if text.startswith("0.") else "")


def listed(names: Iterable[str]) -> str:
    """ "a; b; c"."""
    return "; ".join(names)
