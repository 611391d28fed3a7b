"""Quantised checkpoints: loaded where the library that packs their weights is installed, refused by name where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from tunescope.errors import InputError, ModelError, UnknownName
from tunescope.models.families import FAMILIES

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
AT_LOAD = ("4bit",)  # what weights can be packed to as they are read, all by bitsandbytes


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


def check_asked(asked: str | None, source: Any) -> None:
    """Raise UnknownName for a packing that nobody knows, InputError for one of something that is loaded already."""
    if asked is not None and asked not in AT_LOAD:
        raise UnknownName("quantisation at load", asked, AT_LOAD)
    if asked is not None and not isinstance(source, str | Path):
        raise InputError(
            f"quantise='{asked}' was asked for on a loaded {type(source).__name__}; weights are packed as they are read: "
            "give a folder or hub id"
        )


def packing(asked: str | None, *, declared: str | None, name: str, dtype: str, family: str) -> BitsAndBytesConfig | None:
    """How to pack the weights of `name` as they are read; None when that is not asked for.

    "4bit" is what QLoRA trains on: every linear layer in 4-bit NormalFloat, in blocks of 64 with their scales packed too, computing in
    `dtype`; embeddings, normalisations and poolers stay as they are, and so do layers whose weight the forward of `family` reads directly.
    declared: the method the checkpoint is quantised by already.
    Raises ModelError (quantised already, bitsandbytes missing). Reference: Dettmers et al. 2023, https://arxiv.org/abs/2305.14314
    """
    if asked is None:
        return None
    if declared is not None:
        raise ModelError(f"'{name}' was asked for in {asked} and is quantised by {declared} already; leave quantise out")
    if not _is_installed("bitsandbytes"):
        raise ModelError(f"'{name}' was asked for in {asked}, which needs bitsandbytes: pip install bitsandbytes, or leave quantise out")
    direct = FAMILIES[family].bypassed if family in FAMILIES else ()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        llm_int8_skip_modules=["pooler", *direct],  # a pooler that the checkpoint lacks has no weights to pack
    )


def is_packed(body: nn.Module) -> bool:
    """Whether some weights of `body` are codes and not numbers."""
    return any(not parameter.is_floating_point() for parameter in body.parameters())


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
