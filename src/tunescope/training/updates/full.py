"""Full fine-tuning: every parameter moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tunescope.models.anatomy import Anatomy
from tunescope.training.number_ranges import Number
from tunescope.training.updates.base import UpdateRule
from tunescope.training.updates.parts import Part


@dataclass(frozen=True, kw_only=True)
class Standard(UpdateRule):
    """AdamW with layer-wise learning-rate decay: block i of L learns at lr · decay^(L − i), the embeddings at lr · decay^L.

    The last block and whatever is above it (final norm, pooler, head) learn at lr. A head that is tied to the embeddings is an embedding.
    """

    kind: ClassVar[str] = "standard"
    numbers: ClassVar[Mapping[str, Number]] = UpdateRule.numbers | {"decay": Number(above=0, most=1)}
    decay: float = 0.95

    def trains(self, part: Part, anatomy: Anatomy) -> bool:
        return True

    def rate(self, part: Part, anatomy: Anatomy) -> float:
        depth = part.block if part.block is not None else 0 if part.embedding else anatomy.n_layers
        return self.decay ** (anatomy.n_layers - depth)


@dataclass(frozen=True, kw_only=True)
class Uniform(UpdateRule):
    """AdamW at one learning rate."""

    kind: ClassVar[str] = "uniform"

    def trains(self, part: Part, anatomy: Anatomy) -> bool:
        return True
