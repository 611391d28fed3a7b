"""Masked language modelling: some tokens hidden anew in every batch, and asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from tunescope.errors import InputError
from tunescope.models import Model
from tunescope.training.number_ranges import Number
from tunescope.training.objectives.base import TEXTS, Batch, Loss, Objective, check_choice
from tunescope.training.objectives.learner import Learner
from tunescope.training.objectives.reader import TextReader
from tunescope.training.objectives.token_loss import HEADS, LANGUAGE, NOTHING, check_masked, token_loss, vocabulary_heads

MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the chosen: read as the mask token, as a random token; the rest as they are


@dataclass(frozen=True)
class MaskedLM(Objective):
    """−log p of 15% of each text's non-special tokens, chosen anew in every batch; 80% of them read as the mask token, 10% as a random
    token that is not special, 10% as they are.

    share: of the tokens, at least one a text. head: "own" (the checkpoint's), "random" (drawn), "fitted" (drawn, then fitted with the
    body frozen, `fit_head`). Reference: Devlin et al. 2019, https://arxiv.org/abs/1810.04805
    """

    name: ClassVar[str] = "mlm"
    title: ClassVar[str] = "masked language modelling"
    reference: ClassVar[str] = "https://arxiv.org/abs/1810.04805"
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
        return hidden(tokens.ids, tokens.mask, chosen_tokens(tokens.free, self.share, generator), reader, generator)

    def loss(self, learner: Learner, batch: Batch) -> Loss:
        states = learner.read(batch["ids"], batch["mask"])
        return token_loss(learner.heads[LANGUAGE], states.final, batch["targets"], ahead=False)

    def resolved(self, model: Model) -> dict:
        return {"mask_token": model.tokenizer.mask_token, "head": self.head}


def check_share(objective: Objective) -> None:
    """Raise InputError for a share of tokens outside 0 to 1."""
    share = objective.share
    if not Number(above=0, below=1).holds(share):
        raise InputError(f"{objective.name}: share={share!r} of the tokens was asked for; give a number between 0 and 1, such as .15")


def chosen_tokens(free: Bool[Tensor, "b t"], share: float, generator: torch.Generator) -> Int[Tensor, "b t"]:
    """Of each text's m free tokens max(1, round(share·m)), each a group of its own: its number, −1 for tokens not chosen."""
    groups, count = torch.full(free.shape, -1), 0
    for row, own in zip(groups, free, strict=True):
        places = own.nonzero()[:, 0]
        wanted = max(1, round(share * len(places)))
        picked = places[torch.randperm(len(places), generator=generator)[:wanted]]
        row[picked] = torch.arange(count, count + len(picked))
        count += len(picked)
    return groups


def hidden(
    ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"], groups: Int[Tensor, "b t"], reader: TextReader, generator: torch.Generator,
    *, instead: int | None = None,
) -> Batch:
    """A batch whose chosen tokens are targets and read as 80/10/10 has it, one draw a group of them; random tokens one draw each.

    groups: the number of the group each token is of, −1 for those not chosen. instead: the id read in place of a hidden token, by default
    the mask token.
    """
    chosen = groups >= 0
    draws = torch.rand(int(groups.max()) + 1, generator=generator)[groups.clamp(min=0)]
    others = reader.ordinary[torch.randint(len(reader.ordinary), ids.shape, generator=generator)]
    read = torch.where(chosen & (draws < MASKED_SHARE + RANDOM_SHARE), others, ids)
    read = torch.where(chosen & (draws < MASKED_SHARE), reader.tokenizer.mask_token_id if instead is None else instead, read)
    return {"ids": read, "mask": mask, "targets": ids.masked_fill(~chosen, NOTHING)}
