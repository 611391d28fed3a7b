"""An output folder in which a result appears whole: drafted inside it, then moved into place file by file, comparison.json last."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunescope.errors import OutputError

RESULT = "comparison.json"
OURS = {RESULT, "report.html", "records.jsonl", "figures"}
DRAFT = ".tunescope-draft-"  # left behind only by kill -9; cleared by the next run


def check_folder(folder: str | Path) -> Path:
    """The folder as a path, if a result may be written there: absent, empty, or holding an earlier result of ours.

    Raises: OutputError, saying what is in the way.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise OutputError(f"cannot write to '{folder}': it is a file; name a folder with --out")
    ancestor = path.absolute()
    while not ancestor.exists():
        ancestor = ancestor.parent
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to '{folder}': no permission in '{ancestor}'; name another folder with --out")
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(DRAFT)} if path.is_dir() else set()
    if names and not (names <= OURS and (RESULT not in names or _is_comparison(path / RESULT))):
        other = ", ".join(sorted(names - OURS)[:3]) or f"a {RESULT} that is not ours"
        raise OutputError(f"'{folder}' holds something else ({other}); name another folder with --out, or empty it")
    return path


def _is_comparison(path: Path) -> bool:
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("schema", "")).startswith("tunescope.comparison/")
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def replace_folder(folder: str | Path) -> Iterator[Path]:
    """A draft folder whose files take the place of the earlier result when the block ends well, and vanish when it does not.

    Raises: OutputError.
    """
    path = check_folder(folder)
    made = [p for p in (path.absolute(), *path.absolute().parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        for left in path.glob(f"{DRAFT}*"):
            shutil.rmtree(left)
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=path))
        try:
            yield draft
            _move_in(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot write to '{folder}': {error.strerror or error}; name another folder with --out") from error
    finally:
        for folder_made in made:  # deepest first; only what is still empty goes
            if folder_made.is_dir() and not any(folder_made.iterdir()):
                folder_made.rmdir()


def _move_in(draft: Path, path: Path) -> None:
    fresh = sorted((entry.name for entry in draft.iterdir()), key=lambda name: name == RESULT)
    if (path / "figures").is_dir():
        shutil.rmtree(path / "figures")
    for stale in OURS - {"figures", *fresh}:
        (path / stale).unlink(missing_ok=True)
    for name in fresh:
        os.replace(draft / name, path / name)
