"""An output folder in which a result appears whole: drafted inside it, then moved into place in one go under a lock."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunescope.errors import OutputError
from tunescope.folders import DRAFT, drafted, writable_folder

# each says whose folder it is
RESULTS = {"comparison.json": "tunescope.comparison/", "weights.json": "tunescope.weights/", "distance.json": "tunescope.distance/"}
OURS = {*RESULTS, "report.html", "records.jsonl", "figures"}
FIGURES = (
    "cross_layer",
    "depth_curve_",
    "elsewhere_",
    "isotropy",
    "mean_cosine",
    "neighbourhood_curve",
    "partition_ratio",
    "published_",
    "representation_change",
    "ruler",
    "weight_change",
    "width",
)


def check_folder(folder: str | Path) -> Path:
    """The folder as a path, if a result may be written there: absent, empty, or holding an earlier result of ours and nothing else.

    Raises: OutputError, saying what is in the way.
    """
    path = writable_folder(folder)
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(DRAFT)} if path.is_dir() else set()
    foreign = sorted(names - OURS) + [f"figures/{name}" for name in _foreign_figures(path / "figures")]
    if names and (foreign or not any(_is_result(path / name, schema) for name, schema in RESULTS.items())):
        other = ", ".join(foreign[:3]) or f"no {' or '.join(RESULTS)} of ours"
        raise OutputError(f"'{folder}' holds something else ({other}); name another folder with --out, or empty it")
    return path


def _foreign_figures(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if not (name.startswith(FIGURES) and name.endswith((".png", ".svg")))]


def _is_result(path: Path, schema: str) -> bool:
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("schema", "")).startswith(schema)
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def replace_folder(folder: str | Path) -> Iterator[Path]:
    """A draft folder whose files take the place of the earlier result when the block ends well, and vanish when it does not.

    Two savers of one folder take turns: the last one's result stands, whole.

    Raises: OutputError.
    """
    with drafted(check_folder(folder), _move_in, asked=folder) as draft:
        yield draft


def _move_in(draft: Path, path: Path) -> None:
    fresh = sorted((entry.name for entry in draft.iterdir()), key=lambda name: name in RESULTS)
    if (path / "figures").is_dir():
        shutil.rmtree(path / "figures")
    for stale in OURS - {"figures", *fresh}:
        (path / stale).unlink(missing_ok=True)
    for name in fresh:
        os.replace(draft / name, path / name)

