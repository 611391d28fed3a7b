"""EleutherAI's sparsify: `cfg.json` and `sae.safetensors`, the k largest of max((x − b_dec) Wᵀ + b, 0), often in bfloat16.

https://github.com/EleutherAI/sparsify
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.firing import Firing, GroupMax, TopK
from tunescope.dictionaries.formats.hook_points import hook_point
from tunescope.dictionaries.formats.stored_tensors import (
    a_transcoder,
    active_latents,
    read_safetensors,
    read_settings,
    settings_beside,
    whole_number,
)
from tunescope.errors import FormatError, UnknownName

FORMAT = "sparsify"
_FIRING: dict[str, type[TopK] | type[GroupMax]] = {"topk": TopK, "groupmax": GroupMax}


def read(path: Path) -> Dictionary:
    """path: the `sae.safetensors`. Raises FormatError, for transcoders too, UnknownName (activation)."""
    place = path.with_name("cfg.json")
    settings = read_settings(place)
    if settings.get("transcode"):
        raise a_transcoder(place)
    if settings.get("signed"):
        raise FormatError(f"'{place}' has signed latents, which fire in both directions; this version reads those that are never negative")
    width = whole_number(settings, "d_in", place)
    latents = settings.get("num_latents") or width * whole_number(settings, "expansion_factor", place)
    stored = read_safetensors(path, format=FORMAT)
    stored.only("encoder.weight", "encoder.bias", "W_dec", "b_dec", "W_skip")
    if bool(settings.get("skip_connection")) != ("W_skip" in stored):
        said = settings.get("skip_connection")
        raise FormatError(f"'{place}': skip_connection is {said!r}, and '{path.name}' says otherwise; one of them is of another")
    return Dictionary(
        w_enc=stored.take("encoder.weight", latents, width).T,
        b_enc=stored.take("encoder.bias", latents),
        decoder=stored.take("W_dec", latents, width),
        b_dec=stored.take("b_dec", width),
        firing=_firing(settings, latents, place),
        skip=stored.take("W_skip", width, width) if "W_skip" in stored else None,
        metadata=_metadata(path, settings) | {"dtype": stored.dtype},
    )


def _firing(settings: dict[str, Any], latents: int, place: Path) -> Firing:
    kind, k = settings.get("activation", "topk"), active_latents(settings.get("k"), latents, place)
    if kind not in _FIRING:
        raise UnknownName("activation of a sparsify dictionary", str(kind), _FIRING)
    if kind == "groupmax" and latents % k:
        raise FormatError(f"'{place}': {latents} latents do not divide into {k} groups")
    return _FIRING[kind](k)


def _metadata(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    run = settings_beside(path.parent.parent / "config.json")
    told = {"model": run.get("model"), "context_size": run.get("ctx_len"), "dataset": run.get("dataset")}
    return hook_point(path.resolve().parent.name) | {name: value for name, value in told.items() if value} | {"config": settings}
