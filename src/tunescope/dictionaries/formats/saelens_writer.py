"""A dictionary as a folder in SAELens' native format, which SAELens and the tools around it open; written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.firing import Gated, Relu, Threshold, TopK
from tunescope.dictionaries.formats.saelens import CFG, TOKEN_SCALINGS, WEIGHTS
from tunescope.errors import InputError, OutputError
from tunescope.folders import DRAFT, drafted, writable_folder
from tunescope.models.weights import check_finite

_VERSION = "6.54.12"  # of SAELens, whose cfg.json this is
_NOT_KEPT = ("config", "path", "format", "dtype", "name")
_FROM = {"model_name": "model"} | {name: name for name in ("hook_name", "hf_hook_name", "prepend_bos", "context_size")}


def save_dictionary(
    dictionary: Dictionary,
    folder: str | Path,
    *,
    model: str | None = None,
    hook_name: str | None = None,
    hf_hook_name: str | None = None,
    prepend_bos: bool | None = None,
    context_size: int | None = None,
) -> Path:
    """Write `cfg.json` and `sae_weights.safetensors`: `sae_lens.SAE.load_from_disk(folder)` encodes and decodes as the dictionary does.

    ReLU is written as SAELens' "standard", TopK as "topk", thresholds (JumpReLU, BatchTopK) as "jumprelu", gated as "gated". The rest goes
    to cfg["metadata"], by default what the dictionary's own metadata says: model, hook_name ("blocks.20.hook_resid_post": the output of
    block 20, counted from 0, is layer 21 here), hf_hook_name, prepend_bos, context_size. An earlier dictionary in the folder is replaced.

    Raises: InputError (what SAELens has no architecture for: groups, a skip connection, another token scaling), ActivationError (NaN or
    Inf in the weights), OutputError (the folder holds something else, or cannot be written).
    """
    given = {"model": model, "hook_name": hook_name, "hf_hook_name": hf_hook_name, "prepend_bos": prepend_bos, "context_size": context_size}
    told = dictionary.metadata | {name: value for name, value in given.items() if value is not None}
    architecture, tensors = _architecture(dictionary.to("cpu"))
    check_finite(tensors, name=dictionary.name)
    settings = json.dumps(_settings(dictionary, told, architecture), ensure_ascii=False, indent=1, allow_nan=False)
    with drafted(check_dictionary_folder(folder), _move_in, asked=folder) as draft:
        save_file({name: value.contiguous() for name, value in tensors.items()}, draft / WEIGHTS, metadata={"format": "pt"})
        (draft / CFG).write_text(settings, encoding="utf-8")
        for name in (WEIGHTS, CFG):
            with open(draft / name, "rb") as file:
                os.fsync(file.fileno())
    return Path(folder)


def check_dictionary_folder(folder: str | Path) -> Path:
    """The folder as a path, if a dictionary may be written there: absent, empty, or holding an earlier one and nothing else.

    Raises: OutputError, saying what is in the way.
    """
    path = writable_folder(folder)
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if foreign := [name for name in names if name not in (CFG, WEIGHTS) and not name.startswith(DRAFT)]:
        raise OutputError(f"'{folder}' holds something else ({', '.join(foreign[:3])}); name another folder, or empty it")
    return path


def _architecture(dictionary: Dictionary) -> tuple[str, dict[str, Tensor]]:
    if dictionary.skip is not None:
        raise InputError(f"'{dictionary.name}' has a skip connection, which no autoencoder of SAELens has; it cannot be saved as one")
    firing, bias = dictionary.firing, {"b_enc": dictionary.b_enc}
    common = {"W_enc": dictionary.w_enc, "W_dec": dictionary.decoder, "b_dec": dictionary.b_dec}
    if isinstance(firing, Relu):
        return "standard", common | bias
    if isinstance(firing, TopK):
        return "topk", common | bias
    if isinstance(firing, Threshold):
        return "jumprelu", common | bias | {"threshold": firing.threshold.to(dictionary.b_enc).expand_as(dictionary.b_enc)}
    if isinstance(firing, Gated):
        steep = {"r_mag": firing.scale.log(), "b_mag": firing.shift + dictionary.b_enc * firing.scale}
        return "gated", common | {"b_gate": dictionary.b_enc} | steep
    raise InputError(
        f"'{dictionary.name}' fires by {firing.architecture}, which SAELens has no architecture for; it has standard, topk, jumprelu, gated"
    )


def _settings(dictionary: Dictionary, told: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    k = {"k": dictionary.firing.k, "rescale_acts_by_decoder_norm": False} if isinstance(dictionary.firing, TopK) else {}
    ours = {name: _plain(name, value) for name, value in told.items() if name not in (*_NOT_KEPT, *_FROM.values())}
    return {
        "architecture": architecture,
        "d_in": dictionary.width,
        "d_sae": dictionary.latents,
        **k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": dictionary.centred,
        "normalize_activations": _normalisation(dictionary),
        "reshape_activations": told.get("reshape_activations", "none"),
        "metadata": {
            "sae_lens_version": _VERSION,
            **{name: told[key] for name, key in _FROM.items() if told.get(key) is not None},
            "tunescope": {"name": dictionary.name, **ours},
        },
    }


def _normalisation(dictionary: Dictionary) -> str:
    if dictionary.scaling is None:
        return "none"
    for name, scaling in TOKEN_SCALINGS.items():
        if dictionary.scaling is scaling:
            return name
    raise InputError(f"'{dictionary.name}' scales tokens in a way that SAELens does not know; it knows {', '.join(TOKEN_SCALINGS)}")


def _plain(name: str, value: Any) -> Any:
    """What JSON can hold of a value: numbers that are not finite become null. Raises InputError for anything else."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(name, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, each) for each in value]
    if isinstance(value, torch.Tensor):
        return _plain(name, value.tolist())
    raise InputError(f"metadata '{name}' is a {type(value).__name__}, which cfg.json cannot hold; give numbers, texts, lists and dicts")


def _move_in(draft: Path, path: Path) -> None:
    """cfg.json goes first and comes last: a folder without it is no dictionary, so old settings never stand beside new weights."""
    check_dictionary_folder(path)
    (path / CFG).unlink(missing_ok=True)
    os.replace(draft / WEIGHTS, path / WEIGHTS)
    os.replace(draft / CFG, path / CFG)
