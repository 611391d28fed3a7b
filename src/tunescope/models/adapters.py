"""PEFT adapters: read from their folder, described, switched on and off, and told apart from the base's own weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import Tensor, nn

from tunescope.errors import AdapterError
from tunescope.models.quiet import quietly
from tunescope.models.weights import ADAPTER_FILES, check_weight_files

# Kinds whose switch is proved exact by a test, for every family that PEFT makes them for.
KINDS = (
    *("LORA", "ADALORA", "IA3", "LOHA", "LOKR", "OFT", "BOFT", "HRA", "VERA", "PVERA", "VBLORA", "RANDLORA", "FOURIERFT", "WAVEFT"),
    *("MISS", "C3A", "SHIRA", "ROAD", "DELORA", "GRALORA", "HIRA", "LN_TUNING", "TRAINABLE_TOKENS"),
)
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

    @property
    def kind(self) -> str:
        """PEFT's name of the kind; LORA with its variant, such as "LORA (dora)"."""
        return kind_of(self.config)

    def describe(self) -> dict:
        """JSON-able: name, kind, rank, alpha, targets, base."""
        return describe(self.config, name=self.name)


def kind_of(config: PeftConfig) -> str:
    """PEFT's name of an adapter's kind, with the variants of LoRA that change its arithmetic."""
    variants = [name for name in ("dora", "rslora") if getattr(config, f"use_{name}", False)]
    return str(config.peft_type.value) + (f" ({', '.join(variants)})" if variants else "")


def describe(config: PeftConfig, *, name: str) -> dict:
    """JSON-able: name, kind, rank, alpha, targets, base."""
    targets = getattr(config, "target_modules", None)
    return {
        "name": name,
        "kind": kind_of(config),
        "rank": getattr(config, "r", None),
        "alpha": getattr(config, "lora_alpha", None),
        "targets": targets if isinstance(targets, str) else sorted(targets or ()),
        "base": config.base_model_name_or_path,
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
    refuse_kind(config, name=asked)
    start = getattr(config, "init_lora_weights", True)
    if start not in _SAFE_STARTS:
        raise AdapterError(
            f"'{asked}' was started with '{start}', which rewrites the base's weights; save it again with "
            "path_initial_model_for_weight_conversion (a plain LoRA), or merge it and compare the merged folder"
        )
    state = {key.removeprefix(_ROOT): value for key, value in load_file(folder / ADAPTER_FILES[0]).items()}
    return AdapterFiles(asked, config, state)


def refuse_kind(config: PeftConfig, *, name: str) -> None:
    """Raise AdapterError for kinds that work on the prompt (the body alone would run without them), and for those nobody has tried."""
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise AdapterError(
            f"'{name}' is a {config.peft_type.value} adapter, which changes the prompt and not the blocks; "
            "adapters of the blocks (LoRA and its kin) can be compared"
        )
    if config.peft_type.value not in KINDS:
        raise AdapterError(
            f"'{name}' is a {config.peft_type.value} adapter, a kind that is not read here (read: {', '.join(KINDS)}); "
            "merge it into its base and compare the merged folder"
        )


@contextmanager
def switched(peft: PeftModel, names: tuple[str, ...]) -> Iterator[None]:
    """Only the adapters of those names inside the block, none of them for (); what is active and what trains is put back afterwards.

    Raises AdapterError when an adapter is merged into the weights, since taking it out again is not exact.
    """
    check_switchable(peft, names)
    trains, before = [(parameter, parameter.requires_grad) for parameter in peft.parameters()], list(peft.active_adapters)
    try:
        if not names:
            with peft.disable_adapter():
                yield
        else:
            if before != list(names):
                peft.base_model.set_adapter(list(names))
            yield
    finally:
        if names and before != list(names):
            peft.base_model.set_adapter(before)
        for parameter, flag in trains:
            parameter.requires_grad_(flag)


def check_switchable(peft: PeftModel, names: tuple[str, ...]) -> None:
    """Raises AdapterError when the adapters of these names cannot be had by switching: merged, switched off, or mixed into the base."""
    tuners = [module for module in peft.modules() if isinstance(module, BaseTunerLayer)]
    merged = {name for module in tuners for name in module.merged_adapters}
    if merged - set(names):
        raise AdapterError("the adapter of this PeftModel is merged into its base, which is therefore gone; call unmerge_adapter() first")
    if names and any(module.disable_adapters for module in tuners):
        raise AdapterError("the adapter of this PeftModel is switched off; switch it on again with base_model.enable_adapter_layers()")
    for name in peft.peft_config if not names or set(names) != set(peft.active_adapters) else ():
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


def adapter_tensors(body: nn.Module, names: tuple[str, ...]) -> dict[str, Tensor]:
    """The own weights of the adapters of these names, by their names in the body without the adapter's; empty without an adapter."""
    added = _adapter_names(body)
    tuners = [module for module in body.modules() if isinstance(module, BaseTunerLayer)]
    idle = {name for module in tuners for name in module._all_available_adapter_names() if name not in names}
    own = {key: value for key, value in body.state_dict().items() if key in added and not idle & set(key.split("."))}
    return {".".join(part for part in key.split(".") if part not in names): value for key, value in own.items()}


def _adapter_names(body: nn.Module) -> set[str]:
    """Names of state that PEFT added: all of a tuner layer but its base layer, all of a wrapper but the original module."""
    names: set[str] = set()
    for path, module in body.named_modules():
        kept = "base_layer" if isinstance(module, BaseTunerLayer) else "original_module" if hasattr(module, "original_module") else None
        if kept is not None:
            names |= {f"{path}.{key}" for key in module.state_dict() if not key.startswith(f"{kept}.")}
    return names
