"""The size of an equal step: from the steps of a paired run, or found by bisection."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunescope.errors import Degenerate, InputError, NotEnoughRows
from tunescope.training.run.result import Run, read_tau
from tunescope.training.step_sizes import StepLog

_DOUBLINGS = 20  # of the first guess, before the target is given up


@dataclass(frozen=True)
class Bisected:
    """τ found by bisection: the movement it makes, the target, and every run that was made, as (τ, movement)."""

    tau: float
    movement: float
    target: float
    runs: tuple[tuple[float, float], ...]


def tau_from(log: StepLog | Run | str | Path) -> float:
    """The median relative step r over groups and steps of a (paired, uniform) run; steps without a ratio are left out.

    log: of a `ts.StepSizes`, a Run, or the folder of a run.

    Raises: InputError (no run there), NotEnoughRows when nothing moved.
    """
    if isinstance(log, str | Path):
        return read_tau(log)
    if isinstance(log, Run):
        return log.tau
    if not isinstance(log, StepLog):
        raise InputError(f"tau_from reads the log of a StepSizes, a Run or the folder of a run; got a {type(log).__name__}")
    ratios = log.ratios()
    if not ratios:
        raise NotEnoughRows(f"τ is the median step of a paired run, and nothing moved in the {len(log)} steps of this log; train first")
    return statistics.median(ratios)


def bisect_tau(
    run: Callable[[float], float], target: float, *, start: float = 5e-4, tolerance: float = 0.05, max_runs: int = 30
) -> Bisected:
    """The τ at which `run(τ)`, the movement of a whole run, is within `tolerance` of `target`, relative.

    Doubles or halves `start` until the target lies between two runs, then bisects log τ. The movement must grow with τ.

    Raises: InputError (a target, start or tolerance that is not above 0), Degenerate (never between two runs, or a movement that falls as
    τ grows, or no answer within `max_runs`).
    """
    for name, value in (("target", target), ("start", start), ("tolerance", tolerance)):
        if not 0 < value < math.inf:
            raise InputError(f"bisect_tau needs a {name} above 0, got {value}")
    runs: list[tuple[float, float]] = []

    def close(tau: float) -> bool:
        runs.append((tau, float(run(tau))))
        return abs(runs[-1][1] / target - 1) <= tolerance

    if close(start):
        return Bisected(*runs[-1], target, tuple(runs))
    grow = 2.0 if runs[-1][1] < target else 0.5
    while (runs[-1][1] < target) == (grow > 1):
        if len(runs) > min(_DOUBLINGS, max_runs):
            raise Degenerate(f"a movement of {target:g} was not reached: τ = {runs[-1][0]:.3g} gives {runs[-1][1]:.3g} (saturated?)")
        if close(runs[-1][0] * grow):
            return Bisected(*runs[-1], target, tuple(runs))
    low, high = sorted(runs[-2:])
    while len(runs) < max_runs:
        if low[1] > high[1]:
            raise Degenerate(f"the movement falls from {low[1]:.3g} to {high[1]:.3g} as τ grows from {low[0]:.3g} to {high[0]:.3g}")
        if close(math.sqrt(low[0] * high[0])):
            return Bisected(*runs[-1], target, tuple(runs))
        low, high = (runs[-1], high) if runs[-1][1] < target else (low, runs[-1])
    raise Degenerate(f"no τ within {tolerance:.0%} of a movement of {target:g} in {max_runs} runs; the last was {runs[-1][1]:.3g}")
