"""One run, made wherever an executor puts it: the work, its rows checked and completed, and the ledger's file put in place last."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from threadpoolctl import threadpool_limits

from tunescope.errors import FormatError, InputError, OutputError
from tunescope.study.driver_lock import flocked
from tunescope.study.folder import STATES, StudyFolder
from tunescope.study.jobs import DONE, RUNNING, Work
from tunescope.study.ledger_lines import lines
from tunescope.study.peak import peak_mb, reset_peak
from tunescope.study.row import Row
from tunescope.study.run_spec import RunSpec

QUIET = 0.5  # seconds between two things told of a run, on a disk
QUIET_FAR = 5.0  # and behind a URL


@dataclass(frozen=True)
class Assignment:
    """A run to be made, as it travels to the process that makes it. errors: of earlier attempts. threads: None leaves them as they are."""

    run: str
    spec: RunSpec
    study: str
    folder: StudyFolder
    work: Work
    errors: tuple[str, ...] = ()
    threads: int | None = None


@dataclass(frozen=True)
class Ended:
    """An attempt that is over. error: one line, None when the rows are in the ledger. trace: where it was raised.

    lost: the process died, of which the run may know nothing.
    """

    run: str
    error: str | None = None
    trace: str | None = None
    lost: bool = False


def perform(given: Assignment) -> Ended:
    """Make the run unless its rows are there. Whatever a work raises is an error of its run, and the others go on.

    Two processes never work in one folder: a second one waits, then finds the rows.
    """
    local = given.folder.place.local
    try:
        if given.folder.record(missing_ok=True) is None:
            here = f"'{given.folder.url}' is not there on host {platform.node()}"
            raise OutputError(f"{here}; a study of several hosts needs a folder they share")
        lock = flocked(local / STATES / f".{given.run}.lock", wait=True) if local is not None else nullcontext(True)
        with lock, _threads(given.threads):
            if given.run not in given.folder.finished():
                _make(given)
    except (Exception, SystemExit) as error:  # a work may raise anything, and an interrupt is none of its own
        said = " ".join(_printable(str(error)).split())
        return Ended(given.run, f"{type(error).__name__}: {said}" if said else type(error).__name__, _printable(traceback.format_exc()))
    return Ended(given.run)


def _printable(said: str) -> str:
    """Half a surrogate pair, as of a file's name that is not UTF-8, can be neither printed nor stored."""
    return said.encode(errors="backslashreplace").decode()


def _make(given: Assignment) -> None:
    story = _Story(given)
    folder = given.folder.bring(given.run, given.spec.needs)
    reset_peak()
    rows = list(given.work(given.spec, folder, story.tell))
    content = lines(_completed(given, rows, story.seconds, peak_mb()))
    given.folder.keep(given.run)
    given.folder.rows_of(given.run).write(content)
    story.finish(len(rows), content)


def _completed(given: Assignment, rows: Iterable[Row], seconds: float, peak: float) -> Iterator[Row]:
    """With what the work need not know: the study, and what the run cost. Raises InputError for a row of another run."""
    for row in rows:
        if not isinstance(row, Row):
            raise InputError(f"the work gave {type(row).__name__} where a Row belongs")
        if row.run != given.run:
            raise InputError(f"the work of run {given.run[:12]} gave a row of run {row.run[:12]}")
        wall_s = row.wall_s if row.wall_s is not None else round(seconds, 3)
        yield replace(row, study=given.study, wall_s=wall_s, peak_mb=row.peak_mb if row.peak_mb is not None else round(peak, 1))


class _Story:
    """What is told of a run while it is made, so that another terminal can read it."""

    def __init__(self, given: Assignment):
        before = self._before(given)
        self._given = given
        self._begun = time.time()
        self._content: dict[str, Any] = {
            "state": RUNNING, "errors": list(given.errors), "host": platform.node(), "pid": os.getpid(), "begun": self._begun,
            "spent": before.get("seconds", 0.0), "step": before.get("step", 0), "steps": before.get("steps", 0), "what": "loading",
        }  # fmt: skip
        self._quiet = QUIET if given.folder.place.local is not None else QUIET_FAR
        self._next = 0.0
        self._write()

    @staticmethod
    def _before(given: Assignment) -> dict[str, Any]:
        """What the attempt before told; a file that cannot be read costs the run nothing but its time."""
        try:
            return given.folder.state(given.run) or {}
        except FormatError:
            return {}

    @property
    def seconds(self) -> float:
        """Of all attempts."""
        return self._content["spent"] + time.time() - self._begun

    def tell(self, step: int, steps: int, what: str) -> None:
        first = "first" not in self._content
        if first:  # a resumed run does not begin at 0: what is left is estimated from here
            self._content["first"] = {"step": step, "at": time.time()}
        new = what != self._content["what"]
        self._content |= {"step": step, "steps": steps, "what": what}
        if first or new or time.monotonic() >= self._next:
            self._write()

    def finish(self, rows: int, content: bytes) -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        self._content |= {"state": DONE, "rows": rows, "bytes": len(content), "sha256": sha256}
        self._write()

    def _write(self) -> None:
        self._content["seconds"] = self.seconds
        self._given.folder.write_state(self._given.run, self._content)
        self._next = time.monotonic() + self._quiet


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Keep arithmetic to that many threads: sums of floats depend on it, so the same count gives the same records."""
    if count is None:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(count)  # read when torch is loaded, which may be later
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    if torch:
        torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        if torch:
            torch.set_num_threads(before)
