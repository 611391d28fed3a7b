"""The runs of a study as jobs: queued, running, done or failed, each waiting for those it needs."""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tunescope.errors import InputError, UnknownName
from tunescope.study.row import Row
from tunescope.study.run_spec import RunSpec

QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"
LOSSES = 3  # how often a run whose process died is begun again, beside the retries of runs that fail


class Tell(Protocol):
    """How far a run is: step of steps, and what is being done."""

    def __call__(self, step: int, steps: int, what: str) -> None: ...


# How a run is made. The folder is its own and kept between attempts, so that a work that was killed goes on from what it left there; the
# folders of the runs it needs lie beside it, under their hashes. study, wall_s and peak_mb of the rows are filled in.
Work = Callable[[RunSpec, Path, Tell], Iterable[Row]]


@dataclass(frozen=True)
class Resources:
    """What a run takes. cpus: cores, also its threads; None for all there are, shared among the workers. memory: MB."""

    cpus: int | None = None
    gpus: float = 0.0
    memory: float | None = None

    def __post_init__(self) -> None:
        if (self.cpus is not None and self.cpus < 1) or self.gpus < 0 or (self.memory is not None and self.memory <= 0):
            raise InputError(f"a run with {self} asked for; give at least one core, and no negative amounts")


ANY = Resources()


@dataclass(frozen=True)
class Job:
    """A run and how far it is. run: the hash of its spec. errors: of its attempts, one line each. lost: attempts whose process died."""

    run: str
    spec: RunSpec
    state: str = QUEUED
    errors: tuple[str, ...] = ()
    lost: int = 0

    @property
    def name(self) -> str:
        return run_name(self.spec)

    def ended(self, error: str | None, *, lost: bool = False, retries: int = 0) -> Job:
        """The job after an attempt: done, queued again, or failed."""
        if error is None:
            return replace(self, state=DONE)
        after = replace(self, errors=(*self.errors, error), lost=self.lost + lost)
        again = after.lost <= LOSSES if lost else len(after.errors) - after.lost <= retries
        return replace(after, state=QUEUED if again else FAILED)


def run_name(spec: RunSpec) -> str:
    """As a reader calls it."""
    return f"{spec.condition} {spec.model.name} seed {spec.seed}"


def jobs_of(specs: Iterable[RunSpec]) -> dict[str, Job]:
    """Each run's job by its hash, in the plan's order.

    Raises InputError where two specs are one run, a run needs one that is not among them, or runs wait for each other.
    """
    jobs: dict[str, Job] = {}
    for spec in specs:
        job = Job(spec.hash, spec)
        if job.run in jobs:
            both = f"'{jobs[job.run].name}' and '{job.name}'"
            raise InputError(f"{both} are the same run ({job.run[:12]}) by two names; leave one out of the plan")
        jobs[job.run] = job
    for job in jobs.values():
        missing = next((need for need in job.spec.needs if need not in jobs), None)
        if missing is not None:
            raise InputError(f"'{job.name}' needs run {missing[:12]}, which is not in the plan; add it")
    try:
        graphlib.TopologicalSorter({job.run: job.spec.needs for job in jobs.values()}).prepare()
    except graphlib.CycleError as error:
        raise InputError(f"these runs wait for each other: {', '.join(jobs[run].name for run in error.args[1])}") from error
    return jobs


def only(specs: Iterable[RunSpec], conditions: Iterable[str]) -> tuple[RunSpec, ...]:
    """Those of the conditions, and what they need. Raises UnknownName."""
    specs = tuple(specs)
    conditions = tuple(conditions)
    known = {spec.condition for spec in specs}
    for condition in conditions:
        if condition not in known:
            raise UnknownName("condition", condition, known)
    by_hash = {spec.hash: spec for spec in specs}
    wanted = [run for run, spec in by_hash.items() if spec.condition in conditions]
    kept = set(wanted)
    while wanted:
        needed = [need for need in by_hash[wanted.pop()].needs if need in by_hash and need not in kept]
        kept.update(needed)
        wanted.extend(needed)
    return tuple(spec for run, spec in by_hash.items() if run in kept)


def ready(jobs: Mapping[str, Job]) -> list[Job]:
    """Queued, and all it needs is done."""
    return [job for job in jobs.values() if job.state == QUEUED and all(jobs[need].state == DONE for need in job.spec.needs)]


def doomed(jobs: Mapping[str, Job]) -> list[Job]:
    """Queued jobs that cannot be done any more, failed and with the reason."""
    found = []
    for job in jobs.values():
        need = next((jobs[need] for need in job.spec.needs if jobs[need].state == FAILED), None)
        if job.state == QUEUED and need is not None:
            found.append(replace(job, state=FAILED, errors=(*job.errors, f"it needs '{need.name}', which failed")))
    return found
