"""What a run is made in, which does not decide its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What a run is made in, which does not decide its weights."""

    callbacks: tuple[TrainerCallback, ...] = ()
    log_to: tuple[str, ...] = ()
    trainer: Mapping[str, Any] | None = None
    loading: Mapping[str, Any] | None = None
    progress: Progress | None = None
    announce: Callable[[str], None] = lambda line: None
    in_memory: bool = False  # nothing of its folder outlasts the run
