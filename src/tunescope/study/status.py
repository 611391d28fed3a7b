"""How far a study is, read from its files alone, so that any terminal, and any host that sees the folder, can tell."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from tunescope.study.driver_lock import driven, owner, told
from tunescope.study.folder import StudyFolder
from tunescope.study.jobs import DONE, FAILED, QUEUED, RUNNING


@dataclass(frozen=True)
class RunStatus:
    """One run. step, steps, what: what its work last told. seconds: spent, over all attempts. eta_s: until it is done, if that can be told.

    errors: of its attempts so far; the last is why it failed. needs: runs it waits for.
    """

    run: str
    name: str
    kind: str
    state: str
    step: int = 0
    steps: int = 0
    what: str = ""
    seconds: float = 0.0
    eta_s: float | None = None
    errors: tuple[str, ...] = ()
    host: str | None = None
    pid: int | None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyStatus:
    """All runs of a study, in the plan's order. driver: who is running it at this moment, None for nobody."""

    study: str
    driver: str | None
    runs: tuple[RunStatus, ...]
    eta_s: float | None

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(run.state for run in self.runs)
        return {state: found[state] for state in (QUEUED, RUNNING, DONE, FAILED)}

    def of(self, state: str) -> tuple[RunStatus, ...]:
        """The runs in that state."""
        return tuple(run for run in self.runs if run.state == state)

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return {"schema": "tunescope.status/1", **asdict(self), "counts": self.counts}


def status(folder: StudyFolder) -> StudyStatus:
    """Read the study's files. Raises OutputError where there is no study."""
    record = folder.record() or {}
    finished, begun, at_work = folder.finished(), folder.begun(), driven(folder)
    now = time.time()
    runs = []
    for listed in record["runs"]:
        state = (folder.state(listed["run"]) if listed["run"] in begun else None) or {}
        runs.append(_run(listed, state, listed["run"] in finished, at_work, now))
    return StudyStatus(record["study"], told(owner(folder)) if at_work else None, tuple(runs), _eta(runs))


def _run(listed: dict[str, Any], state: dict[str, Any], finished: bool, at_work: bool, now: float) -> RunStatus:
    """The ledger says what is finished; a run nobody drives any more is queued."""
    said = state.get("state", QUEUED)
    now_is = DONE if finished else QUEUED if said in (DONE, RUNNING) and not (at_work and said == RUNNING) else said
    running = now_is == RUNNING
    return RunStatus(
        run=listed["run"],
        name=f"{listed['condition']} {listed['model']} seed {listed['seed']}",
        kind=listed["kind"],
        state=now_is,
        step=state.get("step", 0),
        steps=state.get("steps", 0),
        what=state.get("what", "") if running else "",
        seconds=state.get("spent", 0.0) + now - state["begun"] if running else state.get("seconds", 0.0),
        eta_s=_left(state, now) if running else None,
        errors=tuple(state.get("errors", ())),
        host=state.get("host") if running else None,
        pid=state.get("pid") if running else None,
        needs=tuple(listed["needs"]),
    )


def _left(state: dict[str, Any], now: float) -> float | None:
    """Seconds until a running run is done, at the pace of its present attempt."""
    first = state.get("first")
    if first is None or state["step"] <= first["step"]:
        return None
    pace = (state["told"] - first["at"]) / (state["step"] - first["step"])
    return max(0.0, pace * (state["steps"] - state["step"]) - (now - state["told"]))


def _eta(runs: Iterable[RunStatus]) -> float | None:
    """Seconds until the study is done: what is left, at the usual time of a run of the kind, over as many at once as run now."""
    runs = tuple(runs)
    running = [run for run in runs if run.state == RUNNING]
    usual = _usual(runs)
    if not running or not usual:
        return None
    left = [_remaining(run, usual) for run in runs if run.state in (QUEUED, RUNNING)]
    return max(max(run.eta_s or 0.0 for run in running), sum(left) / len(running))


def _usual(runs: Iterable[RunStatus]) -> dict[str, float]:
    """Mean seconds of a run by its kind, of those that are done and of those that can tell when they will be; "" is of any kind."""
    spent: dict[str, list[float]] = {}
    for run in runs:
        whole = run.seconds if run.state == DONE else run.seconds + run.eta_s if run.eta_s is not None else 0.0
        for kind in (run.kind, "") if whole else ():
            spent.setdefault(kind, []).append(whole)
    return {kind: statistics.fmean(seconds) for kind, seconds in spent.items()}


def _remaining(run: RunStatus, usual: dict[str, float]) -> float:
    """Seconds of one run; a kind of which nothing is known yet takes as long as the others."""
    if run.eta_s is not None:
        return run.eta_s
    return max(0.0, usual.get(run.kind, usual[""]) - (run.seconds if run.state == RUNNING else 0.0))
