"""What a model does with a text, so that another's doing can be told from it: what it predicts, or the embedding it deploys.

Axis legend: w windows of texts, m answers of a batch (predicted tokens, or texts), v tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tunescope.activations.batches import TokenisedTexts, collate, prompt_tokens
from tunescope.activations.taps import check_states
from tunescope.dictionaries.delta_pass import DeltaPass
from tunescope.errors import ActivationError, ModelError, TextsError, UnknownName
from tunescope.models import Model
from tunescope.models.heads import CAUSAL, LanguageHead, NoLanguageHead
from tunescope.outcome.language import two_heads
from tunescope.outcome.scored_tokens import ScoredTokens, scored_tokens, tokens_of
from tunescope.outcome.token_losses import check_causal, chunks, divergence
from tunescope.texts import Corpus

BASE, TUNED = "base", "tuned"
Measured = tuple[Any, np.ndarray, np.ndarray, np.ndarray | None]  # whose, (m,) window of each answer, distances to tuned's, losses


@dataclass(frozen=True, eq=False)
class Windows:
    """What is read: `read.counted` marks the tokens that may hold a delta (None: all), document (w,) the text of each window."""

    read: TokenisedTexts
    document: np.ndarray


class Behaviour(Protocol):
    """Answers of a base and its tuned models, and how far they are apart."""

    name: str
    distance: str
    says: str
    windows: Windows

    def answer(self, model: Model, out: Any, mask: Tensor, batch: np.ndarray) -> Tensor:
        """What a body's output on these windows amounts to, (m, …)."""
        ...

    def measure(self, tuned: str, answers: Mapping[Any, Tensor], batch: np.ndarray) -> Iterator[Measured]:
        """How far each of `answers` (under TUNED the tuned model's, all others through the base's head) is from the tuned model's."""
        ...


@dataclass(frozen=True, eq=False)
class Predictions:
    """Next or masked tokens, as `outcome.language` predicts them; distance: KL(tuned ‖ ·) of the predicted distributions, in nats."""

    base: LanguageHead
    tuned: dict[str, LanguageHead]
    tokens: ScoredTokens
    windows: Windows
    name = "predictions"
    distance = "KL(tuned ‖ ·), nats per predicted token"

    @classmethod
    def of(cls, whole: DeltaPass, corpus: Corpus, *, seed: int) -> Predictions:
        """Of the documents in `corpus`, read without a prompt. Raises NoLanguageHead, ModelError, TextsError (nothing to predict)."""
        pairs = {name: two_heads(whole.base, model) for name, model in whole.tuned.items()}
        own = next(iter(pairs.values()))[0]
        cut = tokens_of(whole.base, corpus.texts, corpus.ids)
        tokens = scored_tokens(whole.base, own.kind, cut, corpus.texts, max_length=whole.reading["max_length"], seed=seed)
        if not len(tokens.scored):
            raise TextsError(f"{corpus.source}: no token to predict in {len(corpus):,} held-out texts; give texts of two tokens or more")
        read = TokenisedTexts(tokens.read.ids, tokens.read.offsets, _ordinary(cut, tokens) if whole.hygiene.special else None, 0)
        heads = {name: pair[1] for name, pair in pairs.items()}
        with torch.no_grad():
            for head in (own, *heads.values()):
                check_causal(head, tokens)
        return cls(own, heads, tokens, Windows(read, tokens.text))

    @property
    def says(self) -> str:
        """Which predictions these are."""
        return "next tokens, each from those before it" if self.base.kind == CAUSAL else "15% of the tokens, all masked at once"

    def answer(self, model: Model, out: Any, mask: Tensor, batch: np.ndarray) -> Tensor:
        """The final states (m, d) that tokens are predicted from."""
        states = out[0]
        _, _, predicted = collate(self.tokens.read, batch, pad_id=0, device=states.device)
        return states[:, :-1][predicted[:, 1:]] if self.base.kind == CAUSAL else states[predicted]

    def measure(self, tuned: str, answers: Mapping[Any, Tensor], batch: np.ndarray) -> Iterator[Measured]:
        """Chunk by chunk of the predicted tokens, so that no scores (m, v) of more than a few MB are held."""
        counted = self.tokens.read.counted
        spans = [slice(self.tokens.read.offsets[window], self.tokens.read.offsets[window + 1]) for window in batch]
        places = np.concatenate([span.start + np.flatnonzero(counted[span]) for span in spans])  # type: ignore[index]
        windows, wanted = self.tokens.window_of(places), torch.from_numpy(self.tokens.ids[places].astype(np.int64))
        head = self.tuned[tuned]
        for chunk in chunks(len(places), (self.base, head)):
            theirs = head(answers[TUNED][chunk]).log_softmax(-1)
            for key, states in answers.items():
                own = theirs if key == TUNED else self.base(states[chunk]).log_softmax(-1).to(theirs.device)
                losses = -own.gather(1, wanted[chunk].to(own.device)[:, None]).squeeze(1)
                yield key, windows[chunk], _numpy(_between(theirs, own)), _numpy(losses)


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The embedding a model deploys, one of each text; distance: |e_tuned − e|²."""

    base: Model
    tuned: dict[str, Model]
    windows: Windows
    skip: int  # tokens of a prompt that pooling leaves out
    name = "embeddings"
    distance = "|e_tuned − ·|² of the deployed embeddings"
    says = "the deployed embedding of each text"

    @classmethod
    def of(cls, whole: DeltaPass, corpus: Corpus, *, seed: int) -> Embeddings:
        """Of the held-out documents, read with the prompt. Raises ModelError where a side's files do not say how it makes an embedding."""
        for model in (whole.base, *whole.tuned.values()):
            if not model.output.declared:
                raise ModelError(f"'{model.name}' does not declare how it makes an embedding, so none can be recovered")
        held = np.flatnonzero(whole.held)
        tokens, offsets = whole.tokens, whole.tokens.offsets
        picked = np.concatenate([np.arange(offsets[text], offsets[text + 1]) for text in held])
        ends = np.concatenate([[0], np.cumsum(tokens.lengths[held])])
        counted = None if tokens.counted is None else tokens.counted[picked]
        skip = 0 if whole.base.output.include_prompt else prompt_tokens(whole.base, whole.reading["prompt"])
        return cls(whole.base, whole.tuned, Windows(TokenisedTexts(tokens.ids[picked], ends, counted, 0), np.arange(len(held))), skip)

    def answer(self, model: Model, out: Any, mask: Tensor, batch: np.ndarray) -> Tensor:
        """Embeddings (b, e)."""
        states, pooled = check_states(out[0], tuple(mask.shape), "the final state"), getattr(out, "pooler_output", None)
        mask = mask.to(states.device)
        counted = mask if not self.skip else mask.index_fill(1, torch.arange(self.skip, device=mask.device), 0)
        return model.output(states, counted, pooled=pooled)

    def measure(self, tuned: str, answers: Mapping[Any, Tensor], batch: np.ndarray) -> Iterator[Measured]:
        """Of each text of the batch. Raises ModelError where the two embeddings have different widths."""
        theirs = answers[TUNED].double()
        for key, rows in answers.items():
            if rows.shape != theirs.shape:
                sizes = f"{rows.shape[1]} features and '{tuned}' of {theirs.shape[1]}"
                raise ModelError(f"'{self.base.name}' deploys embeddings of {sizes}; they cannot be subtracted")
            yield key, batch, _numpy((theirs - rows.double().to(theirs.device)).square().sum(1)), None


BEHAVIOURS: dict[str, Callable[..., Any]] = {"predictions": Predictions.of, "embeddings": Embeddings.of}


def make_behaviour(name: str | None, whole: DeltaPass, corpus: Corpus, *, seed: int) -> Any:
    """The behaviour of that name; None: predictions where all sides have a language head, else embeddings where all declare one.

    Raises UnknownName, NoLanguageHead (neither head nor embedding), and as the behaviour asked for.
    """
    if name is not None and name not in BEHAVIOURS:
        raise UnknownName("behaviour", name, BEHAVIOURS)
    if name is not None:
        return BEHAVIOURS[name](whole, corpus, seed=seed)
    try:
        return Predictions.of(whole, corpus, seed=seed)
    except NoLanguageHead as error:
        if all(model.output.declared for model in (whole.base, *whole.tuned.values())):
            return Embeddings.of(whole, corpus, seed=seed)
        raise NoLanguageHead(f"no behaviour to recover: {error}; nor is it declared how an embedding is made") from error


def check_finite(values: np.ndarray, whose: str) -> np.ndarray:
    """Raises ActivationError for NaN or Inf in distances or losses."""
    if not np.isfinite(values).all():
        raise ActivationError(f"what '{whose}' predicts is NaN or Inf on a held-out text; a dictionary writes what the model cannot read")
    return values


def _between(tuned: Tensor, own: Tensor) -> Tensor:
    """KL (m,) of log-probabilities; over the tokens both know, where vocabularies differ."""
    known = min(tuned.shape[1], own.shape[1])
    if tuned.shape[1] != own.shape[1]:
        tuned, own = tuned[:, :known].log_softmax(-1), own[:, :known].log_softmax(-1)
    return divergence(tuned, own)


def _ordinary(cut: TokenisedTexts, tokens: ScoredTokens) -> np.ndarray:
    """Which tokens of the windows are no special ones: each window has those that stand around its whole text."""
    marks = np.ones(len(tokens.read.ids), dtype=bool)
    offsets = tokens.read.offsets
    for window, text in enumerate(tokens.text):
        free = np.flatnonzero(cut.counted[cut.offsets[text] : cut.offsets[text + 1]])  # type: ignore[index]
        after = int(cut.lengths[text]) - int(free[-1]) - 1
        marks[offsets[window] : offsets[window] + free[0]] = False
        marks[offsets[window + 1] - after : offsets[window + 1]] = False
    return marks


def _numpy(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
