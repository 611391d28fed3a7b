"""Names under which objectives of one comparison are told apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tunescope.errors import InputError
from tunescope.training.objectives import Objective


def names_apart(objectives: Iterable[Objective]) -> dict[str, Objective]:
    """By name, in their order; those that share a name with the settings in which they differ: "mlm (share=0.5)". Equal ones are one.

    Raises: InputError where they differ in what makes no name (the parts of a mixture).
    """
    different: list[Objective] = []
    for objective in objectives:
        if objective not in different:
            different.append(objective)
    return {_name(each, [one for one in different if one.name == each.name]): each for each in different}


def _name(objective: Objective, namesakes: list[Objective]) -> str:
    if len(namesakes) < 2:
        return objective.name
    own, others = objective.describe(), [each.describe() for each in namesakes]
    differ = [key for key in own if any(other.get(key) != own[key] for other in others)]
    if not differ or any(not _plain(other.get(key)) for key in differ for other in others):
        what = f" ({', '.join(differ)})" if differ else ""
        raise InputError(f"{len(namesakes)} objectives named {objective.name} differ in what makes no name{what}; compare them one by one")
    return f"{objective.name} ({', '.join(f'{key}={_said(own[key])}' for key in differ)})"


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_plain(each) for each in value)
    return value is None or isinstance(value, str | int | float)


def _said(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)
