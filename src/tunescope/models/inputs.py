"""What a model reads: texts, or something that is refused by name."""

from __future__ import annotations

from typing import Any

from transformers import MODEL_MAPPING

from tunescope.errors import ModelError

_READS = {
    "pixel_values": "images",
    "pixel_values_videos": "videos",
    "input_values": "audio",
    "input_features": "audio",
    "past_values": "time series",
    "flattened_patches": "images",
}
_NO_TEXT = ("vision-encoder-decoder", "speech-encoder-decoder")  # no entry in MODEL_MAPPING: their encoders read images and audio


def check_reads_texts(model: Any, *, name: str) -> None:
    """Raise ModelError when `model` (a class of transformers, or a model) reads no token ids."""
    reads = getattr(model, "main_input_name", "input_ids")
    if isinstance(reads, str) and reads != "input_ids":
        kind = model.__name__ if isinstance(model, type) else type(model).__name__
        raise _refusal(name, kind, _READS.get(reads, reads))


def check_type(config: Any, *, name: str) -> None:
    """Raise ModelError when the model that `config` stands for reads no token ids; before any weight is read."""
    if config.model_type in _NO_TEXT:
        raise _refusal(name, f"model of type '{config.model_type}'", "images" if "vision" in config.model_type else "audio")
    if type(config) in MODEL_MAPPING:
        found = MODEL_MAPPING[type(config)]
        check_reads_texts(found[0] if isinstance(found, tuple | list) else found, name=name)


def _refusal(name: str, kind: str, reads: str) -> ModelError:
    return ModelError(f"'{name}' is a {kind}, which reads {reads}, not texts; give a model that reads texts")
