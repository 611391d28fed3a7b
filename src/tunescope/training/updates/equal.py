"""Equal steps on top of another rule: which parameters move is the other's, how far each block moves at a step is one τ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from tunescope.errors import InputError
from tunescope.models import Model
from tunescope.models.anatomy import Anatomy
from tunescope.training.number_ranges import Number
from tunescope.training.updates.base import Update, UpdateRule
from tunescope.training.updates.full import Standard, Uniform
from tunescope.training.updates.parts import Part


@dataclass(frozen=True, kw_only=True)
class EqualStepped(UpdateRule):
    """The rule `on`, by default uniform, with every optimizer step made τ long in every group (`EqualStep`).

    tau: may be left to `Update.optimizer(tau=…)`, which is where the size of a paired run or of a bisection is known.
    Raises: InputError on a layer-wise decay, which equal steps would undo.
    """

    kind: ClassVar[str] = "equal-step"
    on: UpdateRule = field(default_factory=Uniform)
    numbers: ClassVar[Mapping[str, Number]] = UpdateRule.numbers | {"tau": Number(above=0, optional=True)}
    tau: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.on, (Standard, EqualStepped)):
            raise InputError(f"'{self.on.name}+equal-step' asked for; equal steps need one learning rate: use 'equal-step' or another rule")

    @property
    def name(self) -> str:
        return self.kind if isinstance(self.on, Uniform) else f"{self.on.name}+{self.kind}"

    def options(self) -> dict[str, Any]:
        return self.on.options() | {"tau": self.tau}

    def apply(self, module: nn.Module | Model, *, lr: float, body: nn.Module | None = None) -> Update:
        done = self.on.apply(module, lr=lr, body=body)
        return dataclasses.replace(
            done, equal=True, tau=self.tau, description=done.description | {"rule": self.name, "options": self.options()}
        )

    def trains(self, part: Part, anatomy: Anatomy) -> bool:
        return self.on.trains(part, anatomy)
