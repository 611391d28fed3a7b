"""A folder of one perturbed model, or of several draws, with perturbation.json: what was done, to which base, with which seed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunescope.errors import OutputError
from tunescope.folders import DRAFT, drafted, writable_folder
from tunescope.identity import versions
from tunescope.models import Model
from tunescope.training.model_folder import write_model

FILE = "perturbation.json"
SCHEMA = "tunescope.perturbation/1"


def check_perturbed_folder(folder: str | Path) -> Path:
    """The folder as a path, if a perturbed model may be written there: absent, empty, or holding an earlier one and nothing else.

    Raises: OutputError, saying what is in the way.
    """
    path = writable_folder(folder)
    foreign = sorted(_files(path) - set(_written(path)))
    if foreign:
        raise OutputError(f"'{folder}' holds something else ({', '.join(foreign[:3])}); name another folder with --out, or empty it")
    return path


def save_perturbed(
    models: Mapping[int, Model], folder: str | Path, *, record: Mapping[str, Any], sizes: Mapping[int, Mapping[str, Any]]
) -> Path:
    """Write models by seed, all or none: a single one as the folder itself, several as its subfolders seed-0, seed-1, …

    record: what all have in common, and sizes what is each seed's own, both JSON-able; they become perturbation.json, beside every
    model and, for several, above them.

    Raises: OutputError, and what `write_model` raises.
    """
    with drafted(check_perturbed_folder(folder), _move_in, asked=folder) as draft:
        alone, entries = len(models) == 1, []
        for seed, model in models.items():
            place = draft if alone else draft / f"seed-{seed}"
            place.mkdir(exist_ok=True)
            write_model(model, place)
            sha = model.identity()["weights_sha256"]
            entry = {"folder": "." if alone else place.name, "seed": seed, **sizes[seed], "weights_sha256": sha}
            entries.append(entry)
            if not alone:
                _write(place, record, [entry | {"folder": "."}])
        _write(draft, record, entries)
    return Path(folder)


def _write(place: Path, record: Mapping[str, Any], models: list[dict[str, Any]]) -> None:
    files = sorted(_files(place) | {FILE})
    content = {"schema": SCHEMA, **record, "models": models, "files": files, "versions": versions()}
    (place / FILE).write_text(json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")


def _files(path: Path) -> set[str]:
    """Every file below, by its path from there, without drafts."""
    found = (file.relative_to(path) for file in path.rglob("*") if not file.is_dir() or file.is_symlink())
    return {file.as_posix() for file in found if not file.parts[0].startswith(DRAFT)}


def _written(path: Path) -> list[str]:
    """The files that perturbation.json of ours says were written with it."""
    try:
        content = json.loads((path / FILE).read_text(encoding="utf-8"))
        return list(content["files"]) if content["schema"] == SCHEMA else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _move_in(draft: Path, path: Path) -> None:
    if foreign := _files(path) - set(_written(path)):
        raise OutputError(f"'{path}' has been filled meanwhile ({sorted(foreign)[0]}); name another folder with --out")
    for name in _written(path):
        (path / name).unlink(missing_ok=True)
    for below in sorted((entry for entry in path.rglob("*") if entry.is_dir()), key=lambda entry: -len(entry.parts)):
        if not below.relative_to(path).parts[0].startswith(DRAFT) and not any(below.iterdir()):
            below.rmdir()
    for entry in sorted(draft.iterdir(), key=lambda entry: entry.name == FILE):
        os.replace(entry, path / entry.name)
