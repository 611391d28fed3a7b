"""The front door: any way of naming a model in, a `Model` out; a base and its adapter share one copy of the weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftType

from tunescope.errors import AdapterError, InputError, ModelError, UnknownName
from tunescope.models.adapters import AdapterFiles, adapter_tensors, read_adapter
from tunescope.models.body import load_body, load_tokenizer
from tunescope.models.fit import DEFAULT, Fitted, alters_base, fit, put
from tunescope.models.lengths import declared_length
from tunescope.models.model import Model
from tunescope.models.objects import derived_warning, from_object
from tunescope.models.output import read_output
from tunescope.models.placement import check_in_memory, device_here, read_device_map
from tunescope.models.pretraining import UNKNOWN, check_pretraining, pretraining_of
from tunescope.models.quantised import check_asked
from tunescope.models.sources import Folder, find_folder, read_json
from tunescope.models.weights import check_finite, hash_tensors

_SECOND = "second"  # what the second of two adapters on one base is called in their wrapper
_TOKENIZER_FILES = ("tokeniz*", "*vocab*", "*.model", "*.spm", "*.tiktoken")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    source: Any,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    name: str | None = None,
    adapter: str | None = None,
    pretraining: str | None = None,
    device_map: Any = None,
    quantise: str | None = None,
) -> Model:
    """Load one model.

    source: a hub id, a folder, a sentence-transformers folder, a PEFT adapter folder (its base is read from its config),
    or something loaded: (model, tokenizer), with a PeftModel too, a SentenceTransformer, a Model. Loaded objects keep their device
    and dtype. device: "auto" is cuda where there is one. dtype: float32, bfloat16, float16. name: how reports call it.
    adapter: which one of a folder or PeftModel that holds several; by default the one at the folder's top, or the one that is active.
    pretraining: the checkpoint's objective ("mlm+nsp", "causal-lm", "unknown"); by default from the table of known checkpoints.
    device_map: how `from_pretrained` spreads the weights, instead of device: "auto", "balanced", "sequential", a device, or {module: device
    or "disk"}; such a model is never moved, and what is on the disk is read as it is needed.
    quantise: "4bit" packs the linear layers as they are read, for LoRA on a base that is too large otherwise (QLoRA); needs bitsandbytes. A
    checkpoint that is quantised already is read as it is.

    Raises ModelError (no such model, not a model, damaged, does not fit), UnsafeWeights (only a pickle), AdapterError,
    DeviceError, UnknownName (dtype, device_map, quantise), InputError, ActivationError (NaN or Inf in the weights).
    """
    check_asked(quantise, source)
    options = loading_options(device, dtype, trust_remote_code, device_map, quantise)
    declared = pretraining and check_pretraining(pretraining)
    if isinstance(source, str | Path) or adapter is None:
        loaded = load_source(find_source(source, revision, options, adapter=adapter), options, name=name)
    else:
        loaded = from_object(source, name=name, adapter=adapter)
    return loaded if declared is None else replace(loaded, pretraining=declared)


def load_pair(
    base: Any,
    tuned: Any,
    *,
    revision: str | None = None,
    tuned_revision: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    pretraining: str | None = None,
    device_map: Any = None,
) -> tuple[Model, Model]:
    """Load base and tuned; when tuned is an adapter (or a PeftModel) on that base, both share one copy of the base's weights.

    base None: the base the adapter's config names. Two adapters are each put on the base they name, on one copy when both are LoRA on
    the same base. revision belongs to the base, tuned_revision to the tuned model. pretraining: the base's objective, and the tuned
    model's where it is an adapter or its own is unknown. device_map: of both, as in `load_model`.

    Raises as `load_model`, and InputError when base is None and cannot be read off tuned.
    """
    options = loading_options(device, dtype, trust_remote_code, device_map)
    declared = pretraining and check_pretraining(pretraining)
    pair = _load_pair(base, find_source(tuned, tuned_revision, options), options, revision=revision)
    if declared is None:
        return pair
    own = pair[1].pretraining
    return replace(pair[0], pretraining=declared), replace(
        pair[1], pretraining=own if pair[1].peft is None and own != UNKNOWN else declared
    )


def _load_pair(base: Any, tuned: Any, options: dict, *, revision: str | None) -> tuple[Model, Model]:
    if not isinstance(tuned, Folder):
        return _pair_of_objects(base, load_source(tuned, options), options, revision=revision)
    if base is None and not tuned.is_adapter:
        raise InputError(f"one model given, '{tuned.name}', and it is no adapter that names its base; give two, the base first")
    base = find_source(_base_of(tuned) if base is None else base, revision, options)
    if not tuned.is_adapter:
        loaded = load_source(base, options)
        return loaded, load_source(tuned, options, spare=loaded.tokenizer)
    if isinstance(base, Folder) and base.is_adapter:
        return _pair_of_adapters(base, tuned, options)
    return _load_on_base(tuned, base, options)


def find_source(source: Any, revision: str | None, options: dict, *, adapter: str | None = None) -> Any:
    """The folder of a name; anything loaded is left as it is."""
    if not isinstance(source, str | Path):
        return source
    return find_folder(source, revision=revision, trust_remote_code=options["trust_remote_code"], adapter=adapter)


def load_source(source: Any, options: dict, *, name: str | None = None, spare: Any = None) -> Model:
    """spare: the tokenizer to read with where the folder holds none."""
    if isinstance(source, Model):
        return replace(source, name=name) if name else source
    if not isinstance(source, Folder):
        return from_object(source, name=name)
    if source.is_adapter:
        return replace(_load_on_base(source, find_source(_base_of(source), None, options), options)[1], name=name or source.name)
    body, anatomy, head, warned = load_body(source, **options)
    tokenizer, without = _tokenizer(source, options, spare)
    model = Model(
        name=name or source.name,
        module=body,
        tokenizer=tokenizer,
        anatomy=anatomy,
        output=head,
        revision=source.revision,
        pretraining=_pretraining(source),
        origin=source,
        warnings=[*derived_warning(name or source.name, anatomy), *warned, *without],
    )
    return deployed(model, source)


def _tokenizer(folder: Folder, options: dict, spare: Any) -> tuple[Any, list[str]]:
    """The folder's tokenizer, else the spare one with a warning. Raises ModelError when there is neither."""
    if any(next(place.glob(kind), None) for place in (folder.body, folder.path) for kind in _TOKENIZER_FILES):
        return load_tokenizer(folder, options["trust_remote_code"]), []
    if spare is None:
        raise ModelError(f"'{folder.name}' holds no tokenizer files; copy tokenizer*.json there from the base it was tuned from")
    return spare, [f"'{folder.name}' holds no tokenizer files: its texts were cut into tokens by the base's tokenizer"]


def _pretraining(folder: Folder) -> str:
    """By the hub id, else by the checkpoint that config.json says it was started from; a sentence-transformers folder was tuned since."""
    started = None if folder.is_sentence_transformer else read_json(folder.body / "config.json").get("_name_or_path")
    return pretraining_of(folder.name if folder.revision else None, started)


def deployed(model: Model, folder: Folder) -> Model:
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
    loaded = load_source(find_source(base, revision, options), options)
    if tuned.peft is not None and loaded.module is tuned.module and loaded.adapters in ((), tuned.adapters):
        return tuned.without_adapter(loaded.name), tuned
    return loaded, tuned


def _load_on_base(folder: Folder, base: Any, options: dict) -> tuple[Model, Model]:
    """The base, and the adapter of `folder` on it: one copy of the weights, unless the adapter rewrites the base's own weights."""
    files = read_adapter(folder.path, asked=folder.name)
    loaded = load_source(base, options)
    if loaded.peft is not None:
        raise AdapterError(f"the base '{loaded.name}' carries an adapter already; give the plain base, or merge that adapter first")
    body = loaded.module
    check_in_memory(body, name=loaded.name, what="an adapter")
    if not isinstance(base, Folder) or alters_base(files, body):
        body = copy.deepcopy(body)  # never change a caller's object; never let an adapter write into the base we compare with
    fitted = fit(body, files, loaded.anatomy, base_name=loaded.name)
    peft = put(fitted, body, loaded.anatomy)
    tuned = wearing(replace(loaded, module=body, peft=peft), folder, fitted, options, warned=_other_base(files, base))
    return (replace(loaded, peft=peft) if body is loaded.module else loaded), tuned


def _pair_of_adapters(first: Folder, second: Folder, options: dict) -> tuple[Model, Model]:
    """Two adapters, each on the base it names: one copy of the weights when both are LoRA on one base, else two."""
    bases = [find_source(_base_of(folder), None, options) for folder in (first, second)]
    files = [read_adapter(folder.path, asked=folder.name) for folder in (first, second)]
    alone = {each.config.peft_type for each in files} != {PeftType.LORA} or bases[0].path.resolve() != bases[1].path.resolve()
    if alone or bases[0].is_adapter:
        return load_source(first, options), load_source(second, options)
    loaded = load_source(bases[0], options)
    check_in_memory(loaded.module, name=loaded.name, what="an adapter")
    if any(alters_base(each, loaded.module) for each in files):
        return load_source(first, options), load_source(second, options)
    fitted = [fit(loaded.module, each, loaded.anatomy, base_name=loaded.name) for each in files]
    peft = put(fitted[0], loaded.module, loaded.anatomy)
    loaded = replace(loaded, peft=put(fitted[1], peft, loaded.anatomy, name=_SECOND))
    return wearing(loaded, first, fitted[0], options), wearing(loaded, second, fitted[1], options, adapter=_SECOND)


def wearing(
    loaded: Model, folder: Folder, fitted: Fitted, options: dict, *, adapter: str = DEFAULT, warned: list[str] | None = None
) -> Model:
    """The side of `loaded` on which the adapter of `folder`, called `adapter` in its wrapper, is switched on."""
    check_finite(adapter_tensors(loaded.module, (adapter,)), name=folder.name)
    others = [f"'{folder.name}' holds other adapters too ({', '.join(folder.adapters)}), which are not read"] if folder.adapters else []
    tuned = replace(
        loaded,
        name=folder.name,
        tokenizer=load_tokenizer(folder, options["trust_remote_code"], required=False) or loaded.tokenizer,
        revision=folder.revision,
        adapter_on=True,
        adapters=(adapter,),
        adapter=fitted.files.describe() | {"sha256": hash_tensors(fitted.files.state)},
        worn=folder,
        warnings=[*loaded.warnings, *fitted.warnings, *(warned or ()), *others],
    )
    return deployed(tuned, folder) if folder.is_sentence_transformer else tuned


def _base_of(folder: Folder) -> str:
    base = read_json(folder.path / "adapter_config.json").get("base_model_name_or_path")
    if not base:
        raise AdapterError(f"the adapter '{folder.name}' does not name its base in adapter_config.json; give the base model too")
    return base


def _other_base(files: AdapterFiles, base: Any) -> list[str]:
    if not isinstance(base, Folder) or not files.base or Path(files.base).name == Path(base.name).name:
        return []
    return [f"the adapter '{files.name}' names '{files.base}' as its base; '{base.name}' was given and fits by name and shape"]


def loading_options(device: str, dtype: str, trust_remote_code: bool, device_map: Any, quantise: str | None = None) -> dict:
    if dtype not in DTYPES:
        raise UnknownName("dtype", dtype, DTYPES)
    placed = read_device_map(device_map, device=device)
    where = {"device": device_here(device), "device_map": placed}
    return where | {"dtype": dtype, "trust_remote_code": trust_remote_code, "quantise": quantise}
