"""Redundancy reduction: two views agree in every feature, and no two features say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.models import Model
from tunescope.training.objectives.base import TEXTS, Batch, Loss, Objective, check_above_zero, check_choice
from tunescope.training.objectives.contrastive import check_several
from tunescope.training.objectives.embedding import AUTO, POOLINGS, resolved_pooling
from tunescope.training.objectives.learner import Learner
from tunescope.training.objectives.reader import TextReader
from tunescope.training.objectives.views import check_views, two_views, views_record

_TINY = 1e-5  # added to the variance, as batch normalisation does in the published code


@dataclass(frozen=True)
class BarlowTwins(Objective):
    """Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij², C = ẑ1ᵀẑ2 / N of two views whose features are standardised over the batch; no projector.

    A loss of the batch: its items have none of their own. weight: λ. pooling, views: as of simcse.
    Reference: Zbontar et al. 2021, https://arxiv.org/abs/2103.03230
    """

    name: ClassVar[str] = "barlow-twins"
    title: ClassVar[str] = "Barlow Twins"
    reference: ClassVar[str] = "https://arxiv.org/abs/2103.03230"
    needs: ClassVar[tuple[str, ...]] = (TEXTS,)
    weight: float = 0.0051
    pooling: str = AUTO
    views: str = "auto"

    def __post_init__(self) -> None:
        check_above_zero(self, "weight")
        check_choice(self, "pooling", POOLINGS)

    def check(self, model: Model) -> None:
        check_views(self, model)

    def collate(self, items: Sequence[str], reader: TextReader, generator: torch.Generator) -> Batch:
        check_several(items, self.name)
        tokens = reader.read(items)
        return {"ids": tokens.ids, "mask": tokens.mask}

    def loss(self, learner: Learner, batch: Batch) -> Loss:
        one, two, said = two_views(learner, batch, views=self.views, pooling=resolved_pooling(learner.model, self.pooling))
        between = _standardised(one).T @ _standardised(two) / len(one)
        agreement = between.diagonal()
        rest = between.square().sum() - agreement.square().sum()
        return Loss((1 - agreement).square().sum() + self.weight * rest, said=said)

    def resolved(self, model: Model) -> dict:
        return {"pooling": resolved_pooling(model, self.pooling), **views_record(self, model)}


def _standardised(rows: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
    """Mean 0 and variance 1 of each feature over the batch, the variance that divides by N."""
    centred = rows - rows.mean(0)
    return centred / (centred.square().mean(0) + _TINY).sqrt()
