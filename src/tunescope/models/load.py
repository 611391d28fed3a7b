"""The front door: any way of naming a model in, a `Model` out; a base and its adapter share one copy of the weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tunescope.errors import AdapterError, DeviceError, InputError, UnknownName
from tunescope.models.adapters import AdapterFiles, adapter_tensors, alters_base, attach, read_adapter
from tunescope.models.body import load_body, load_tokenizer
from tunescope.models.lengths import declared_length
from tunescope.models.model import Model
from tunescope.models.objects import derived_warning, from_object
from tunescope.models.output import read_output
from tunescope.models.sources import Folder, find_folder, read_json
from tunescope.models.weights import check_finite, hash_tensors

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    source: Any,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    name: str | None = None,
) -> Model:
    """Load one model.

    source: a hub id, a folder, a sentence-transformers folder, a PEFT adapter folder (its base is read from its config),
    or something loaded: (model, tokenizer), with a PeftModel too, a SentenceTransformer, a Model. Loaded objects keep their device
    and dtype. device: "auto" is cuda where there is one. dtype: float32, bfloat16, float16. name: how reports call it.

    Raises ModelError (no such model, not a model, damaged, does not fit), UnsafeWeights (only a pickle), AdapterError,
    DeviceError, UnknownName (dtype), ActivationError (NaN or Inf in the weights).
    """
    options = _options(device, dtype, trust_remote_code)
    return _load(_find(source, revision, options), options, name=name)


def load_pair(
    base: Any,
    tuned: Any,
    *,
    revision: str | None = None,
    tuned_revision: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> tuple[Model, Model]:
    """Load base and tuned; when tuned is an adapter (or a PeftModel) on that base, both share one copy of the base's weights.

    base None: the base the adapter's config names. A base that is itself an adapter is loaded as its own copy. revision belongs
    to the base, tuned_revision to the tuned model. Raises as `load_model`, and InputError when base is None and cannot be read off tuned.
    """
    options = _options(device, dtype, trust_remote_code)
    tuned = _find(tuned, tuned_revision, options)
    if not isinstance(tuned, Folder):
        return _pair_of_objects(base, _load(tuned, options), options, revision=revision)
    if base is None and not tuned.is_adapter:
        raise InputError(f"one model given, '{tuned.name}', and it is no adapter that names its base; give two, the base first")
    base = _find(_base_of(tuned) if base is None else base, revision, options)
    if tuned.is_adapter and not (isinstance(base, Folder) and base.is_adapter):
        return _load_on_base(tuned, base, options)
    return _load(base, options), _load(tuned, options)


def _find(source: Any, revision: str | None, options: dict) -> Any:
    """The folder of a name; anything loaded is left as it is."""
    if not isinstance(source, str | Path):
        return source
    return find_folder(source, revision=revision, trust_remote_code=options["trust_remote_code"])


def _load(source: Any, options: dict, *, name: str | None = None) -> Model:
    if isinstance(source, Model):
        return replace(source, name=name) if name else source
    if not isinstance(source, Folder):
        return from_object(source, name=name)
    if source.is_adapter:
        return replace(_load_on_base(source, _find(_base_of(source), None, options), options)[1], name=name or source.name)
    body, anatomy, warned = load_body(source, **options)
    model = Model(
        name=name or source.name,
        module=body,
        tokenizer=load_tokenizer(source, options["trust_remote_code"]),
        anatomy=anatomy,
        revision=source.revision,
        warnings=[*derived_warning(name or source.name, anatomy), *warned],
    )
    return _deployed(model, source)


def _deployed(model: Model, folder: Folder) -> Model:
    """`model` with the head, length and casing its folder declares, or the length its tokenizer does."""
    if not folder.is_sentence_transformer:
        return replace(model, max_length=declared_length(model.module, model.tokenizer, declared=None))
    head, warning = read_output(folder.path, asked=folder.name)
    path = folder.body / "sentence_bert_config.json"
    settings = read_json(path) if path.is_file() else {}
    length = settings.get("max_seq_length") or model.tokenizer.model_max_length
    return replace(
        model,
        output=replace(head, layers=tuple(layer.to(model.device).eval() for layer in head.layers)),
        max_length=declared_length(model.module, model.tokenizer, declared=length),
        lowercase=bool(settings.get("do_lower_case")),
        warnings=[*model.warnings, *([f"'{folder.name}': {warning}"] if warning else [])],
    )


def _pair_of_objects(base: Any, tuned: Model, options: dict, *, revision: str | None) -> tuple[Model, Model]:
    if base is None and tuned.peft is None:
        raise InputError(f"no base given, and '{tuned.name}' carries no adapter to switch off; give the base model too")
    if base is None:
        return tuned.without_adapter(), replace(tuned, name=f"{tuned.name} + {tuned.adapter['name']}")
    loaded = _load(_find(base, revision, options), options)
    if tuned.peft is not None and loaded.module is tuned.module:
        return tuned.without_adapter(loaded.name), tuned
    return loaded, tuned


def _load_on_base(folder: Folder, base: Any, options: dict) -> tuple[Model, Model]:
    """The base, and the adapter of `folder` on it: one copy of the weights, unless the adapter rewrites the base's own weights."""
    files = read_adapter(folder.path, asked=folder.name)
    loaded = _load(base, options)
    if loaded.peft is not None:
        raise AdapterError(f"the base '{loaded.name}' carries an adapter already; give the plain base, or merge that adapter first")
    body = loaded.module
    if not isinstance(base, Folder) or alters_base(files, body):
        body = copy.deepcopy(body)  # never change a caller's object; never let an adapter write into the base we compare with
    peft, warned = attach(body, files, loaded.anatomy, base_name=loaded.name)
    check_finite(adapter_tensors(body), name=folder.name)
    tuned = replace(
        loaded,
        name=folder.name,
        module=body,
        tokenizer=load_tokenizer(folder, options["trust_remote_code"], required=False) or loaded.tokenizer,
        revision=folder.revision,
        peft=peft,
        adapter_on=True,
        adapter=files.describe() | {"sha256": hash_tensors(files.state)},
        warnings=[*loaded.warnings, *warned, *_other_base(files, base)],
    )
    if folder.is_sentence_transformer:
        tuned = _deployed(tuned, folder)
    return (replace(loaded, peft=peft) if body is loaded.module else loaded), tuned


def _base_of(folder: Folder) -> str:
    base = read_json(folder.path / "adapter_config.json").get("base_model_name_or_path")
    if not base:
        raise AdapterError(f"the adapter '{folder.name}' does not name its base in adapter_config.json; give the base model too")
    return base


def _other_base(files: AdapterFiles, base: Any) -> list[str]:
    if not isinstance(base, Folder) or not files.base or Path(files.base).name == Path(base.name).name:
        return []
    return [f"the adapter '{files.name}' names '{files.base}' as its base; '{base.name}' was given and fits by name and shape"]


def _options(device: str, dtype: str, trust_remote_code: bool) -> dict:
    if dtype not in DTYPES:
        raise UnknownName("dtype", dtype, DTYPES)
    return {"device": _device(device), "dtype": dtype, "trust_remote_code": trust_remote_code}


def _device(asked: str) -> str:
    here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    here += ["mps"] if torch.backends.mps.is_available() else []
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    wanted = "cuda:0" if asked == "cuda" else asked
    if wanted not in here:
        raise DeviceError(f"no such device: '{asked}' asked for, this machine has {', '.join(here)}; use one of these, or 'auto'")
    return wanted
