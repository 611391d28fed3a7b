"""How much of a disturbance every part of a model gets: the same everywhere, in some layers only, or a number a layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tunescope.errors import InputError
from tunescope.models import Model
from tunescope.models.anatomy import Anatomy
from tunescope.training.number_ranges import Number

REST = "rest"  # final norm and whatever else is neither embeddings nor a block
Amount = float | Mapping[int | str, float]


@dataclass(frozen=True)
class LayerAmounts:
    """`amount` in the parts `only` names (None: in all of them), or {part: amount}; 0 in every other part.

    A part is a layer of the reports (0 the embeddings, i block i) or "rest", the final norm and whatever stands outside.
    """

    amount: Amount
    only: tuple[int | str, ...] | None
    anatomy: Anatomy

    @classmethod
    def of(cls, amount: Amount, layers: Iterable[int | str] | None, model: Model) -> LayerAmounts:
        """Checked against the layers of `model`. Raises InputError: a layer it lacks, no layers, both a mapping and layers, no number."""
        if isinstance(amount, Mapping) and layers is not None:
            raise InputError("an amount a layer and layers= were both given; the mapping names the layers, leave layers out")
        if layers is not None and (isinstance(layers, str) or not isinstance(layers, Iterable)):
            raise InputError(f"layers={layers!r} asked for; give a list of them, such as [1, 2]")
        chosen = tuple(amount) if isinstance(amount, Mapping) else None if layers is None else tuple(dict.fromkeys(layers))
        last = model.anatomy.n_layers
        if chosen is not None and not all(part == REST or part in range(last + 1) for part in chosen):
            raise InputError(f"layers {list(chosen)} asked for; '{model.name}' has 0 (embeddings) to {last}, and '{REST}'")
        if chosen == ():
            raise InputError("no layers to move were named; leave layers out to move all of them")
        values = amount.values() if isinstance(amount, Mapping) else (amount,)
        if not all(map(Number().holds, values)):
            raise InputError(f"an amount must be a finite number, got {amount}")
        return cls(amount, chosen, model.anatomy)

    def at(self, key: str) -> float:
        """The amount that the tensor of this name gets."""
        if self.only is None:
            return float(self.amount)
        part = part_of(key, self.anatomy)
        if part not in self.only:
            return 0.0
        return float(self.amount[part] if isinstance(self.amount, Mapping) else self.amount)

    @property
    def everywhere(self) -> float | None:
        """The amount of every part where it is one and the same; None where parts differ."""
        values = set(self.amount.values()) if isinstance(self.amount, Mapping) else {self.amount}
        whole = self.only is None or set(self.only) == {*range(self.anatomy.n_layers + 1), REST}
        return float(values.pop()) if len(values) == 1 and (whole or values == {0}) else None

    @property
    def values(self) -> tuple[float, ...]:
        """Every amount there is, smallest first."""
        return tuple(sorted(self.amount.values() if isinstance(self.amount, Mapping) else (self.amount,)))

    def __str__(self) -> str:
        if isinstance(self.amount, Mapping):
            return ", ".join(f"{value:g} in {_named(part)}" for part, value in self.amount.items())
        return f"{self.amount:g}" + ("" if self.only is None else f" in {', '.join(map(_named, self.only))}")


def part_of(key: str, anatomy: Anatomy) -> int | str:
    """Which part a tensor belongs to: 0 the embeddings, i block i, or "rest"."""
    inside = f".{key}".partition(f".{anatomy.blocks}.")[2].partition(".")[0]
    if inside.isdecimal():
        return int(inside) + 1
    return 0 if any(key.startswith(f"{path}.") for path in anatomy.embeddings) else REST


def _named(part: int | str) -> str:
    return "the embeddings" if part == 0 else "the rest" if part == REST else f"layer {part}"
