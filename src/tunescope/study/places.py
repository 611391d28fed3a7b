"""A path or fsspec URL that things are written to whole: on a disk by a rename after fsync, elsewhere as the storage does it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tunescope.errors import OutputError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


@dataclass(frozen=True)
class Place:
    """A file or folder; `url` may be a path."""

    url: str

    @cached_property
    def _there(self) -> tuple[AbstractFileSystem, str]:
        import fsspec

        files, path = fsspec.core.url_to_fs(self.url)
        return files, path

    def __getstate__(self) -> dict[str, str]:
        """Only the URL goes to another process: an open file system does not travel."""
        return {"url": self.url}

    def __setstate__(self, state: dict[str, str]) -> None:
        object.__setattr__(self, "url", state["url"])

    @property
    def local(self) -> Path | None:
        """As a path of this machine's, where it is one."""
        from fsspec.implementations.local import LocalFileSystem

        files, path = self._there
        return Path(path) if isinstance(files, LocalFileSystem) else None

    def __truediv__(self, name: str) -> Place:
        return Place(f"{self.url.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        return self.url.rstrip("/").rpartition("/")[2]

    def read(self) -> bytes | None:
        """What the file holds; None where there is no file."""
        files, path = self._there
        try:
            return files.cat_file(path)
        except (FileNotFoundError, IsADirectoryError):
            return None

    def write(self, content: bytes) -> None:
        """The content under that name, or what was there before; never a part of it, also after a loss of power.

        Raises OutputError, saying what is in the way.
        """
        with refused(self.url):
            files, path = self._there
            if self.local is None:
                files.pipe_file(path, content)
            else:
                _replace(self.local, content)

    def remove(self) -> None:
        """The file, if it is there."""
        files, path = self._there
        if files.exists(path):
            files.rm(path)

    def make_folder(self) -> None:
        """Raises OutputError, saying what is in the way."""
        with refused(self.url):
            files, path = self._there
            files.makedirs(path, exist_ok=True)

    def sizes(self) -> dict[str, int]:
        """Name and bytes of each file in the folder; none where there is no folder."""
        files, path = self._there
        files.invalidate_cache()
        try:
            found = files.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {each["name"].rstrip("/").rpartition("/")[2]: each["size"] for each in found if each["type"] == "file"}

    def fetch(self, folder: Path) -> None:
        """The folder and all in it, to a folder of this machine."""
        files, path = self._there
        files.get(f"{path.rstrip('/')}/", f"{folder}/", recursive=True)

    def put(self, folder: Path) -> None:
        """A folder of this machine and all in it, to here."""
        files, path = self._there
        files.put(f"{folder}/", f"{path.rstrip('/')}/", recursive=True)


def place(path: str | Path) -> Place:
    """A path becomes absolute, so that a process that stands elsewhere means the same."""
    import fsspec

    files, found = fsspec.core.url_to_fs(str(path))
    return Place(files.unstrip_protocol(found) if "://" in str(path) or "::" in str(path) else found)


@contextmanager
def refused(url: str | Path) -> Iterator[None]:
    """What the system says against writing there, a full disk or no permission, as an OutputError."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to '{url}': {error.strerror or error}; mend that, or name another folder with --out") from error


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """So that the rename outlives a loss of power; Windows has nothing to sync there."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
