"""Which TrainingArguments a run takes: those that do not say what it makes of the weights, which is said elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from transformers import TrainingArguments

from tunescope.errors import InputError

TAKEN = {
    "dataloader_in_order", "dataloader_multiprocessing_context", "dataloader_num_workers", "dataloader_persistent_workers",
    "dataloader_prefetch_factor", "ddp_backend", "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_static_graph", "ddp_timeout", "debug",
    "fsdp", "fsdp_config", "full_determinism", "log_level", "log_level_replica", "log_on_each_node", "logging_first_step",
    "logging_strategy", "project", "run_name", "skip_memory_metrics", "tf32", "torch_compile", "torch_compile_backend",
    "torch_compile_mode", "torch_empty_cache_steps", "trackio_space_id",
}  # fmt: skip
_INSTEAD = {
    "activation_checkpointing": "schedule={'activation_checkpointing': True}",
    "gradient_checkpointing": "schedule={'activation_checkpointing': True}",
    "bf16": "schedule={'precision': 'bfloat16'}",
    "fp16": "schedule={'precision': 'float16'}",
    "gradient_accumulation_steps": "schedule={'accumulate': …}",
    "learning_rate": "schedule={'lr': …}",
    "lr_scheduler_type": "schedule={'schedule': …}",
    "max_grad_norm": "schedule={'clip': …}",
    "max_steps": "steps",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "schedule={'batch_size': …}",
    "report_to": "log_to",
    "save_steps": "checkpoints",
    "seed": "seed",
    "warmup_steps": "schedule={'warmup': …}",
    "weight_decay": "options={'weight_decay': …}",
}


def check_trainer_options(names: Iterable[str]) -> None:
    """Raise InputError for what a run sets itself or makes nothing of; names that the Trainer does not know are for it to refuse."""
    for name in sorted(names):
        if name not in TAKEN and name in {each.name for each in fields(TrainingArguments)}:
            instead = f"give {_INSTEAD[name]} instead" if name in _INSTEAD else f"it takes {', '.join(sorted(TAKEN))}"
            raise InputError(f"trainer={{'{name}': …}} was given, which the run sets itself or makes nothing of; {instead}")
