"""A study's runs, made by an executor: in order of need, retried, the failed ones reported and the rest finished."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from tunescope.errors import TunescopeError
from tunescope.study.driver_lock import driving
from tunescope.study.folder import PARQUET, StudyFolder
from tunescope.study.jobs import DONE, FAILED, QUEUED, RUNNING, Job, Work, doomed, jobs_of, only, ready
from tunescope.study.ledger import read_ledger, write_parquet
from tunescope.study.perform import Assignment, Ended
from tunescope.study.run_spec import RunSpec


class Executor(Protocol):
    """Where runs are made."""

    @property
    def threads(self) -> int | None:
        """Threads of a run; None leaves them as they are."""

    def room(self) -> bool:
        """Whether one more run may be submitted now."""

    def submit(self, given: Assignment) -> None: ...

    def poll(self, seconds: float) -> Iterable[Ended]:
        """What has ended, after at most about that long; a run made in this very process takes as long as it takes."""

    def close(self) -> None:
        """End what is still running."""


def execute(
    study: str,
    specs: Iterable[RunSpec],
    work: Work,
    executor: Executor,
    *,
    out: str | Path,
    retries: int = 1,
    conditions: Iterable[str] = (),
    scratch: str | Path | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> tuple[Job, ...]:
    """Make the runs that are not in the ledger of `out` yet; returns all jobs, done or failed.

    conditions: only these, and what they need. retries: further attempts of a run that failed; one whose process died is begun again beside
    these, at most `jobs.LOSSES` times. announce: gets a line when a run begins, ends or fails.
    Raises InputError for runs that cannot be; OutputError when the folder cannot be used or another process is running the study.
    """
    specs = tuple(specs)
    every = jobs_of(specs)
    conditions = tuple(conditions)
    jobs = jobs_of(only(specs, conditions)) if conditions else dict(every)
    folder = StudyFolder.at(out, scratch=scratch)
    try:
        with driving(folder):
            folder.open(study, every.values())
            _settle(folder, jobs, announce)
            ended = False
            try:
                _loop(folder, jobs, executor, retries, announce, lambda job: _assignment(job, study, folder, work, executor))
                ended = True
            finally:
                executor.close()
                _requeue(folder, jobs)
                with nullcontext() if ended else suppress(TunescopeError):  # an interrupt is what the caller must hear of
                    write_parquet(read_ledger(folder.url), (folder.place / PARQUET).url)
    finally:
        executor.close()
    return tuple(jobs.values())


def _settle(folder: StudyFolder, jobs: dict[str, Job], announce: Callable[[str], None]) -> None:
    """What the ledger has is done; what an earlier driver left running or failed waits again."""
    for run in folder.mend():
        announce(f"the rows of run {run[:12]} were cut short or changed; it is done again")
    finished = folder.finished()
    begun = folder.begun()
    for run, job in jobs.items():
        if run in finished:
            jobs[run] = replace(job, state=DONE)
        elif run in begun:
            _tell(folder, job)
    if done := sum(job.state == DONE for job in jobs.values()):
        announce(f"{done} of {len(jobs)} runs are done already")


def _loop(
    folder: StudyFolder,
    jobs: dict[str, Job],
    executor: Executor,
    retries: int,
    announce: Callable[[str], None],
    assignment: Callable[[Job], Assignment],
) -> None:
    while any(job.state in (QUEUED, RUNNING) for job in jobs.values()):
        for job in doomed(jobs):
            jobs[job.run] = job
            _tell(folder, job)
            announce(f"failed   {job.name}: {job.errors[-1]}")
        for job in ready(jobs):
            if executor.room():
                jobs[job.run] = replace(job, state=RUNNING)
                executor.submit(assignment(job))
        for ended in executor.poll(0.2):
            _end(folder, jobs, ended, retries, announce)


def _end(folder: StudyFolder, jobs: dict[str, Job], ended: Ended, retries: int, announce: Callable[[str], None]) -> None:
    """The ledger is believed before the executor: a process may die after its rows are in place."""
    error = ended.error if ended.error is None or ended.run not in folder.finished() else None
    job = jobs[ended.run] = jobs[ended.run].ended(error, lost=ended.lost, retries=retries)
    over = sum(each.state in (DONE, FAILED) for each in jobs.values())
    if job.state == DONE:
        announce(f"done     {job.name}, {over} of {len(jobs)}")
        return
    _tell(folder, job, ended.trace)
    announce(f"{'again' if job.state == QUEUED else 'failed':<8} {job.name}: {job.errors[-1]}")


def _tell(folder: StudyFolder, job: Job, trace: str | None = None) -> None:
    """A state that the run's own process does not tell; how far it came is kept."""
    before = folder.state(job.run) or {}
    kept: dict[str, Any] = {name: before[name] for name in ("step", "steps", "what", "seconds") if name in before}
    kept |= {"trace": trace} if trace else {}
    folder.write_state(job.run, {**kept, "state": job.state, "errors": list(job.errors)})


def _requeue(folder: StudyFolder, jobs: dict[str, Job]) -> None:
    """What was running when the driver was interrupted waits for the next one."""
    for job in jobs.values():
        if job.state == RUNNING and job.run not in folder.finished():
            _tell(folder, replace(job, state=QUEUED))


def _assignment(job: Job, study: str, folder: StudyFolder, work: Work, executor: Executor) -> Assignment:
    return Assignment(job.run, job.spec, study, folder, work, job.errors, executor.threads)
