"""Which colour and which dash a choice of a study has, the same in every chart of its page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tunescope.reference import CONDITIONS
from tunescope.report.theme import LIGHT

ROLES = ("main", "control_0", "control_1", "control_2", "control_3", "control_4", "floor", "ink")
_FIRST = ("std", "standard", "unif", "uniform", "lora")  # update rules in this order, then by name, equal-step last
_REGIMES = ("aligned", "mixed", "misaligned", "anti-aligned", "task objective", "random", "control", "none")
_REGIME_ROLES = {
    "aligned": "main",
    "aligned with pretraining": "control_4",
    "mixed": "control_3",
    "misaligned": "control_0",
    "anti-aligned": "control_0",
    "task objective": "control_1",
    "random": "control_2",
    "control": "floor",
    "none": "quiet_bar",
}


@dataclass(frozen=True)
class Series:
    """name: as the rows have it. said: with what it stands for. role: of the theme. dash: of its line."""

    name: str
    said: str
    role: str
    dash: tuple[int, ...] = ()

    @property
    def variable(self) -> str:
        """The CSS custom property of the colour."""
        return f"--{self.role.replace('_', '-')}"


def shades(channel: str = "Color") -> Any:
    """An encoding by the role that a row has as `colour`; the page swaps the colours of a scale for their dark twins, those of rows not."""
    import altair as alt

    known = list(dict.fromkeys([*ROLES, *_REGIME_ROLES.values()]))
    scale = alt.Scale(domain=known, range=[LIGHT[role] for role in known])
    return getattr(alt, channel)("colour:N", scale=scale, legend=None)


def updates(names: list[str]) -> dict[str, Series]:
    """Update rules by name, each with its colour; beyond eight the colours come again with dashes."""
    return _series(sorted(dict.fromkeys(names), key=_rule_order), CONDITIONS)


def listed(names: list[str]) -> dict[str, Series]:
    """Conditions, layers, block types: in the order given."""
    return _series(list(dict.fromkeys(names)), {})


def regimes(names: list[str | None]) -> dict[str | None, Series]:
    """How objectives relate to pretraining; a regime that no published study has takes a colour that is left."""
    known = sorted({name for name in names if name}, key=lambda name: (_REGIMES.index(name) if name in _REGIMES else 99, name))
    free = [role for role in ROLES if role not in {_REGIME_ROLES.get(name) for name in known}] or list(ROLES)
    found: dict[str | None, Series] = {}
    for order, name in enumerate(known):
        found[name] = Series(name, name, _REGIME_ROLES.get(name) or free[order % len(free)])
    if None in names or not known:
        found[None] = Series("", "no regime told", "main" if not known else "quiet_bar")
    return found


def _series(names: list[str], spelled: dict[str, str]) -> dict[str, Series]:
    found = {}
    for order, name in enumerate(names):
        dash = ((), (5, 3), (2, 2))[order // len(ROLES) % 3]
        said = f"{name}, {spelled[name]}" if spelled.get(name, name).lower() != name.lower() else name
        found[name] = Series(name, said, ROLES[order % len(ROLES)], dash)
    return found


def _rule_order(name: str) -> tuple[int, int, str]:
    letters = re.sub(r"[^a-z]", "", name.lower())
    equal = "eqstep" in letters or "equalstep" in letters
    place = next((order for order, first in enumerate(_FIRST) if letters.startswith(first)), len(_FIRST))
    return (int(equal), place, name)
