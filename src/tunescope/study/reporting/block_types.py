"""How a model's attention and MLP stand, in sequence or in parallel, from what a plan says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

PARALLEL, SEQUENTIAL = "parallel", "sequential"
_PARALLEL = ("gpt_neox", "gptj", "codegen", "falcon", "phi")
_SEQUENTIAL = ("bert", "roberta", "distilbert", "modernbert", "gpt2", "opt", "llama", "mistral", "qwen2", "gpt_neo")
_HUB = {
    "pythia": PARALLEL,
    "gpt-neox": PARALLEL,
    "gpt-j": PARALLEL,
    "codegen": PARALLEL,
    "falcon": PARALLEL,
    "/phi-": PARALLEL,
    "bert-": SEQUENTIAL,
    "/opt-": SEQUENTIAL,
    "gpt2": SEQUENTIAL,
}


def block_types(models: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """By model's name; a model of which nothing is known is left out. models: as `RunSpec.describe` gives them."""
    found = {str(model["name"]): _of(model) for model in models}
    return {name: kind for name, kind in found.items() if kind is not None}


def _of(model: Mapping[str, Any]) -> str | None:
    made, place = model.get("pretrain"), str(model.get("place") or "").lower()
    if made is None:
        return next((kind for part, kind in _HUB.items() if part in place), None)
    if "use_parallel_residual" in made["config"]:
        return PARALLEL if made["config"]["use_parallel_residual"] else SEQUENTIAL
    return PARALLEL if made["family"] in _PARALLEL else SEQUENTIAL if made["family"] in _SEQUENTIAL else None
