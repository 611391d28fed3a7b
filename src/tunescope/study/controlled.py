"""Whether two conditions may be called controlled: their specs, field by field, differ in the one that was declared and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from tunescope.errors import InputError, UnknownName
from tunescope.study.run_spec import UNHASHED, RunSpec, Source

if TYPE_CHECKING:
    from tunescope.study.plan import Claim


@dataclass(frozen=True)
class Difference:
    """One field in which two specs differ; ABSENT where one has no such field."""

    field: str
    one: Any
    other: Any

    def __str__(self) -> str:
        return f"{self.field}: {_shown(self.one)} | {_shown(self.other)}"


ABSENT = "(none)"


def difference(one: RunSpec, other: RunSpec) -> tuple[Difference, ...]:
    """Every field in which the two differ, sorted. Names are left out: they say what to call a choice.

    A source counts as one field: its place, its column and its sample make one corpus.
    """
    left, right = _leaves(one), _leaves(other)
    return tuple(
        Difference(field, left.get(field, ABSENT), right.get(field, ABSENT))
        for field in sorted(left.keys() | right.keys())
        if left.get(field, ABSENT) != right.get(field, ABSENT)
    )


@dataclass(frozen=True)
class Control:
    """Two conditions and how their runs differ. declared: the one field in which they may."""

    one: tuple[str, str]
    other: tuple[str, str]
    declared: str
    differences: tuple[Difference, ...]
    seeds: tuple[int, ...]

    @property
    def controlled(self) -> bool:
        """Whether the declared field is the only one, and does differ."""
        return [each.field for each in self.differences] == [self.declared]

    def __str__(self) -> str:
        between = f"'{self.one[1]}' of {self.one[0]} and '{self.other[1]}' of {self.other[0]}"
        if not self.differences:
            return f"{between} are the same"
        said = "controlled: they differ in" if self.controlled else "not controlled: they differ in"
        return f"{between}: {said} {'; '.join(map(str, self.differences))}"


def controlled(one: tuple[str, str], other: tuple[str, str], field: str, specs: Iterable[RunSpec]) -> Control:
    """Compare two conditions, each (model, condition), at every seed they share.

    Raises: UnknownName (a condition that is not there), InputError (no seed in common).
    """
    specs = tuple(specs)
    left, right = (_runs(asked, specs) for asked in (one, other))
    seeds = sorted(left.keys() & right.keys())
    if not seeds:
        raise InputError(f"'{one[1]}' and '{other[1]}' have no seed in common; give both the same seeds")
    found = dict.fromkeys(each for seed in seeds for each in difference(left[seed], right[seed]) if each.field != "seed")
    by_field = {each.field: each for each in found}
    return Control(one, other, field, tuple(by_field[name] for name in sorted(by_field)), tuple(seeds))


def check_claims(claims: Iterable[Claim], specs: Iterable[RunSpec]) -> tuple[Control, ...]:
    """All claims of a plan, compared. Raises InputError for the first that does not hold, with the fields in which the two differ."""
    specs = tuple(specs)
    found = tuple(controlled(claim.one, claim.other, claim.field, specs) for claim in claims)
    for each in found:
        if not each.controlled:
            raise InputError(f"{each}; '{each.declared}' alone was declared, so they may not be called controlled")
    return found


def _runs(asked: tuple[str, str], specs: tuple[RunSpec, ...]) -> Mapping[int, RunSpec]:
    model, condition = asked
    if condition not in {spec.condition for spec in specs}:
        raise UnknownName("condition", condition, {spec.condition for spec in specs})
    found = {spec.seed: spec for spec in specs if (spec.model.name, spec.condition) == asked}
    if not found:
        raise UnknownName(f"model of '{condition}'", model, {spec.model.name for spec in specs if spec.condition == condition})
    return found


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted fields and what they hold."""
    if isinstance(value, Source):
        return {path: _without_names(value)}
    if is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
        if value.get("sha256") is not None:
            value.pop("place", None)
    if not isinstance(value, Mapping):
        return {path: tuple(_without_names(each) for each in value) if isinstance(value, list | tuple) else value}
    found: dict[str, Any] = {}
    for key, each in value.items():
        if each is not None and (key not in UNHASHED or key == "place"):
            found |= _leaves(each, f"{path}.{key}" if path else str(key))
    return found


def _without_names(value: Any) -> Any:
    """A source or model inside a list, as text without its name; anything else as it is."""
    if not is_dataclass(value) or isinstance(value, type):
        return value
    held = {key: each for key, each in vars(value).items() if each is not None and key not in UNHASHED | {"place"}}
    place = {} if held.get("sha256") else {"place": getattr(value, "place", None)}
    return ", ".join(f"{key} {each}" for key, each in {**place, **held}.items())


def _shown(value: Any) -> str:
    text = " + ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
