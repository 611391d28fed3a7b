"""One process at a time runs a study: the driver's lock, which frees itself when its owner is killed."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunescope.errors import OutputError
from tunescope.study.folder import StudyFolder
from tunescope.study.places import refused

OWNER, LOCK = "driver.json", "driver.lock"
BEAT = 10.0  # seconds between two signs of life of an owner whose lock no system call can hold
STALE = 60.0  # seconds without one after which it is taken to be dead


@contextmanager
def driving(folder: StudyFolder, *, beat: float = BEAT, stale: float = STALE) -> Iterator[None]:
    """Hold the study against other drivers.

    On a disk the system holds the lock and frees it with the process, whatever ends it. Behind a URL the owner leaves a sign of life every
    `beat` seconds, and is taken to be dead after `stale`. Raises OutputError naming the owner.
    """
    folder.place.make_folder()
    local = folder.place.local
    with flocked(local / LOCK, wait=False) if local is not None else _leased(folder, beat, stale) as held:
        if not held:
            who = told(owner(folder))
            raise OutputError(f"{who} is running the study in '{folder.url}'; wait for it, or name another folder with --out")
        if local is not None:
            _sign(folder, _self())
        yield


def owner(folder: StudyFolder) -> dict[str, Any] | None:
    """Who drives the study, or did last; None where that was not told, or cannot be read any more."""
    try:
        read = json.loads((folder.place / OWNER).read() or b"null")
    except ValueError:
        return None
    return read if isinstance(read, dict) and {"host", "pid", "since", "seen"} <= read.keys() else None


def driven(folder: StudyFolder, *, stale: float = STALE) -> bool:
    """Whether somebody drives the study at this moment."""
    local = folder.place.local
    if local is None:
        return _alive(owner(folder), stale)
    if not (local / LOCK).exists():
        return False
    with flocked(local / LOCK, wait=False) as free:
        return not free


def told(who: dict[str, Any] | None) -> str:
    """For messages."""
    if who is None:
        return "another process"
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(who["since"]))
    return f"process {who['pid']} of {who['host']} (since {since})"


@contextmanager
def flocked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the file against other processes, where the system can (POSIX); says whether it is held."""
    try:
        import fcntl
    except ImportError:
        yield True
        return
    with refused(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield _taken(handle, fcntl.LOCK_EX) if wait else _soon(handle)
    finally:
        os.close(handle)


def _soon(handle: int) -> bool:
    """A reader of the status holds the lock for a moment, so one refusal is no refusal."""
    import fcntl

    for _ in range(5):
        if _taken(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return True
        time.sleep(0.02)
    return False


def _taken(handle: int, how: int) -> bool:
    import fcntl

    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    return True


def _self() -> dict[str, Any]:
    return {"host": platform.node(), "pid": os.getpid(), "since": time.time(), "token": uuid.uuid4().hex}


def _sign(folder: StudyFolder, who: dict[str, Any]) -> None:
    (folder.place / OWNER).write(json.dumps({**who, "seen": time.time()}).encode())


def _alive(who: dict[str, Any] | None, stale: float) -> bool:
    return who is not None and not who.get("gone") and time.time() - who["seen"] < stale


@contextmanager
def _leased(folder: StudyFolder, beat: float, stale: float) -> Iterator[bool]:
    """Storage without locks: the last who signed owns it; of two that sign at once, one reads the other's name and leaves."""
    mine = _self()
    if _alive(owner(folder), stale):
        yield False
        return
    _sign(folder, mine)
    time.sleep(min(1.0, beat / 10))
    if (owner(folder) or {}).get("token") != mine["token"]:
        yield False
        return
    over = threading.Event()

    def beating() -> None:
        while not over.wait(beat):
            _sign(folder, mine)

    heart = threading.Thread(target=beating, daemon=True)
    heart.start()
    try:
        yield True
    finally:
        over.set()
        heart.join()
        _sign(folder, {**mine, "gone": True})
