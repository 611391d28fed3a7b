"""A capture on disk: rows written straight into mapped .npy files, in a draft that outlives a killed process and becomes the result."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.activations.capture import SITES, Activations, capture, check_request
from tunescope.activations.manifest import COUNTED, IDS, MANIFEST, TOKENS, Manifest, describe, difference, file_of, read_json, write_json
from tunescope.activations.stored import Capture, load_capture
from tunescope.errors import OutputError
from tunescope.folders import remove_empty, resumable, writable_folder
from tunescope.models import load_model
from tunescope.texts import Corpus, as_corpus

EVERY = 1.0  # seconds between two records of how far it came: what a kill can cost
PROGRESS = "progress.json"
DRAFT_SCHEMA = "tunescope.capture-draft/1"
OURS = re.compile(r"(layer_\d+\.npy|(final|output|tokens|counted)\.npy|(manifest|progress|ids)\.json)(\.part)?")


def save_capture(
    model: Any,
    texts: Any,
    folder: str | Path,
    *,
    layers: Iterable[int] | None = None,
    sites: Iterable[str] = SITES,
    sample: int | None = None,
    column: str | None = None,
    pooling: str = "mean",
    prompt: str | None = None,
    max_length: int | None = None,
    special_tokens: bool = True,
    batch_size: int = 32,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    trust_remote_code: bool = False,
    pretraining: str | None = None,
    device_map: Any = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Capture:
    """Run texts through a model and keep its rows in a folder, for any number of comparisons; memory does not grow with the texts.

    The same call after an interruption (Ctrl-C, kill -9, a full disk) goes on where it was, and the files come out as if nothing had
    happened, byte for byte. A folder that already holds this very capture is returned as it is. Arguments as in `ts.diff` and
    `ts.capture`; progress(done, total) counts tokens.

    Raises: OutputError (the folder holds something else, or a capture whose named field differs), and what loading a model, reading
    texts and capturing raise; then no draft is left.
    """
    path = check_target(folder)
    corpus = as_corpus(texts, column=column, sample=sample, seed=seed)
    loading: dict[str, Any] = {"revision": revision, "device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
    loading["device_map"] = device_map
    loaded = load_model(model, **loading, pretraining=pretraining)
    wanted, chosen = check_request(loaded, corpus.texts, layers, sites, batch_size)
    reading: dict[str, Any] = {
        "pooling": pooling,
        "prompt": loaded.output.prompt if prompt is None else prompt,
        "max_length": loaded.max_length if max_length is None else max_length,
        "special_tokens": special_tokens,
        "layers": wanted,
        "sites": chosen,
        "batch_size": batch_size,
    }
    head = describe(loaded, corpus, reading)
    if _held(path, head):
        return load_capture(path)
    with open_draft(path, head) as draft:
        if not draft.finished:
            draft.complete(capture(loaded, corpus.texts, **reading, ids=corpus.ids, progress=progress, draft=draft), corpus)
        draft.move_to(path)
    return load_capture(path)


def check_target(folder: str | Path) -> Path:
    """The folder, if a capture may be written there: absent, empty, or holding a capture (which is never overwritten).

    Raises: OutputError.
    """
    path = writable_folder(folder)
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if names and MANIFEST not in names:
        raise OutputError(f"'{path}' holds something else ({', '.join(names[:3])}); name another folder with --out, or empty it")
    return path


def _held(path: Path, head: Manifest) -> bool:
    """Whether the folder already holds the capture asked for. Raises OutputError when it holds anything else."""
    if not (path / MANIFEST).is_file():
        return False
    found = read_json(path / MANIFEST)
    if not isinstance(found, dict) or found.get("schema") != head["schema"]:
        raise OutputError(f"'{path}' holds something else ({MANIFEST}); name another folder with --out, or empty it")
    if differs := difference(found, head):
        raise OutputError(f"'{path}' holds another capture: {differs}; name another folder with --out, or remove this one")
    return True


@dataclass(eq=False)
class Draft:
    """The files of a capture while it is made, and how many of its batches are in them for certain."""

    folder: Path
    head: Manifest
    done: int = 0
    finished: bool = False
    mapped: dict[int | str, np.memmap] = field(default_factory=dict)
    recorded: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, folder: Path, head: Manifest) -> Draft:
        """What an earlier process left in the folder, or a new draft. Raises OutputError when it is of other rows, or nothing of ours."""
        names = {entry.name for entry in folder.iterdir()}
        foreign = sorted(name for name in names if not OURS.fullmatch(name))
        if foreign:
            raise OutputError(f"'{folder}' is where the draft would be and holds something else ({foreign[0]}); move it away")
        if MANIFEST in names:
            _check_same(folder, read_json(folder / MANIFEST), head)
            return cls(folder, head, finished=True)
        if PROGRESS in names:
            left = read_json(folder / PROGRESS)
            _check_same(folder, left["capture"], head)
            draft = cls(folder, head, left["done"])
            return draft if not draft.done or draft._reopen() else cls(folder, head)
        return cls(folder, head)

    @property
    def rows(self) -> dict[int | str, Tensor]:
        """The rows that are there already, writable, by layer and site."""
        return {key: torch.from_numpy(array) for key, array in self.mapped.items()}

    def allocate(self, key: int | str, rows: int, width: int) -> Tensor:
        """A file of (rows, width) float32 for a layer or site, its space on the disk reserved."""
        path = self.folder / file_of(key)
        self.mapped[key] = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, width))
        if hasattr(os, "posix_fallocate"):  # a disk that fills up later would end the process without a word
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return torch.from_numpy(self.mapped[key])

    def did(self, batches: int) -> None:
        """So many batches are written; recorded once in a while, the rows before the record of them."""
        if time.monotonic() - self.recorded < EVERY:
            return
        for array in self.mapped.values():
            array.flush()
        write_json(self.folder / PROGRESS, {"schema": DRAFT_SCHEMA, "capture": self.head, "done": batches})
        self.recorded = time.monotonic()

    def complete(self, acts: Activations, corpus: Corpus) -> None:
        """Everything that stands beside the rows; the manifest last, and with it the capture is whole."""
        for array in self.mapped.values():
            array.flush()
        np.save(self.folder / TOKENS, acts.tokens.numpy())
        if acts.groups is not None:
            np.save(self.folder / COUNTED, np.bincount(acts.groups.numpy(), minlength=acts.n))
        write_json(self.folder / IDS, list(corpus.ids))
        shapes = {file_of(key): list(rows.shape) for key, rows in {**acts.layers, **acts.sites}.items()}
        write_json(self.folder / MANIFEST, self.head | {"shapes": shapes, "truncated": acts.truncated, "tokens": int(acts.tokens.sum())})
        self.finished = True

    def move_to(self, target: Path) -> None:
        """The draft becomes the capture, in one rename. Raises OutputError when something else is there by now."""
        (self.folder / PROGRESS).unlink(missing_ok=True)
        if target.is_dir() and any(target.iterdir()):
            raise OutputError(f"'{target}' has been filled meanwhile; the capture is kept in '{self.folder}'")
        os.rename(self.folder, target.resolve())

    def discard(self) -> None:
        """Take away what is ours, and the folder if that was all."""
        for entry in self.folder.iterdir():
            if OURS.fullmatch(entry.name):
                entry.unlink()
        remove_empty([self.folder])

    def _reopen(self) -> bool:
        try:
            for key in (*self.head["layers"], *self.head["sites"]):
                self.mapped[key] = np.lib.format.open_memmap(self.folder / file_of(key), mode="r+")
        except (OSError, ValueError):
            return False
        return True


@contextmanager
def open_draft(target: Path, head: Manifest) -> Iterator[Draft]:
    """The draft of a capture, see `folders.resumable`."""
    with resumable(target, lambda folder: Draft.of(folder, head), what="capture") as draft:
        yield draft


def _check_same(folder: Path, found: Manifest, head: Manifest) -> None:
    if differs := difference(found, head, also=("versions",)):
        raise OutputError(
            f"'{folder}' holds an unfinished capture of other rows: {differs}; ask for the same to finish it, remove it, or name another "
            "folder with --out"
        )
