"""Shard files: safetensors that are whole or not there, with a checksum, read by their header and one sequential read a tensor."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tunescope.errors import FormatError

Seal = dict[str, Any]  # {"bytes": int, "sha256": str}

_LENGTH = 8  # bytes before the header, which say how long it is


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> Seal:
    """Write the tensors under another name, on the disk for certain, then under their own; what they are then recognised by."""
    draft = path.with_name(f"{path.name}.part")
    save_file(dict(tensors), draft)
    with open(draft, "rb") as file:
        seal = {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        os.fsync(file.fileno())
    os.replace(draft, path)
    return seal


def sync_folder(folder: Path) -> None:
    """Renames in the folder are on the disk when this returns, where a system can say so."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_length(path: Path, seal: Seal) -> None:
    """Raises FormatError when a shard is missing or of another length than its seal says."""
    found = path.stat().st_size if path.is_file() else None
    if found != seal["bytes"]:
        said = "is missing" if found is None else f"holds {found:,} bytes of {seal['bytes']:,}"
        raise FormatError(f"shard '{path}' {said}: the store is damaged, make it again")


def check_sum(path: Path, seal: Seal) -> None:
    """Raises FormatError when a shard is not, byte for byte, what was written."""
    check_length(path, seal)
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != seal["sha256"]:
        raise FormatError(f"shard '{path}' is not what was written (sha256 {found[:12]}…, was {seal['sha256'][:12]}…): make it again")


def read_into(path: Path, name: str, out: Tensor) -> None:
    """The tensor of that name, read into `out` of its shape and dtype in one go. Raises FormatError when the file does not hold it."""
    if not out.numel():
        return
    try:
        with open(path, "rb", buffering=0) as file:
            header = int.from_bytes(file.read(_LENGTH), "little")
            entry = json.loads(file.read(header))[name]
            begin, end = entry["data_offsets"]
            target = out.view(torch.uint8).numpy().data.cast("B")
            if end - begin != len(target):
                raise FormatError(f"shard '{path}' holds '{name}' as {entry['shape']}, {list(out.shape)} was expected: make it again")
            file.seek(_LENGTH + header + begin)
            done = 0
            while done < len(target) and (got := file.readinto(target[done:])):
                done += got
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"shard '{path}' cannot be read ({error}): the store is damaged, make it again") from error
    if done != len(target):
        raise FormatError(f"shard '{path}' is cut off within '{name}': the store is damaged, make it again")
