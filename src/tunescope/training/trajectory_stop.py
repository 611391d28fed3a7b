"""The rule that ends a run early, by an outcome and never by geometry, and the end it makes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunescope.errors import InputError
from tunescope.geometry import MEASURES
from tunescope.training.trajectory_file import GEOMETRY
from tunescope.training.trajectory_log import calling_trainer
from tunescope.training.trajectory_outcomes import Task

_RULE = re.compile(r"\s*(?P<of>[^\s].*?)\s*:\s*(?:(?P<worse>worse)|drop\s*>\s*(?P<drop>\d*\.?\d+))\s*")


@dataclass(frozen=True)
class StopRule:
    """When a run is to stop: an outcome, and a drop that is shown ("worse", by its paired verdict and beyond the margin) or of a size."""

    said: str
    task: str
    metric: str
    drop: float | None

    @classmethod
    def of(cls, said: str, tasks: dict[str, Task]) -> StopRule:
        """From "kind/name/metric: worse" or "kind/name/metric: drop>.02".

        Raises: InputError for what is no such rule, for a rule on geometry, and for an outcome that is not measured.
        """
        known = [f"{key}/{metric}" for key, task in tasks.items() for metric in task.metrics]
        asked = re.split(r"[/=<>:\s]", said.strip())
        if {"geometry", "trajectory"} & set(asked[:1]) or any(part in MEASURES for part in asked):
            raise InputError(
                f"stop='{said}' asked for; geometry says how far a model has moved and not whether that was good, so no run stops by it: "
                f"name an outcome, {_named(known)}"
            )
        match = _RULE.fullmatch(said)
        if match is None:
            raise InputError(f"stop='{said}' asked for; write 'kind/name/metric: worse' or 'kind/name/metric: drop>.02', {_named(known)}")
        if match["of"] not in known:
            raise InputError(f"stop='{said}' asked for, and '{match['of']}' is not measured; {_named(known)}")
        task, _, metric = match["of"].rpartition("/")
        return cls(said, task, metric, None if match["worse"] else float(match["drop"]))

    def met(self, row: Mapping[str, Any]) -> bool:
        """Whether this row of an outcome says stop."""
        if row["kind"] == GEOMETRY or (f"{row['kind']}/{row['name']}", row["metric"]) != (self.task, self.metric) or row["delta"] is None:
            return False
        lost = -row["delta"] if row["higher_is_better"] else row["delta"]
        return lost > self.drop if self.drop is not None else row["verdict"] == "worse" and lost > row["margin"]


def make_no_step() -> None:
    """Let the Trainer that is calling end where it stands. It asks whether to stop after a step only, never before the first one of a
    run that goes on; without a batch there is no step."""
    trainer = calling_trainer()
    if trainer is None:
        return

    def nothing(*_: Any, **__: Any) -> tuple[list[Any], None]:
        del trainer.get_batch_samples  # the class's own again
        return [], None

    trainer.get_batch_samples = nothing


def _named(known: Sequence[str]) -> str:
    return f"one of {', '.join(known)}" if known else "which needs retrieval=… or labels=…"
