"""Rules that leave a part of the model as it is; what moves, moves at one learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tunescope.errors import InputError, ModelError
from tunescope.models.anatomy import Anatomy
from tunescope.training.number_ranges import Number
from tunescope.training.updates.base import UpdateRule
from tunescope.training.updates.parts import Part, is_norm


@dataclass(frozen=True, kw_only=True)
class FrozenNorm(UpdateRule):
    """All normalisation parameters are frozen, weights and biases, in and outside the blocks."""

    kind: ClassVar[str] = "frozen-norm"

    def refuse(self, whole: nn.Module, body: nn.Module, anatomy: Anatomy) -> None:
        super().refuse(whole, body, anatomy)
        if not any(is_norm(part) and any(True for _ in part.parameters(recurse=False)) for part in body.modules()):
            raise ModelError(f"'frozen-norm' asked for, but this {type(body).__name__} has no normalisation parameters; use 'uniform'")

    def trains(self, part: Part, anatomy: Anatomy) -> bool:
        return not part.norm


@dataclass(frozen=True, kw_only=True)
class FrozenInterior(UpdateRule):
    """The bottom half of the blocks is frozen (of an odd number the smaller half); embeddings, the other blocks and the head move."""

    kind: ClassVar[str] = "frozen-interior"

    def trains(self, part: Part, anatomy: Anatomy) -> bool:
        return part.block is None or part.block > anatomy.n_layers // 2


@dataclass(frozen=True, kw_only=True)
class TopK(UpdateRule):
    """Only the last k blocks move: no embeddings, no final norm, no head."""

    kind: ClassVar[str] = "top-k"
    numbers: ClassVar[Mapping[str, Number]] = UpdateRule.numbers | {"k": Number(whole=True, least=1)}
    k: int = 2

    @property
    def name(self) -> str:
        return f"top-{self.k}"

    def refuse(self, whole: nn.Module, body: nn.Module, anatomy: Anatomy) -> None:
        super().refuse(whole, body, anatomy)
        if self.k > anatomy.n_layers:
            raise InputError(f"'{self.name}' asked for on a model of {anatomy.n_layers} blocks; give k from 1 to {anatomy.n_layers}")

    def trains(self, part: Part, anatomy: Anatomy) -> bool:
        return part.block is not None and part.block > anatomy.n_layers - self.k


@dataclass(frozen=True, kw_only=True)
class BitFit(UpdateRule):
    """Only biases move, those of normalisations and of the head included (https://arxiv.org/abs/2106.10199)."""

    kind: ClassVar[str] = "bitfit"

    def refuse(self, whole: nn.Module, body: nn.Module, anatomy: Anatomy) -> None:
        super().refuse(whole, body, anatomy)
        if not any(name.rpartition(".")[2] == "bias" for name, _ in body.named_parameters()):
            raise ModelError(f"'bitfit' trains biases, and this {type(body).__name__} has none; use 'lora' or 'top-2'")

    def trains(self, part: Part, anatomy: Anatomy) -> bool:
        return part.bias
