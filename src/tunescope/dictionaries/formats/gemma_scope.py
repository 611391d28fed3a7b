"""Gemma Scope 1 and 2: `params.npz` and `params.safetensors`, JumpReLU on raw activations without b_dec subtracted.

https://huggingface.co/google/gemma-scope, arXiv:2408.05147; https://huggingface.co/google/gemma-scope-2
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.firing import Threshold
from tunescope.dictionaries.formats.hook_points import hook_point, residual_after
from tunescope.dictionaries.formats.stored_tensors import StoredTensors, a_transcoder, read_npz, read_safetensors, settings_beside
from tunescope.errors import FormatError

FIRST, SECOND = "Gemma Scope", "Gemma Scope 2"
_TENSORS = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
_SITES = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}
_SECOND_SITES = {"resid_post": "hook_resid_post", "attn_out": "attn.hook_z", "mlp_out": "hook_mlp_out"}


def read_first(path: Path) -> Dictionary:
    """f = max(pre, 0) where pre > threshold, pre = x W_enc + b_enc: `params.npz` of Gemma Scope 1."""
    stored = read_npz(path, format=FIRST)
    stored = replace(stored, values={re.sub("^w_", "W_", name): value for name, value in stored.values.items()})
    stored.only(*_TENSORS)
    found = _jump_relu(stored, _of_first(path.resolve()))
    if found.metadata.get("site") != "embed":
        return found
    root = found.width**0.5  # trained on embeddings of another scale, see SAELens' `gemma_2_sae_huggingface_loader`
    return replace(found, w_enc=found.w_enc / root, decoder=found.decoder * root)


def read_second(path: Path) -> Dictionary:
    """The same of Gemma Scope 2, whose tensors have lower-case names. Raises FormatError for its transcoders."""
    stored = read_safetensors(path, format=SECOND)
    settings = settings_beside(path.with_name("config.json"))
    places = {"transcoder", "clt"} & set(re.split(r"[/_]", path.resolve().as_posix()))
    if settings.get("hf_hook_point_out") or "affine_skip_connection" in stored or places or stored.raw("w_dec").dim() == 3:
        raise a_transcoder(path)
    kind = settings.get("architecture", "jump_relu")
    if kind != "jump_relu":
        raise FormatError(f"'{path}': architecture {kind!r} in config.json; Gemma Scope 2 has 'jump_relu', and this version reads no other")
    stored = replace(stored, values={re.sub("^w_", "W_", name): value for name, value in stored.values.items()})
    stored.only(*_TENSORS)
    return _jump_relu(stored, _of_second(path.resolve(), settings))


def _jump_relu(stored: StoredTensors, metadata: dict[str, Any]) -> Dictionary:
    latents, width = stored.length("b_enc"), stored.length("b_dec")
    return Dictionary(
        w_enc=stored.take("W_enc", width, latents),
        b_enc=stored.take("b_enc", latents),
        decoder=stored.take("W_dec", latents, width),
        b_dec=stored.take("b_dec", width),
        firing=Threshold(stored.take("threshold", latents)),
        centred=False,
        metadata={"prepend_bos": True} | metadata | {"dtype": stored.dtype},
    )


def _of_first(path: Path) -> dict[str, Any]:
    """What the names of the folders say: …gemma-scope-2b-pt-res/…/layer_20/width_16k/average_l0_71/params.npz."""
    text = path.as_posix()
    found: dict[str, Any] = {}
    if release := re.search(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att)", text):
        size, kind, site = release.groups()
        found["model"] = f"google/gemma-2-{size}" + ("-it" if kind == "it" else "")
    if l0 := re.search(r"average_l0_(\d+)", text):
        found["l0"] = float(l0[1])
    if "embedding" in path.parts:
        return found | hook_point("hook_embed")
    layer = re.search(r"layer_(\d+)", text)
    if layer and release:
        return found | hook_point(f"blocks.{layer[1]}.{_SITES[site]}")
    return found | (residual_after(int(layer[1])) if layer else {})


def _of_second(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    text = path.as_posix()
    found: dict[str, Any] = {}
    release = re.search(r"gemma-scope-2-([\w.]+)-(pt|it)", text)
    if model := settings.get("model_name") or (release and f"gemma-3-{release[1]}-{release[2]}"):
        model = model.replace("-v3", "-3")
        model = model.replace("-pt", "") if "270m" in model else model
        found["model"] = model if "google" in model else f"google/{model}"
    layer = re.search(r"layer_(\d+)", text)
    site = next((place for key, place in _SECOND_SITES.items() if key in text), None)
    if layer and site:
        return found | hook_point(f"blocks.{layer[1]}.{site}")
    return found | hook_point(settings.get("hf_hook_point_in"))
