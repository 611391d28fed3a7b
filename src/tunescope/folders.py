"""Folders that results are written to: whether one can be, and a lock that keeps a second writer out."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from tunescope.errors import OutputError, TunescopeError

DRAFT = ".tunescope-draft-"  # what a folder of ours that is still being written is called, up to a random ending


def writable_folder(folder: str | Path) -> Path:
    """The folder as a path, if it is one or could be made, and something can be written there, which is tried; what it
    holds is not looked at.

    Raises: OutputError, saying what is in the way.
    """
    try:
        path = Path(folder)
        if path.is_symlink() and not path.exists():
            raise OutputError(f"cannot write to '{folder}': it is a link to nowhere; name another folder with --out")
        if path.exists() and not path.is_dir():
            raise OutputError(f"cannot write to '{folder}': it is a file; name a folder with --out")
        ancestor = path.absolute()
        while not ancestor.exists():
            ancestor = ancestor.parent
    except (OSError, ValueError) as error:
        if isinstance(error, OutputError):
            raise
        said = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write to '{folder}': {said}; name another folder with --out") from error
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to '{folder}': no permission in '{ancestor}'; name another folder with --out")
    _try(ancestor, asked=folder)
    return path


def _try(ancestor: Path, *, asked: str | Path) -> None:
    """Make a folder there and take it away again: permissions do not tell of a disk that is full or read-only, or of /proc."""
    try:
        os.rmdir(tempfile.mkdtemp(prefix=DRAFT, dir=ancestor))
    except OSError as error:
        said = error.strerror or error
        raise OutputError(f"cannot write to '{asked}': no folder can be made in '{ancestor}' ({said}); name another with --out") from error


def missing_folders(path: Path) -> list[Path]:
    """The folder and those above it that are yet to be made, deepest first."""
    return [folder for folder in (path.absolute(), *path.absolute().parents) if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Take away those of the folders, deepest first, that are there and hold nothing."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the folder against other processes, where the system can (POSIX). Raises BlockingIOError when not waiting and taken."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextmanager
def drafted(path: Path, move_in: Callable[[Path, Path], None], *, asked: str | Path) -> Iterator[Path]:
    """A draft folder inside `path` that `move_in(draft, path)` puts in place when the block ends well, and that vanishes otherwise.

    Two savers of one folder take turns: the last one's result stands, whole. asked: the folder as typed, for messages.

    Raises: OutputError.
    """
    made = missing_folders(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=path))
        try:
            with locked(draft):
                yield draft
                with _uninterrupted(), locked(path):
                    _clear_drafts(path, but=draft)
                    move_in(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to '{asked}': {error.strerror or error}; name another folder with --out") from error
    finally:
        remove_empty(made)


def _clear_drafts(path: Path, *, but: Path) -> None:
    """Drafts whose process is gone (kill -9 leaves them behind): their lock is free."""
    for left in path.glob(f"{DRAFT}*"):
        if left.name != but.name:
            try:
                with locked(left, wait=False):
                    shutil.rmtree(left, ignore_errors=True)
            except OSError:
                continue  # somebody is still writing it, or has just moved it


class Resumable(Protocol):
    """What is written piece by piece and outlives a killed process."""

    finished: bool

    def discard(self) -> None: ...


Piecewise = TypeVar("Piecewise", bound=Resumable)


def draft_folder(target: Path) -> Path:
    """Where the draft of what will be `target` lies: beside it, hidden."""
    whole = target.resolve()
    return whole.with_name(f".{whole.name}.tunescope-draft")


@contextmanager
def resumable(target: Path, open_in: Callable[[Path], Piecewise], *, what: str) -> Iterator[Piecewise]:
    """What `open_in` makes of the draft folder of `target`, held against other processes. It goes when an error of ours says that it cannot
    be made; it stays after everything else, to be gone on with. what: what is being written, for messages.

    Raises: OutputError.
    """
    folder, made = draft_folder(target), missing_folders(target.resolve().parent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, wait=False):
            draft = open_in(folder)
            try:
                yield draft
            except TunescopeError:
                if not draft.finished:
                    draft.discard()
                raise
    except OutputError:
        raise
    except BlockingIOError as error:
        raise OutputError(f"another process is writing a {what} to '{target}'; wait for it, or name another folder with --out") from error
    except OSError as error:
        kept = f"; what is done is kept in '{folder}', and the same call goes on from there" if folder.exists() else ""
        raise OutputError(f"cannot write to '{target}': {error.strerror or error}{kept}") from error
    finally:
        remove_empty(made)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back for the moment in which files change places."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[bool] = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            signal.raise_signal(signal.SIGINT)


def write_whole(path: Path, text: str) -> None:
    """The text under that name, or what was there before; never a part of it."""
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
