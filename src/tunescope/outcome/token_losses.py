"""One pass of both models over the same tokens: losses, divergences and the tokens that differ most, in memory that stays flat.

Axis legend: m predicted tokens, v tokens of the vocabulary, n texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tunescope.activations.batches import collate, plan_batches
from tunescope.activations.capture import forward_arguments
from tunescope.errors import ActivationError, ModelError
from tunescope.models.heads import CAUSAL, LanguageHead
from tunescope.models.quiet import quietly
from tunescope.outcome.scored_tokens import ScoredTokens

MOST = 20  # tokens kept as those that differ most
_TOP = 3
_NUMBERS = 2**22  # of one chunk of scores (m, v): 16 MB, and a few of them at a time

Top = list[tuple[int, float]]


@dataclass(frozen=True)
class ChangedToken:
    """A predicted token at a flat place: both losses, KL(base ‖ tuned), and each side's likeliest tokens with their probabilities."""

    place: int
    kl: float
    base_loss: float
    tuned_loss: float
    base_top: Top
    tuned_top: Top


@dataclass
class TextSums:
    """Sums over the predicted tokens of each text, (n,) float64; `most` are the tokens of largest KL, `vocabularies` the sizes met."""

    losses: list[np.ndarray]
    kl: np.ndarray
    kl_reverse: np.ndarray
    agree: np.ndarray
    most: list[ChangedToken] = field(default_factory=list)
    vocabularies: tuple[int, ...] = ()


def sum_losses(
    heads: Sequence[LanguageHead],
    tokens: ScoredTokens,
    *,
    ids: Sequence[str],
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> TextSums:
    """Run one model, or base and tuned beside each other, over the windows, longest first.

    Losses are −log p of the predicted tokens in nats, KL(p ‖ q) = Σ p (log p − log q), all in float32 from chunks of the scores; with
    vocabularies of different size both are renormalised over the tokens that both know before they are compared.

    Raises ActivationError for a loss that is NaN or Inf, naming model and text; ModelError when a causal head sees what it predicts.
    """
    n = len(tokens.tokens)
    sums = TextSums([np.zeros(n) for _ in heads], np.zeros(n), np.zeros(n), np.zeros(n))
    bounds = np.searchsorted(tokens.scored, tokens.read.offsets)
    with quietly(), torch.inference_mode():
        for head in heads:
            check_causal(head, tokens)
        for batch in plan_batches(tokens.read.lengths, batch_size):
            places = np.concatenate([tokens.scored[bounds[window] : bounds[window + 1]] for window in batch])
            states = [_predicting_states(head, tokens, batch) for head in heads]
            for chunk in chunks(len(places), heads):
                _add(sums, heads, [side[chunk] for side in states], tokens, places[chunk], ids)
            if progress is not None:
                progress(int(tokens.read.lengths[batch].sum()))
    return sums


def _predicting_states(head: LanguageHead, tokens: ScoredTokens, batch: np.ndarray) -> Tensor:
    """Final states (m, d) from which the tokens of these windows are predicted: a causal model's stand one place before."""
    model = head.model
    inputs, mask, counted = collate(tokens.read, batch, pad_id=model.tokenizer.pad_token_id or 0, device=model.device)
    with model.active() as body:
        states = body(input_ids=inputs, attention_mask=mask, **forward_arguments(model))[0]
    counted = counted.to(states.device)
    return states[:, :-1][counted[:, 1:]] if head.kind == CAUSAL else states[counted]


def chunks(total: int, heads: Iterable[LanguageHead]) -> Iterator[slice]:
    """Slices of the predicted tokens whose scores hold at most _NUMBERS numbers."""
    step = max(1, _NUMBERS // max(head.vocabulary for head in heads))
    return (slice(start, start + step) for start in range(0, total, step))


def _add(
    sums: TextSums, heads: Sequence[LanguageHead], states: list[Tensor], tokens: ScoredTokens, places: np.ndarray, ids: Sequence[str]
) -> None:
    texts = tokens.text[tokens.window_of(places)]
    scores = [head(side).log_softmax(-1) for head, side in zip(heads, states, strict=True)]
    sums.vocabularies = tuple(side.shape[1] for side in scores)
    losses = []
    for head, side, total in zip(heads, scores, sums.losses, strict=True):
        wanted = torch.from_numpy(tokens.ids[places].astype(np.int64)).to(side.device)
        losses.append(-side.gather(1, wanted[:, None]).squeeze(1).cpu().numpy())
        if not np.isfinite(losses[-1]).all():
            where = ids[texts[np.flatnonzero(~np.isfinite(losses[-1]))[0]]]
            raise ActivationError(f"the loss of '{head.model.name}' on {where} is NaN or Inf; its weights or scores are damaged")
        np.add.at(total, texts, losses[-1])
    if len(heads) == 2:
        _compare(sums, scores[0], scores[1].to(scores[0].device), losses, texts, places)


def _compare(sums: TextSums, base: Tensor, tuned: Tensor, losses: list[np.ndarray], texts: np.ndarray, places: np.ndarray) -> None:
    """Add the divergences of log-probabilities (m, v) to the sums, and keep the tokens of largest KL."""
    known = min(base.shape[1], tuned.shape[1])
    if base.shape[1] != tuned.shape[1]:
        base, tuned = base[:, :known].log_softmax(-1), tuned[:, :known].log_softmax(-1)
    kl = divergence(base, tuned)
    for total, values in (
        (sums.kl, kl),
        (sums.kl_reverse, divergence(tuned, base)),
        (sums.agree, (base.argmax(1) == tuned.argmax(1)).float()),
    ):
        np.add.at(total, texts, values.cpu().numpy())
    least = sums.most[-1].kl if len(sums.most) == MOST else -1.0
    values, rows = kl.topk(min(MOST, len(kl)))
    for value, row in zip(values.tolist(), rows.tolist(), strict=True):
        if value > least:
            own = [_top(side[row]) for side in (base, tuned)]
            sums.most.append(ChangedToken(int(places[row]), value, float(losses[0][row]), float(losses[1][row]), *own))
    sums.most.sort(key=lambda token: (-token.kl, token.place))
    del sums.most[MOST:]


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) of rows of log-probabilities (m, v) -> (m,), in nats; −∞ on both sides adds nothing."""
    terms = p.exp() * (p - q)
    return terms.masked_fill_(p == -torch.inf, 0.0).sum(1).clamp_min(0.0)


def _top(scores: Tensor) -> Top:
    values, tokens = scores.topk(min(_TOP, len(scores)))
    return list(zip(tokens.tolist(), values.exp().tolist(), strict=True))


def check_causal(head: LanguageHead, tokens: ScoredTokens) -> None:
    """Raise ModelError when a later token changes an earlier state: the model would see what it is asked to predict."""
    if head.kind != CAUSAL:
        return
    start = tokens.read.offsets[int(np.argmax(tokens.read.lengths))]
    row = torch.from_numpy(tokens.ids[start : start + min(8, int(tokens.read.lengths.max()))].astype(np.int64))
    other = row.clone()
    other[-1] = (row[-1] + 1) % head.vocabulary
    with head.model.active() as body:
        arguments, device = forward_arguments(head.model), head.model.device
        one, two = body(input_ids=torch.stack([row, other]).to(device), **arguments)[0][:, :-1].float()
    if not torch.allclose(one, two, rtol=0, atol=1e-2 * float(one.abs().max())):
        raise ModelError(
            f"'{head.model.name}' reads in both directions, so it sees the tokens that a causal loss asks for; "
            "measure retrieval or probes, or give its masked-language checkpoint"
        )
