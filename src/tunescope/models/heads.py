"""The language-model head of a model: what its class makes of the final hidden states, without a second copy of the body."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftType
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from tunescope.errors import AdapterError, ModelError
from tunescope.models.acting import plain_name
from tunescope.models.adapters import AdapterFiles, base_tensors, read_adapter
from tunescope.models.anatomy import text_body
from tunescope.models.fit import fit, module_path, put
from tunescope.models.model import Model, evaluating
from tunescope.models.quiet import quietly
from tunescope.models.sources import Folder, read_json

MASKED, CAUSAL = "masked", "causal"
LOADERS = {MASKED: AutoModelForMaskedLM, CAUSAL: AutoModelForCausalLM}
_TYPES = {MASKED: MODEL_FOR_MASKED_LM_MAPPING, CAUSAL: MODEL_FOR_CAUSAL_LM_MAPPING}
_NAMES = {MASKED: set(MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()), CAUSAL: set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())}
_OLD = (("lm_head.", "embed_out."), ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))  # names before v5
_HOW = "measure retrieval or probes, or give a checkpoint with its head"


class NoLanguageHead(ModelError):
    """The model has no language-model head of its own, so that its loss is not evaluable."""


class _States(tuple):
    """What a body returns, holding final states only; whatever else is asked of it is None."""

    @property
    def last_hidden_state(self) -> Tensor:
        return self[0]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class Given(nn.Module):
    """Stands where the body was, and returns the states it was given."""

    states: Tensor | None = None

    @property
    def decoder(self) -> Given:  # OPT's head class calls model.decoder
        return self

    def forward(self, *args: Any, **options: Any) -> _States:
        return _States((self.states,))


@dataclass(frozen=True, eq=False)
class LanguageHead:
    """From final hidden states to scores over the vocabulary, by the forward of the model's own head class.

    kind: "masked" or "causal". shell: that class with its body taken out, so scaling, soft caps and transforms are those of its family.
    switches: whether the head itself carries an adapter that `Model.active()` switches.
    """

    kind: str
    model: Model
    shell: nn.Module
    given: Given
    switches: bool

    @property
    def vocabulary(self) -> int:
        """Tokens that the model has embeddings for."""
        return int(self.model.module.get_input_embeddings().weight.shape[0])

    @torch.inference_mode()
    def __call__(self, states: Tensor) -> Tensor:
        """states (m, d) of any positions -> logits (m, v) float32."""
        device = next(self.shell.parameters()).device
        with self._active():
            self.given.states = states.to(device).unsqueeze(0)
            try:
                return self.shell(input_ids=torch.zeros(1, len(states), dtype=torch.long, device=device)).logits[0].float()
            finally:
                self.given.states = None

    @contextmanager
    def _active(self) -> Iterator[None]:
        with self.model.active() if self.switches else nullcontext(), evaluating(self.shell):
            yield


def language_head(model: Model) -> LanguageHead:
    """The head that belongs to `model`: of the loaded model its body sits in, or read alone from the folder the body came from.

    Weights tied to the embeddings are the body's own tensors. A head that this side's adapter changes is a merged copy of the head alone.
    Raises NoLanguageHead when the checkpoint holds none (its weights would be random), ModelError when its weights do not fit or are
    offloaded, AdapterError when the adapter ties what it changes to the head in a way that cannot be rebuilt here.
    """
    own = model.origin
    if isinstance(own, nn.Module) and text_body(own) is model.module and _kind_of(own) is not None:
        shell, given = without_body(own)
        switches = any(isinstance(part, BaseTunerLayer) or hasattr(part, "modules_to_save") for part in shell.modules())
        head = LanguageHead(str(_kind_of(own)), model, shell, given, switches)
    else:
        head = _built(model)
    return _adapted(head, model) if model.adapter_on and model.worn is not None else head


def _kind_of(module: nn.Module) -> str | None:
    """masked or causal, when the class of `module` is a language model's; None for any other."""
    names = {base.__name__ for base in type(module).__mro__}
    return next((kind for kind, known in _NAMES.items() if names & known), None)


def without_body(language_model: nn.Module) -> tuple[nn.Module, Given]:
    """A shallow copy that shares everything but its body, which is left out; the original keeps its own."""
    shell, given = copy.copy(language_model), Given()
    shell._modules = {**language_model._modules, str(language_model.base_model_prefix): given}
    for hooked in ("forward", "_hf_hook", "_old_forward"):  # accelerate binds these to the original
        shell.__dict__.pop(hooked, None)
    return shell, given


def _built(model: Model) -> LanguageHead:
    """The head class around no body at all, its own weights from where the body came from, tied ones from the body."""
    kind = kind_for(model)
    config = copy.deepcopy(model.module.config)
    with torch.device("meta"), quietly():
        whole: PreTrainedModel = LOADERS[kind].from_config(config)
    if type(getattr(whole, whole.base_model_prefix)) is not type(model.module):
        raise NoLanguageHead(
            f"'{model.name}' is read through its {type(model.module).__name__} alone, on which no language-model head sits; "
            "measure retrieval or probes"
        )
    ties, prefix = dict(getattr(whole, "all_tied_weights_keys", {})), f"{whole.base_model_prefix}."
    shell, given = without_body(whole)
    wanted = {key: tuple(tensor.shape) for key, tensor in shell.state_dict().items()}
    found = tied(_stored(model, wanted), ties, prefix, model.module)
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise NoLanguageHead(
            f"'{model.name}' has no language-model head: its checkpoint lacks {missing[0]} of {type(shell).__name__}, "
            f"and a loss of random weights says nothing; {_HOW}"
        )
    for key, tensor in found.items():
        if tuple(tensor.shape) != wanted[key]:
            sizes = f"{tuple(tensor.shape)}, by its config {wanted[key]}"
            raise ModelError(f"the language-model head of '{model.name}' does not fit its config.json: {key} is {sizes}")
    shell.load_state_dict({key: _placed(tensor, model) for key, tensor in found.items()}, assign=True)
    return LanguageHead(kind, model, shell.eval().requires_grad_(False), given, switches=False)


def kind_for(model: Model) -> str:
    config = getattr(model.module, "config", None)
    for name in getattr(config, "architectures", None) or ():
        known = next((kind for kind, names in _NAMES.items() if name in names), None)
        if known is not None and type(config) in _TYPES[known]:
            return known
    for kind in (CAUSAL, MASKED) if model.anatomy.causal else (MASKED, CAUSAL):
        if type(config) in _TYPES[kind]:
            return kind
    raise NoLanguageHead(
        f"'{model.name}' is of type '{model.anatomy.family}', which has no language-model head on the part that is read; "
        "measure retrieval or probes"
    )


def _stored(model: Model, wanted: Iterable[str]) -> dict[str, Tensor]:
    """The head's weights that the folder or the loaded model holds, by their names today."""
    if isinstance(model.origin, nn.Module):
        have = base_tensors(model.origin)
        shared = {tensor.data_ptr() for tensor in base_tensors(text_body(model.origin)).values()}  # this body's own take their place
        return {key: have[key] for key in wanted if key in have and have[key].data_ptr() not in shared}
    return read_weights(model.origin, wanted) if isinstance(model.origin, Folder) else {}


def read_weights(folder: Folder, wanted: Iterable[str]) -> dict[str, Tensor]:
    """Only these tensors of a safetensors folder."""
    index = folder.body / "model.safetensors.index.json"
    single = folder.body / "model.safetensors"
    files = [single] if single.is_file() else [folder.body / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    names = {name: key for key in wanted for name in (_old_name(key), key)}
    found: dict[str, Tensor] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            found |= {names[name]: file.get_tensor(name) for name in file.keys() if name in names}  # noqa: SIM118
    return found


def _old_name(key: str) -> str:
    for now, once in _OLD:
        key = key.replace(now, once)
    return key


def tied(found: dict[str, Tensor], ties: dict[str, str], prefix: str, body: nn.Module) -> dict[str, Tensor]:
    """`found` with every weight that is tied to the body's or to another of the head, where the checkpoint does not hold its own.

    A stored copy that equals the body's tensor becomes that tensor.
    """
    own, result = {plain_name(key): tensor for key, tensor in body.state_dict().items()}, dict(found)
    for target, source in ties.items():
        shared = own.get(source.removeprefix(prefix)) if source.startswith(prefix) else result.get(source)
        if target.startswith(prefix):
            continue
        if shared is None and target in result and not source.startswith(prefix):
            result[source] = result[target]
        elif shared is not None and (target not in result or _equal(result[target], shared)):
            result[target] = shared
    return result


def _equal(stored: Tensor, shared: Tensor) -> bool:
    return stored.shape == shared.shape and not shared.is_meta and bool(torch.equal(stored.to(shared), shared))


def _placed(tensor: Tensor, model: Model) -> Tensor:
    if tensor.is_meta:
        raise ModelError(f"the head of '{model.name}' is tied to embeddings that are offloaded; use a device map that keeps them in memory")
    return tensor.to(model.device, model.dtype) if tensor.is_floating_point() else tensor.to(model.device)


def _adapted(head: LanguageHead, model: Model) -> LanguageHead:
    """The head as this side's adapter makes it: the same one when the adapter leaves it alone, else a merged copy of it."""
    files = read_adapter(model.worn.path, asked=model.worn.name)
    parts = nn.Module()
    parts._modules = {name: part for name, part in head.shell._modules.items() if part is not head.given}
    own = {key: value for key, value in files.state.items() if module_path(parts, key)}
    _refuse_ties(files, head)
    if not own:
        return head
    alone = copy.deepcopy(parts)
    whole = {key: own.pop(key) for key in alone.state_dict() if key in own}  # modules saved whole, and biases
    alone.load_state_dict(whole, strict=False)
    if own:
        own |= {key: value for key, value in files.state.items() if key.startswith("base_model.")}
        config = copy.deepcopy(files.config)
        config.modules_to_save = None
        anatomy = replace(model.anatomy, blocks="")
        alone = put(fit(alone, replace(files, config=config, state=own), anatomy, base_name=model.name), alone, anatomy).merge_and_unload()
    shell = copy.copy(head.shell)
    shell._modules = {**head.shell._modules, **alone._modules}
    return replace(head, shell=shell)


def _refuse_ties(files: AdapterFiles, head: LanguageHead) -> None:
    """Raise AdapterError for tokens or embeddings that the adapter trains for the tied head as well."""
    config = files.config
    tied = config.peft_type == PeftType.TRAINABLE_TOKENS or getattr(config, "trainable_token_indices", None)
    table = head.model.module.get_input_embeddings()
    inside = {part.data_ptr() for part in table.parameters()}
    shares = any(part.data_ptr() in inside for part in head.shell.parameters())
    if shares and (tied or getattr(config, "ensure_weight_tying", False)):
        raise AdapterError(
            f"the adapter '{files.name}' trains tokens that the head of its base shares; "
            "merge it (merge_and_unload) and compare the merged folder"
        )
