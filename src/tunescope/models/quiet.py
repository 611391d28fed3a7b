"""Keep other libraries' warnings, load reports and progress bars off the terminal while they work for us."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

_LOGGERS = ("transformers", "peft", "huggingface_hub", "accelerate", "bitsandbytes", "torch")


@contextmanager
def quietly() -> Iterator[None]:
    """Silence warnings, loggers and progress bars inside the block, and leave every setting and the random state as they were."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    transformers_bars, hub_bars = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    if hub_bars:
        disable_progress_bars()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if transformers_bars:
            transformers_logging.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()
