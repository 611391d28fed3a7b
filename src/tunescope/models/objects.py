"""Models that are already loaded: a (model, tokenizer) pair, a PeftModel, or a SentenceTransformer."""

from __future__ import annotations

from typing import Any

import peft
from torch import nn

from tunescope.errors import ModelError
from tunescope.models.adapters import refuse_prompt_adapter
from tunescope.models.anatomy import read_anatomy, text_body
from tunescope.models.lengths import declared_length
from tunescope.models.model import Model
from tunescope.models.output import OutputHead, object_output
from tunescope.models.weights import check_finite

_HOW = "give (model, tokenizer), a SentenceTransformer, a folder or a hub id"


def from_object(source: Any, *, name: str | None = None) -> Model:
    """A Model around something loaded; nothing of it is changed, moved or copied.

    Raises ModelError when it is not a model with its tokenizer, AdapterError and ActivationError as for folders.
    """
    if _is_sentence_transformer(source):
        return _from_sentence_transformer(source, name=name)
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], nn.Module) and callable(source[1]):
        return _build(*source, name=name)
    if isinstance(source, tuple) and len(source) == 2 and _is_sentence_transformer(source[0]):
        return _from_sentence_transformer(source[0], name=name)
    if isinstance(source, nn.Module):
        raise ModelError(f"a {type(source).__name__} was given without its tokenizer; {_HOW}")
    raise ModelError(f"cannot read a model from a {type(source).__name__}; {_HOW}")


def _build(module: nn.Module, tokenizer: Any, *, name: str | None, output: OutputHead | None = None, length: int | None = None) -> Model:
    wrapper = module if isinstance(module, peft.PeftModel) else None
    if wrapper is not None:
        refuse_prompt_adapter(wrapper.active_peft_config, name=name or "this PeftModel")
    inner = wrapper.get_base_model() if wrapper is not None else module
    body = text_body(inner)
    anatomy = read_anatomy(body)
    name = name or getattr(getattr(body, "config", None), "_name_or_path", "") or type(module).__name__
    check_finite(body.state_dict(), name=name)
    return Model(
        name=name,
        module=body,
        tokenizer=tokenizer,
        anatomy=anatomy,
        output=output or OutputHead(),
        max_length=declared_length(body, tokenizer, declared=length),
        peft=wrapper,
        adapter_on=wrapper is not None,
        adapter=_describe(wrapper) if wrapper is not None else None,
        warnings=derived_warning(name, anatomy),
    )


def derived_warning(name: str, anatomy) -> list[str]:
    """The warning every derived anatomy carries."""
    if not anatomy.derived:
        return []
    return [
        f"'{name}': model type '{anatomy.family}' is not in the table of families; its {anatomy.n_layers} blocks were derived "
        f"as the longest list of equal modules ('{anatomy.blocks}')"
    ]


def _describe(wrapper: peft.PeftModel) -> dict:
    config = wrapper.active_peft_config
    targets = config.target_modules
    return {
        "name": wrapper.active_adapter,
        "kind": config.peft_type.value,
        "rank": getattr(config, "r", None),
        "alpha": getattr(config, "lora_alpha", None),
        "targets": targets if isinstance(targets, str) else sorted(targets or ()),
        "base": config.base_model_name_or_path,
    }


def _is_sentence_transformer(source: Any) -> bool:
    """By shape and not by class, so that sentence-transformers stays optional."""
    return isinstance(source, nn.Sequential) and hasattr(source, "encode") and len(source) > 0 and hasattr(source[0], "auto_model")


def _from_sentence_transformer(source: Any, *, name: str | None) -> Model:
    first, *rest = source
    prompts = getattr(source, "prompts", None) or {}
    head, warning = object_output(rest, prompt=prompts.get(getattr(source, "default_prompt_name", None)) or "")
    model = _build(first.auto_model, first.tokenizer, name=name, output=head, length=first.max_seq_length)
    model.lowercase = bool(getattr(first, "do_lower_case", False))
    model.warnings += [f"'{model.name}': {warning}"] if warning else []
    return model
