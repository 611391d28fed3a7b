"""What a run is asked to do: a frozen description whose hash names it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from tunescope.errors import InputError, UnknownName
from tunescope.identity import spec_hash
from tunescope.training.number_ranges import Number, check_numbers

PRECISIONS = ("float32", "bfloat16", "float16")
SCHEDULES = ("constant", "cosine", "linear")
RATES = {"lora": 2e-4, "bitfit": 1e-3}  # ours: the studies publish no learning rates
RATE = 2e-5
CLIP = 1.0
_RATE, _COUNT = Number(above=0, optional=True), Number(whole=True, least=1)
NUMBERS = {
    "steps": Number(whole=True, least=1, optional=True), "epochs": _RATE, "lr": _RATE, "drawn_lr": _RATE, "batch_size": _COUNT,
    "accumulate": _COUNT, "warmup": Number(whole=True, least=0), "clip": Number(least=0),
}  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: steps of the optimizer, items to a step, learning rate.

    batch_size: items to a forward pass and process. accumulate: passes to a step. warmup: steps of a rising rate. lr: by default 2e-5,
    for LoRA 2e-4, for bitfit 1e-3 (ours; none is published). drawn_lr: of heads that were drawn, by default lr.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 32
    accumulate: int = 1
    lr: float | None = None
    drawn_lr: float | None = None
    schedule: str = "constant"
    warmup: int = 0
    clip: float = CLIP
    precision: str = "float32"
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise InputError(f"steps={self.steps} and epochs={self.epochs} were both given; a run is as long as one of them says")
        check_numbers("", vars(self), NUMBERS)
        if self.schedule not in SCHEDULES:
            raise UnknownName("schedule", self.schedule, SCHEDULES)
        if self.precision not in PRECISIONS:
            raise UnknownName("precision", self.precision, PRECISIONS)

    def rate(self, rule: str) -> float:
        """The learning rate under an update rule."""
        return self.lr if self.lr is not None else RATES.get(rule.partition("+")[0], RATE)

    def length(self, items: int, processes: int = 1) -> tuple[int, int]:
        """(steps of the run, steps of an epoch). Epochs are of whole batches: what is left over is read in another epoch's order.

        Raises InputError for fewer items than one step takes.
        """
        batches = items // (self.batch_size * processes)
        if batches == 0:
            wanted = self.batch_size * processes
            most = items // processes
            less = f", or a batch_size of {most}{' or less' if most > 1 else ''}" if most else ""
            raise InputError(f"{items:,} item{'' if items == 1 else 's'} for batches of {wanted}; give more{less}")
        epoch = max(1, math.ceil(batches / self.accumulate))
        epochs = 1.0 if self.epochs is None else self.epochs
        return (max(1, round(epochs * epoch)) if self.steps is None else self.steps), epoch

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the weights a run ends with; `hash` names it.

    base: its identity. data: what was read, by hash. objective, update: as they describe themselves. checkpoints: steps.
    """

    base: dict[str, Any]
    data: dict[str, Any]
    objective: dict[str, Any]
    update: dict[str, Any]
    schedule: dict[str, Any]
    seed: int
    steps: int
    epoch_steps: int
    checkpoints: tuple[int, ...]
    trains_drawn_head: bool
    fit_head_steps: int
    processes: int = 1
    trainer: dict[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self) | {"checkpoints": list(self.checkpoints)}

    @property
    def hash(self) -> str:
        """sha256 of the description without names that say where things lie."""
        described = self.describe()
        described["base"] = {key: value for key, value in self.base.items() if key != "name"}
        described["data"] = {key: {k: v for k, v in each.items() if k != "source"} for key, each in self.data.items()}
        return spec_hash(described)


def checkpoint_steps(points: Any, *, steps: int, epoch_steps: int, in_epochs: bool) -> tuple[int, ...]:
    """The steps at which a model is kept: start and end, and the points asked for, in epochs or steps.

    Raises InputError for a point outside the run.
    """
    found = {0, steps}
    for point in points:
        if not Number(least=0).holds(point):
            raise InputError(f"a checkpoint at {point!r} was asked for; give numbers of {'epochs' if in_epochs else 'steps'}, 0 or more")
        step = round(point * epoch_steps) if in_epochs else point
        if not 0 <= step <= steps or step != int(step):
            unit = "epoch" if in_epochs else "step"
            raise InputError(f"a checkpoint at {unit} {point:g} was asked for, and the run has {steps:,} steps of {epoch_steps:,} an epoch")
        found.add(int(step))
    return tuple(sorted(found))
