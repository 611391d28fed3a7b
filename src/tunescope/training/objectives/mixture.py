"""Several objectives at once, as a weighted sum, each on items of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from tunescope.errors import InputError
from tunescope.models import Model
from tunescope.training.number_ranges import Number
from tunescope.training.objectives.base import Batch, Loss, Objective
from tunescope.training.objectives.learner import Learner
from tunescope.training.objectives.reader import TextReader


@dataclass(frozen=True)
class Mixture(Objective):
    """Σ_k w_k L_k. An item is a tuple with an entry for each need of the parts, in their order."""

    name: ClassVar[str] = "mixture"
    title: ClassVar[str] = "mixture"
    reference: ClassVar[str] = "https://doi.org/10.1023/A:1007379606734"
    parts: tuple[Objective, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.parts) < 2 or len(self.parts) != len(self.weights):
            raise InputError(f"mixture of {len(self.parts)} objectives with {len(self.weights)} weights; give two or more, a weight each")
        if not all(map(Number(above=0).holds, self.weights)):
            raise InputError(f"mixture: weights={list(self.weights)} were asked for; give numbers above 0")

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(need for part in self.parts for need in part.needs)

    @property
    def compares_with_start(self) -> bool:  # type: ignore[override]
        return any(part.compares_with_start for part in self.parts)

    @property
    def head(self) -> str | None:  # type: ignore[override]
        return next((part.head for part in self.parts if part.head is not None), None)

    def check(self, model: Model) -> None:
        for part in self.parts:
            part.check(model)
        check_one_head(self.parts)

    def heads(self, model: Model, *, seed: int) -> dict[str, nn.Module]:
        return joined_heads(self.parts, model, seed)

    def collate(self, items: Sequence[Any], reader: TextReader, generator: torch.Generator) -> Batch:
        columns = entries(items, [part.needs for part in self.parts])
        pairs = zip(self.parts, columns, strict=True)
        return {str(number): part.collate(own, reader, generator) for number, (part, own) in enumerate(pairs)}

    def loss(self, learner: Learner, batch: Batch) -> Loss:
        losses = [part.loss(learner, batch[str(number)]) for number, part in enumerate(self.parts)]
        said = {}
        for number, (part, loss) in enumerate(zip(self.parts, losses, strict=True)):
            said[f"{number}.{part.name}"] = loss.value.detach()
            said |= {f"{number}.{name}": value for name, value in loss.said.items()}
        return Loss(torch.stack([w * loss.value for w, loss in zip(self.weights, losses, strict=True)]).sum(), said=said)

    def resolved(self, model: Model) -> dict:
        return {f"{number}.{part.name}": part.resolved(model) for number, part in enumerate(self.parts)}


def entries(items: Sequence[Any], needs: Sequence[tuple[str, ...]]) -> list[list[Any]]:
    """The items of each part: the entry of a part with one need, a tuple of those of a part with several.

    Raises InputError for an item of another length.
    """
    total = sum(map(len, needs))
    for item in items:
        if not isinstance(item, tuple | list) or len(item) != total:
            wanted = " and ".join(f"({', '.join(own)})" for own in needs)
            raise InputError(f"an item of several objectives is a tuple of {total} entries, for {wanted}; got {str(item)[:60]}")
    found, start = [], 0
    for own in needs:
        stop = start + len(own)
        found.append([item[start] if len(own) == 1 else tuple(item[start:stop]) for item in items])
        start = stop
    return found


def check_one_head(parts: Sequence[Objective]) -> None:
    """Raise InputError when two parts ask for different heads under one role."""
    asked = {part.head for part in parts if part.head is not None}
    classes = {part.classes for part in parts if hasattr(part, "classes")}
    if len(asked) > 1 or len(classes) > 1:
        raise InputError(f"objectives that run through one head ask for different ones: {', '.join(map(str, sorted(asked | classes)))}")


def joined_heads(parts: Sequence[Objective], model: Model, seed: int) -> dict[str, nn.Module]:
    """The heads of all parts; a role that several have is one head."""
    found: dict[str, nn.Module] = {}
    for part in parts:
        found = part.heads(model, seed=seed) | found
    return found
