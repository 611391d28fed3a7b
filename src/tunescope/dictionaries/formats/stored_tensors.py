"""Tensors and settings as files hold them, taken out by name with their shapes checked."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tunescope.errors import FormatError, UnsafeWeights
from tunescope.models.weights import check_finite

_AGAIN = "fetch or copy it again"


@dataclass(frozen=True, eq=False)
class StoredTensors:
    """The tensors of one file by name; `format` is whose file it is, for messages."""

    path: Path
    format: str
    values: Mapping[str, Tensor]

    def __contains__(self, name: str) -> bool:
        return name in self.values

    @property
    def dtype(self) -> str:
        """The number format of the largest tensor, such as "bfloat16"."""
        return str(max(self.values.values(), key=lambda value: value.numel()).dtype).removeprefix("torch.")

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor as float32. Raises FormatError (missing, another shape), ActivationError (NaN, Inf)."""
        value = self.raw(name)
        if tuple(value.shape) != shape:
            hint = "; it is transposed, or" if tuple(value.shape) == shape[::-1] else ";"
            raise FormatError(f"'{self.path}': {name} is {tuple(value.shape)} where {shape} was expected{hint} of another dictionary")
        check_finite({name: value}, name=str(self.path))
        return value.float()

    def length(self, name: str) -> int:
        """The length of a vector, by which the shapes of others are told. Raises FormatError."""
        value = self.raw(name)
        if value.dim() != 1 or not len(value):
            raise FormatError(f"'{self.path}': {name} is {tuple(value.shape)} where a vector was expected; the file is of another kind")
        return len(value)

    def scalar(self, name: str) -> float:
        """The value of a tensor of one number. Raises FormatError."""
        value = self.raw(name)
        if value.numel() != 1:
            raise FormatError(f"'{self.path}': {name} is {tuple(value.shape)} where one number was expected; the file is of another kind")
        return float(value)

    def raw(self, name: str) -> Tensor:
        """The tensor as it is. Raises FormatError where there is none of that name."""
        if name not in self.values:
            held = ", ".join(sorted(self.values)[:12])
            raise FormatError(f"'{self.path}' lacks {name}, which a {self.format} dictionary of its kind has; it holds {held}")
        return self.values[name]

    def only(self, *known: str) -> None:
        """Raise FormatError for a tensor that is none of these: it might change what the dictionary computes."""
        if unknown := sorted(set(self.values) - set(known)):
            raise FormatError(
                f"'{self.path}' also holds {', '.join(unknown[:3])}, which this version does not know in a {self.format} dictionary of its "
                "kind, and which may change what it computes"
            )


def a_transcoder(path: Path) -> FormatError:
    """What is said of an autoencoder that reads one place of a model and writes another."""
    return FormatError(f"'{path}' is of a transcoder: it reads one place and writes another, so it is no dictionary of one place")


def read_safetensors(path: Path, *, format: str) -> StoredTensors:
    """Raises FormatError where the file is missing, cut off or corrupt."""
    try:
        with safe_open(path, framework="pt") as file:
            return StoredTensors(path, format, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FormatError(f"cannot read '{path}': it is missing, cut off or corrupt ({error}); {_AGAIN}") from error


def read_npz(path: Path, *, format: str) -> StoredTensors:
    """Raises FormatError where the file is missing, cut off or corrupt, or holds objects."""
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:  # np.load leaves a broken file open
            return StoredTensors(path, format, {name: torch.from_numpy(file[name]) for name in file.files})
    except (OSError, ValueError, TypeError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise FormatError(f"cannot read '{path}': it is missing, cut off or corrupt ({error}); {_AGAIN}") from error


def read_pickle(path: Path) -> dict[str, Any]:
    """The content of a torch file, read as data only: nothing in it can run.

    Raises: UnsafeWeights (it asks to run code), FormatError (damaged, or no dict).
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeWeights(
            f"'{path}' is a pickle that holds more than tensors, and could run code when it is opened; save its state dict alone, with "
            "torch.save(ae.state_dict(), path)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise FormatError(f"cannot read '{path}': it is missing, cut off or corrupt ({_first_line(error)}); {_AGAIN}") from error
    if not isinstance(content, dict):
        raise FormatError(f"'{path}' holds a {type(content).__name__} where a dict of tensors was expected; save the state dict")
    return content


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object. Raises FormatError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"cannot read '{path}' as JSON ({error}); {_AGAIN}") from error
    if not isinstance(content, dict):
        raise FormatError(f"'{path}' holds a {type(content).__name__} where settings by name were expected; {_AGAIN}")
    return content


def settings_beside(path: Path) -> dict[str, Any]:
    """The JSON object, or nothing where there is no such file."""
    return read_settings(path) if path.is_file() else {}


def whole_number(settings: Mapping[str, Any], name: str, path: Path) -> int:
    """A number of the settings that must be whole and positive. Raises FormatError."""
    value = settings.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise FormatError(f"'{path}': {name} is {value!r} where a whole number above 0 was expected")
    return int(value)


def active_latents(k: Any, latents: int, path: Path) -> int:
    """k, if so many of the latents can be active. Raises FormatError."""
    if isinstance(k, bool) or not isinstance(k, int | float) or k != int(k) or not 1 <= k <= latents:
        raise FormatError(f"'{path}': k is {k!r} where 1 to {latents}, the latents there are, was expected")
    return int(k)
