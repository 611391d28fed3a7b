"""Models: loaded from anywhere, read safely, with their anatomy known and their identity hashed.

Names are loaded on first use: `families` and `pretraining` are tables that are read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunescope.models.acting import ActingWeight, acting_weights
    from tunescope.models.load import load_model, load_pair
    from tunescope.models.model import Model
    from tunescope.models.several import load_several

_HOME = {
    "ActingWeight": "acting",
    "Model": "model",
    "acting_weights": "acting",
    "load_model": "load",
    "load_pair": "load",
    "load_several": "several",
}

__all__ = ["ActingWeight", "Model", "acting_weights", "load_model", "load_pair", "load_several"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tunescope.models' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tunescope.models.{_HOME[name]}"), name)
