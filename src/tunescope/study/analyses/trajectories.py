"""A measure against an outcome while a model is tuned: do they rise and fall together, beyond both having a trend?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunescope.errors import InputError, NotEnoughRows
from tunescope.stats import Association, association
from tunescope.study.analyses.points import points
from tunescope.study.analyses.rows import grouped

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Trajectory:
    """One group's checkpoints. about: the names of the group. clock: "step" or "epoch".

    table: the clock, drift, gain and their sd over seeds (NaN for one), runs. association: of drift with gain over the checkpoints, and
    with the clock partialled out; None with the reason below four checkpoints.
    """

    about: dict[str, Any]
    clock: str
    table: pd.DataFrame
    association: Association | None
    reason: str | None = None


def trajectories(
    rows: pd.DataFrame,
    *,
    measure: str = "nps",
    task: str | None = None,
    outcome: str | None = None,
    texts: str | None = None,
    where: str | None = None,
    better: str = "higher",
    by: Sequence[str] = ("model", "condition"),
) -> tuple[Trajectory, ...]:
    """Per group its mean path over seeds, and how drift goes with gain along it; p-values count checkpoints as exchangeable, which
    neighbours on a path are not, so they are too small.

    A checkpoint is averaged over the seeds that have it; the clock is the step, or the epoch where some point has no step.

    Args and errors as `points`; InputError when a checkpoint has neither, NotEnoughRows when no group has two checkpoints.
    """
    found = points(rows, measure=measure, task=task, outcome=outcome, texts=texts, where=where, better=better, checkpoint="all")
    clock = "step" if found["step"].notna().all() else "epoch"
    if found[clock].isna().all():
        raise NotEnoughRows("no point has a step or an epoch, so there is no trajectory; measure at checkpoints")
    if found[clock].isna().any():
        raise InputError(f"{int(found[clock].isna().sum())} points have neither step nor epoch; choose the conditions with checkpoints")
    made = tuple(_trajectory(dict(zip(by, key, strict=True)), clock, group) for key, group in grouped(found, by))
    long = tuple(each for each in made if len(each.table) > 1)
    if not long:
        raise NotEnoughRows("no condition has more than one checkpoint, so there is no trajectory")
    return long


def _trajectory(about: dict[str, Any], clock: str, group: pd.DataFrame) -> Trajectory:
    numbers = group[[clock, "drift", "gain"]].astype("float64").groupby(clock, sort=True)
    table = numbers.mean().join(numbers.std().add_suffix("_sd")).assign(runs=numbers.size()).reset_index()
    if len(table) < 4:
        return Trajectory(about, clock, table, None, f"{len(table)} checkpoints; an association needs at least 4")
    x, y, at = (table[name].to_numpy() for name in ("drift", "gain", clock))
    return Trajectory(about, clock, table, association(x, y, at, covariate_name=clock))
