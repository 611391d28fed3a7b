"""What the rows of a ledger say to hypotheses that were stated before: supported, falsified, an invalid window, or not evaluable."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tunescope.geometry.profile import locality
from tunescope.study.hypotheses import END, Hypothesis, Region, Selection

if TYPE_CHECKING:
    import pandas as pd

SUPPORTED, FALSIFIED, INVALID, NOT_EVALUABLE = "supported", "falsified", "invalid window", "not evaluable"
STATES = (SUPPORTED, FALSIFIED, INVALID, NOT_EVALUABLE)
Planned = Mapping[Selection, Mapping[str, str]]  # runs by hash, with their names
_AXES = ("measure", "subject", "model", "condition", "objective", "update", "data", "texts", "task", "side", "where", "layer")


@dataclass(frozen=True)
class Number:
    """One run's: what was asked for. low, high: its interval's ends, as far below and above as they are; None without one."""

    model: str
    seed: int
    value: float
    below: float | None = None
    above: float | None = None


@dataclass(frozen=True)
class Verdict:
    """state: of `STATES`. value: the mean over runs of what was asked for; numbers: of each run. window: the mean in the exclusion window.

    why: one line. predicted: what was expected, as it was sealed.
    """

    name: str
    says: str
    state: str
    why: str
    predicted: str
    value: float | None = None
    numbers: tuple[Number, ...] = ()
    window: float | None = None

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


class _Unfit(Exception):
    """Why there is no number."""


def verdict(hypothesis: Hypothesis, rows: pd.DataFrame, *, planned: Planned | None = None) -> Verdict:
    """Judge one hypothesis by the rows of a ledger.

    planned: runs that were registered for a selection; where one of them has no number there is no verdict. The window is
    looked at before the threshold is: outside it, what the threshold says is not a test.
    """
    try:
        on = _numbers(hypothesis.on, rows, planned)
        window = _window(hypothesis, rows, planned)
        minus = () if hypothesis.minus is None else _numbers(hypothesis.minus, rows, planned)
        found = on if hypothesis.minus is None else _paired(on, minus)
        state, why = _judged(hypothesis, found)
    except _Unfit as error:
        return Verdict(hypothesis.name, hypothesis.says, NOT_EVALUABLE, str(error), hypothesis.predicted)
    value = statistics.mean(number.value for number in found)
    if window is not None and hypothesis.window is not None and not hypothesis.window.least <= window <= hypothesis.window.most:
        within = f"{hypothesis.window.least:g} to {hypothesis.window.most:g}"
        why = f"{hypothesis.window.on.measure} is {window:.4g}, outside the window {within}; {why}, were it a test"
        state = INVALID
    return Verdict(hypothesis.name, hypothesis.says, state, why, hypothesis.predicted, value, found, window)


def verdicts(hypotheses: Iterable[Hypothesis], rows: pd.DataFrame, *, planned: Planned | None = None) -> tuple[Verdict, ...]:
    """All of them, in their order."""
    return tuple(verdict(hypothesis, rows, planned=planned) for hypothesis in hypotheses)


def _judged(hypothesis: Hypothesis, found: tuple[Number, ...]) -> tuple[str, str]:
    """The state, and the comparison that decided it."""
    supported, falsified = (_resolved(region, found) for region in (hypothesis.supported, hypothesis.falsified))
    assert supported is not None
    values = [number.value for number in found]
    told = f"{_said(hypothesis)} is {statistics.mean(values):.4g} over {len(values)} run{'' if len(values) == 1 else 's'}"
    if hypothesis.over == "mean":
        values = [statistics.mean(values)]
    elif len(values) > 1:
        told = f"{_said(hypothesis)} is {min(values):.4g} to {max(values):.4g} over {len(values)} runs, each of which counts"
    if falsified is not None and any(supported.holds(value) and falsified.holds(value) for value in values):
        return NOT_EVALUABLE, f"{told}: both {_bounds(hypothesis.supported, supported)} and {hypothesis.falsified}; one must decide"
    if all(supported.holds(value) for value in values):
        return SUPPORTED, f"{told}: {_bounds(hypothesis.supported, supported)}"
    against = [value for value in values if (not supported.holds(value) if falsified is None else falsified.holds(value))]
    if against:
        asked = hypothesis.falsified
        return FALSIFIED, f"{told}: {f'not {_bounds(hypothesis.supported, supported)}' if asked is None else _bounds(asked, falsified)}"
    return NOT_EVALUABLE, f"{told}: neither {hypothesis.supported} nor {hypothesis.falsified}, where no criterion decides"


def _said(hypothesis: Hypothesis) -> str:
    if hypothesis.minus is None:
        return str(hypothesis.on)
    return f"{hypothesis.on}, minus that of {hypothesis.minus.apart(hypothesis.on)},"


def _bounds(asked: Region, resolved: Region | None) -> str:
    """A region, with the ends the data gave where the data decide."""
    return str(asked) if asked.within is None or resolved is None else f"{asked} ({resolved.low:.4g} to {resolved.high:.4g})"


def _resolved(region: Region | None, found: tuple[Number, ...]) -> Region | None:
    """The interval of the base is as wide as the mean interval of the differences: no change lies in one exactly when the other has it."""
    if region is None or region.within is None:
        return region
    if any(number.below is None or number.above is None for number in found):
        raise _Unfit(f"the {region.within} is asked for, and not every row has an interval")
    return region.reaching(
        (statistics.mean(number.above or 0.0 for number in found), statistics.mean(number.below or 0.0 for number in found))
    )


def _window(hypothesis: Hypothesis, rows: pd.DataFrame, planned: Planned | None) -> float | None:
    if hypothesis.window is None:
        return None
    return statistics.mean(number.value for number in _numbers(hypothesis.window.on, rows, planned))


def _paired(on: tuple[Number, ...], minus: tuple[Number, ...]) -> tuple[Number, ...]:
    """Differences seed by seed."""
    left, right = ({number.seed: number for number in numbers} for numbers in (on, minus))
    if len(left) < len(on) or len(right) < len(minus) or left.keys() != right.keys():
        raise _Unfit("the two sides of the difference do not have the same seeds, one run each")
    return tuple(Number(left[seed].model, seed, left[seed].value - right[seed].value) for seed in sorted(left))


def _numbers(selection: Selection, rows: pd.DataFrame, planned: Planned | None) -> tuple[Number, ...]:
    """One number a run. Raises _Unfit: none, several, or a registered run without."""
    chosen = rows
    for axis in _AXES:
        asked = getattr(selection, axis)
        if asked is not None:
            chosen = chosen[chosen[axis] == asked]
    if selection.subject == "outcome" and selection.where is None and selection.layer is None:  # of the output, not of a layer's probe
        chosen = chosen[chosen["layer"].isna() & (chosen["where"].isna() | (chosen["where"] == "output"))]
    chosen = _at(selection, chosen, rows)
    wanted = {} if planned is None else planned.get(selection, {})
    missing = sorted(name for run, name in wanted.items() if run not in set(chosen["run"]))
    if missing:
        these = ", ".join(missing[:3])
        raise _Unfit(f"{selection}: {len(missing)} of {len(wanted)} registered runs have no such row ({these})")
    if chosen.empty:
        raise _Unfit(f"{selection}: no row of the ledger has it")
    _one_run_a_seed(selection, chosen)
    runs = chosen.assign(seed=chosen["seed"].fillna(0)).groupby(["model", "seed", "run"], sort=True)
    return tuple(_number(selection, str(model), int(seed), part) for (model, seed, _), part in runs)


def _one_run_a_seed(selection: Selection, rows: pd.DataFrame) -> None:
    """Raises _Unfit where two runs have one condition, model and seed: one of them is not of this plan."""
    runs = rows[["condition", "model", "seed", "run"]].drop_duplicates()
    twice = runs[runs.duplicated(["condition", "model", "seed"])]
    if len(twice):
        name = f"'{twice.iloc[0]['condition']}' of {twice.iloc[0]['model']} seed {twice.iloc[0]['seed']}"
        raise _Unfit(f"{selection}: two runs are called {name}, of other specs; judge each plan's in a folder of its own")


def _at(selection: Selection, rows: pd.DataFrame, every: pd.DataFrame) -> pd.DataFrame:
    """The rows of one checkpoint; the last one is that of the run and subject, whatever of it was measured there. every: the ledger."""
    if selection.at == END:
        steps = every[every["subject"] == selection.subject].groupby("run")["step"].max()
        return rows[rows["step"].isna() | (rows["step"] == rows["run"].map(steps))]
    apart = (rows["epoch"] - float(selection.at)).abs()
    # a checkpoint lies at a whole step, half of one from the epoch at most
    apart = apart.where(apart <= rows["epoch"] / rows["step"] / 2 + 1e-9)
    return rows[apart == apart.groupby(rows["run"]).transform("min")]


def _number(selection: Selection, model: str, seed: int, rows: pd.DataFrame) -> Number:
    if selection.number == "slope":
        return Number(model, seed, _slope(selection, rows))
    if len(rows) > 1:
        apart = [axis for axis in ("texts", "task", "side", "where", "layer") if rows[axis].nunique(dropna=False) > 1]
        raise _Unfit(f"{selection}: {len(rows)} rows a run, which differ in {', '.join(apart) or 'nothing'}; the plan must name one")
    row = rows.iloc[0]
    value = row[selection.number]
    if value is None or math.isnan(value):
        raise _Unfit(f"{selection}: the row of {model}, seed {seed}, has no {selection.number}")
    own = selection.number == ("change" if selection.subject == "outcome" else "value")  # the number that a row's interval is of
    low, high = (None if not own or math.isnan(row[end]) else float(row[end]) for end in ("low", "high"))
    value = float(value)
    return Number(model, seed, value) if low is None or high is None else Number(model, seed, value, value - low, high - value)


def _slope(selection: Selection, rows: pd.DataFrame) -> float:
    """Least squares of change on relative depth, blocks only: as `geometry.profile` reads every curve."""
    curve = rows[rows["depth"] > 0]
    lost = curve[curve["change"].isna()]
    if len(lost):
        raise _Unfit(f"{selection}: there is no change at {lost.iloc[0]['where']}, so there is no slope")
    if curve["depth"].duplicated().any():
        raise _Unfit(f"{selection}: several rows at one depth a run; the plan must name the texts")
    if len(curve) < 2:
        raise _Unfit(f"{selection}: {len(curve)} depths with a change, and a slope needs two")
    curve = curve.sort_values("depth")
    slope = locality(curve["depth"].tolist(), curve["change"].tolist()).slope
    if slope is None:
        raise _Unfit(f"{selection}: no slope can be read off its {len(curve)} depths")
    return slope
