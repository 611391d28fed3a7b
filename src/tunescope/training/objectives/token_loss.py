"""Cross-entropy of predicted tokens; the vocabulary head runs on their positions only."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tunescope.errors import ModelError
from tunescope.models import Model
from tunescope.models.heads import CAUSAL, MASKED, NoLanguageHead, language_head
from tunescope.models.vocabulary_head import VocabularyHead, untrained_head
from tunescope.training.objectives.base import Loss
from tunescope.training.objectives.embedding import reads_left_only

LANGUAGE = "language"  # the role of the vocabulary head
HEADS = ("own", "random", "fitted")
NOTHING = -100  # a target that is not asked for, as in transformers


def token_loss(head: nn.Module, states: Float[Tensor, "b t d"], targets: Int[Tensor, "b t"], *, ahead: bool) -> Loss:
    """−log p(target), averaged over all predicted tokens of the batch; an item's is over its own, and weighs as many.

    targets: the token at each position, NOTHING where none is predicted. ahead: a state predicts the token after it (causal).
    """
    states, targets = predicting(states, targets, ahead=ahead)
    asked = targets != NOTHING
    losses = F.cross_entropy(head(states[asked]), targets[asked], reduction="none")
    counts = asked.sum(1)
    sums = losses.new_zeros(len(targets)).index_add(0, asked.nonzero()[:, 0], losses)
    return Loss(losses.sum() / len(losses), sums / counts.clamp(min=1), counts.to(losses.dtype))


def predicting(states: Tensor, targets: Tensor, *, ahead: bool) -> tuple[Tensor, Tensor]:
    """States and targets set beside each other: shifted by one where a state predicts what follows."""
    return (states[:, :-1], targets[:, 1:]) if ahead else (states, targets)


def check_causal(model: Model, name: str) -> None:
    """Raise ModelError when `model` sees what a causal loss asks for, or has no head to predict it with."""
    if not reads_left_only(model):
        raise ModelError(
            f"{name} asks for the next token, and '{model.name}' ({model.anatomy.family}) reads in both directions, so it sees it; "
            "use mlm or span-denoise"
        )
    _check_own(model, name, CAUSAL, "give a checkpoint with its head, or use simcse or contrastive")


def check_masked(model: Model, name: str, head: str) -> None:
    """Raise ModelError when `model` cannot predict a masked token: causal, without mask token, or without the head asked for."""
    if reads_left_only(model):
        raise ModelError(
            f"{name} asks for a masked token from both sides of it, and '{model.name}' ({model.anatomy.family}) reads to the left only; "
            "use causal-lm or causal-span"
        )
    if model.tokenizer.mask_token_id is None:
        raise ModelError(f"{name} needs a mask token, and the tokenizer of '{model.name}' has none; set tokenizer.mask_token")
    if head == "own":
        how = "ask for head='random' or head='fitted' (fitted with the body frozen first), which the record then names"
        _check_own(model, name, MASKED, how)
    else:
        _refuse_encoder_of_two(model, name)
        untrained_head(model, seed=0)


def _check_own(model: Model, name: str, kind: str, how: str) -> None:
    _refuse_encoder_of_two(model, name)
    try:
        found = language_head(model).kind
    except NoLanguageHead as error:
        raise NoLanguageHead(f"{name} needs a language-model head, and {str(error).split(';')[0]}; {how}") from error
    if found != kind:
        raise ModelError(f"{name} needs a {kind} language-model head, and that of '{model.name}' is {found}; {how}")


def _refuse_encoder_of_two(model: Model, name: str) -> None:
    """The head of an encoder-decoder reads its decoder, which is not part of the model that is read."""
    whole = getattr(getattr(model.origin, "config", None), "is_encoder_decoder", False)
    if whole or getattr(model.module.config, "is_encoder_decoder", False):
        raise NoLanguageHead(
            f"{name} needs a language-model head, and '{model.name}' is the encoder of an encoder-decoder; use simcse or contrastive"
        )


def vocabulary_heads(model: Model, head: str, *, seed: int) -> dict[str, nn.Module]:
    """The vocabulary head by its role: the checkpoint's own, or one with drawn weights."""
    return {LANGUAGE: VocabularyHead.of(language_head(model)) if head == "own" else untrained_head(model, seed=seed)}


