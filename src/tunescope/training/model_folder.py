"""A model written as the folder it could have come from: plain Hugging Face, with task head, tokenizer and embedding modules."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from tunescope.errors import InputError, ModelError
from tunescope.models import Model
from tunescope.models.adapters import adapter_tensors
from tunescope.models.anatomy import text_body
from tunescope.models.output import Normalize, OutputHead
from tunescope.models.placement import check_in_memory
from tunescope.models.quantised import is_packed, method_of
from tunescope.models.quiet import quietly
from tunescope.models.sources import Folder, read_json
from tunescope.models.weights import ADAPTER_FILES
from tunescope.training.disturb import AlwaysDropout

_BESIDE = ("*.json", "*.txt", "*.model", "*.jinja")  # what an adapter folder holds beside its weights
_NOT_BESIDE = ("perturbation.json", "trainer_state.json", "manifest.json", "run.json", "checkpoint.json")


def write_model(model: Model, into: Path, *, head: Mapping[str, Tensor] | None = None) -> None:
    """Write the weights `model` acts with, and all that loading it needs, into the empty folder: an adapter as an adapter, else the whole.

    Where the body came from a folder, its task head, tokenizer and sentence-transformers modules come along; safetensors only.
    head: weights of the task head that take the place of the base's, by their names in its checkpoint; those it lacks are left out.

    Raises: InputError (dropout left on, which is no weights), ModelError (quantised, offloaded, of a class that transformers lacks).
    """
    if any(isinstance(module, AlwaysDropout) for module in model.module.modules()):
        raise InputError(f"'{model.name}' differs in dropout alone, which no weights hold, so there is nothing to save; use it from Python")
    check_in_memory(model.module, name=model.name, what="saving a model")
    with quietly():
        if model.adapter_on:
            _write_adapter(model, into)
            return
        body = into / _body_path(model)
        whole, unsaved = _whole(model)
        _fill(text_body(whole), model)
        _fill_head(whole, head or {})
        whole.save_pretrained(body, state_dict={key: value for key, value in whole.state_dict().items() if key not in unsaved})
        model.tokenizer.save_pretrained(body)
        _write_modules(model, into, body)


def _body_path(model: Model) -> Path:
    """Where the transformer lies in the folder: at the top, but for sentence-transformers folders that keep it below."""
    folder = model.origin
    return folder.body.relative_to(folder.path) if isinstance(folder, Folder) else Path()


def _whole(model: Model) -> tuple[PreTrainedModel, set[str]]:
    """The model with its task head, as the base has it, and the names of what the base's checkpoint does not hold."""
    if is_packed(model.module):
        raise ModelError(f"the weights of '{model.name}' are packed, and moved ones cannot be packed again; give it unquantised")
    if isinstance(model.origin, Folder):
        return _loaded(model.origin, model.dtype)
    whole: Any = copy.deepcopy(model.peft).unload() if model.peft is not None else model.origin
    if not isinstance(whole, PreTrainedModel) or any(isinstance(part, BaseTunerLayer) for part in whole.modules()):
        whole = model.module
    if not isinstance(whole, PreTrainedModel):
        raise ModelError(f"'{model.name}' is a {type(whole).__name__} and no model of transformers, so it cannot be saved as a folder")
    return copy.deepcopy(whole), set()


def _loaded(folder: Folder, dtype: torch.dtype) -> tuple[PreTrainedModel, set[str]]:
    written = read_json(folder.body / "config.json")
    if method_of(written) is not None:
        raise ModelError(f"'{folder.name}' is quantised by {method_of(written)}: moved weights cannot be packed again; give it unquantised")
    name = next(iter(written.get("architectures") or ()), "")
    known = getattr(transformers, name, None)
    if known is None:
        raise ModelError(f"'{folder.name}' is a {name or 'model of no named class'} by its config.json, which transformers lacks")
    config = AutoConfig.from_pretrained(str(folder.body))
    whole, info = known.from_pretrained(str(folder.body), config=config, dtype=dtype, use_safetensors=True, output_loading_info=True)
    return whole, set(info["missing_keys"])


def _fill(body: nn.Module, model: Model) -> None:
    own = body.state_dict()
    with torch.no_grad():
        for key, value in model.tensors().items():
            if key not in own:
                raise ModelError(f"'{model.name}' has {key}, for which {type(body).__name__} has no place; it cannot be saved as a folder")
            own[key].copy_(value)


def _fill_head(whole: nn.Module, head: Mapping[str, Tensor]) -> None:
    own = whole.state_dict()
    with torch.no_grad():
        for key in head.keys() & own.keys():
            own[key].copy_(head[key])


def _write_adapter(model: Model, into: Path) -> None:
    own = adapter_tensors(model.module, model.adapters)
    if not isinstance(model.worn, Folder):
        model.peft.save_pretrained(str(into), selected_adapters=list(model.adapters), save_embedding_layers=False)
        (into / "README.md").unlink(missing_ok=True)
        return
    source = model.worn
    stored = load_file(source.path / ADAPTER_FILES[0])
    save_file({key: _own(key, own, value) for key, value in stored.items()}, into / ADAPTER_FILES[0], metadata={"format": "pt"})
    for pattern in _BESIDE:
        for file in source.path.glob(pattern):
            if file.name not in _NOT_BESIDE:
                shutil.copyfile(file, into / file.name)
    _copy_modules(source, into)


def _own(key: str, own: Mapping[str, Tensor], stored: Tensor) -> Tensor:
    """The adapter's tensor as the model has it; the file's names may have more in front. What is outside the body stays as stored."""
    parts = key.split(".")
    found = next((own[name] for name in (".".join(parts[start:]) for start in range(len(parts))) if name in own), stored)
    return found.detach().cpu().contiguous().clone()


def _write_modules(model: Model, into: Path, body: Path) -> None:
    """What makes an embedding of the final states: copied from a folder, written for a loaded SentenceTransformer."""
    if isinstance(model.origin, Folder):
        _copy_modules(model.origin, into)
        _refresh_layers(model, into)
        settings = model.origin.body / "sentence_bert_config.json"
        if settings.is_file():
            shutil.copyfile(settings, body / settings.name)
    elif model.output.declared and model.output.pooling != ("eos",):
        _write_json(body / "sentence_bert_config.json", {"max_seq_length": model.max_length, "do_lower_case": model.lowercase})
        _write_json(into / "config_sentence_transformers.json", _deployed(model.output))
        kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
        pooling = {"word_embedding_dimension": model.anatomy.width, "pooling_mode": list(model.output.pooling)}
        _write_json(into / "1_Pooling" / "config.json", pooling | {"include_prompt": model.output.include_prompt})
        for place, layer in enumerate(model.output.layers, start=2):
            kinds.append((f"{place}_{type(layer).__name__}", type(layer).__name__))
            _write_layer(layer, into / kinds[-1][0])
        types = ((path, f"sentence_transformers.models.{kind}") for path, kind in kinds)
        _write_json(into / "modules.json", [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(types)])


def _deployed(output: OutputHead) -> dict[str, Any]:
    """Prompts by name, which of them is put before every text, and the similarity, as sentence-transformers writes them."""
    prompts, default = dict(output.prompts), output.default_prompt
    if prompts.get(default or "", "") != output.prompt:  # a head whose prompt was set by hand
        prompts, default = prompts | {"default": output.prompt}, "default"
    similarity = {"similarity_fn_name": output.similarity} if output.similarity else {}
    return {"prompts": prompts, "default_prompt_name": default} | similarity


def _write_layer(layer: Any, folder: Path) -> None:
    folder.mkdir()
    if isinstance(layer, Normalize):
        return
    linear, activation = layer.linear, type(layer.activation)
    sizes = {"in_features": linear.in_features, "out_features": linear.out_features, "bias": linear.bias is not None}
    _write_json(folder / "config.json", sizes | {"activation_function": f"{activation.__module__}.{activation.__qualname__}"})
    save_file({f"linear.{key}": value.contiguous() for key, value in linear.state_dict().items()}, folder / "model.safetensors")


def _copy_modules(source: Folder, into: Path) -> None:
    if not source.is_sentence_transformer:
        return
    for name in ("modules.json", "config_sentence_transformers.json"):
        if (source.path / name).is_file():
            shutil.copyfile(source.path / name, into / name)
    for module in read_json(source.path / "modules.json")[1:]:
        (into / module["path"]).mkdir(parents=True, exist_ok=True)
        for file in (source.path / module["path"]).glob("*"):
            if file.suffix in (".json", ".safetensors", ".txt"):
                shutil.copyfile(file, into / module["path"] / file.name)


def _refresh_layers(model: Model, into: Path) -> None:
    """Dense layers of the embedding as the model has them now, which training may have moved, in place of the copied ones."""
    layers = [layer for layer in model.output.layers if not isinstance(layer, Normalize)] if (into / "modules.json").is_file() else []
    modules = read_json(into / "modules.json")[1:] if layers else []
    places = [into / module["path"] for module in modules if module["type"].rpartition(".")[2] == "Dense"]
    for layer, place in zip(layers, places, strict=True):
        tensors = {f"linear.{key}": value.cpu().contiguous() for key, value in layer.linear.state_dict().items()}
        save_file(tensors, place / "model.safetensors")


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
