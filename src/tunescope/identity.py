"""What exactly was measured, and with what: versions, and hashes that name a specification."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib import metadata
from typing import Any

LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Versions of Python, tunescope and the libraries that numbers can depend on."""
    found = {"python": platform.python_version(), "tunescope": metadata.version("tunescope")}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def spec_hash(spec: dict[str, Any]) -> str:
    """sha256 of a JSON-able description, keys sorted: the name of whatever it describes."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
