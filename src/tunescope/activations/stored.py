"""A saved capture read back: its rows stay on the disk, mapped, and are read block by block as they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.activations.capture import Activations
from tunescope.activations.manifest import COUNTED, IDS, TOKENS, Manifest, file_of, read_json, read_manifest
from tunescope.activations.taps import layer_name
from tunescope.errors import FormatError


@dataclass(frozen=True, eq=False, repr=False)
class Capture:
    """Rows of one model on texts that were read once. `acts` holds them as `ts.capture` does, mapped from the disk; writing into them
    changes neither the files nor another reader's rows."""

    folder: Path
    acts: Activations
    ids: tuple[str, ...]
    manifest: Manifest

    @property
    def model(self) -> dict[str, Any]:
        """The identity of the model, as `Model.identity()` gave it."""
        return self.manifest["model"]

    @property
    def texts(self) -> dict[str, Any]:
        """What is known of the texts: n, sha256, source, sampled_from, warnings. The texts themselves are not kept."""
        return self.manifest["texts"]

    @property
    def reading(self) -> dict[str, Any]:
        """How the texts were read: pooling, prompt, max_length, special_tokens, batch_size."""
        return {key: self.manifest[key] for key in ("pooling", "prompt", "max_length", "special_tokens", "batch_size")}

    def __repr__(self) -> str:
        places = len(self.acts.layers) + len(self.acts.sites)
        return f"<Capture of {self.model['name']}: {self.acts.n:,} texts at {places} places, in '{self.folder}'>"


def load_capture(folder: str | Path) -> Capture:
    """Open a saved capture without reading its rows.

    Raises: FormatError when there is none, its schema is not one this version reads, or a file is missing, cut off or of another shape.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    ids = tuple(read_json(path / IDS))
    counted = mapped(path / COUNTED, None) if manifest["pooling"] == "none" else None

    def rows(key: int | str) -> Tensor:
        return mapped(path / file_of(key), manifest["shapes"][file_of(key)])

    acts = Activations(
        layers={index: rows(index) for index in manifest["layers"]},
        sites={site: rows(site) for site in manifest["sites"]},
        names={index: layer_name(index) for index in manifest["layers"]},
        n=len(ids),
        groups=None if counted is None else torch.repeat_interleave(torch.arange(len(ids)), counted),
        tokens=mapped(path / TOKENS, [len(ids)]),
        truncated=manifest["truncated"],
        seconds_forward=0.0,
        pooling=manifest["pooling"],
        prompt=manifest["prompt"],
        max_length=manifest["max_length"],
    )
    return Capture(path, acts, ids, manifest)


def mapped(path: Path, shape: list[int] | None) -> Tensor:
    """The array in a .npy file, mapped. Copy on write: torch takes no read-only arrays, and no write ever reaches the file."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"'{path}' cannot be read ({error}); the capture is damaged, make it again") from error
    if shape is not None and list(array.shape) != shape:
        raise FormatError(f"'{path}' has shape {list(array.shape)}, its manifest says {shape}; the capture is damaged, make it again")
    return torch.from_numpy(array)
