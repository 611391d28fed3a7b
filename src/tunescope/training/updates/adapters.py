"""LoRA: low-rank matrices beside the linear layers of the blocks, put there by PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from tunescope.errors import AdapterError, InputError
from tunescope.models.anatomy import Anatomy
from tunescope.models.families import FAMILIES
from tunescope.models.quiet import quietly
from tunescope.training.number_ranges import Number
from tunescope.training.updates.base import UpdateRule
from tunescope.training.updates.parts import Part

_LINEAR = (nn.Linear, Conv1D)


@dataclass(frozen=True, kw_only=True)
class LoRA(UpdateRule):
    """A LoRA of rank r on the family's targets in every block; everything else, the head included, is frozen.

    alpha: by default 2·rank (the studies publish none). targets: names of linear layers, by default the family's. Targets whose weight
    the family's forward reads past the adapter (Mamba's dt_proj) get matrices that stay as they start, and the description names them.
    targets may be one word, with commas between several. A starts random, from torch's global generator: seed it.
    """

    kind: ClassVar[str] = "lora"
    numbers: ClassVar[Mapping[str, Number]] = UpdateRule.numbers | {
        "rank": Number(whole=True, least=1), "alpha": Number(above=0, optional=True), "dropout": Number(least=0, below=1),
    }  # fmt: skip
    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.1
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.targets, str):
            object.__setattr__(self, "targets", tuple(part.strip() for part in self.targets.split(",") if part.strip()))
        if self.targets is not None and not (self.targets and all(isinstance(target, str) for target in self.targets)):
            raise InputError(f"update rule 'lora': targets={self.targets!r} was asked for; name one linear layer or more, or leave it out")

    def refuse(self, whole: nn.Module, body: nn.Module, anatomy: Anatomy) -> None:
        super().refuse(whole, body, anatomy)
        present = sorted({path.rpartition(".")[2] for path, module in _inside(body, anatomy) if isinstance(module, _LINEAR)})
        wanted = self._targets(anatomy)
        if not wanted:
            raise AdapterError(f"no LoRA targets are known for '{anatomy.family}'; name some of its linear layers: {', '.join(present)}")
        missing = [target for target in wanted if not self._matched(body, anatomy, (target,))]
        if missing:
            raise AdapterError(f"LoRA target '{missing[0]}' is not in the blocks of {type(body).__name__}; there are {', '.join(present)}")

    def adapt(self, body: nn.Module, anatomy: Anatomy) -> PeftModel | None:
        targets = self._targets(anatomy)
        chosen = [module for path, module in _inside(body, anatomy) if path.rpartition(".")[2] in targets]
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self._alpha,
            lora_dropout=self.dropout,
            target_modules=list(targets),
            exclude_modules=_outside(body, anatomy, targets) or None,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in chosen),
        )
        with quietly():
            return get_peft_model(body, config)

    def trains(self, part: Part, anatomy: Anatomy) -> bool:
        return "lora_" in part.name and not any(f".{name}." in part.name for name in _bypassed(anatomy))

    def extras(self, body: nn.Module, anatomy: Anatomy) -> dict[str, Any]:
        unheard = [name for name in self._targets(anatomy) if name in _bypassed(anatomy)]
        return {"rank": self.rank, "alpha": self._alpha, "targets": list(self._targets(anatomy)), "unheard": unheard}

    @property
    def _alpha(self) -> float:
        return 2 * self.rank if self.alpha is None else self.alpha

    def _targets(self, anatomy: Anatomy) -> tuple[str, ...]:
        return anatomy.lora_targets if self.targets is None else tuple(self.targets)

    def _matched(self, body: nn.Module, anatomy: Anatomy, targets: tuple[str, ...]) -> list[str]:
        return [path for path, module in _inside(body, anatomy) if path.rpartition(".")[2] in targets]


def _inside(body: nn.Module, anatomy: Anatomy) -> list[tuple[str, nn.Module]]:
    """Modules of the blocks, by their path in the body."""
    return [(path, module) for path, module in body.named_modules() if path.startswith(f"{anatomy.blocks}.")]


def _outside(body: nn.Module, anatomy: Anatomy, targets: tuple[str, ...]) -> list[str]:
    """What bears a target's name but is in no block, such as BERT's pooler.dense."""
    paths = [path for path, _ in body.named_modules() if not path.startswith(f"{anatomy.blocks}.")]
    return [path for path in paths if path.rpartition(".")[2] in targets]


def _bypassed(anatomy: Anatomy) -> tuple[str, ...]:
    return FAMILIES[anatomy.family].bypassed if anatomy.family in FAMILIES else ()
