"""Architectures of sparse autoencoders, as they are trained."""

from __future__ import annotations

from collections.abc import Callable

from tunescope.dictionaries.architectures.base import Architecture, Step, Weights
from tunescope.dictionaries.architectures.dense import JumpReluTraining, StandardTraining
from tunescope.dictionaries.architectures.top_k import BatchTopKTraining, TopKTraining

ARCHITECTURES: dict[str, Callable[..., Architecture]] = {
    "batchtopk": BatchTopKTraining,
    "jumprelu": JumpReluTraining,
    "standard": StandardTraining,
    "topk": TopKTraining,
}

__all__ = ["ARCHITECTURES", "Architecture", "Step", "Weights"]
