"""The most memory this process held since it was last asked to forget: of the host, or of a GPU where torch used one."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def reset_peak() -> None:
    """Forget what earlier runs of this process held, where the system can (Linux)."""
    with suppress(OSError):  # then the peak is of the process's whole life
        _CLEAR.write_text("5")
    if cuda := _cuda():
        cuda.reset_peak_memory_stats()


def peak_mb() -> float:
    """Resident memory at its highest, MB = 10⁶ bytes, or allocated memory of the GPU where that is more."""
    if _STATUS.is_file():
        host = int(_STATUS.read_text().split("VmHWM:")[1].split()[0]) * 1024
    else:
        import resource

        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cuda = _cuda()
    return max(host, cuda.max_memory_allocated() if cuda else 0) / 1e6


def _cuda() -> Any:
    """torch.cuda, if it is in use."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
