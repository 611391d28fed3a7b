"""A drawn head made to fit a body that stays as it is, before the body is tuned through it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from tunescope.errors import InputError
from tunescope.models.model import evaluating
from tunescope.training.objectives.base import Batch
from tunescope.training.objectives.learner import Learner


def fit_head(learner: Learner, batches: Iterable[Batch], *, rate: float = 1e-3) -> list[float]:
    """One AdamW step on the drawn heads' weights for each batch, all else frozen and without dropout; the losses, first to last.

    What a head shares with the body (tied embeddings) is the body's and stays, and so do heads that a checkpoint holds. Raises InputError
    when nothing is left to fit.
    """
    own = learner.drawn
    if not own:
        raise InputError(f"{learner.objective.name} has no drawn head weights to fit; use head='own'")
    before = [(parameter, parameter.requires_grad) for parameter in learner.parameters()]
    learner.requires_grad_(False)
    for parameter in own:
        parameter.requires_grad_(True)
    losses = []
    optimizer = torch.optim.AdamW(own, lr=rate, weight_decay=0.0)
    try:
        with evaluating(learner):
            for batch in batches:
                optimizer.zero_grad()
                value = learner.loss(batch).value
                value.backward()
                optimizer.step()
                losses.append(float(value.detach()))
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)
    optimizer.zero_grad()
    learner.fitted += len(losses)
    return losses
