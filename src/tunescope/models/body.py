"""The body of a model folder: read from safetensors only, complete, finite, on its device."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, AutoTokenizer

from tunescope.errors import ModelError
from tunescope.models.anatomy import Anatomy, read_anatomy, text_body
from tunescope.models.clip import text_head
from tunescope.models.families import FAMILIES
from tunescope.models.inputs import check_type
from tunescope.models.output import OutputHead
from tunescope.models.placement import DeviceMap
from tunescope.models.quantised import check_method, method_of, packing
from tunescope.models.quiet import quietly
from tunescope.models.sources import Folder, read_json
from tunescope.models.weights import check_finite, check_weight_files

_WHOLE = ("CLIPTextModelWithProjection",)  # architectures of which AutoModel would leave out a part that we read
_HEADS = {"pooler", "lm_head", "cls", "classifier", "score", "qa_outputs", "vocab_projector", "predictions", "contact_head"}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


def load_body(
    folder: Folder,
    *,
    device: str,
    dtype: str,
    trust_remote_code: bool,
    device_map: DeviceMap | None = None,
    quantise: str | None = None,
) -> tuple[nn.Module, Anatomy, OutputHead, list[str]]:
    """The body in `folder`, its anatomy, the output head its own weights declare, and warnings.

    Raises UnsafeWeights, ModelError (damaged, incomplete, reads no texts, quantised by a library that is missing, needs its own code),
    ActivationError (NaN or Inf).
    """
    quantised = method_of(read_json(folder.body / "config.json"))
    check_method(quantised, name=folder.name)
    config = read_config(folder, trust_remote_code)
    packed = packing(quantise, declared=quantised, name=folder.name, dtype=dtype, family=config.model_type)
    placed = device_map or ({"": device} if quantised or packed else None)  # packed weights are made on their device and stay there
    check_type(config, name=folder.name)
    check_weight_files(folder.body, asked=folder.name)
    loader = next((getattr(transformers, name) for name in getattr(config, "architectures", None) or () if name in _WHOLE), AutoModel)
    try:
        with quietly(), torch.random.fork_rng():
            torch.manual_seed(0)  # what a checkpoint lacks, such as a pooler, is drawn alike at every loading
            module, info = loader.from_pretrained(
                str(folder.body),
                config=config,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
                trust_remote_code=trust_remote_code,
                **({"device_map": placed} if placed else {}),
                **({"quantization_config": packed} if packed else {}),
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, ImportError) as error:
        reason = _first_line(error)
        raise ModelError(f"cannot load '{folder.name}': {reason}; check that its config.json and weights belong together") from error
    body = text_body(module)
    anatomy = read_anatomy(body)
    _check_complete(module, body, info, folder)
    check_finite(body.state_dict(), name=folder.name)
    warned = _left_out_blocks(info, anatomy, folder)
    if packed:
        warned.append(f"'{folder.name}' was packed to {quantise} as it was read: what is measured is the packed model")
    if body is not module and getattr(config, "is_encoder_decoder", False):
        warned.append(f"'{folder.name}' is an encoder-decoder: its encoder is read, its decoder is not")
    elif body is not module and hasattr(module, "vision_model"):
        warned.append(f"'{folder.name}' is a model of texts and images: its text tower is read, its vision tower is not")
    head = text_head(module, projected="text_projection.weight" not in info["missing_keys"]) or OutputHead()
    for part in () if placed else (body, *head.layers):
        part.to(device)
    return body.eval().requires_grad_(False), anatomy, head, warned


def load_tokenizer(folder: Folder, trust_remote_code: bool, *, required: bool = True) -> Any:
    """The tokenizer of `folder`; None when it has none and none is required. Raises ModelError when it is missing or broken."""
    place = next((path for path in (folder.body, folder.path) if any((path / name).is_file() for name in _TOKENIZER_FILES)), None)
    if place is None and not required:
        return None
    try:
        with quietly():
            return AutoTokenizer.from_pretrained(str(place or folder.body), trust_remote_code=trust_remote_code)
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        raise ModelError(
            f"cannot load the tokenizer of '{folder.name}': {_first_line(error)}; save it there with tokenizer.save_pretrained(folder)"
        ) from error


def read_config(folder: Folder, trust_remote_code: bool) -> Any:
    written = read_json(folder.body / "config.json")
    model_type = written.get("model_type")
    if model_type not in CONFIG_MAPPING and "auto_map" in written and not trust_remote_code:
        raise ModelError(
            f"'{folder.name}' (model type '{model_type}') runs code of its own from its folder; "
            "read that code, then pass --trust-remote-code (trust_remote_code=True) if you trust it"
        )
    family = FAMILIES.get(model_type)
    try:
        with quietly():
            return AutoConfig.from_pretrained(str(folder.body), trust_remote_code=trust_remote_code, **(family.overrides if family else {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"cannot read {folder.body / 'config.json'} of '{folder.name}': {_first_line(error)}") from error


def _check_complete(module: nn.Module, body: nn.Module, info: dict, folder: Folder) -> None:
    """Refuse a body with weights the checkpoint does not hold: they would be random numbers. Poolers and task heads may lack."""
    if info["mismatched_keys"]:
        key, found, wanted = sorted(info["mismatched_keys"])[0]
        raise ModelError(f"'{folder.name}' does not fit its config.json: {key} is {tuple(found)}, by the config {tuple(wanted)}")
    inside = {id(parameter) for parameter in body.state_dict(keep_vars=True).values()}
    state = module.state_dict(keep_vars=True)
    missing = sorted(
        key for key in info["missing_keys"] if not _HEADS & set(key.split(".")) and (key not in state or id(state[key]) in inside)
    )
    if missing:
        raise ModelError(
            f"'{folder.name}' lacks {len(missing)} weights of {type(body).__name__}, such as {missing[0]}: they would be random; "
            "the checkpoint is incomplete or of another model than its config.json says"
        )


def _left_out_blocks(info: dict, anatomy: Anatomy, folder: Folder) -> list[str]:
    marker = f"{anatomy.blocks.rsplit('.', 1)[-1]}.{anatomy.n_layers}."
    if any(marker in f".{key}" for key in info["unexpected_keys"]):
        return [f"'{folder.name}' holds more blocks than the {anatomy.n_layers} its config.json asks for: the others are left out"]
    return []


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n") or [""])[0][:200] or type(error).__name__
