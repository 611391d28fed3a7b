"""Folders that results are written to: whether one can be, and a lock that keeps a second writer out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tunescope.errors import OutputError


def writable_folder(folder: str | Path) -> Path:
    """The folder as a path, if it is one or could be made, and this user may write there; what it holds is not looked at.

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
    return path


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
