"""The remedy for forgetting: beside any objective, stay close to the model as it was on general texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tunescope.errors import InputError
from tunescope.models import Model
from tunescope.models.heads import NoLanguageHead
from tunescope.training.objectives.base import TEXTS, Batch, Loss, Objective, check_above_zero, check_choice
from tunescope.training.objectives.embedding import reads_left_only
from tunescope.training.objectives.learner import Learner
from tunescope.training.objectives.masked import chosen_tokens, hidden
from tunescope.training.objectives.mixture import entries
from tunescope.training.objectives.reader import TextReader
from tunescope.training.objectives.token_loss import (
    LANGUAGE,
    NOTHING,
    check_causal,
    check_masked,
    predicting,
    vocabulary_heads,
)

KINDS = ("kl", "features")
_SHARE = 0.15  # of the tokens that a masked model is asked for


@dataclass(frozen=True)
class Preserve(Objective):
    """L + w · D, D the distance from the model at the start on texts to keep, without dropout on either side.

    kind kl: mean KL(p_start ‖ p_now) in nats over predicted tokens, every next one of a causal model, 15% masked ones of a masked one.
    features: mean over tokens of |h − h_start|² / |h_start|², final states h. An item is a tuple: the entries of the objective's own item,
    then a text to keep. weight: w. The start is a frozen copy, made with the learner.
    Reference: Li and Hoiem 2016 (learning without forgetting), https://arxiv.org/abs/1606.09282
    """

    name: ClassVar[str] = "preserve"
    title: ClassVar[str] = "with preservation"
    reference: ClassVar[str] = "https://arxiv.org/abs/1606.09282"
    objective: Objective
    kind: str = "kl"
    weight: float = 1.0
    compares_with_start: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice(self, "kind", KINDS)
        check_above_zero(self, "weight")

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*self.objective.needs, TEXTS)

    @property
    def head(self) -> str | None:  # type: ignore[override]
        return self.objective.head or ("own" if self.kind == "kl" else None)

    def check(self, model: Model) -> None:
        self.objective.check(model)
        if self.kind == "kl" and reads_left_only(model):
            check_causal(model, "preserve with kind='kl'")
        elif self.kind == "kl":
            try:
                check_masked(model, "preserve with kind='kl'", "own")
            except NoLanguageHead as error:
                reason = str(error).split(";")[0]
                raise NoLanguageHead(f"{reason}; use kind='features' (--set preserve.kind=features), which needs no head") from error
            if self.head != "own":
                raise InputError(
                    f"preserve with kind='kl' reads the checkpoint's own head, and {self.objective.name} asked for head='{self.head}'; "
                    "use kind='features'"
                )

    def heads(self, model: Model, *, seed: int) -> dict[str, nn.Module]:
        own = self.objective.heads(model, seed=seed)
        return vocabulary_heads(model, "own", seed=seed) | own if self.kind == "kl" else own

    def collate(self, items: Sequence[Any], reader: TextReader, generator: torch.Generator) -> Batch:
        own, kept = entries(items, [self.objective.needs, (TEXTS,)])
        tokens = reader.read(kept)
        targets = tokens.ids.masked_fill(tokens.mask == 0, NOTHING)
        keep = {"ids": tokens.ids, "mask": tokens.mask, "targets": targets}
        if not reader.causal and self.kind == "kl":
            keep = hidden(tokens.ids, tokens.mask, chosen_tokens(tokens.free, _SHARE, generator), reader, generator)
        return {"own": self.objective.collate(own, reader, generator), "keep": keep}

    def loss(self, learner: Learner, batch: Batch) -> Loss:
        own, keep = self.objective.loss(learner, batch["own"]), batch["keep"]
        now = learner.read_steady(keep["ids"], keep["mask"])
        start, heads = learner.read_start(keep["ids"], keep["mask"])
        if self.kind == "features":
            moved = _moved(start.final, now.final, keep["mask"])
        else:
            ahead = reads_left_only(learner.model)
            (before, asked), (after, _) = (predicting(each.final, keep["targets"], ahead=ahead) for each in (start, now))
            chosen = asked != NOTHING
            with torch.no_grad():
                wanted = heads[LANGUAGE](before[chosen]).log_softmax(-1)
            moved = _divergence(wanted, learner.heads[LANGUAGE](after[chosen]).log_softmax(-1))
        said = {**own.said, "objective": own.value.detach(), "distance_from_start": moved.detach()}
        return Loss(own.value + self.weight * moved, said=said)

    def resolved(self, model: Model) -> dict:
        return {self.objective.name: self.objective.resolved(model)}


def _moved(before: Tensor, after: Tensor, mask: Tensor) -> Tensor:
    real = mask.bool()
    before, after = before[real].float(), after[real].float()
    return ((after - before).square().sum(1) / before.square().sum(1).clamp_min(torch.finfo(before.dtype).tiny)).mean()


def _divergence(start: Tensor, now: Tensor) -> Tensor:
    """Mean of Σ_v p (log p − log q) over rows of log-probabilities (m, v); −∞ on both sides adds nothing."""
    terms = start.exp() * (start - now)
    return terms.masked_fill(start == -torch.inf, 0.0).sum(1).mean()
