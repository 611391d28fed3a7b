"""Where a model is put: on one device, over several as accelerate spreads it, or in part left on the disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tunescope.errors import DeviceError, InputError, ModelError, UnknownName

PLANS = ("auto", "balanced", "balanced_low_0", "sequential")
DISK = "disk"
EXAMPLE = 'modules and their devices, such as {"": "cpu"}'

DeviceMap = str | dict[str, str]


def device_here(asked: str) -> str:
    """The device asked for; "auto" is cuda where there is one. Raises DeviceError when this machine lacks it."""
    here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    here += ["mps"] if torch.backends.mps.is_available() else []
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    wanted = "cuda:0" if asked == "cuda" else asked
    if wanted not in here:
        raise DeviceError(f"no such device: '{asked}' asked for, this machine has {', '.join(here)}; use one of these, or 'auto'")
    return wanted


def read_device_map(asked: Any, *, device: str = "auto") -> DeviceMap | None:
    """A device map as `from_pretrained` takes it: one of PLANS, or {path of a module: device or "disk"}; one device is the map of "".

    asked: such a name, a device, a mapping, or a mapping as JSON. device: the one asked for beside it, which must then be "auto".

    Raises: UnknownName (plan), DeviceError, InputError (no JSON object, an empty map, a device beside a map).
    """
    if asked is None:
        return None
    if device != "auto":
        raise InputError(f"device '{device}' and a device map were asked for; the map says where every part goes, leave the device out")
    if isinstance(asked, str) and not asked.lstrip().startswith("{"):
        if asked in PLANS:
            return asked
        if asked.split(":")[0] not in ("cpu", "cuda", "mps"):
            raise UnknownName("device map", asked, (*PLANS, "cpu", "cuda"))
        asked = {"": asked}
    parts = _parsed(asked) if isinstance(asked, str) else asked
    if not isinstance(parts, Mapping) or not parts:
        raise InputError(f"device map {asked!r} asked for; give {', '.join(PLANS)}, or {EXAMPLE}")
    return {str(path): _place(place) for path, place in parts.items()}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"device map {text} asked for, which is no JSON ({error}); give {EXAMPLE}") from error


def _place(place: Any) -> str:
    if place == DISK:
        return DISK
    return device_here(f"cuda:{place}" if isinstance(place, int) else str(place))


def input_device(body: nn.Module) -> torch.device:
    """Where token ids go: to the embeddings, which run on their hook's device when accelerate has spread the model."""
    table = getattr(body, "get_input_embeddings", lambda: None)()
    if isinstance(table, nn.Module):
        for hook in _hooks(table):
            if getattr(hook, "execution_device", None) is not None:
                return torch.device(hook.execution_device)
    first = next(body.parameters())
    return next((tensor.device for tensor in body.parameters() if not tensor.is_meta), first.device) if first.is_meta else first.device


def offloaded(body: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """What reads every tensor of `body` that is not in memory, by its name there: from the safetensors files, or from where accelerate
    keeps it."""
    found: dict[str, Callable[[], Tensor]] = {}
    for path, module in body.named_modules(remove_duplicate=False):
        kept = next((hook.weights_map for hook in _hooks(module) if getattr(hook, "weights_map", None) is not None), None)
        if kept is not None:
            own = {**module._parameters, **module._buffers}
            absent = [key for key, tensor in own.items() if tensor is not None and tensor.is_meta]
            found |= {f"{path}.{key}" if path else key: partial(kept.__getitem__, key) for key in absent}
    return found


def check_in_memory(body: nn.Module, *, name: str, what: str) -> None:
    """Raise ModelError when some weights of `body` are offloaded, so that `what` cannot be done to them."""
    absent = next((key for key, tensor in body.state_dict().items() if tensor.is_meta), None)
    if absent is not None:
        raise ModelError(f"{what} needs all weights in memory, and {absent} of '{name}' is offloaded; use a device map without offloading")


def _hooks(module: nn.Module) -> list[Any]:
    hook = getattr(module, "_hf_hook", None)
    return [] if hook is None else list(getattr(hook, "hooks", (hook,)))
