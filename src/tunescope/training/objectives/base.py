"""What an objective is: what it needs, which models it refuses, how it makes a batch of items, and its loss on that batch.

Axis legend: b items of a batch, t tokens, d features, m predicted tokens, v tokens of the vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from tunescope.errors import InputError
from tunescope.models import Model
from tunescope.training.number_ranges import Number, check_numbers

if TYPE_CHECKING:
    from tunescope.training.objectives.learner import Learner
    from tunescope.training.objectives.reader import TextReader

TEXTS, PAIRS, LABELS, CONVERSATIONS = "texts", "pairs", "labels", "conversations"

Batch = dict[str, Any]  # names to tensors, or to the batches of an objective's parts


@dataclass(frozen=True, eq=False)
class Loss:
    """What is minimised on one batch.

    value: the scalar, with gradients. items: (b,) loss per item and weights: (b,) what each counts for, so that
    value = Σ weights·items / Σ weights; None where a loss is of the batch and not of its items. said: scalars to log beside it.
    """

    value: Tensor
    items: Tensor | None = None
    weights: Tensor | None = None
    said: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def mean(cls, items: Tensor, *, said: Mapping[str, Tensor] | None = None) -> Loss:
        """The mean of one loss per item."""
        return cls(items.mean(), items, torch.ones_like(items), said or {})


class Objective(ABC):
    """What a model is asked for. Subclasses are frozen dataclasses whose fields are the settings of the objective.

    needs: what one item is, or, of an objective made of several, what each entry of an item is. An item of texts is a string, of pairs
    (query, passage) or (query, passage, [hard negatives]), of labels (text, class number), of conversations a list of messages.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    needs: tuple[str, ...]
    head: str | None = None  # which vocabulary head it runs through: own, random, fitted; None for none
    compares_with_start: bool = False  # whether the learner keeps a copy of the model as it was

    @abstractmethod
    def check(self, model: Model) -> None:
        """Raise ModelError or InputError, in one line, when `model` cannot be asked for this."""

    def heads(self, model: Model, *, seed: int) -> dict[str, nn.Module]:
        """The parts beside the body that the loss runs through, by role; seed: of weights that have to be drawn."""
        return {}

    @abstractmethod
    def collate(self, items: Sequence[Any], reader: TextReader, generator: torch.Generator) -> Batch:
        """Items to one batch on the CPU; every draw comes from `generator`, so the same state makes the same batch.

        Raises TextsError for items that hold nothing to learn from.
        """

    @abstractmethod
    def loss(self, learner: Learner, batch: Batch) -> Loss:
        """The loss of `batch`, with gradients where the learner's tensors want them; dropout draws from torch's own generator."""

    def resolved(self, model: Model) -> dict[str, Any]:
        """JSON-able: what settings left to "auto" mean for `model`, and which heads hold drawn weights."""
        return {}

    def describe(self) -> dict[str, Any]:
        """JSON-able: the name and the settings."""
        return {"name": self.name} | {each.name: _plain(getattr(self, each.name)) for each in fields(self)}


def check_above_zero(objective: Objective, *names: str) -> None:
    """Raise InputError for a setting that is not a finite number above 0."""
    check_numbers(f"{objective.name}: ", vars(objective), dict.fromkeys(names, Number(above=0)))


def check_choice(objective: Objective, name: str, known: Sequence[str]) -> None:
    """Raise InputError for a setting that is none of the words it can be."""
    if getattr(objective, name) not in known:
        raise InputError(f"{objective.name}: {name}={getattr(objective, name)!r} was asked for; known: {', '.join(known)}")


def _plain(value: Any) -> Any:
    if isinstance(value, Objective):
        return value.describe()
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
