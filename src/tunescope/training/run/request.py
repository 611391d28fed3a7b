"""A run as it was asked for, read and checked, before any model is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunescope.models import Model
from tunescope.training.objectives import Objective
from tunescope.training.run.data import RunData, RunOrder
from tunescope.training.run.sources import RunSources
from tunescope.training.run.spec import RunSpec, Schedule, checkpoint_steps
from tunescope.training.updates import UpdateRule


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be run. points: checkpoints in epochs, or in steps where the schedule has steps. trajectory: how they are measured."""

    objective: Objective
    rule: UpdateRule
    sources: RunSources
    schedule: Schedule
    seed: int
    max_length: int
    points: tuple[float, ...]
    train_drawn_head: bool
    fit_batches: int
    tau: float | None = None
    trajectory: Mapping[str, Any] | None = None

    def data(self) -> RunData:
        """The items, by the needs of the objective. Raises InputError when one of them is not served."""
        return RunData(self.sources.columns(self.objective), seed=self.seed, leading=self.sources.leading(self.objective.needs))

    def order(self, data: RunData, processes: int) -> RunOrder:
        """The order they are read in."""
        keys = self.sources.keys(self.objective.needs)
        return RunOrder(len(data), seed=self.seed, batch=self.schedule.batch_size * processes, keys=keys)

    def spec(self, model: Model, data: RunData, processes: int, trainer: Mapping[str, Any]) -> RunSpec:
        """The frozen description of the run of `model`. trainer: further TrainingArguments.

        Raises InputError: too few items, a checkpoint outside the run.
        """
        steps, epoch = self.schedule.length(len(data), processes)
        in_epochs = self.schedule.steps is None
        return RunSpec(
            base=model.identity(),
            data=self.sources.describe() | {"items": {"count": len(data)}},
            objective=self.objective.describe() | {"max_length": self.max_length},
            update={"rule": self.rule.name, "options": self.rule.options(), "lr": self.schedule.rate(self.rule.name), "tau": self.tau},
            schedule=self.schedule.describe(),
            seed=self.seed,
            steps=steps,
            epoch_steps=epoch,
            checkpoints=checkpoint_steps(self.points, steps=steps, epoch_steps=epoch, in_epochs=in_epochs),
            trains_drawn_head=self.train_drawn_head,
            fit_head_steps=self.fit_batches if self.objective.head == "fitted" else 0,
            processes=processes,
            trainer={name: str(value) for name, value in sorted(trainer.items())},
        )
