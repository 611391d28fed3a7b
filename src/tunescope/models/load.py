"""The front door: any way of naming a model in, a `Model` out; a base and its adapter share one copy of the weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tunescope.errors import AdapterError, DeviceError, InputError, UnknownName
from tunescope.models.adapters import AdapterFiles, alters_base, attach, read_adapter
from tunescope.models.body import load_body, load_tokenizer
from tunescope.models.lengths import declared_length
from tunescope.models.model import Model
from tunescope.models.objects import derived_warning, from_object
from tunescope.models.output import OutputHead, read_output
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
    if isinstance(source, Model):
        return replace(source, name=name) if name else source
    if not isinstance(source, str | Path):
        return from_object(source, name=name)
    options = _options(device, dtype, trust_remote_code)
    folder = find_folder(source, revision=revision, trust_remote_code=trust_remote_code)
    if folder.is_adapter:
        return _load_on_base(folder, _base_of(folder), options, share=False, name=name)[1]
    return _from_folder(folder, options, name=name)


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
    if not isinstance(tuned, str | Path):
        return _pair_of_objects(base, load_model(tuned), options, revision=revision)
    folder = find_folder(tuned, revision=tuned_revision, trust_remote_code=trust_remote_code)
    if not folder.is_adapter:
        if base is None:
            raise InputError(f"no base given, and '{tuned}' is no adapter that names one; give the base model too")
        return load_model(base, revision=revision, **options), _from_folder(folder, options)
    base = _base_of(folder) if base is None else base
    if isinstance(base, str | Path) and find_folder(base, revision=revision, trust_remote_code=trust_remote_code).is_adapter:
        return load_model(base, revision=revision, **options), _load_on_base(folder, _base_of(folder), options, share=False)[1]
    return _load_on_base(folder, base, options, share=True, revision=revision)


def _pair_of_objects(base: Any, tuned: Model, options: dict, *, revision: str | None) -> tuple[Model, Model]:
    if base is None and tuned.peft is None:
        raise InputError(f"no base given, and '{tuned.name}' carries no adapter to switch off; give the base model too")
    if base is None:
        return tuned.without_adapter(), tuned
    loaded = load_model(base, revision=revision, **options)
    if tuned.peft is not None and loaded.module is tuned.module:
        return tuned.without_adapter(loaded.name), tuned
    return loaded, tuned


def _load_on_base(
    folder: Folder, base: Any, options: dict, *, share: bool, revision: str | None = None, name: str | None = None
) -> tuple[Model, Model]:
    """The base, and the adapter of `folder` on it: one copy of the weights if `share`, unless the adapter rewrites base weights."""
    files = read_adapter(folder.path, asked=folder.name)
    loaded = load_model(base, revision=revision, **options)
    if loaded.peft is not None:
        raise AdapterError(f"the base '{loaded.name}' carries an adapter already; give the plain base, or merge that adapter first")
    body = loaded.module
    if not isinstance(base, str | Path) or (share and alters_base(files, body)):
        body = copy.deepcopy(body)  # never change a caller's object; never let an adapter write into the base we compare with
    peft, warned = attach(body, files, loaded.anatomy, base_name=loaded.name)
    check_finite(body, name=folder.name)
    tokenizer = load_tokenizer(folder, options["trust_remote_code"], required=False) or loaded.tokenizer
    head, head_warning = _read_head(folder, options["device"]) if folder.is_sentence_transformer else (loaded.output, None)
    tuned = replace(
        loaded,
        name=name or folder.name,
        module=body,
        tokenizer=tokenizer,
        output=head,
        revision=folder.revision,
        peft=peft,
        adapter_on=True,
        warnings=[*loaded.warnings, *warned, *_other_base(files, base), *([f"'{folder.name}': {head_warning}"] if head_warning else [])],
    )
    tuned.adapter = files.describe() | {"sha256": hash_tensors(files.state)}
    if body is loaded.module:
        loaded = replace(loaded, peft=peft)
    return loaded, tuned


def _from_folder(folder: Folder, options: dict, *, name: str | None = None) -> Model:
    body, anatomy, warned = load_body(folder, **options)
    tokenizer = load_tokenizer(folder, options["trust_remote_code"])
    head, declared, lowercase = OutputHead(), None, False
    if folder.is_sentence_transformer:
        head, head_warning = _read_head(folder, options["device"])
        warned += [f"'{folder.name}': {head_warning}"] if head_warning else []
        path = folder.body / "sentence_bert_config.json"
        settings = read_json(path) if path.is_file() else {}
        declared, lowercase = settings.get("max_seq_length") or tokenizer.model_max_length, bool(settings.get("do_lower_case"))
    name = name or folder.name
    return Model(
        name=name,
        module=body,
        tokenizer=tokenizer,
        anatomy=anatomy,
        output=head,
        max_length=declared_length(body, tokenizer, declared=declared),
        lowercase=lowercase,
        revision=folder.revision,
        warnings=[*derived_warning(name, anatomy), *warned],
    )


def _read_head(folder: Folder, device: str) -> tuple[OutputHead, str | None]:
    head, warning = read_output(folder.path, asked=folder.name)
    return replace(head, layers=tuple(layer.to(device).eval() for layer in head.layers)), warning


def _base_of(folder: Folder) -> str:
    base = read_json(folder.path / "adapter_config.json").get("base_model_name_or_path")
    if not base:
        raise AdapterError(f"the adapter '{folder.name}' does not name its base in adapter_config.json; give the base model too")
    return base


def _other_base(files: AdapterFiles, base: Any) -> list[str]:
    if not isinstance(base, str | Path) or not files.base or Path(files.base).name == Path(base).name:
        return []
    return [f"the adapter '{files.name}' names '{files.base}' as its base; '{base}' was given and fits by name and shape"]


def _options(device: str, dtype: str, trust_remote_code: bool) -> dict:
    if dtype not in DTYPES:
        raise UnknownName("dtype", dtype, DTYPES)
    return {"device": _device(device), "dtype": dtype, "trust_remote_code": trust_remote_code}


def _device(asked: str) -> str:
    here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())), *(["mps"] if torch.backends.mps.is_available() else [])]
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    wanted = "cuda:0" if asked == "cuda" else asked
    if wanted not in here:
        raise DeviceError(f"no such device: '{wanted}' asked for, this machine has {', '.join(here)}; use one of these, or 'auto'")
    return wanted
