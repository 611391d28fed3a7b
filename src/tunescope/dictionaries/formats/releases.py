"""Single releases with layouts of their own: Llama Scope, Qwen Scope, Goodfire's and OpenAI's autoencoders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.firing import Firing, Relu, Threshold, TopK
from tunescope.dictionaries.formats.folding import fold_scale
from tunescope.dictionaries.formats.hook_points import hook_point, residual_after
from tunescope.dictionaries.formats.stored_tensors import StoredTensors, a_transcoder, active_latents, read_safetensors, read_settings
from tunescope.dictionaries.token_scaling import to_layer_norm
from tunescope.errors import FormatError, InputError


def read_llama_scope(path: Path) -> Dictionary:
    """path: `checkpoints/final.safetensors`, two below `hyperparams.json`. https://huggingface.co/fnlp, arXiv:2410.20526

    Inputs are multiplied by s = √d / dataset_average_activation_norm; the threshold is jump_relu_threshold · s, as SAELens reads it.
    """
    place = path.parent.parent / "hyperparams.json"
    settings = read_settings(place)
    stored = read_safetensors(path, format="Llama Scope")
    latents, width = stored.length("encoder.bias"), stored.length("decoder.bias")
    if settings.get("hook_point_out", settings.get("hook_point_in")) != settings.get("hook_point_in"):
        raise a_transcoder(place)
    try:
        scale = width**0.5 / float(settings["dataset_average_activation_norm"]["in"])
        threshold = float(settings["jump_relu_threshold"]) * scale
    except (KeyError, TypeError, ValueError) as error:
        wanted = "dataset_average_activation_norm.in and jump_relu_threshold"
        raise FormatError(f"'{place}' does not give {wanted} as numbers ({error}); fetch or copy it again") from error
    state = {
        "W_enc": stored.take("encoder.weight", latents, width).T,
        "W_dec": stored.take("decoder.weight", width, latents).T,
        "b_dec": stored.take("decoder.bias", width),
    }
    state = fold_scale(state, scale)
    told = {"model": settings.get("model_name", "meta-llama/Llama-3.1-8B"), "dtype": stored.dtype, "config": settings}
    return Dictionary(
        state["W_enc"],
        stored.take("encoder.bias", latents),
        state["W_dec"],
        state["b_dec"],
        Threshold(torch.tensor(threshold)),
        centred=False,
        metadata=hook_point(settings.get("hook_point_in")) | told,
    )


def read_qwen_scope(path: Path, content: Mapping[str, Any]) -> Dictionary:
    """path: `layer{L}.sae.pt` in a folder named as its repository, which alone says k. https://huggingface.co/collections/Qwen/qwen-scope"""
    text = path.resolve().as_posix()
    release, layer = re.search(r"SAE-Res-(.+?)-W(\d+)K-L0_(\d+)", text), re.search(r"layer(\d+)\.sae\.pt$", text)
    if release is None:
        raise InputError(
            f"'{path}' does not say how many latents are active; keep it in a folder with the name of its repository, such as "
            "SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
        )
    stored = StoredTensors(path, "Qwen Scope", content)
    latents, width = stored.length("b_enc"), stored.length("b_dec")
    told = {"model": f"Qwen/{release[1]}", "dtype": stored.dtype}
    return Dictionary(
        stored.take("W_enc", latents, width).T,
        stored.take("b_enc", latents),
        stored.take("W_dec", width, latents).T,
        stored.take("b_dec", width),
        TopK(active_latents(int(release[3]), latents, path)),
        centred=False,
        metadata=(residual_after(int(layer[1])) if layer else {}) | told,
    )


def read_goodfire(path: Path, content: Mapping[str, Any]) -> Dictionary:
    """One file with `encoder_linear` and `decoder_linear`. https://huggingface.co/Goodfire"""
    stored = StoredTensors(path, "Goodfire", content)
    latents, width = stored.length("encoder_linear.bias"), stored.length("decoder_linear.bias")
    layer = re.search(r"-l(\d+)\.pth?$", path.name)
    model = {"model": f"meta-llama/{path.name[: layer.start()].removesuffix('-SAE')}"} if layer else {}
    return Dictionary(
        stored.take("encoder_linear.weight", latents, width).T,
        stored.take("encoder_linear.bias", latents),
        stored.take("decoder_linear.weight", width, latents).T,
        stored.take("decoder_linear.bias", width),
        Relu(),
        centred=False,
        metadata=(residual_after(int(layer[1])) if layer else {}) | model | {"dtype": stored.dtype},
    )


def read_openai(path: Path, content: Mapping[str, Any]) -> Dictionary:
    """One file with `pre_bias` and `latent_bias`; those with TopK scale every token to mean 0 and deviation 1.

    https://github.com/openai/sparse_autoencoder, arXiv:2406.04093
    """
    values = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    stored = StoredTensors(path, "OpenAI", values)
    latents, width = stored.length("latent_bias"), stored.length("pre_bias")
    encoder = stored.take("encoder.weight", latents, width).T
    firing = _openai_firing(path, content, latents)
    return Dictionary(
        encoder,
        stored.take("latent_bias", latents),
        stored.take("decoder.weight", width, latents).T if "decoder.weight" in stored else encoder.T,
        stored.take("pre_bias", width),
        firing,
        scaling=to_layer_norm if isinstance(firing, TopK) else None,
        metadata={"dtype": stored.dtype},
    )


def _openai_firing(path: Path, content: Mapping[str, Any], latents: int) -> Firing:
    kind, settings = content.get("activation", "ReLU"), content.get("activation_state_dict") or {}
    after = settings.get("postact_fn", "ReLU")
    if kind == "TopK" and after == "ReLU":
        return TopK(active_latents(settings.get("k"), latents, path))
    if kind == "ReLU":
        return Relu()
    raise FormatError(f"'{path}': activation {kind} with {after} after it, where ReLU, or TopK and ReLU, was expected")
