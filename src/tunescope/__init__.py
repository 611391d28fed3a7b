"""What did fine-tuning do to this model: where it changed, and by how much against chance.

    import tunescope as ts
    comparison = ts.diff(base, tuned, texts)

Names are loaded on first use, so that importing the package (and `tunescope --help`) costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from tunescope.version import __version__

_HOME = {
    "Comparison": "comparison",
    "capture": "activations",
    "diff": "comparison",
    "load": "comparison",
    "load_model": "models",
    "load_pair": "models",
    "perturb": "training",
    "read_texts": "texts",
}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tunescope' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tunescope.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
