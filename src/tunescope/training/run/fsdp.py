"""What of FSDP a run takes: version 2, block by block, on devices of several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate.utils import DistributedType
from transformers import TrainingArguments

from tunescope.errors import InputError
from tunescope.models import Model
from tunescope.models.quantised import is_packed

CHOSEN = "ACCELERATE_USE_FSDP"  # by which accelerate tells itself, and which outlasts the run that asked for it
_ONLY = {
    "fsdp_version": (2, "FSDP1 hides how it cuts tensors, so that steps cannot be measured"),
    "auto_wrap_policy": ("TRANSFORMER_BASED_WRAP", "a run cuts its model block by block, since heads read weights of its embeddings"),
    "activation_checkpointing": (False, "it renames the blocks; use activation_checkpointing of the schedule"),
    "cpu_offload": (False, "step sizes are added up where the weights lie, and devices' processes cannot add on the CPU"),
    "cpu_ram_efficient_loading": (False, "it unties heads from their embeddings; leave it out"),
}


def check_fsdp(arguments: TrainingArguments, model: Model) -> None:
    """Raise InputError for weights in shards that a run cannot make or keep."""
    if os.environ.get(CHOSEN, "").lower() == "true":
        raise InputError(f"{CHOSEN} is set ('accelerate launch --use_fsdp'), whose shards a run does not know; use torchrun and fsdp=True")
    if not arguments.fsdp:
        return
    given = arguments.fsdp_plugin_args
    if given is None:
        raise InputError("trainer={'fsdp_config': {'xla': …}} was given; a run cannot keep what XLA cuts: leave it out")
    for name, (only, why) in _ONLY.items():
        if given.get(name, only) != only:
            raise InputError(f"trainer={{'fsdp_config': {{'{name.removeprefix('fsdp_')}': {given[name]!r}}}}} was given; {why}")
    if is_packed(model.module):
        raise InputError(f"trainer={{'fsdp': …}} was given, and the weights of '{model.name}' are packed; use plain torchrun")
    kind = arguments.distributed_state.distributed_type
    if kind == DistributedType.NO:
        raise InputError("trainer={'fsdp': …} was given to one process, which has nobody to share its weights with; use torchrun")
    if kind == DistributedType.MULTI_CPU:
        raise InputError("trainer={'fsdp': …} was given on the CPU, where accelerate cuts no weights; leave it out")


@contextmanager
def choice_forgotten() -> Iterator[None]:
    """Whoever trains after this in the same process is not taken to have asked for FSDP too."""
    before = os.environ.get(CHOSEN)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(CHOSEN, None)
