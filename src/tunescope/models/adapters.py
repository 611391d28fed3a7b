"""PEFT adapters on a bare body: fitted to it by name and shape, switched on and off, and told apart from the base's own weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peft import PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from safetensors.torch import load_file
from torch import Tensor, nn

from tunescope.errors import AdapterError
from tunescope.models.anatomy import Anatomy
from tunescope.models.quiet import quietly
from tunescope.models.weights import ADAPTER_FILES, check_weight_files

_ROOT = "base_model.model."
_SAFE_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # ways to start LoRA that leave the base's weights alone


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter as saved: its PEFT config and its tensors, keyed without PEFT's own leading path."""

    name: str
    config: PeftConfig
    state: dict[str, Tensor]

    @property
    def base(self) -> str | None:
        """The base its config names."""
        return self.config.base_model_name_or_path

    def describe(self) -> dict:
        """JSON-able: kind, rank, alpha, targets, base."""
        targets = self.config.target_modules
        return {
            "name": self.name,
            "kind": str(getattr(self.config.peft_type, "value", self.config.peft_type)),
            "rank": getattr(self.config, "r", None),
            "alpha": getattr(self.config, "lora_alpha", None),
            "targets": targets if isinstance(targets, str) else sorted(targets or ()),
            "base": self.base,
        }


def read_adapter(folder: Path, *, asked: str) -> AdapterFiles:
    """Read an adapter folder.

    Raises UnsafeWeights for a pickle, ModelError for damaged files, AdapterError for kinds that cannot be switched off.
    """
    check_weight_files(folder, asked=asked, accepted=ADAPTER_FILES)
    try:
        with quietly():
            config = PeftConfig.from_pretrained(str(folder))
    except (KeyError, ValueError, TypeError) as error:
        raise AdapterError(f"cannot read {folder / 'adapter_config.json'}: {error}; is it a PEFT adapter of this PEFT version?") from error
    refuse_prompt_adapter(config, name=asked)
    start = getattr(config, "init_lora_weights", True)
    if start not in _SAFE_STARTS:
        raise AdapterError(
            f"'{asked}' was started with '{start}', which rewrites the base's weights; save it again with "
            "path_initial_model_for_weight_conversion (a plain LoRA), or merge it and compare the merged folder"
        )
    state = {key.removeprefix(_ROOT): value for key, value in load_file(folder / ADAPTER_FILES[0]).items()}
    return AdapterFiles(asked, config, state)


def refuse_prompt_adapter(config: PeftConfig, *, name: str) -> None:
    """Raise AdapterError for kinds that work on the prompt: the body alone would run without them."""
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise AdapterError(
            f"'{name}' is a {config.peft_type.value} adapter, which changes the prompt and not the blocks; "
            "adapters of the blocks (LoRA and its kin) can be compared"
        )


def alters_base(files: AdapterFiles, body: nn.Module) -> bool:
    """Whether the adapter also replaces weights of the base itself (biases, whole embeddings), which no switch can undo."""
    if getattr(files.config, "bias", "none") not in (None, "none"):
        return True
    own = body.state_dict().keys()
    prefix = _find_prefix(files, body)
    saved = tuple(getattr(files.config, "modules_to_save", None) or ())
    plain = [key.removeprefix(prefix) for key in files.state if key.removeprefix(prefix) in own]
    return any(not any(f".{name}." in f".{key}" for name in saved) for key in plain)


def attach(body: nn.Module, files: AdapterFiles, anatomy: Anatomy, *, base_name: str) -> tuple[PeftModel, list[str]]:
    """Put the adapter on `body` (in place) and return the PEFT wrapper and warnings.

    The adapter may have been trained on a model with a task head; its names are fitted to the bare body, and what belongs to the
    head is left out with a warning. Raises AdapterError when a target is not in the base, is not covered by the adapter,
    or has another shape.
    """
    prefix = _find_prefix(files, body)
    state, outside, homeless = {}, [], []
    for key, value in files.state.items():
        short = key.removeprefix(prefix)
        if not key.startswith(prefix):
            outside.append(key)
        elif _module_path(body, short):
            state[short] = value
        else:
            homeless.append(key)
    if not state:
        raise _does_not_fit(files, base_name, f"the base has none of its targets, such as {next(iter(files.state), 'nothing')}")
    if homeless:
        raise _does_not_fit(files, base_name, f"the base has no {homeless[0]}")
    config = _fit_config(files, body, anatomy, state, prefix=prefix, base_name=base_name)
    with quietly():
        peft = get_peft_model(body, config)
        _check_shapes(peft, state, files, base_name)
        result = set_peft_model_state_dict(peft, {f"{_ROOT}{key}": value for key, value in state.items()})
    marker = PEFT_TYPE_TO_PREFIX_MAPPING[config.peft_type]
    missing = [key for key in result.missing_keys if marker in key]
    if missing or result.unexpected_keys:
        problem = f"it has nothing for {missing[0]}" if missing else f"the base has no place for {result.unexpected_keys[0]}"
        raise _does_not_fit(files, base_name, problem)
    peft.requires_grad_(False).eval()
    if not outside:
        return peft, []
    heads = ", ".join(sorted({key.split(".")[0] for key in outside}))
    return peft, [f"the adapter '{files.name}' also changes {heads}, outside the body: not seen here"]


@contextmanager
def adapter_off(peft: PeftModel) -> Iterator[None]:
    """The base without its adapter inside the block; what trains and what does not is put back afterwards.

    Raises AdapterError when the adapter is merged into the weights, since taking it out again is not exact.
    """
    check_switchable(peft)
    trains = [(parameter, parameter.requires_grad) for parameter in peft.parameters()]
    try:
        with peft.disable_adapter():
            yield
    finally:
        for parameter, flag in trains:
            parameter.requires_grad_(flag)


def check_switchable(peft: PeftModel) -> None:
    """Raises AdapterError when switching the adapter off would not give back the base it was trained on."""
    tuners = [module for module in peft.modules() if isinstance(module, BaseTunerLayer)]
    if any(module.merged for module in tuners):
        raise AdapterError("the adapter of this PeftModel is merged into its base, which is therefore gone; call unmerge_adapter() first")
    for name in peft.active_adapters:
        bias = getattr(peft.peft_config[name], "bias", "none")
        if bias not in (None, "none"):
            raise AdapterError(f"the adapter '{name}' also trains biases of the base (bias='{bias}'); no switch undoes that: give the base")


def base_tensors(body: nn.Module) -> dict[str, Tensor]:
    """The base's weights by the names they have without an adapter (parameters and persistent buffers, no pooler)."""
    added = _adapter_names(body)
    return {
        key.replace(".base_layer.", ".").replace(".original_module.", "."): value
        for key, value in body.state_dict().items()
        if key not in added and not key.startswith("pooler.")
    }


def adapter_tensors(body: nn.Module) -> dict[str, Tensor]:
    """The active adapters' own weights by their names in the wrapped body; empty without an adapter."""
    added = _adapter_names(body)
    tuners = [module for module in body.modules() if isinstance(module, BaseTunerLayer)]
    idle = {name for module in tuners for name in module._all_available_adapter_names() if name not in module.active_adapters}
    return {key: value for key, value in body.state_dict().items() if key in added and not idle & set(key.split("."))}


def _adapter_names(body: nn.Module) -> set[str]:
    """Names of state that PEFT added: all of a tuner layer but its base layer, all of a wrapper but the original module."""
    names: set[str] = set()
    for path, module in body.named_modules():
        kept = "base_layer" if isinstance(module, BaseTunerLayer) else "original_module" if hasattr(module, "original_module") else None
        if kept is not None:
            names |= {f"{path}.{key}" for key in module.state_dict() if not key.startswith(f"{kept}.")}
    return names


def _find_prefix(files: AdapterFiles, body: nn.Module) -> str:
    """The leading path (such as 'bert.' or 'model.') under which the adapter's names mean the body's modules."""
    candidates = {"", f"{getattr(body, 'base_model_prefix', '')}.".removeprefix(".")}
    for key in files.state:
        parts = key.split(".")
        candidates |= {".".join(parts[:depth]) + "." for depth in (1, 2, 3)}

    def fitting(prefix: str) -> int:
        return sum(bool(_module_path(body, key.removeprefix(prefix))) for key in files.state if key.startswith(prefix))

    return max(sorted(candidates, key=len), key=fitting)


def _module_path(body: nn.Module, key: str) -> str:
    """The longest leading path of `key` that is a module of `body` with weights of its own; '' when there is none."""
    parts = key.split(".")
    for end in range(len(parts) - 1, 0, -1):
        path = ".".join(parts[:end])
        try:
            module = body.get_submodule(path)
        except AttributeError:
            continue
        return path if next(module.parameters(recurse=False), None) is not None else ""
    return ""


def _fit_config(files, body, anatomy: Anatomy, state: dict[str, Tensor], *, prefix: str, base_name: str) -> PeftConfig:
    """The adapter's config, with its targets spelled out as exactly the modules of the body it has weights for."""
    config = copy.deepcopy(files.config)
    saved = [name for name in getattr(config, "modules_to_save", None) or () if _names_module(body, name)]
    own = body.state_dict().keys()
    targets = {
        _module_path(body, key)
        for key in state
        if key not in own and "trainable_tokens" not in key and not any(f".{name}." in f".{key}" for name in saved)
    }
    if not isinstance(config.target_modules, str):
        for path, module in body.get_submodule(anatomy.blocks).named_modules(prefix=anatomy.blocks):
            leaf = next(module.parameters(recurse=False), None) is not None
            if leaf and path not in targets and check_target_module_exists(config, f"{prefix}{path}"):
                raise _does_not_fit(files, base_name, f"it has nothing for the base's {path}")
    config.target_modules = "|".join(re.escape(path) for path in sorted(targets))
    config.task_type, config.inference_mode = None, True
    for name in ("layers_to_transform", "layers_pattern", "exclude_modules"):
        if hasattr(config, name):
            setattr(config, name, None)
    for name in ("rank_pattern", "alpha_pattern"):
        if getattr(config, name, None):
            setattr(config, name, {key.removeprefix("^").removeprefix(prefix): value for key, value in getattr(config, name).items()})
    if hasattr(config, "modules_to_save"):
        config.modules_to_save = saved or None
    if hasattr(config, "init_lora_weights"):
        config.init_lora_weights = True
    return config


def _names_module(body: nn.Module, name: str) -> bool:
    return any(path == name or path.endswith(f".{name}") for path, _ in body.named_modules())


def _check_shapes(peft: PeftModel, state: dict[str, Tensor], files: AdapterFiles, base_name: str) -> None:
    shapes = {key.replace(f".{peft.active_adapter}", ""): value.shape for key, value in peft.state_dict().items()}
    for key, value in state.items():
        wanted = shapes.get(f"{_ROOT}{key}")
        if wanted is not None and wanted != value.shape:
            raise _does_not_fit(files, base_name, f"{key} is {_size(value.shape)}, the base takes {_size(wanted)}")


def _size(shape) -> str:
    return " x ".join(str(side) for side in shape)


def _does_not_fit(files: AdapterFiles, base_name: str, problem: str) -> AdapterError:
    made_for = f"; it was made for '{files.base}'" if files.base else ""
    return AdapterError(f"the adapter '{files.name}' does not fit the base '{base_name}': {problem}{made_for}, give that base")
