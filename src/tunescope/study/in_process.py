"""Runs made on this machine: one after the other in this very process, or by a number of processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from tunescope.errors import InputError
from tunescope.study.jobs import ANY, Resources
from tunescope.study.perform import Assignment, Ended, perform


@dataclass
class InProcess:
    """One after the other. resources: only the cores count here."""

    resources: Resources = ANY
    _given: list[Assignment] = field(default_factory=list)

    @property
    def threads(self) -> int | None:
        return self.resources.cpus

    def room(self) -> bool:
        return not self._given

    def submit(self, given: Assignment) -> None:
        self._given.append(given)

    def poll(self, seconds: float) -> Iterable[Ended]:
        while self._given:
            yield perform(self._given.pop())

    def close(self) -> None:
        self._given.clear()


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    run: str | None = None


@dataclass
class Processes:
    """`workers` processes that make one run after the other, each with its share of the cores. They end with this process."""

    workers: int
    resources: Resources = ANY
    _there: list[_Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InputError(f"{self.workers} workers asked for; give at least 1")

    @property
    def threads(self) -> int:
        return self.resources.cpus or max(1, (os.cpu_count() or 1) // self.workers)

    def room(self) -> bool:
        return sum(worker.run is not None for worker in self._there) < self.workers

    def submit(self, given: Assignment) -> None:
        self._there = [worker for worker in self._there if worker.run is not None or worker.process.is_alive()]
        idle = next((worker for worker in self._there if worker.run is None), None)
        worker = idle or self._begin()
        worker.run = given.run
        with suppress(OSError):  # it has just died, which `poll` finds
            worker.pipe.send(given)

    def poll(self, seconds: float) -> Iterable[Ended]:
        heard = wait([worker.pipe for worker in self._there if worker.run is not None], timeout=seconds)
        for worker in [each for each in self._there if each.pipe in heard]:
            run, worker.run = worker.run, None
            try:
                yield worker.pipe.recv()
            except (EOFError, OSError):
                worker.process.join()
                self._there.remove(worker)
                yield Ended(str(run), f"its process died ({_how(worker.process.exitcode)})", lost=True)

    def close(self) -> None:
        for worker in self._there:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._there.clear()

    def _begin(self) -> _Worker:
        context = multiprocessing.get_context("spawn")  # a forked copy of a process with threads or a GPU does not work
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there,), daemon=False)
        with _environment(OMP_NUM_THREADS=str(self.threads)):
            process.start()
        there.close()
        self._there.append(_Worker(process, here))
        return self._there[-1]


def serve(pipe: Connection) -> None:
    """A worker's life: make what comes through the pipe, until it is closed. Daemonic threads of a work do not hold it back."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            given = pipe.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        try:
            pipe.send(perform(given))
        except KeyboardInterrupt:
            return  # the driver hears it too, and says what is to be said


def _end_with_parent() -> None:
    """A driver that was killed leaves no worker behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _how(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Variables that are set for a process that is begun meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
