"""Two views of a text by two draws of dropout, and what is done where a model has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tunescope.errors import InputError
from tunescope.models import Model
from tunescope.training.objectives.base import Batch, Objective, check_choice
from tunescope.training.objectives.learner import Learner

RATE = 0.1  # of forced dropout
AUTO, FORCED, NATIVE, PUBLISHED = "auto", "forced", "native", "as-published"
VIEWS = (AUTO, FORCED, NATIVE, PUBLISHED)
_RATES = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "hidden_dropout", "attention_dropout", "dropout", "dropout_rate",
    "resid_pdrop", "embd_pdrop", "attn_pdrop", "activation_dropout",
)  # fmt: skip


def native_dropout(model: Model) -> float:
    """The largest dropout rate of the body itself, by its modules and its config; an adapter's own does not count."""
    modules = [part.p for path, part in model.module.named_modules() if isinstance(part, nn.Dropout) and "lora_" not in path]
    config = getattr(model.module, "config", None)
    functional = [value for value in (getattr(config, name, None) for name in _RATES) if isinstance(value, int | float)]
    return max((0.0, *modules, *map(float, functional)))


def resolved_views(model: Model, asked: str) -> str:
    """`asked`, or for "auto": native where the model has dropout of its own, else forced."""
    return asked if asked != AUTO else NATIVE if native_dropout(model) > 0 else FORCED


def check_views(objective: Objective, model: Model) -> None:
    """Raise InputError when two passes of `model` would be the same pass."""
    check_choice(objective, "views", VIEWS)
    if objective.views == NATIVE and not native_dropout(model):
        raise InputError(
            f"{objective.name} with views='native' was asked for, and '{model.name}' has no dropout: both views would be one and the same; "
            "use views='forced', or 'as-published' to run it as it is"
        )


def views_record(objective: Any, model: Model) -> dict[str, Any]:
    """JSON-able: which views it came to, their rate, and a warning where both are the same."""
    views, native = resolved_views(model, objective.views), native_dropout(model)
    record = {"views": views, "native_dropout": native, "forced_dropout": RATE if views == FORCED else 0.0}
    if views == PUBLISHED and not native:
        record["warning"] = f"'{model.name}' has no dropout of its own: both views are the same unless an adapter's differs"
    return record


def two_views(learner: Learner, batch: Batch, *, views: str, pooling: str) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Two rows (b, e) per text from two draws of dropout, and how far apart they are: mean |z1 − z2| / mean(|z1|, |z2|).

    forced: dropout of .1 on the output of the embeddings, beside the model's own, while the learner is in training mode.
    """
    count = len(batch["ids"])
    rows = torch.arange(count, device=batch["ids"].device).repeat(2)
    with _dropping(learner) if resolved_views(learner.model, views) == FORCED else _as_is():
        states = learner.read(batch["ids"].repeat(2, 1), batch["mask"].repeat(2, 1), rows=rows)
    one, two = learner.embed(states, pooling).split(count)
    apart = (one - two).norm(dim=1) / ((one.norm(dim=1) + two.norm(dim=1)) / 2)
    return one, two, {"view_distance": apart.mean().detach()}


@contextmanager
def _as_is() -> Iterator[None]:
    yield


@contextmanager
def _dropping(learner: Learner) -> Iterator[None]:
    """Dropout on what the embeddings give. Not inside a block: checkpointed blocks run again after this is over."""
    paths = learner.model.anatomy.embeddings
    table = learner.body.get_submodule(paths[0]) if paths else learner.body.get_input_embeddings()
    handle = table.register_forward_hook(lambda _module, _arguments, output: F.dropout(output, RATE, training=learner.training))
    try:
        yield
    finally:
        handle.remove()
