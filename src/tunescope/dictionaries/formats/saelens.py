"""SAELens' native folders: `cfg.json` and `sae_weights.safetensors`, of version 6 and before, finished or a checkpoint of training.

https://github.com/decoderesearch/SAELens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.firing import Firing, Gated, Relu, Threshold, TopK
from tunescope.dictionaries.formats.folding import fold_norms, fold_scale, fold_whitening
from tunescope.dictionaries.formats.hook_points import hook_point
from tunescope.dictionaries.formats.stored_tensors import (
    StoredTensors,
    a_transcoder,
    active_latents,
    read_safetensors,
    read_settings,
    settings_beside,
    whole_number,
)
from tunescope.dictionaries.token_scaling import TokenScaling, to_constant_norm, to_layer_norm
from tunescope.errors import FormatError, InputError, UnknownName

FORMAT = "SAELens"
CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_SCALER, _WHITENING, _SPARSITY = "activation_scaler.json", "activation_whitening.safetensors", "sparsity.safetensors"
ARCHITECTURES: dict[str, tuple[str, ...]] = {  # and the tensors of each beside W_enc, W_dec and b_dec
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
    "batchtopk": ("b_enc", "topk_threshold"),
    "matryoshka_batchtopk": ("b_enc", "topk_threshold"),
}
TOKEN_SCALINGS: dict[str, TokenScaling] = {"constant_norm_rescale": to_constant_norm, "layer_norm": to_layer_norm}
_FOLDED = ("expected_average_only_in", "covariance_whitening")
_RENAMED = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index", "activation_fn_str": "activation_fn"}
_TOLD = ("hook_head_index", "hf_hook_name", "prepend_bos", "context_size", "neuronpedia_id", "l0", "num_dead_features", "dataset_path")


@dataclass(frozen=True)
class Settings:
    """What a cfg.json says, whatever the version that wrote it."""

    path: Path
    cfg: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Settings:
        cfg = {_RENAMED.get(name, name): value for name, value in read_settings(path).items()}
        return cls(path, {**(cfg.get("metadata") or {}), **cfg, "architecture": _architecture(cfg, path)})

    @property
    def architecture(self) -> str:
        return self.cfg["architecture"]

    @property
    def centred(self) -> bool:
        return bool(self.cfg.get("apply_b_dec_to_input", True))

    @property
    def rescaled(self) -> bool:
        """Whether pre-activations are multiplied by the norms of the decoder rows, and what is written divided by them."""
        by_default = self.architecture in ("batchtopk", "matryoshka_batchtopk")
        return self.architecture in ("topk", "batchtopk", "matryoshka_batchtopk") and bool(
            self.cfg.get("rescale_acts_by_decoder_norm", by_default)
        )

    @property
    def normalisation(self) -> str:
        said = self.cfg.get("normalize_activations")
        name = {None: "none", False: "none", True: "expected_average_only_in"}.get(said, said)
        if name not in (known := ("none", *_FOLDED, *TOKEN_SCALINGS)):
            raise UnknownName(f"normalize_activations of '{self.path}'", str(name), known)
        return name

    def k(self, latents: int) -> int:
        k = self.cfg.get("k", (self.cfg.get("activation_fn_kwargs") or {}).get("k"))
        return active_latents(k, latents, self.path)

    def metadata(self) -> dict[str, Any]:
        told = {name: self.cfg[name] for name in _TOLD if self.cfg.get(name) is not None}
        model = {"model": self.cfg["model_name"]} if self.cfg.get("model_name") else {}
        heads = {"reshape_activations": "hook_z"} if self._flattens_heads else {}
        ours = self.cfg.get("tunescope") or {}
        return ours | model | hook_point(self.cfg.get("hook_name")) | told | heads | {"config": read_settings(self.path)}

    @property
    def _flattens_heads(self) -> bool:
        said = self.cfg.get("reshape_activations")
        return said == "hook_z" or (said is None and "hook_z" in (self.cfg.get("hook_name") or ""))


def read(path: Path, *, scale: float | None = None) -> Dictionary:
    """path: the `sae_weights.safetensors`. scale: the constant that inputs were multiplied by, where the folder does not hold it.

    Raises: FormatError, UnknownName (architecture, normalisation), InputError (no scale where one is needed).
    """
    settings = Settings.read(path.with_name(CFG))
    stored = read_safetensors(path, format=FORMAT)
    state = _checked(stored, settings)
    scaling = TOKEN_SCALINGS.get(settings.normalisation)
    state, rescaled = _raw_inputs(state, settings, scale)
    state = fold_norms(state) if rescaled else state
    return Dictionary(
        w_enc=state["W_enc"],
        b_enc=state["b_gate" if settings.architecture == "gated" else "b_enc"],
        decoder=state["W_dec"],
        b_dec=state["b_dec"],
        firing=_firing(state, settings),
        centred=settings.centred,
        scaling=scaling,
        metadata=_frequencies(path.with_name(_SPARSITY)) | settings.metadata() | {"dtype": stored.dtype},
    )


def _architecture(cfg: Mapping[str, Any], path: Path) -> str:
    name, activation = cfg.get("architecture", "standard"), cfg.get("activation_fn", "relu")
    if "transcoder" in name or cfg.get("hook_name_out") or (cfg.get("metadata") or {}).get("hook_name_out"):
        raise a_transcoder(path)
    if activation == "topk" and name == "standard" and (cfg.get("activation_fn_kwargs") or {}).get("k") is not None:
        name = "topk"
    if name not in ARCHITECTURES:
        raise UnknownName(f"architecture of '{path}'", name, ARCHITECTURES)
    if activation not in ("relu", "topk"):
        raise UnknownName(f"activation_fn of '{path}'", str(activation), ("relu", "topk"))
    return name


def _checked(stored: StoredTensors, settings: Settings) -> dict[str, Tensor]:
    """The tensors of the architecture, of the shapes that cfg.json asks for; older names and a finetuning scale are resolved."""
    width, latents = (whole_number(settings.cfg, name, settings.path) for name in ("d_in", "d_sae"))
    own, values = ARCHITECTURES[settings.architecture], dict(stored.values)
    if "log_threshold" in values and "threshold" in own:
        values["threshold"] = values.pop("log_threshold").float().exp()
    stored = StoredTensors(stored.path, stored.format, values)
    stored.only("W_enc", "W_dec", "b_dec", *own, "scaling_factor")
    state = {"W_enc": stored.take("W_enc", width, latents), "W_dec": stored.take("W_dec", latents, width)}
    state["b_dec"] = stored.take("b_dec", width)
    state |= {name: stored.take(name) if name == "topk_threshold" else stored.take(name, latents) for name in own}
    if "scaling_factor" in stored:
        factor = stored.take("scaling_factor", latents)
        if not torch.allclose(factor, torch.ones_like(factor)):
            if not settings.cfg.get("finetuning_scaling_factor"):
                raise FormatError(
                    f"'{stored.path}' holds a scaling_factor, and '{CFG}' says finetuning_scaling_factor is off; one of them is of another"
                )
            state["W_dec"] = state["W_dec"] * factor[:, None]
    return state


def _raw_inputs(state: dict[str, Tensor], settings: Settings, scale: float | None) -> tuple[dict[str, Tensor], bool]:
    """The weights for activations as they are, and whether decoder norms are still to be folded: what training did to inputs is undone."""
    kind, folder = settings.normalisation, settings.path.parent
    if kind == "covariance_whitening":
        if not (folder / _WHITENING).is_file():
            raise FormatError(
                f"'{settings.path}' asks for whitened inputs, and there is no '{_WHITENING}' beside it; use the finished dictionary"
            )
        whitening = read_safetensors(folder / _WHITENING, format=FORMAT)
        state = fold_norms(state) if settings.rescaled else state
        return fold_whitening(state, whitening, centred=settings.centred), False
    if kind == "expected_average_only_in":
        factor = scale if scale is not None else settings_beside(folder / _SCALER).get("scaling_factor")
        if factor is None:
            raise InputError(
                f"'{settings.path}' was trained on inputs multiplied by a constant that the folder does not hold; give it: "
                "read_dictionary(path, scale=...), 'norm_scaling_factor' in SAELens' registry, √d / mean |x| of the training tokens"
            )
        return fold_scale(state, float(factor), rescaled=settings.rescaled), settings.rescaled
    if scale is not None:
        raise InputError(
            f"scale={scale:g} given, and '{settings.path}' says normalize_activations is {kind!r}: inputs are not multiplied; leave it out"
        )
    return state, settings.rescaled


def _firing(state: Mapping[str, Tensor], settings: Settings) -> Firing:
    if settings.architecture == "standard":
        return Relu()
    if settings.architecture == "topk":
        return TopK(settings.k(len(state["b_enc"])))
    if settings.architecture == "gated":
        scale = state["r_mag"].exp()
        return Gated(scale, state["b_mag"] - state["b_gate"] * scale)
    if settings.architecture == "jumprelu":
        return Threshold(state["threshold"])
    return Threshold(state["topk_threshold"], "batchtopk")


def _frequencies(path: Path) -> dict[str, Any]:
    """Of the log10 frequencies that a training run left beside the weights: the L0 and the dead latents it ended with."""
    if not path.is_file():
        return {}
    stored = read_safetensors(path, format=FORMAT)
    rate = 10 ** stored.take("sparsity", stored.length("sparsity")).double()
    return {"l0": float(rate.sum()), "num_dead_features": int((rate < 1e-9).sum())}  # SAELens adds 1e-10 before the logarithm
