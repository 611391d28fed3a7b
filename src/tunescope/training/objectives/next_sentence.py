"""Next-sentence prediction: does this text go on like that, or like another one?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from tunescope.errors import TextsError
from tunescope.models import Model
from tunescope.models.next_sentence import next_sentence_head
from tunescope.training.objectives.base import TEXTS, Batch, Loss, Objective
from tunescope.training.objectives.contrastive import check_several
from tunescope.training.objectives.learner import Learner
from tunescope.training.objectives.reader import TextReader

FOLLOWS = "follows"  # the role of the head
_SENTENCES = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class NextSentence(Objective):
    """−log p of "follows" for a text's own continuation, of "random" for one of another text of the batch; half the texts each.

    A text is cut between two of its sentences, drawn at random; a text of one sentence in the middle of its words. An odd batch gives the
    odd text by a coin. Reference: Devlin et al. 2019, https://arxiv.org/abs/1810.04805
    """

    name: ClassVar[str] = "nsp"
    title: ClassVar[str] = "next-sentence prediction"
    reference: ClassVar[str] = "https://arxiv.org/abs/1810.04805"
    needs: ClassVar[tuple[str, ...]] = (TEXTS,)

    def check(self, model: Model) -> None:
        next_sentence_head(model)

    def heads(self, model: Model, *, seed: int) -> dict[str, nn.Module]:
        return {FOLLOWS: next_sentence_head(model)}

    def collate(self, items: Sequence[str], reader: TextReader, generator: torch.Generator) -> Batch:
        check_several(items, self.name)
        halves = [_cut(text, generator) for text in items]
        odd = int(torch.randint(2, (1,), generator=generator)) if len(items) % 2 else 0
        targets = torch.zeros(len(items), dtype=torch.long)
        targets[torch.randperm(len(items), generator=generator)[: len(items) // 2 + odd]] = 1
        others = (torch.arange(len(items)) + 1 + torch.randint(len(items) - 1, (len(items),), generator=generator)) % len(items)
        source = torch.where(targets == 1, others, torch.arange(len(items)))
        tokens = reader.read([first for first, _ in halves], second=[halves[place][1] for place in source.tolist()])
        return {"ids": tokens.ids, "mask": tokens.mask, "segments": tokens.segments, "targets": targets}

    def loss(self, learner: Learner, batch: Batch) -> Loss:
        states = learner.read(batch["ids"], batch["mask"], segments=batch["segments"])
        return Loss.mean(F.cross_entropy(learner.heads[FOLLOWS](states.final), batch["targets"], reduction="none"))


def _cut(text: str, generator: torch.Generator) -> tuple[str, str]:
    """A text in two, each with words. Raises TextsError for a text of one word."""
    sentences = _SENTENCES.split(text.strip()) if isinstance(text, str) else []
    if len(sentences) > 1:
        place = 1 + int(torch.randint(len(sentences) - 1, (1,), generator=generator))
        return " ".join(sentences[:place]), " ".join(sentences[place:])
    words = sentences[0].split() if sentences else []
    if len(words) < 2:
        raise TextsError(f"nsp cuts a text in two, and '{str(text)[:40]}' has fewer than two words; take such texts out")
    return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
