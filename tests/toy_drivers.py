"""Drivers of the toy study in processes of their own, and what its ledger must hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import toy_study
from toy_study import orbit
from tunescope.study.folder import StudyFolder
from tunescope.study.ledger import read_ledger
from tunescope.study.status import status


def computed(given) -> dict[tuple[str, int], float]:
    """Run and step to value, by the map itself."""
    return {(each.hash, step): value for each in given for step, value in enumerate(orbit(each.seed, each.schedule["steps"]))}


def recorded(out) -> dict[tuple[str, int], float]:
    """The same from the ledger; fails on a row twice."""
    read = read_ledger(out)
    assert not read.duplicated(["run", "step"]).any()
    return {(run, step): value for run, step, value in read[["run", "step", "value"]].itertuples(index=False)}


def environment() -> dict[str, str]:
    here = os.pathsep.join([str(Path(toy_study.__file__).parent), *sys.path])
    return {**os.environ, "PYTHONPATH": here, "RAY_AUTH_MODE": "disabled"}


def begin(out, how: str, *options: str) -> subprocess.Popen:
    """A driver of the toy study, in a process of its own."""
    command = [sys.executable, toy_study.__file__, str(out), how, *options]
    _begun.append(subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    return _begun[-1]


_begun: list[subprocess.Popen] = []


def end_drivers() -> None:
    """Also those of a test that failed; their workers, and a Ray of their own, end with them."""
    while _begun:
        driver = _begun.pop()
        driver.kill()
        driver.wait()


def until(true, seconds: float = 60.0):
    """Wait for it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
    return found


def status_or_none(out):
    return status(StudyFolder.at(out)) if (Path(out) / "study.json").exists() else None


def alive(pid: int) -> bool:
    """Running, not only waiting to be taken note of."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
