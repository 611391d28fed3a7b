"""Classification: a linear layer on the pooled text, and the class it should name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from tunescope.activations.capture import forward_arguments
from tunescope.errors import TextsError
from tunescope.models import Model
from tunescope.training.number_ranges import Number, check_numbers
from tunescope.training.objectives.base import LABELS, Batch, Loss, Objective, check_choice
from tunescope.training.objectives.embedding import AUTO, POOLINGS, resolved_pooling
from tunescope.training.objectives.learner import Learner
from tunescope.training.objectives.reader import TextReader

CLASSES = "classes"  # the role of the head
_SPREAD = 0.02  # of drawn weights, as BERT draws its own


class ClassHead(nn.Linear):
    """Rows (b, e) -> scores (b, classes); its weights are of no checkpoint."""

    drawn = True


@dataclass(frozen=True)
class Classify(Objective):
    """−log p of a text's class, p = softmax(W z + w), z the pooled final state.

    W is drawn from N(0, .02²) and w is 0: no checkpoint holds a head for these classes, so the record names the draw. classes: how many.
    pooling: as of simcse.
    """

    name: ClassVar[str] = "classify"
    title: ClassVar[str] = "classification"
    reference: ClassVar[str] = "https://huggingface.co/docs/transformers/tasks/sequence_classification"
    needs: ClassVar[tuple[str, ...]] = (LABELS,)
    classes: int = 2
    pooling: str = AUTO

    def __post_init__(self) -> None:
        check_choice(self, "pooling", POOLINGS)
        check_numbers("classify: ", vars(self), {"classes": Number(whole=True, least=2)})

    def check(self, model: Model) -> None:
        """Any model that reads texts can be asked."""

    def heads(self, model: Model, *, seed: int) -> dict[str, nn.Module]:
        head = ClassHead(_final_width(model), self.classes, device="meta")
        draw = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed))
        head.weight = nn.Parameter(_SPREAD * draw.to(model.device))
        head.bias = nn.Parameter(torch.zeros(self.classes, device=model.device))
        return {CLASSES: head}

    def collate(self, items: Sequence[Any], reader: TextReader, generator: torch.Generator) -> Batch:
        for item in items:
            if not isinstance(item, tuple | list) or len(item) != 2 or not isinstance(item[1], int) or not 0 <= item[1] < self.classes:
                raise TextsError(f"classify: an item is (text, class from 0 to {self.classes - 1}), got {str(item)[:60]}")
        tokens = reader.read([item[0] for item in items])
        return {"ids": tokens.ids, "mask": tokens.mask, "targets": torch.tensor([item[1] for item in items])}

    def loss(self, learner: Learner, batch: Batch) -> Loss:
        states = learner.read(batch["ids"], batch["mask"])
        rows = learner.embed(states, resolved_pooling(learner.model, self.pooling))
        return Loss.mean(F.cross_entropy(learner.heads[CLASSES](rows), batch["targets"], reduction="none"))

    def resolved(self, model: Model) -> dict:
        return {"pooling": resolved_pooling(model, self.pooling), "head": "random"}


@torch.inference_mode()
def _final_width(model: Model) -> int:
    """Features of the final states, which a projection after the blocks can make other than those of a block (OPT-350m)."""
    with model.active() as body:
        one = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        return int(body(input_ids=one, attention_mask=one + 1, **forward_arguments(model))[0].shape[-1])
