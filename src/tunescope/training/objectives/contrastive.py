"""Supervised contrast: each query finds its passage among those of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tunescope.errors import InputError, ModelError, TextsError
from tunescope.models import Model
from tunescope.training.number_ranges import Number
from tunescope.training.objectives.base import PAIRS, Batch, Loss, Objective, check_above_zero, check_choice
from tunescope.training.objectives.embedding import AUTO, DEPLOYED, POOLINGS, resolved_pooling
from tunescope.training.objectives.learner import Learner
from tunescope.training.objectives.reader import TextReader

OUTPUT = "output"  # the role of the layers of a deployed embedding


@dataclass(frozen=True)
class Contrastive(Objective):
    """InfoNCE, −log exp(cos(q_i, p_i)/τ) / Σ_j exp(cos(q_i, c_j)/τ) over all passages and hard negatives c_j of the batch.

    temperature: τ. query_prompt, passage_prompt: put before the texts. pooling: as of simcse, or "deployed", which auto is where the
    model's files declare an embedding. chunk: texts that are in memory at a time, or None for all; the gradients are those of the whole
    batch, for one more forward pass (cached gradients).
    References: van den Oord et al. 2018, https://arxiv.org/abs/1807.03748; cached gradients: Gao et al. 2021,
    https://arxiv.org/abs/2101.06983
    """

    name: ClassVar[str] = "contrastive"
    title: ClassVar[str] = "contrastive"
    reference: ClassVar[str] = "https://arxiv.org/abs/1807.03748"
    needs: ClassVar[tuple[str, ...]] = (PAIRS,)
    temperature: float = 0.05
    query_prompt: str = ""
    passage_prompt: str = ""
    pooling: str = AUTO
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_above_zero(self, "temperature")
        check_choice(self, "pooling", (*POOLINGS, DEPLOYED))
        if not Number(whole=True, least=1, optional=True).holds(self.chunk):
            raise InputError(f"contrastive: chunk={self.chunk!r} texts at a time was asked for; give a whole number from 1, or None")

    def check(self, model: Model) -> None:
        deployed = resolved_pooling(model, self.pooling, deployed=True) == DEPLOYED
        if deployed and not model.output.declared:
            raise ModelError(
                f"contrastive with pooling='deployed' was asked for, and '{model.name}' declares no embedding; use pooling='mean' or 'cls'"
            )
        if deployed and not model.output.include_prompt and (self.query_prompt or self.passage_prompt):
            raise ModelError(
                f"'{model.name}' pools without its prompt's tokens, which training does not; leave the prompts out, or use pooling='mean'"
            )

    def heads(self, model: Model, *, seed: int) -> dict[str, nn.Module]:
        deployed = resolved_pooling(model, self.pooling, deployed=True) == DEPLOYED
        return {OUTPUT: nn.ModuleList(model.output.layers)} if deployed and model.output.layers else {}

    def collate(self, items: Sequence[Any], reader: TextReader, generator: torch.Generator) -> Batch:
        check_several(items, self.name)
        for item in items:
            if not isinstance(item, tuple | list) or len(item) not in (2, 3):
                raise TextsError(f"contrastive: an item is (query, passage) or (query, passage, [hard negatives]), got {str(item)[:60]}")
        negatives = [(place, text) for place, item in enumerate(items) for text in (item[2] if len(item) == 3 else ())]
        queries = reader.read([item[0] for item in items], prompt=self.query_prompt)
        passages = reader.read([*(item[1] for item in items), *(text for _, text in negatives)], prompt=self.passage_prompt)
        return {
            "query_ids": queries.ids,
            "query_mask": queries.mask,
            "passage_ids": passages.ids,
            "passage_mask": passages.mask,
            "passage_rows": torch.tensor([*range(len(items)), *(place for place, _ in negatives)]),
        }

    def loss(self, learner: Learner, batch: Batch) -> Loss:
        queries = self._rows(learner, batch["query_ids"], batch["query_mask"], None)
        passages = self._rows(learner, batch["passage_ids"], batch["passage_mask"], batch["passage_rows"])
        return Loss.mean(info_nce(queries, passages, self.temperature))

    def _rows(self, learner: Learner, ids: Tensor, mask: Tensor, rows: Tensor | None) -> Tensor:
        pooling = resolved_pooling(learner.model, self.pooling, deployed=True)

        def embed(ids: Tensor, mask: Tensor, rows: Tensor | None) -> Tensor:
            return learner.embed(learner.read(ids, mask, rows=rows), pooling)

        if self.chunk is None or learner.watched:
            return embed(ids, mask, rows)
        # Each chunk keeps its rows and forgets how they came; the backward pass makes them again, with the same dropout.
        chunks = zip(ids.split(self.chunk), mask.split(self.chunk), strict=True)
        return torch.cat([checkpoint(embed, *chunk, None, use_reentrant=False) for chunk in chunks])

    def resolved(self, model: Model) -> dict:
        return {"pooling": resolved_pooling(model, self.pooling, deployed=True)}


def info_nce(queries: Float[Tensor, "b e"], candidates: Float[Tensor, "n e"], temperature: float) -> Float[Tensor, " b"]:
    """−log softmax_j(cos(q_i, c_j)/τ) at j = i."""
    scores = F.normalize(queries, dim=-1) @ F.normalize(candidates, dim=-1).T / temperature
    return F.cross_entropy(scores, torch.arange(len(queries), device=scores.device), reduction="none")


def check_several(items: Sequence[Any], name: str) -> None:
    """Raise InputError for a batch in which nothing can be told from anything."""
    if len(items) < 2:
        raise InputError(f"{name} compares the items of a batch, and this one has {len(items)}; give batches of two or more")
