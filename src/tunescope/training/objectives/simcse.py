"""Unsupervised contrast of two views of each text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from tunescope.models import Model
from tunescope.training.objectives.base import TEXTS, Batch, Loss, Objective, check_above_zero, check_choice
from tunescope.training.objectives.contrastive import check_several, info_nce
from tunescope.training.objectives.embedding import AUTO, POOLINGS, resolved_pooling
from tunescope.training.objectives.learner import Learner
from tunescope.training.objectives.reader import TextReader
from tunescope.training.objectives.views import check_views, two_views, views_record


@dataclass(frozen=True)
class SimCSE(Objective):
    """−log exp(cos(z_i, z′_i)/τ) / Σ_j exp(cos(z_i, z′_j)/τ), z and z′ the rows of two passes that differ in dropout.

    temperature: τ. pooling: cls, mean or last; auto is the last token of causal models, else the declared pooling, else the mean.
    views: native, forced, as-published; auto is forced (.1 on the embeddings' output) where the model has no dropout, else native.
    Reference: Gao, Yao and Chen 2021, https://arxiv.org/abs/2104.08821
    """

    name: ClassVar[str] = "simcse"
    title: ClassVar[str] = "SimCSE, unsupervised"
    reference: ClassVar[str] = "https://arxiv.org/abs/2104.08821"
    needs: ClassVar[tuple[str, ...]] = (TEXTS,)
    temperature: float = 0.05
    pooling: str = AUTO
    views: str = "auto"

    def __post_init__(self) -> None:
        check_above_zero(self, "temperature")
        check_choice(self, "pooling", POOLINGS)

    def check(self, model: Model) -> None:
        check_views(self, model)

    def collate(self, items: Sequence[str], reader: TextReader, generator: torch.Generator) -> Batch:
        check_several(items, self.name)
        tokens = reader.read(items)
        return {"ids": tokens.ids, "mask": tokens.mask}

    def loss(self, learner: Learner, batch: Batch) -> Loss:
        one, two, said = two_views(learner, batch, views=self.views, pooling=resolved_pooling(learner.model, self.pooling))
        return Loss.mean(info_nce(one, two, self.temperature), said=said)

    def resolved(self, model: Model) -> dict:
        return {"pooling": resolved_pooling(model, self.pooling), **views_record(self, model)}
