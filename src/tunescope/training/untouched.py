"""Reading a model in the middle of its training without a trace: what follows draws the random numbers it would have drawn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Whatever the block draws, the random states of Python, numpy and torch (on the CPU and where `module` is) are put back after it.

    Training mode, dropout, the adapter's switch and gradients are kept by `Model.active`, inside which a model is read.
    """
    python, array = random.getstate(), np.random.get_state()
    devices = {parameter.device for parameter in module.parameters() if parameter.device.type not in ("cpu", "meta")}
    kinds = {device.type for device in devices} or {"cuda"}
    try:
        with torch.random.fork_rng(devices=sorted(device.index or 0 for device in devices), device_type=min(kinds)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)


def finish(device: torch.device) -> None:
    """Wait for work of the training that is under way, which would be counted as measuring."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
