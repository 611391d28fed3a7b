"""What an objective asks of a model before a step is taken: its gradients at the last block's output, and at the blocks' weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tunescope.errors import ActivationError, ModelError
from tunescope.models import Model
from tunescope.models.acting import plain_name
from tunescope.models.adapters import base_tensors
from tunescope.training.objective_items import ObjectiveItems
from tunescope.training.objectives.base import Loss, Objective
from tunescope.training.objectives.fit_head import fit_head
from tunescope.training.objectives.learner import Learner, Pass

FIT_STEPS = 100  # of AdamW on a drawn head, the body frozen, where the objective asks for a fitted one
Weights = dict[str, Tensor]  # by the name in the body without an adapter


@dataclass(frozen=True, eq=False)
class ObjectiveGradients:
    """rows (n, d) float32: of item i, n·∂L/∂h at the last block's output, mean over its real tokens, summed over its views or sides.

    L is the loss of all items as one mean, as far as the objective has one loss an item; so batches then do not matter, nor how long the
    texts of a batch are. A loss of a batch (Barlow Twins) counts for as many items as its batch has.
    totals: the same with the sum over tokens in place of their mean, which weighs no text by its length.
    loss: L. weights: ∂L/∂W of the blocks, where asked for. said: means of what the objective reports beside its loss.
    """

    objective: Objective
    record: dict[str, Any]
    rows: Float[Tensor, "n d"]
    totals: Float[Tensor, "n d"]
    loss: float
    said: dict[str, float]
    weights: Weights | None = None


def objective_gradients(
    model: Model, objective: Objective, items: ObjectiveItems, *, max_length: int, weights: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ObjectiveGradients:
    """One pass of `objective` over all items in the mode it trains in: dropout on, drawn from the same seeds for every objective.

    Without weights the backward pass ends at the last block. The model is left as it was: nothing is updated.

    Raises: ModelError or InputError when the objective refuses the model, TextsError the texts; ActivationError for NaN or Inf.
    """
    with model.active():
        learner = Learner(model, objective, max_length=max_length, seed=items.seed)
        if objective.head == "fitted":
            fit_head(learner, islice(cycle(_collated(learner, items)), FIT_STEPS))
        wanted = block_weights(model) if weights else _last_block(model)
        with _training(learner), wanting(learner, wanted.values()):
            total = _Total(len(items), model.anatomy.width, wanted if weights else {})
            for number, places in enumerate(items.batches):
                entries, owners = items.entries(objective, places)
                with _seeded(items.seed + number, model.device):
                    batch = collated(learner, entries, seed=items.seed + number)
                    with learner.watching() as passes:
                        loss = learner.loss(batch)
                total.add(loss, passes, owners, places)
                if progress is not None:
                    progress(number + 1, len(items.batches))
    return total.finish(learner)


class _Total:
    """The sums of one objective over batches."""

    def __init__(self, n: int, width: int, weights: dict[str, nn.Parameter]):
        self.rows, self.totals, self.wanted = torch.zeros(n, width), torch.zeros(n, width), weights
        self.weights: Weights = {name: torch.zeros_like(parameter, dtype=torch.float32) for name, parameter in weights.items()}
        self.count, self.loss, self.batches = 0.0, 0.0, 0
        self.said: dict[str, float] = {}

    def add(self, loss: Loss, passes: list[Pass], owners: Tensor, places: Sequence[int]) -> None:
        count = float(len(owners) if loss.weights is None else loss.weights.sum())
        states, parameters = [each.states for each in passes], list(self.wanted.values())
        found = torch.autograd.grad(loss.value * count, [*states, *parameters], allow_unused=True)
        at = torch.tensor(places)
        for each, gradient in zip(passes, found, strict=False):
            if gradient is not None:
                mean, total = _over_tokens(gradient, each.mask)
                self.rows.index_add_(0, at[owners[each.rows.cpu()]], mean.cpu())
                self.totals.index_add_(0, at[owners[each.rows.cpu()]], total.cpu())
        for name, gradient in zip(self.weights, found[len(states) :], strict=True):
            if gradient is not None:
                self.weights[name] += gradient.float()
        self.count, self.loss, self.batches = self.count + count, self.loss + count * float(loss.value.detach()), self.batches + 1
        for name, value in loss.said.items():
            self.said[name] = self.said.get(name, 0.0) + float(value)

    def finish(self, learner: Learner) -> ObjectiveGradients:
        scale, name = len(self.rows) / self.count, learner.objective.name
        rows, totals = self.rows * scale, self.totals * scale
        if not torch.isfinite(rows).all():
            row = int((~torch.isfinite(rows).all(1)).nonzero()[0])
            raise ActivationError(f"the gradient of {name} has NaN or Inf, first at item {row + 1:,}; read the model in float32")
        if not rows.any():
            raise ModelError(f"the gradient of {name} is 0 at every item of '{learner.model.name}': it asks for nothing there")
        said = {each: value / self.batches for each, value in self.said.items()}
        weights = {each: value / self.count for each, value in self.weights.items()} or None
        return ObjectiveGradients(learner.objective, learner.record(), rows, totals, self.loss / self.count, said, weights)


def _over_tokens(gradient: Float[Tensor, "b t d"], mask: Tensor) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
    """Mean and sum over the real tokens of each row."""
    real = mask.to(torch.float32).unsqueeze(-1)
    total = (gradient.float() * real).sum(1)
    return total / real.sum(1).clamp(min=1), total


def block_weights(model: Model) -> dict[str, nn.Parameter]:
    """The floating parameters of the blocks by their names without an adapter, whose own are not among them."""
    own, start = base_tensors(model.module), f"{model.anatomy.blocks}."
    named = ((plain_name(name), parameter) for name, parameter in model.module.named_parameters())
    return {name: each for name, each in named if name.startswith(start) and name in own and each.is_floating_point()}


def _last_block(model: Model) -> dict[str, nn.Parameter]:
    return {name: each for name, each in model.blocks[-1].named_parameters() if each.is_floating_point()}


def collated(learner: Learner, entries: list[Any], *, seed: int) -> dict[str, Any]:
    """A batch on the model's device, every draw from the seed."""
    return _placed(learner.collate(entries, torch.Generator().manual_seed(seed)), learner.model.device)


def _collated(learner: Learner, items: ObjectiveItems) -> Iterator[dict[str, Any]]:
    for number, places in enumerate(items.batches):
        yield collated(learner, items.entries(learner.objective, places)[0], seed=items.seed + number)


def _placed(batch: Any, device: torch.device) -> Any:
    return {name: _placed(value, device) for name, value in batch.items()} if isinstance(batch, dict) else batch.to(device)


@contextmanager
def _training(module: nn.Module) -> Iterator[None]:
    """`module` in training mode inside the block, every part as it was afterwards."""
    before = [(part, part.training) for part in module.modules()]
    module.train()
    try:
        yield
    finally:
        for part, mode in before:
            part.training = mode


@contextmanager
def wanting(module: nn.Module, wanted: Any) -> Iterator[None]:
    """Gradients for these parameters and no others inside the block."""
    before = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    module.requires_grad_(False)
    for parameter in wanted:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout from this seed inside the block, the generators as they were afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield

