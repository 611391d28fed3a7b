"""The registry of update rules: one explicit dict. Adding a rule is a file and a line here; its tests run by its being listed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from tunescope.errors import InputError, UnknownName
from tunescope.training.updates.adapters import LoRA
from tunescope.training.updates.base import Update, UpdateRule
from tunescope.training.updates.equal import EqualStepped
from tunescope.training.updates.frozen import BitFit, FrozenInterior, FrozenNorm, TopK
from tunescope.training.updates.full import Standard, Uniform

UPDATES: dict[str, type[UpdateRule]] = {
    rule.kind: rule for rule in (Standard, Uniform, LoRA, FrozenNorm, FrozenInterior, TopK, BitFit, EqualStepped)
}


def select(text: str, options: Mapping[str, Any] | None = None) -> UpdateRule:
    """The rule called `text`, such as `lora`, `top-2` or `lora+equal-step`, with `options` such as {"rank": 4, "tau": 5e-4}.

    Raises: UnknownName (no such rule, or an option that the rule does not have), InputError (rules that do not go together).
    """
    first, *rest = [part.strip() for part in text.split("+")]
    if rest and rest != [EqualStepped.kind]:
        raise InputError(f"update rule '{text}' asked for; only '{EqualStepped.kind}' can be put on another rule: {first}+equal-step")
    if rest and first == EqualStepped.kind:
        raise InputError(f"'{first}' asked for twice in '{text}'; say it once")
    given = dict(options or {})
    top = re.fullmatch(r"top-(\d+)", first)
    if top:
        given["k"] = int(top[1])
    kind = TopK.kind if top else first
    if kind not in UPDATES:
        raise UnknownName("update rule", first, [*UPDATES, "top-1", "top-2"])
    equal = bool(rest) or kind == EqualStepped.kind
    tau = {"tau": given.pop("tau")} if equal and "tau" in given else {}
    rule = _made(Uniform if kind == EqualStepped.kind else UPDATES[kind], given, asked=text)
    return EqualStepped(on=rule, **tau) if equal else rule


def _made(rule: type[UpdateRule], options: Mapping[str, Any], *, asked: str) -> UpdateRule:
    known = [field.name for field in dataclasses.fields(rule)]
    for name in options:
        if name not in known:
            raise UnknownName(f"option of the update rule '{asked}'", name, known)
        if isinstance(options[name], str) and name != "targets":
            raise InputError(f"option {name}={options[name]!r} of the update rule '{asked}' asked for; give a number")
    return rule(**options)


__all__ = ["UPDATES", "Update", "UpdateRule", "select"]
