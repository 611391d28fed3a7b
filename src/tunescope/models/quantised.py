"""Quantised checkpoints: loaded where the library that packs their weights is installed, refused by name where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from torch import nn

from tunescope.errors import ModelError

_PACKS = "support_avx512bf16_for_cpu"  # set on a Linear4bit whose forward would repack its weights
# Quantisation method as config.json names it: modules that must be importable, and what to install.
LIBRARIES: dict[str, tuple[tuple[str, ...], str]] = {
    "bitsandbytes": (("bitsandbytes",), "bitsandbytes"),
    "gptq": (("optimum", "gptqmodel"), "optimum gptqmodel"),
    "awq": (("gptqmodel",), "gptqmodel"),
    "compressed-tensors": (("compressed_tensors",), "compressed-tensors"),
    "torchao": (("torchao",), "torchao"),
    "hqq": (("hqq",), "hqq"),
    "quanto": (("optimum", "optimum.quanto"), "optimum-quanto"),
    "aqlm": (("aqlm",), "aqlm"),
    "vptq": (("vptq",), "vptq"),
    "eetq": (("kernels",), "kernels"),
    "auto-round": (("auto_round",), "auto-round"),
    "fp8": ((), ""),
    "bitnet": ((), ""),
    "mxfp4": ((), ""),
}


def method_of(written: dict[str, Any]) -> str | None:
    """The quantisation method that a config.json declares; None for plain weights."""
    declared = written.get("quantization_config")
    if not isinstance(declared, dict):
        return None
    if declared.get("load_in_4bit") or declared.get("load_in_8bit"):
        return "bitsandbytes"
    return str(declared.get("quant_method", "unnamed"))


def check_method(method: str | None, *, name: str) -> None:
    """Raise ModelError when the weights are quantised by a method whose library is not installed, or that nobody here knows."""
    if method is None:
        return
    plain = "or give the checkpoint it was made from, unquantised"
    if method not in LIBRARIES:
        raise ModelError(f"'{name}' is quantised by '{method}', which is not read here (read: {', '.join(LIBRARIES)}); {plain[3:]}")
    modules, install = LIBRARIES[method]
    missing = next((module for module in modules if not _is_installed(module)), None)
    if missing is not None:
        raise ModelError(f"'{name}' is quantised by {method}, which needs {missing}: pip install {install}, {plain}")


@contextmanager
def unpacked(body: nn.Module) -> Iterator[None]:
    """The body without bitsandbytes' repacking of 4-bit weights inside the block: on some CPUs a forward rewrites their bytes in place."""
    packing = [module for module in body.modules() if getattr(module, _PACKS, False)]
    for module in packing:
        setattr(module, _PACKS, False)
    try:
        yield
    finally:
        for module in packing:
            setattr(module, _PACKS, True)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
