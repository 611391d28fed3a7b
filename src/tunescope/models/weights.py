"""Weights on disk and in memory: safetensors only, whole files, finite numbers, and a hash that says which weights they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tunescope.errors import ActivationError, ModelError, UnsafeWeights

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
BODY_FILES = ("model.safetensors", "model.safetensors.index.json")
ADAPTER_FILES = ("adapter_model.safetensors",)


def check_weight_files(folder: Path, *, asked: str, accepted: tuple[str, ...] = BODY_FILES) -> None:
    """Check that `folder` has whole safetensors weights.

    Raises UnsafeWeights when there are only pickles, ModelError when there are none, or a file is missing, cut off or corrupt.
    """
    present = [folder / name for name in accepted if (folder / name).is_file()]
    if not present:
        pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES and path.name != "training_args.bin")
        refuse_pickle(pickles, asked=asked, wanted=accepted[0])
        raise ModelError(f"no weights in '{asked}': looked for {' or '.join(accepted)} in {folder}")
    for path in present[:1]:
        for shard in _shards(path, asked=asked) if path.suffix == ".json" else [path]:
            check_safetensors(shard, asked=asked)


def refuse_pickle(pickles: list[str], *, asked: str, wanted: str) -> None:
    """Raise UnsafeWeights when `pickles` names any file, with the way to convert it."""
    if pickles:
        raise UnsafeWeights(
            f"'{asked}' holds its weights only as {', '.join(pickles)}: a pickle, which can run code when it is opened; convert it once "
            f'in that folder: python -c "import torch; from safetensors.torch import save_file; '
            f"state = torch.load('{pickles[0]}', map_location='cpu', weights_only=True); "
            f"save_file({{k: v.clone().contiguous() for k, v in state.items()}}, '{wanted}', metadata={{'format': 'pt'}})\""
        )


def check_safetensors(path: Path, *, asked: str) -> None:
    """Raise ModelError unless `path` is a whole safetensors file (its header, and the length the header promises)."""
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise ModelError(f"cannot read the weights of '{asked}': {path} is cut off or corrupt ({error}); fetch or copy it again") from error


def check_finite(tensors: Mapping[str, Tensor], *, name: str) -> None:
    """Raise ActivationError naming the first of `tensors` that holds NaN or Inf."""
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.is_meta:
            continue
        # one pass and no copy; a finite sum proves every term finite, an overflowing sum is looked at again
        if not torch.isfinite(tensor.sum(dtype=torch.float32)) and not torch.isfinite(tensor).all():
            kind = "NaN" if tensor.isnan().any() else "Inf"
            raise ActivationError(f"the weights of '{name}' hold {kind} in {key}; the checkpoint is damaged or training diverged")


def hash_tensors(
    tensors: Mapping[str, Tensor], offloaded: Mapping[str, Callable[[], Tensor]] | None = None, *, known: dict | None = None
) -> str:
    """sha256 over the tensors by sorted name: each one's name, dtype, shape and bytes; read in place, tensors in parallel.

    offloaded: what reads the tensors that are not in memory; no more than four of these are held at a time, and the hash is the one they
    have in memory. known: digests that a call just before, with the same dict, left of the same memory. Raises ModelError for a tensor that
    is in neither.
    """
    read, kept = offloaded or {}, {} if known is None else known

    def digest_of(item: tuple[str, Tensor]) -> bytes:
        name, tensor = item
        place = name, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        if tensor.is_meta or place not in kept:
            kept[place] = _digest(name, tensor, read.get(name))
        return kept[place]

    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = pool.map(digest_of, sorted(tensors.items()))
        total = hashlib.sha256()
        for digest in digests:
            total.update(digest)
    return total.hexdigest()


def hash_tokenizer(tokenizer) -> str:
    """sha256 of what the tokenizer does to text, without the truncation and padding a past call may have left in it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content = {"class": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}
    else:
        content = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(name: str, tensor: Tensor, read: Callable[[], Tensor] | None) -> bytes:
    digest = hashlib.sha256(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
    if tensor.is_meta:
        if read is None:
            raise ModelError(f"{name} is in no memory and on no disk, so these weights have no hash; load the model with its weights")
        tensor = read().to(tensor.dtype)
    raw = tensor.detach().cpu().contiguous()
    digest.update(memoryview(raw.reshape(-1).view(torch.uint8).numpy()))
    return digest.digest()


def _shards(index: Path, *, asked: str) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"cannot read the weights of '{asked}': {index} is not a safetensors index; fetch or copy it again") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(f"the weights of '{asked}' are incomplete: {index.parent} lacks {', '.join(missing)}; fetch or copy them again")
    return [index.parent / name for name in names]
