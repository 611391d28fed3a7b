"""The model that a Trainer hands to its callbacks, whatever its kind, as a `Model` to read."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from tunescope.errors import InputError, ModelError
from tunescope.models import Model, load_model
from tunescope.training.objectives.learner import Learner
from tunescope.training.shards import are_cut


def trained_model(module: nn.Module, tokenizer: Any, args: Any) -> Model:
    """A Model around what is being trained; it shares the weights, so that it is read as it is at the time.

    module: a PreTrainedModel or PeftModel, whose tokenizer is the Trainer's `processing_class`, a SentenceTransformer, or a Learner.

    Raises: InputError (no tokenizer), ModelError (weights in shards that nothing puts together, or a module that cannot be read).
    """
    if isinstance(module, Learner) and module.shards is not None:
        return module.shards.learner.model
    if getattr(args, "fsdp", None) or getattr(args, "deepspeed", None) or are_cut(module):
        raise ModelError(
            "a trajectory of a model whose weights lie in shards (FSDP, DeepSpeed) was asked for, and one process cannot read it; "
            "save checkpoints and compare them with ts.diff, or train with plain torchrun"
        )
    if isinstance(module, Learner):
        return module.model
    if hasattr(module, "encode") and isinstance(module, nn.Sequential):
        return load_model(module)
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor of text and images
    if tokenizer is None:
        raise InputError(
            "a trajectory was asked for and the Trainer has no tokenizer to read its texts with; give Trainer(processing_class=tokenizer) "
            "or TrajectoryCallback(tokenizer=tokenizer)"
        )
    return load_model((module, tokenizer))


def in_shards(module: nn.Module) -> bool:
    """Whether its weights are cut, and can be put together to be read."""
    return isinstance(module, Learner) and module.shards is not None and are_cut(module)


def put_together(module: nn.Module) -> AbstractContextManager[None]:
    """Weights in shards are in place inside the block, on the main process; every process must enter it."""
    return module.shards.together() if isinstance(module, Learner) and module.shards is not None else nullcontext()
