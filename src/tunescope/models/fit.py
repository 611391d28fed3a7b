"""An adapter fitted to a bare body: its names, targets and shapes, and its place in the body beside other adapters."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

from peft import PeftConfig, PeftModel, PeftType, get_peft_model, set_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from torch import Tensor, nn

from tunescope.errors import AdapterError
from tunescope.models.adapters import AdapterFiles
from tunescope.models.anatomy import Anatomy
from tunescope.models.families import FAMILIES
from tunescope.models.quiet import quietly

_ROOT, _SHARED = "base_model.model.", "base_model."  # before the body's own names, and before what all layers of an adapter share
_ELSEWHERE = {"decoder", "vision_model", "vision_tower", "visual"}  # parts of a whole model whose blocks bear the names of the body's
DEFAULT = "default"


@dataclass(frozen=True)
class Fitted:
    """An adapter whose config and tensors name modules of one body; `outside` are its tensors that the body has no place for."""

    files: AdapterFiles
    config: PeftConfig
    state: dict[str, Tensor]
    outside: tuple[str, ...]
    base_name: str

    @property
    def warnings(self) -> list[str]:
        """That the adapter also changes what is not read."""
        if not self.outside:
            return []
        parts = ", ".join(sorted({key.split(".")[0] for key in self.outside}))
        return [f"the adapter '{self.files.name}' also changes {parts}, outside the body: not seen here"]


def alters_base(files: AdapterFiles, body: nn.Module) -> bool:
    """Whether the adapter also replaces weights of the base itself (biases, whole embeddings), which no switch can undo."""
    if getattr(files.config, "bias", "none") not in (None, "none"):
        return True
    own = body.state_dict().keys()
    prefix = _find_prefix(files, body)
    saved = _saved(files, prefix)
    plain = [key.removeprefix(prefix) for key in files.state if key.removeprefix(prefix) in own]
    return any(not any(f".{name}." in f".{key}" for name in saved) for key in plain)


def fit(body: nn.Module, files: AdapterFiles, anatomy: Anatomy, *, base_name: str) -> Fitted:
    """The adapter with its names fitted to the bare `body`, which is left as it is.

    It may have been trained on a model with a task head: what belongs to the head is left out. Raises AdapterError when a target
    is not in the base, or is not covered by the adapter.
    """
    prefix = _find_prefix(files, body)
    state, outside, homeless = {}, [], []
    for key, value in files.state.items():
        short = key.removeprefix(prefix)
        if key.startswith(_SHARED):
            state[key] = value
        elif not key.startswith(prefix):
            outside.append(key)
        elif module_path(body, short):
            state[short] = value
        else:
            homeless.append(key)
    if all(key.startswith(_SHARED) for key in state):
        raise _does_not_fit(files, base_name, f"the base has none of its targets, such as {next(iter(files.state), 'nothing')}")
    if outside and not getattr(files.config, "save_projection", True):
        raise _does_not_fit(files, base_name, f"its random projections were not saved, and they depend on {outside[0]}, which is not read")
    if homeless:
        raise _does_not_fit(files, base_name, f"the base has no {homeless[0]}")
    config = _fit_config(files, body, anatomy, state, prefix=prefix, base_name=base_name)
    return Fitted(files, config, state, tuple(outside), base_name)


def put(fitted: Fitted, on: nn.Module, anatomy: Anatomy, *, name: str = DEFAULT) -> PeftModel:
    """Put the adapter on `on` in place, under `name`, and return the PEFT wrapper: a bare body, or a PeftModel that carries others.

    Raises AdapterError when a tensor is missing, too many or of another shape, when PEFT has no such adapter for a target's class,
    or when the family's forward would not hear the adapter.
    """
    files, config = fitted.files, copy.deepcopy(fitted.config)
    try:
        with quietly():
            if isinstance(on, PeftModel):
                on.add_adapter(name, config)
            peft = on if isinstance(on, PeftModel) else get_peft_model(on, config, adapter_name=name)
            _check_shapes(peft, fitted, name)
            whole = {key if key.startswith(_SHARED) else f"{_ROOT}{key}": value for key, value in fitted.state.items()}
            result = set_peft_model_state_dict(peft, whole, adapter_name=name)
    except AdapterError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise AdapterError(f"the {files.kind} adapter '{files.name}' cannot be put on '{fitted.base_name}': {reason[:200]}") from error
    tensors, marker = peft.state_dict(keep_vars=True), PEFT_TYPE_TO_PREFIX_MAPPING[config.peft_type]
    filled = {id(tensor) for key, tensor in tensors.items() if key not in result.missing_keys}  # layers may share one tensor
    missing = [key for key in result.missing_keys if marker in key and f".{name}" in key and id(tensors[key]) not in filled]
    if missing or result.unexpected_keys:
        problem = f"it has nothing for {missing[0]}" if missing else f"the base has no place for {result.unexpected_keys[0]}"
        raise _does_not_fit(files, fitted.base_name, problem)
    check_heard(peft, anatomy, (name,), name=files.name)
    return peft.requires_grad_(False).eval()


def check_heard(peft: PeftModel, anatomy: Anatomy, adapters: tuple[str, ...], *, name: str) -> None:
    """Raise AdapterError when an adapter changes a weight that the family's forward reads directly, past the adapter.

    Merged, such an adapter changes the model; unmerged it does not: two different models under one name.
    """
    bypassed = FAMILIES[anatomy.family].bypassed if anatomy.family in FAMILIES else ()
    for path, module in peft.get_base_model().named_modules():
        leaf = path.rsplit(".", 1)[-1]
        if leaf in bypassed and isinstance(module, BaseTunerLayer) and _changes_weight(module, adapters):
            raise AdapterError(
                f"the adapter '{name}' changes {leaf}, whose weight the forward of {anatomy.family} reads directly, past the adapter: "
                "it works only once merged; merge it (merge_and_unload) and compare the merged folder"
            )


def _changes_weight(layer: nn.Module, adapters: tuple[str, ...]) -> bool:
    if layer.merged:
        return False
    other = copy.deepcopy(layer)
    with quietly():
        other.merge(adapter_names=list(adapters))
    return not bool((other.get_base_layer().weight == layer.get_base_layer().weight).all())


def _find_prefix(files: AdapterFiles, body: nn.Module) -> str:
    """The leading path (such as 'bert.' or 'model.') under which the adapter's names mean the body's modules."""
    candidates = {"", f"{getattr(body, 'base_model_prefix', '')}.".removeprefix(".")}
    for key in files.state:
        parts = key.split(".")
        candidates |= {".".join(parts[:depth]) + "." for depth in (1, 2, 3)}

    def fitting(prefix: str) -> int:
        return sum(bool(module_path(body, key.removeprefix(prefix))) for key in files.state if key.startswith(prefix))

    candidates = {prefix for prefix in candidates if not _ELSEWHERE & set(prefix.split("."))}
    return max(sorted(candidates, key=lambda prefix: (len(prefix), prefix)), key=fitting)


def module_path(body: nn.Module, key: str) -> str:
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
    saved = [name for name in _saved(files, prefix) if _names_module(body, name)]
    own = body.state_dict().keys()
    beside = () if config.peft_type == PeftType.TRAINABLE_TOKENS else ("trainable_tokens",)  # tokens that a LoRA trains beside its targets
    added = [key for key in state if key not in own and not key.startswith(_SHARED) and not any(mark in key for mark in beside)]
    targets = {module_path(body, key) for key in added if not any(f".{name}." in f".{key}" for name in saved)}
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


def _saved(files: AdapterFiles, prefix: str) -> list[str]:
    """The modules it keeps whole copies of, by their names in the body."""
    return [name.removeprefix(prefix) for name in getattr(files.config, "modules_to_save", None) or ()]


def _names_module(body: nn.Module, name: str) -> bool:
    return any(path == name or path.endswith(f".{name}") for path, _ in body.named_modules())


def _check_shapes(peft: PeftModel, fitted: Fitted, name: str) -> None:
    shapes = {key.replace(f".{name}", "").removeprefix(_ROOT): value.shape for key, value in peft.state_dict().items() if f".{name}" in key}
    for key, value in fitted.state.items():
        wanted = shapes.get(key)
        if wanted is not None and wanted != value.shape:
            raise _does_not_fit(fitted.files, fitted.base_name, f"{key} is {_size(value.shape)}, the base takes {_size(wanted)}")


def _size(shape) -> str:
    return " x ".join(str(side) for side in shape)


def _does_not_fit(files: AdapterFiles, base_name: str, problem: str) -> AdapterError:
    made_for = f"; it was made for '{files.base}'" if files.base else ""
    return AdapterError(f"the adapter '{files.name}' does not fit the base '{base_name}': {problem}{made_for}, give that base")
