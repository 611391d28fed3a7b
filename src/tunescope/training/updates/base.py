"""An update rule: which parameters of a model move, at which learning rates, and in what form."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.optim import AdamW, Optimizer

from tunescope.errors import InputError, ModelError
from tunescope.models import Model
from tunescope.models.anatomy import Anatomy, read_anatomy
from tunescope.training.equal_step import EqualStep
from tunescope.training.number_ranges import Number, check_numbers
from tunescope.training.step_groups import body_of
from tunescope.training.updates.parts import Part, read_parts

WEIGHT_DECAY = 0.01
POLICY = "weight decay on matrices; none on biases, normalisation parameters, vectors and A_log of Mamba"


@dataclass(frozen=True, eq=False)
class Update:
    """A model marked for training by a rule.

    module: what to train. adapter: the PEFT wrapper around its body, where the rule added one. groups: parameter groups for a torch
    optimizer, with names, learning rates and weight decay. description: JSON-able. equal: whether steps are made equal; tau: how long.
    """

    module: nn.Module
    body: nn.Module
    groups: list[dict[str, Any]]
    description: dict[str, Any]
    adapter: PeftModel | None = None
    equal: bool = False
    tau: float | None = None

    def optimizer(self, *, tau: float | None = None, agreement: bool = False) -> Optimizer:
        """AdamW over the groups, wrapped in EqualStep where the rule says so. tau, agreement: of EqualStep; tau by default the rule's.

        Raises: InputError when a τ is needed and there is none, or is given to a rule of another kind.
        """
        adamw = AdamW([dict(group) for group in self.groups])
        tau = self.tau if tau is None else tau
        name = self.description["rule"]
        if not self.equal:
            if tau is not None or agreement:
                raise InputError(f"tau and agreement belong to equal-step, and the rule is '{name}'; use '{name}+equal-step'")
            return adamw
        if tau is None:
            raise InputError(f"'{name}' needs a relative step tau: the median step of a paired run (tau_from), or bisected (bisect_tau)")
        return EqualStep(adamw, self.body, tau=tau, agreement=agreement)


@dataclass(frozen=True, kw_only=True)
class UpdateRule(ABC):
    """Which parameters move and at which rate; knows nothing of objectives. weight_decay: of AdamW, on matrices only.

    A rule says `trains(part)` for each parameter, may scale the learning rate of each, and may first put an adapter on the model.
    numbers: the range of every option that is a number. Raises InputError outside it.
    """

    kind: ClassVar[str]
    numbers: ClassVar[Mapping[str, Number]] = {"weight_decay": Number(least=0)}
    weight_decay: float = field(default=WEIGHT_DECAY)

    def __post_init__(self) -> None:
        check_numbers(f"update rule '{self.kind}': ", vars(self), self.numbers)

    @property
    def name(self) -> str:
        """As it is asked for."""
        return self.kind

    def options(self) -> dict[str, Any]:
        """JSON-able: every setting of the rule."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()}

    def apply(self, module: nn.Module | Model, *, lr: float, body: nn.Module | None = None) -> Update:
        """Mark in place which parameters of `module` are trainable, and group them for an optimizer.

        Every parameter of `module` is set to trainable or frozen, whatever it was; the description counts the flags that were turned.
        Nothing is changed when the rule does not fit. module: a body, a model with its head, or anything that contains `body`.
        body: the part that has the blocks; by default the text body of `module`.

        Raises: InputError (learning rate; a setting that does not fit this model), ModelError (the model has nothing for this rule, or no
        known blocks, or weights packed by quantisation), AdapterError (it wears an adapter already; LoRA targets missing).
        """
        if not Number(above=0).holds(lr):
            raise InputError(f"the update rule '{self.name}' needs a learning rate above 0, got {lr}")
        whole = module.module if isinstance(module, Model) else module
        body = body_of(whole) if body is None else body
        anatomy = read_anatomy(body)
        self.refuse(whole, body, anatomy)
        adapter = self.adapt(body, anatomy)
        parts = read_parts(whole, body, anatomy)
        moving = [part for part in parts if self.trains(part, anatomy)]
        if adapter is None:
            _check_moving(moving, type(body).__name__, self.name)
        turned = _mark(parts, moving)
        groups = self._groups(moving, anatomy, lr)
        described = {"rule": self.name, "options": self.options(), "lr": lr, "family": anatomy.family, "weight_decay_policy": POLICY}
        described |= turned | {"groups": [shown(group) for group in groups]} | self.extras(body, anatomy)
        return Update(adapter if adapter is not None and whole is body else whole, body, groups, described, adapter)

    def refuse(self, whole: nn.Module, body: nn.Module, anatomy: Anatomy) -> None:
        """Raise when the rule does not fit this model, before anything is changed."""
        if any(isinstance(part, BaseTunerLayer) or hasattr(part, "modules_to_save") for part in whole.modules()):
            raise InputError(
                f"the update rule '{self.name}' would train the base beneath the adapter that the model wears; merge_and_unload() it"
            )

    def adapt(self, body: nn.Module, anatomy: Anatomy) -> PeftModel | None:
        """Put an adapter on `body` in place, for rules that train one."""
        return None

    @abstractmethod
    def trains(self, part: Part, anatomy: Anatomy) -> bool:
        """Whether this parameter moves."""

    def rate(self, part: Part, anatomy: Anatomy) -> float:
        """What the learning rate of this parameter is multiplied by."""
        return 1.0

    def extras(self, body: nn.Module, anatomy: Anatomy) -> dict[str, Any]:
        """What else the description says, JSON-able."""
        return {}

    def _groups(self, moving: list[Part], anatomy: Anatomy, lr: float) -> list[dict[str, Any]]:
        found: dict[tuple[float, bool], list[Part]] = {}
        for part in moving:
            found.setdefault((self.rate(part, anatomy), part.decays), []).append(part)
        return [
            {
                "params": [part.parameter for part in parts],
                "lr": lr * rate,
                "weight_decay": self.weight_decay if decays else 0.0,
                "name": f"{_place(parts)}, {'decayed' if decays else 'not decayed'}",
            }
            for (rate, decays), parts in found.items()
        ]


def _check_moving(moving: list[Part], model: str, rule: str) -> None:
    if not moving:
        raise ModelError(f"the update rule '{rule}' finds nothing to train in this {model}")
    packed = next((part for part in moving if not part.parameter.is_floating_point()), None)
    if packed is not None:
        raise ModelError(f"the update rule '{rule}' cannot train {packed.name}, packed as {packed.parameter.dtype}; use 'lora'")


def _mark(parts: Iterable[Part], moving: Iterable[Part]) -> dict[str, int]:
    """Set every flag, and count tensors and parameters on both sides, and how many flags were turned."""
    chosen = {id(part.parameter) for part in moving}
    counts = dict.fromkeys(("tensors", "parameters", "frozen_tensors", "frozen_parameters", "turned_on", "turned_off"), 0)
    for part in parts:
        trains, parameter = id(part.parameter) in chosen, part.parameter
        side = "" if trains else "frozen_"
        counts[f"{side}tensors"] += 1
        counts[f"{side}parameters"] += parameter.numel()
        if trains != parameter.requires_grad:
            counts["turned_on" if trains else "turned_off"] += 1
            parameter.requires_grad_(trains)
    return counts


def _place(parts: list[Part]) -> str:
    """Where the parameters of one group sit, in words."""
    places = dict.fromkeys(f"block {part.block}" if part.block else "embeddings" if part.embedding else "rest" for part in parts)
    blocks = [place for place in places if place.startswith("block ")]
    if len(blocks) > 1:
        places = dict.fromkeys([f"blocks {blocks[0].removeprefix('block ')}–{blocks[-1].removeprefix('block ')}", *places])
        places = {place: None for place in places if place not in blocks}
    return " + ".join(places)


def shown(group: dict[str, Any]) -> dict[str, Any]:
    """A parameter group as the description has it."""
    sizes = {"tensors": len(group["params"]), "parameters": sum(parameter.numel() for parameter in group["params"])}
    return {key: group[key] for key in ("name", "lr", "weight_decay")} | sizes
