"""Next-token prediction: the pretraining of causal models, and its form on conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from tunescope.errors import TextsError
from tunescope.models import Model
from tunescope.training.objectives.base import TEXTS, Batch, Loss, Objective
from tunescope.training.objectives.learner import Learner
from tunescope.training.objectives.reader import TextReader
from tunescope.training.objectives.token_loss import LANGUAGE, NOTHING, check_causal, token_loss, vocabulary_heads


@dataclass(frozen=True)
class CausalLM(Objective):
    """−log p of every token from those before it, averaged over the tokens of the batch; a text's first token is not predicted."""

    name: ClassVar[str] = "causal-lm"
    title: ClassVar[str] = "next-token prediction"
    reference: ClassVar[str] = "https://huggingface.co/docs/transformers/tasks/language_modeling"
    needs: ClassVar[tuple[str, ...]] = (TEXTS,)

    head: ClassVar[str] = "own"

    def check(self, model: Model) -> None:
        check_causal(model, self.name)

    def heads(self, model: Model, *, seed: int) -> dict[str, nn.Module]:
        return vocabulary_heads(model, "own", seed=seed)

    def collate(self, items: Sequence[Any], reader: TextReader, generator: torch.Generator) -> Batch:
        tokens = reader.read(items)
        if tokens.ids.shape[1] < 2:
            raise TextsError("causal-lm: every text of a batch is one token long, and nothing is left to predict; give longer texts")
        return {"ids": tokens.ids, "mask": tokens.mask, "targets": tokens.ids.masked_fill(tokens.mask == 0, NOTHING)}

    def loss(self, learner: Learner, batch: Batch) -> Loss:
        states = learner.read(batch["ids"], batch["mask"])
        return token_loss(learner.heads[LANGUAGE], states.final, batch["targets"], ahead=True)
