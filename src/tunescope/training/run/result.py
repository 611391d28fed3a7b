"""A run that was made, in memory or read from its folder."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import InputError, NotEnoughRows
from tunescope.models import Model, load_model
from tunescope.training.run.folder import LOSSES, STEPS, TRAJECTORY, RunFolder
from tunescope.training.step_sizes import MOVED

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A model that was moved by an objective under an update rule, and how that went.

    model: as the run left it. record: what run.json says. loss_rows, step_rows: a row a step, and a row a step and group of tensors.
    trajectory_rows: a row a number that was measured on the way. folder: None for a run that was kept in memory.
    """

    model: Model
    record: dict[str, Any]
    loss_rows: list[dict[str, Any]]
    step_rows: list[dict[str, Any]]
    trajectory_rows: list[dict[str, Any]]
    folder: Path | None = None

    def __repr__(self) -> str:
        name, rule = self.record["objective"]["name"], self.record["update"]["rule"]
        where = f" in '{self.folder}'" if self.folder else ", kept in memory"
        return f"<Run: {self.record['spec']['steps']:,} steps of {name} by {rule} from {self.record['base']['name']}{where}>"

    @property
    def losses(self) -> pandas.DataFrame:
        """step, epoch, loss, learning_rate, gradient_norm, and what the objective says beside."""
        import pandas

        return pandas.DataFrame(self.loss_rows)

    @property
    def steps(self) -> pandas.DataFrame:
        """step, group, ratio |Δ|/|W| before any rescaling, weight |W|, gradient norm, agreement, state."""
        import pandas

        return pandas.DataFrame(self.step_rows)

    @property
    def trajectory(self) -> pandas.DataFrame:
        """The distance from the start and the outcomes at every checkpoint, as `ts.read_trajectory` has them; empty without any."""
        import pandas

        return pandas.DataFrame(self.trajectory_rows)

    @property
    def tau(self) -> float:
        """The median relative step over groups and steps: the size of an equal step of a paired run. Raises NotEnoughRows."""
        return median_step(self.step_rows, name=str(self.folder or self.model.name))

    @property
    def checkpoints(self) -> list[int]:
        """The steps whose models are in the folder."""
        return [each["step"] for each in self.record["checkpoints"]]

    def checkpoint(self, step: int) -> Model:
        """The model as it was after that step. Raises InputError when it was not kept."""
        if self.folder is None or step not in self.checkpoints:
            kept = ", ".join(map(str, self.checkpoints)) if self.folder else "none: give the run a folder (out)"
            raise InputError(f"the model of step {step} was not kept; kept: {kept}")
        return load_model(str(RunFolder(self.folder).checkpoint(step)))


def load_run(folder: str | Path) -> Run:
    """A finished run from its folder. Raises InputError (no run there, or one that is not finished), FormatError, ModelError."""
    found = RunFolder.of(folder)
    record = found.record()
    if not record["finished"]:
        raise InputError(f"the run in '{folder}' is not finished; go on with tunescope tune … --resume")
    return Run(load_model(str(folder)), record, found.rows(LOSSES), found.rows(STEPS), found.rows(TRAJECTORY), Path(folder))


def read_tau(folder: str | Path) -> float:
    """τ of a paired run, from its steps. Raises as `load_run`, and NotEnoughRows when nothing moved."""
    return median_step(RunFolder.of(folder).rows(STEPS), name=str(folder))


def median_step(rows: list[dict[str, Any]], *, name: str) -> float:
    """The median relative step over groups and steps that moved. Raises NotEnoughRows."""
    ratios = [row["ratio"] for row in rows if row["state"] == MOVED]
    if not ratios:
        raise NotEnoughRows(f"τ is the median step of a paired run, and nothing moved in '{name}'; give another run, or a number")
    return statistics.median(ratios)
