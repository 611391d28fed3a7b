"""Denoising of spans: whole words in a row hidden and asked for, from both sides or under the causal mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from tunescope.errors import ModelError, TextsError
from tunescope.models import Model
from tunescope.training.objectives.base import TEXTS, Batch, Loss, Objective, check_choice
from tunescope.training.objectives.learner import Learner
from tunescope.training.objectives.masked import check_share, hidden
from tunescope.training.objectives.reader import TextReader
from tunescope.training.objectives.spans import chosen_spans
from tunescope.training.objectives.token_loss import HEADS, LANGUAGE, check_causal, check_masked, token_loss, vocabulary_heads


@dataclass(frozen=True)
class SpanDenoise(Objective):
    """−log p of spans of whole words, 15% of each text, of lengths Geometric(.2) up to 10 words; 80/10/10 drawn once a span.

    The masked-language head predicts them; there is no span-boundary loss. share, head: as of mlm.
    Reference: Joshi et al. 2020 (SpanBERT), https://arxiv.org/abs/1907.10529
    """

    name: ClassVar[str] = "span-denoise"
    title: ClassVar[str] = "span denoising"
    reference: ClassVar[str] = "https://arxiv.org/abs/1907.10529"
    needs: ClassVar[tuple[str, ...]] = (TEXTS,)
    share: float = 0.15
    head: str = "own"

    def __post_init__(self) -> None:
        check_share(self)
        check_choice(self, "head", HEADS)

    def check(self, model: Model) -> None:
        check_masked(model, self.name, self.head)

    def heads(self, model: Model, *, seed: int) -> dict[str, nn.Module]:
        return vocabulary_heads(model, self.head, seed=seed)

    def collate(self, items: Sequence[str], reader: TextReader, generator: torch.Generator) -> Batch:
        tokens = reader.read(items)
        groups = chosen_spans(tokens.words, tokens.free, self.share, generator)
        return hidden(tokens.ids, tokens.mask, groups, reader, generator)

    def loss(self, learner: Learner, batch: Batch) -> Loss:
        states = learner.read(batch["ids"], batch["mask"])
        return token_loss(learner.heads[LANGUAGE], states.final, batch["targets"], ahead=False)

    def resolved(self, model: Model) -> dict:
        return {"mask_token": model.tokenizer.mask_token, "head": self.head}


@dataclass(frozen=True)
class CausalSpan(Objective):
    """−log p of the tokens of hidden spans from the corrupted text before them: span denoising under the causal mask.

    Spans as of span-denoise, without a text's first token, which nothing stands before. A tokenizer without a mask token reads the
    end-of-text token in its place, and the record says so.
    """

    name: ClassVar[str] = "causal-span"
    title: ClassVar[str] = "causal span denoising"
    reference: ClassVar[str] = "https://arxiv.org/abs/1907.10529"
    needs: ClassVar[tuple[str, ...]] = (TEXTS,)
    head: ClassVar[str] = "own"
    share: float = 0.15

    def __post_init__(self) -> None:
        check_share(self)

    def check(self, model: Model) -> None:
        check_causal(model, self.name)
        if _stand_in(model.tokenizer) is None:
            raise ModelError(
                f"causal-span needs a mask token or an end-of-text token, and the tokenizer of '{model.name}' has neither; set one"
            )

    def heads(self, model: Model, *, seed: int) -> dict[str, nn.Module]:
        return vocabulary_heads(model, "own", seed=seed)

    def collate(self, items: Sequence[str], reader: TextReader, generator: torch.Generator) -> Batch:
        tokens = reader.read(items)
        free = tokens.free.clone()
        free[:, 0] = False
        if not free.any():
            raise TextsError("causal-span: every text of a batch is one token long; give longer texts")
        groups = chosen_spans(tokens.words, free, self.share, generator)
        instead = reader.tokenizer.convert_tokens_to_ids(_stand_in(reader.tokenizer))
        return hidden(tokens.ids, tokens.mask, groups, reader, generator, instead=instead)

    def loss(self, learner: Learner, batch: Batch) -> Loss:
        states = learner.read(batch["ids"], batch["mask"])
        return token_loss(learner.heads[LANGUAGE], states.final, batch["targets"], ahead=True)

    def resolved(self, model: Model) -> dict:
        return {"mask_token": _stand_in(model.tokenizer)}


def _stand_in(tokenizer) -> str | None:
    """What is read in place of a hidden token."""
    return tokenizer.mask_token if tokenizer.mask_token_id is not None else tokenizer.eos_token
