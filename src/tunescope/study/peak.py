"""The most memory this process held since it was last asked to forget: of the host, or of a GPU where torch used one."""

from __future__ import annotations

import sys
from pathlib import Path

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def reset_peak() -> None:
    """Forget what earlier runs of this process held, where the system can (Linux)."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        pass  # then the peak is of the process's whole life
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


def _cuda():  # type: ignore[no-untyped-def]
    """torch.cuda, if it is in use."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
