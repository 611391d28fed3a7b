"""Models that are already loaded: a (model, tokenizer) pair, a PeftModel, or a SentenceTransformer."""

from __future__ import annotations

from typing import Any

import peft
from torch import nn

from tunescope.errors import InputError, ModelError, UnknownName
from tunescope.models.adapters import describe, refuse_kind
from tunescope.models.anatomy import read_anatomy, text_body
from tunescope.models.clip import text_head
from tunescope.models.fit import check_heard
from tunescope.models.inputs import check_reads_texts
from tunescope.models.lengths import declared_length
from tunescope.models.model import Model
from tunescope.models.output import OutputHead, object_output
from tunescope.models.pretraining import pretraining_of
from tunescope.models.rwkv import check_unscaled
from tunescope.models.weights import check_finite

_HOW = "give (model, tokenizer), a SentenceTransformer, a folder or a hub id"


def from_object(source: Any, *, name: str | None = None, adapter: str | None = None) -> Model:
    """A Model around something loaded; nothing of it is changed, moved or copied. adapter: which of a PeftModel's, by default the active.

    Raises ModelError when it is not a model with its tokenizer, AdapterError and ActivationError as for folders.
    """
    if _is_sentence_transformer(source):
        return _from_sentence_transformer(source, name=name)
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], nn.Module) and callable(source[1]):
        return _build(*source, name=name, adapter=adapter)
    if isinstance(source, tuple) and len(source) == 2 and _is_sentence_transformer(source[0]):
        return _from_sentence_transformer(source[0], name=name)
    if isinstance(source, nn.Module):
        raise ModelError(f"a {type(source).__name__} was given without its tokenizer; {_HOW}")
    raise ModelError(f"cannot read a model from a {type(source).__name__}; {_HOW}")


def _build(
    module: nn.Module,
    tokenizer: Any,
    *,
    name: str | None,
    adapter: str | None = None,
    output: OutputHead | None = None,
    length: int | None = None,
) -> Model:
    wrapper = module if isinstance(module, peft.PeftModel) else None
    names = _adapters(wrapper, name=name or "this PeftModel", adapter=adapter) if wrapper is not None else ()
    if adapter is not None and wrapper is None:
        raise InputError(
            f"adapter '{adapter}' asked for, but a {type(module).__name__} carries none; give a PeftModel, or leave adapter out"
        )
    inner = wrapper.get_base_model() if wrapper is not None else module
    body = text_body(inner)
    name = name or getattr(getattr(body, "config", None), "_name_or_path", "") or type(module).__name__
    check_reads_texts(body, name=name)
    check_unscaled(body, name=name)
    anatomy = read_anatomy(body)
    if wrapper is not None:
        check_heard(wrapper, anatomy, names, name=name)
    check_finite(body.state_dict(), name=name)
    return Model(
        name=name,
        module=body,
        tokenizer=tokenizer,
        anatomy=anatomy,
        output=output or text_head(inner) or OutputHead(),
        max_length=declared_length(body, tokenizer, declared=length),
        peft=wrapper,
        adapter_on=wrapper is not None,
        adapters=names,
        pretraining=pretraining_of(getattr(getattr(body, "config", None), "_name_or_path", None)),
        adapter=_describe(wrapper, names) if wrapper is not None else None,
        origin=inner,
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


def _adapters(wrapper: peft.PeftModel, *, name: str, adapter: str | None) -> tuple[str, ...]:
    """The names of the adapters to read: the one asked for, else those that are active now."""
    if adapter is not None and adapter not in wrapper.peft_config:
        raise UnknownName(f"adapter of '{name}'", adapter, wrapper.peft_config)
    names = tuple(wrapper.active_adapters) if adapter is None else (adapter,)
    for each in names:
        refuse_kind(wrapper.peft_config[each], name=name)
    return names


def _describe(wrapper: peft.PeftModel, names: tuple[str, ...]) -> dict:
    """One adapter as `describe` has it; of several at once the first one's description under the joined name."""
    return describe(wrapper.peft_config[names[0]], name="+".join(names))


def _is_sentence_transformer(source: Any) -> bool:
    """By shape and not by class, so that sentence-transformers stays optional."""
    return isinstance(source, nn.Sequential) and hasattr(source, "encode") and len(source) > 0 and hasattr(source[0], "auto_model")


def _from_sentence_transformer(source: Any, *, name: str | None) -> Model:
    first, *rest = source
    prompts, default = getattr(source, "prompts", None) or {}, getattr(source, "default_prompt_name", None)
    similarity = getattr(source, "similarity_fn_name", None)
    said = None if similarity is None else str(similarity)
    head, warning = object_output(rest, prompts=prompts, default_prompt=default, similarity=said)
    model = _build(first.auto_model, first.tokenizer, name=name, output=head, length=first.max_seq_length)
    model.lowercase = bool(getattr(first, "do_lower_case", False))
    model.warnings += [f"'{model.name}': {warning}"] if warning else []
    return model
