"""dictionary_learning: `ae.pt`, a state dict, and `config.json`; raw inputs, since the training's norm factor is in the weights.

https://github.com/saprmarks/dictionary_learning; diff-SAEs: https://github.com/science-of-finetuning/crosscoder_learning
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.firing import Firing, Gated, Relu, Threshold, TopK
from tunescope.dictionaries.formats.folding import State, fold_normaliser
from tunescope.dictionaries.formats.hook_points import hook_point, residual_after
from tunescope.dictionaries.formats.stored_tensors import StoredTensors, active_latents, read_pickle, settings_beside
from tunescope.errors import FormatError, UnknownName

FORMAT = "dictionary_learning"
_BACKUP = {"step", "ae", "optimizer"}
_NORMALISER = ("activation_mean", "activation_std", "activation_global_scale", "target_rms")
Read = tuple[State, Firing, bool]  # weights, what fires, whether b_dec is subtracted


def read(path: Path, content: Mapping[str, Any] | None = None) -> Dictionary:
    """path: the `ae.pt`. content: what it holds, where that is read already.

    Raises: FormatError (damaged, a backup of a training, a crosscoder), UnknownName (dict_class), UnsafeWeights (a pickle of objects).
    """
    content = read_pickle(path) if content is None else content
    if set(content) >= _BACKUP - {"optimizer"} and isinstance(content.get("ae"), dict):
        raise FormatError(
            f"'{path}' is a backup of an unfinished training (step {int(content['step']):,}): its weights do not have the norm factor in "
            "them; let the training end, or use one of its checkpoints"
        )
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise FormatError(f"'{path}' holds more than tensors; a state dict was expected")
    stored = StoredTensors(path, FORMAT, {name.removeprefix("_orig_mod."): value for name, value in content.items()})
    config = _config(path)
    trainer = config.get("trainer") or {}
    kind = _kind(stored, trainer)
    state, firing, centred = _CLASSES[kind](stored, trainer)
    if "activation_mean" in stored:
        state = _with_normaliser(state, stored)
    return Dictionary(
        state["W_enc"], state["b_enc"], state["W_dec"], state["b_dec"], firing, centred, metadata=_metadata(kind, config, stored, firing)
    )


def _config(path: Path) -> dict[str, Any]:
    """`config.json`, which lies beside ae.pt and above the folder of the checkpoints."""
    return settings_beside(path.with_name("config.json")) or settings_beside(path.parent.parent / "config.json")


def _kind(stored: StoredTensors, trainer: Mapping[str, Any]) -> str:
    """The class, as config.json says, or where there is none as the names of the tensors tell."""
    if any(value.dim() == 3 for value in stored.values.values()):
        raise FormatError(f"'{stored.path}' is a crosscoder: it reads several places at once, so it is no dictionary of one")
    if (said := trainer.get("dict_class")) is not None:
        if said not in _CLASSES:
            raise UnknownName(f"dict_class in the config of '{stored.path}'", str(said), _CLASSES)
        return said
    for tensor, kind in (
        ("group_sizes", "MatryoshkaBatchTopKSAE"), ("W_enc", "JumpReluAutoEncoder"), ("r_mag", "GatedAutoEncoder"), ("bias", "AutoEncoder"),
        ("decoder.bias", "AutoEncoderNew"),
    ):  # fmt: skip
        if tensor in stored:
            return kind
    raise FormatError(
        f"'{stored.path}' has no config.json beside it that names its dict_class, and its tensors are those of AutoEncoderTopK and of "
        "BatchTopKSAE, which encode differently; put the config.json of its training there"
    )


def _linear(stored: StoredTensors, *, b_enc: str, b_dec: str) -> State:
    latents, width = stored.length(b_enc), stored.length(b_dec)
    return {
        "W_enc": stored.take("encoder.weight", latents, width).T,
        "W_dec": stored.take("decoder.weight", width, latents).T,
        "b_enc": stored.take(b_enc, latents),
        "b_dec": stored.take(b_dec, width),
    }


def _matrices(stored: StoredTensors) -> State:
    latents, width = stored.length("b_enc"), stored.length("b_dec")
    return {
        "W_enc": stored.take("W_enc", width, latents),
        "W_dec": stored.take("W_dec", latents, width),
        "b_enc": stored.take("b_enc", latents),
        "b_dec": stored.take("b_dec", width),
    }


def _auto_encoder(stored: StoredTensors, trainer: Mapping[str, Any]) -> Read:
    stored.only("encoder.weight", "encoder.bias", "decoder.weight", "bias")
    return _linear(stored, b_enc="encoder.bias", b_dec="bias"), Relu(), True


def _april(stored: StoredTensors, trainer: Mapping[str, Any]) -> Read:
    stored.only("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
    return _linear(stored, b_enc="encoder.bias", b_dec="decoder.bias"), Relu(), False


def _gated(stored: StoredTensors, trainer: Mapping[str, Any]) -> Read:
    stored.only("encoder.weight", "decoder.weight", "decoder_bias", "r_mag", "gate_bias", "mag_bias")
    state = _linear(stored, b_enc="gate_bias", b_dec="decoder_bias")
    latents = len(state["b_enc"])
    scale = stored.take("r_mag", latents).exp()
    return state, Gated(scale, stored.take("mag_bias", latents) - state["b_enc"] * scale), True


def _jump_relu(stored: StoredTensors, trainer: Mapping[str, Any]) -> Read:
    stored.only("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    state = _matrices(stored)
    return state, Threshold(stored.take("threshold", len(state["b_enc"]))), False


def _top_k(stored: StoredTensors, trainer: Mapping[str, Any]) -> Read:
    stored.only("encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "k", "threshold", *_NORMALISER)
    state = _linear(stored, b_enc="encoder.bias", b_dec="b_dec")
    k = stored.scalar("k") if "k" in stored else trainer.get("k")
    return state, TopK(active_latents(k, len(state["b_enc"]), stored.path)), True


def _batch_top_k(stored: StoredTensors, trainer: Mapping[str, Any]) -> Read:
    stored.only("encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "k", "threshold", *_NORMALISER)
    return _linear(stored, b_enc="encoder.bias", b_dec="b_dec"), Threshold(stored.take("threshold"), "batchtopk"), True


def _matryoshka(stored: StoredTensors, trainer: Mapping[str, Any]) -> Read:
    stored.only("W_enc", "W_dec", "b_enc", "b_dec", "k", "threshold", "group_sizes")
    return _matrices(stored), Threshold(stored.take("threshold"), "batchtopk"), True


_CLASSES: dict[str, Callable[[StoredTensors, Mapping[str, Any]], Read]] = {
    "AutoEncoder": _auto_encoder,
    "AutoEncoderNew": _april,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jump_relu,
    "AutoEncoderTopK": _top_k,
    "BatchTopKSAE": _batch_top_k,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}


def _with_normaliser(state: State, stored: StoredTensors) -> State:
    """(x − mean) · scale on the way in, undone on the way out; a mean of NaN says that there is no normaliser.

    scale is one number, target_rms / √Σ std², or 1 where each feature is divided by its own std.
    """
    mean, std = stored.raw("activation_mean"), stored.raw("activation_std")
    if mean.isnan().any() or std.isnan().any():
        return state
    width = len(state["b_dec"])
    mean, std = stored.take("activation_mean", width), stored.take("activation_std", width)
    scale, target = torch.tensor(stored.scalar("activation_global_scale")), stored.scalar("target_rms")
    whole = target / (std.square().sum() + 1e-8).sqrt()
    if scale == 1 and not torch.isclose(whole, scale, rtol=1e-3):
        scale = 1 / (std + 1e-8)
    return fold_normaliser(state, mean, scale)


def _metadata(kind: str, config: Mapping[str, Any], stored: StoredTensors, firing: Firing) -> dict[str, Any]:
    trainer, buffer = config.get("trainer") or {}, config.get("buffer") or {}
    submodule, layer = trainer.get("submodule_name"), trainer.get("layer")
    place = hook_point(submodule)
    if "layer" not in place and isinstance(layer, int) and not isinstance(layer, bool):
        place = residual_after(layer) if not submodule or "resid" in submodule else place | {"layer": layer + 1}
    told = {"model": trainer.get("lm_name"), "context_size": buffer.get("ctx_len"), "k": trainer.get("k")}
    unset = isinstance(firing, Threshold) and kind != "JumpReluAutoEncoder" and bool((firing.threshold < 0).any())
    said = {"dict_class": kind, "dtype": stored.dtype, "config": dict(config)} | ({"threshold_unset": True} if unset else {})
    return place | {name: value for name, value in told.items() if value} | said
