"""The trainable thing: a model's body and the heads its objective runs through, as one module that `transformers.Trainer` takes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tunescope.activations.capture import forward_arguments
from tunescope.activations.pooling import pooler
from tunescope.errors import InputError, ModelError
from tunescope.models.model import Model, evaluating
from tunescope.models.quantised import unpacked
from tunescope.models.rwkv import unscaled
from tunescope.training.objectives.base import Batch, Loss, Objective
from tunescope.training.objectives.embedding import DEPLOYED
from tunescope.training.objectives.reader import LENGTH, TextReader
from tunescope.training.shards import Shards


@dataclass(frozen=True, eq=False)
class States:
    """One pass of the body: final (b, t, d) states, mask (b, t) of real tokens, pooled (b, d) where the body makes one itself."""

    final: Tensor
    mask: Tensor
    pooled: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Pass:
    """A pass that was watched: the last block's output (b, t, d), whose `.grad` a backward fills; row i was made of item rows[i]."""

    states: Tensor
    mask: Tensor
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Start:
    """The model as it was: its body and heads, copied and frozen."""

    body: nn.Module
    heads: nn.ModuleDict


class Learner(nn.Module):
    """A body, the heads of one objective, and how texts are read; what trains of it is for an update rule to say.

    `learner({...})` gives {"loss": scalar, ...}; `learner.loss(batch)` gives the whole Loss. The body is the model's own module,
    not a copy. seed: of head weights that have to be drawn.

    Raises ModelError or InputError when the objective refuses the model.
    """

    accepts_loss_kwargs = False  # tells the Trainer to divide by accumulation steps itself

    def __init__(self, model: Model, objective: Objective, *, max_length: int = LENGTH, seed: int = 0):
        super().__init__()
        objective.check(model)
        self.model, self.objective, self.seed = model, objective, seed
        self.reader = TextReader.of(model, max_length=max_length)
        self.body = model.module
        self.heads = nn.ModuleDict(objective.heads(model, seed=seed))
        self.fitted = 0  # steps in which a drawn head was fitted with the body frozen
        self.shards: Shards | None = None  # how its weights are put together, where they are to be cut
        self._watched: list[Pass] | None = None
        self._start: list[Start] = [_copy(self)] if objective.compares_with_start else []  # in a list: no part of the module

    @property
    def config(self) -> Any:
        """The body's config, which the Trainer reads."""
        return self.body.config

    @property
    def _no_split_modules(self) -> list[str]:
        """The classes of the blocks, by which accelerate cuts a model."""
        return sorted({type(block).__name__ for block in self.model.blocks})

    @property
    def drawn(self) -> list[nn.Parameter]:
        """The weights of its heads that are of no checkpoint, without what they share with the body."""
        body = {id(parameter) for parameter in self.body.parameters()}
        heads = [head for head in self.heads.values() if getattr(head, "drawn", False)]
        return [parameter for head in heads for parameter in head.parameters() if id(parameter) not in body]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        if self.objective.head == "fitted" and not self.fitted:
            raise InputError(f"{self.objective.name} with head='fitted' was run before its head was fitted; call fit_head first")
        loss = self.loss(batch)
        return {"loss": loss.value, **{name: value.detach() for name, value in loss.said.items()}}

    def collate(self, items: list[Any], generator: torch.Generator) -> Batch:
        """Items to a batch, by the objective and this model's tokenizer."""
        return self.objective.collate(items, self.reader, generator)

    def loss(self, batch: Batch) -> Loss:
        """The objective's loss on a batch."""
        return self.objective.loss(self, batch)

    def read(
        self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"], *, rows: Tensor | None = None, segments: Tensor | None = None
    ) -> States:
        """One pass of the body. rows (b,): the item each row is made of, by default its place. segments (b, t): token types."""
        rows = torch.arange(len(ids), device=ids.device) if rows is None else rows
        types = {} if segments is None else {"token_type_ids": segments}
        with self._untouched(self.body), self._last_block(mask, rows):
            out = self.body(input_ids=ids, attention_mask=mask, **types, **forward_arguments(self.model))
        return States(out[0], mask, getattr(out, "pooler_output", None))

    def embed(self, states: States, pooling: str) -> Float[Tensor, "b e"]:
        """One float32 row per text: mean, cls or last of the final states, or the deployed embedding."""
        if pooling == DEPLOYED:
            return self.model.output(states.final, states.mask, pooled=states.pooled)
        return pooler(pooling, states.mask)(states.final)

    def read_steady(self, ids: Tensor, mask: Tensor) -> States:
        """A pass without dropout and unwatched, with gradients: what the model says, not a draw of it."""
        with evaluating(self.body), self._untouched(self.body):
            return States(self.body(input_ids=ids, attention_mask=mask, **forward_arguments(self.model))[0], mask)

    @torch.no_grad()
    def read_start(self, ids: Tensor, mask: Tensor) -> tuple[States, nn.ModuleDict]:
        """The same pass of the model as it was, and its heads."""
        start = self._start[0]
        start.body.to(ids.device)
        start.heads.to(ids.device)
        with self._untouched(start.body):
            return States(start.body(input_ids=ids, attention_mask=mask, **forward_arguments(self.model))[0], mask), start.heads

    @contextmanager
    def watching(self) -> Iterator[list[Pass]]:
        """The passes made inside the block, each with the last block's output, whose gradient is kept.

        Use: `with learner.watching() as passes: learner.loss(batch).value.backward()`, then passes[0].states.grad.
        """
        found: list[Pass] = []
        self._watched = found
        try:
            yield found
        finally:
            self._watched = None

    @property
    def watched(self) -> bool:
        """Whether passes are kept, so that none may be computed a second time."""
        return self._watched is not None

    @contextmanager
    def _untouched(self, body: nn.Module) -> Iterator[None]:
        """No forward inside the block writes to the weights of `body`."""
        with unscaled(body, name=self.model.name), unpacked(body):
            yield

    @contextmanager
    def _last_block(self, mask: Tensor, rows: Tensor) -> Iterator[None]:
        if self._watched is None:
            yield
            return
        found = self._watched

        def keep(_module: nn.Module, _arguments: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            if states.requires_grad:
                states.retain_grad()
            found.append(Pass(states, mask, rows))

        handle, before = self.model.blocks[-1].register_forward_hook(keep), len(found)
        try:
            yield
        finally:
            handle.remove()
        if len(found) == before:
            raise ModelError(f"'{self.model.name}' left its last block out of a pass (layerdrop); set its config's layerdrop to 0")

    def record(self) -> dict[str, Any]:
        """JSON-able: the objective and its settings, what "auto" came to, the length, and where head weights come from."""
        drawn = {"head_seed": self.seed, "head_fitted_steps": self.fitted} if self.heads else {}
        return {**self.objective.describe(), "resolved": self.objective.resolved(self.model), "max_length": self.reader.max_length, **drawn}


def _copy(learner: Learner) -> Start:
    body, heads = copy.deepcopy((learner.body, learner.heads))
    return Start(body.eval().requires_grad_(False), heads.eval().requires_grad_(False))
