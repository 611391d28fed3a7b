"""Which tokens a direction promotes and suppresses: the direction through what follows the last block, and the language head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.dictionaries.spliced_forward import continued_from, whole_pass
from tunescope.errors import InputError, ModelError
from tunescope.models import Model
from tunescope.models.heads import LanguageHead, NoLanguageHead, language_head
from tunescope.models.quiet import quietly

DEFINITION = (
    "logit lens: the decoder row through the final norm and the language head, less what the head says of nothing; "
    "the direct path only, exact at the last block and rougher the earlier the layer"
)
_NUMBERS = 2**22  # scores (directions, v) at a time


@dataclass(frozen=True)
class Promoted:
    """Tokens of one direction with their scores, the most promoted first, the most suppressed first."""

    promotes: list[tuple[int, float]]
    suppresses: list[tuple[int, float]]


def head_or_reason(model: Model) -> tuple[LanguageHead | None, str | None]:
    """The language head, or why no tokens can be named."""
    try:
        return language_head(model), None
    except NoLanguageHead as error:
        return None, f"no tokens are named: {error}"


def promoted_tokens(head: LanguageHead, directions: Float[Tensor, "n d"], *, k: int = 10) -> list[Promoted]:
    """score = head(norm(d)) − head(norm(0)) of each direction d, for every token of the vocabulary; the k highest and lowest.

    Biases of norm and head fall out, so with a linear head the scores of a norm without a mean are a multiple of W_U (γ ∘ d). What a
    masked head transforms in between is not linear, and its scores are those of the direction alone.

    Raises InputError for another width, ModelError as reading the model's blocks does.
    """
    model = head.model
    if directions.shape[1] != model.anatomy.width:
        raise InputError(f"directions of width {directions.shape[1]} given for '{model.name}' of width {model.anatomy.width}")
    size = max(1, _NUMBERS // head.vocabulary)
    nothing = head(_after_blocks(model, directions.new_zeros(1, directions.shape[1])))
    found = []
    for some in directions.split(size):
        scores = head(_after_blocks(model, some)) - nothing
        if not torch.isfinite(scores).all():
            raise ModelError(f"the language head of '{model.name}' gives NaN or Inf for a decoder row; its weights are damaged")
        found += [_promoted(*ends) for ends in zip(*_ends(scores, k), strict=True)]
    return found


def _after_blocks(model: Model, directions: Tensor) -> Tensor:
    """The final states (n, ·) of a body whose last block returns these directions: each the only token of a text."""
    ids = torch.zeros(len(directions), 1, dtype=torch.long, device=model.device)
    last = model.anatomy.n_layers
    with quietly(), torch.no_grad(), model.active():
        found = whole_pass(model, ids, torch.ones_like(ids), [last])
        states = directions[:, None, :].to(found.states[last].device)
        return continued_from(model, found, last, states)[0][:, 0]


def _ends(scores: Tensor, k: int) -> tuple[list, list, list, list]:
    most = min(k, scores.shape[1])
    high, low = scores.topk(most, dim=1), scores.topk(most, dim=1, largest=False)
    return high.indices.tolist(), high.values.tolist(), low.indices.tolist(), low.values.tolist()


def _promoted(high: list[int], scores: list[float], low: list[int], below: list[float]) -> Promoted:
    return Promoted(list(zip(high, scores, strict=True)), list(zip(low, below, strict=True)))
