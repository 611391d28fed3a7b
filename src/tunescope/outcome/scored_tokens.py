"""Texts as windows that fit a model's context, and which of their tokens are predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunescope.activations.batches import TokenisedTexts, check_vocabulary, tokenise
from tunescope.errors import InputError, ModelError
from tunescope.models.heads import CAUSAL, MASKED
from tunescope.models.model import Model
from tunescope.texts.masking import chosen_positions

_UNCUT = 2**31 - 1  # longer than any text: nothing is cut by the tokenizer


@dataclass(frozen=True, eq=False)
class ScoredTokens:
    """Windows of texts: `read` is what the model reads (masked where it is asked), its `counted` the tokens that are predicted.

    ids: the flat ids before masking. text: (windows,) the text of each. scored: (m,) flat places of the predicted tokens.
    tokens: (n,) tokens per text without special ones. cut: texts that needed more than one window.
    """

    read: TokenisedTexts
    ids: np.ndarray
    text: np.ndarray
    scored: np.ndarray
    tokens: np.ndarray
    cut: int

    @property
    def per_text(self) -> np.ndarray:
        """Predicted tokens per text, (n,)."""
        return np.bincount(self.text[self.window_of(self.scored)], minlength=len(self.tokens))

    def window_of(self, places: np.ndarray) -> np.ndarray:
        """The window that each flat place lies in."""
        return np.searchsorted(self.read.offsets, places, side="right") - 1


def tokens_of(model: Model, texts: Sequence[str], ids: Sequence[str]) -> TokenisedTexts:
    """The whole texts as the model's tokenizer cuts them; `counted` is False for the special tokens it adds."""
    found = tokenise(model, texts, prompt="", max_length=_UNCUT, special_tokens=False, label=lambda i: ids[i])
    check_vocabulary(found, model)
    return found


def same_tokens(a: TokenisedTexts, b: TokenisedTexts) -> bool:
    """Whether two tokenizers made the same ids of every text."""
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.lengths, b.lengths) and np.array_equal(a.counted_lengths, b.counted_lengths)


def scored_tokens(
    model: Model, kind: str, tokens: TokenisedTexts, texts: Sequence[str], *, max_length: int, seed: int
) -> ScoredTokens:
    """Windows of at most `max_length` tokens that do not overlap, each with the special tokens of the whole text around it.

    causal: every token is predicted from those before it in its window, but the first of a text without a token to begin with; such a
    text's later windows repeat one token, so that each token is predicted once. masked: the tokens that `chosen_positions` names, over
    the whole text, are read as the mask token and predicted. Windows with nothing to predict are left out.

    Raises ModelError (no mask token), InputError (max_length leaves no room).
    """
    mask = model.tokenizer.mask_token_id if kind == MASKED else None
    if kind == MASKED and mask is None:
        raise ModelError(f"the tokenizer of '{model.name}' has no mask token, which a masked-language loss needs; set tokenizer.mask_token")
    pieces: list[tuple[np.ndarray, np.ndarray]] = []
    text_of: list[int] = []
    cut = 0
    for number, text in enumerate(texts):
        span = slice(tokens.offsets[number], tokens.offsets[number + 1])
        row, free = tokens.ids[span], tokens.counted[span]  # type: ignore[index]  # counted is there: special tokens were set apart
        wanted = free if kind == CAUSAL else _marked(len(row), chosen_positions(text, free, seed=seed))
        found = _windows(row, free, wanted, causal=kind == CAUSAL, max_length=max_length)
        cut += len(found) > 1
        kept = [piece for piece in found if piece[1].any()]
        pieces += kept
        text_of += [number] * len(kept)
    ids = np.concatenate([piece for piece, _ in pieces]) if pieces else np.zeros(0, np.int32)
    counted = np.concatenate([marks for _, marks in pieces]) if pieces else np.zeros(0, bool)
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece, _ in pieces], dtype=np.int64)])
    read = TokenisedTexts(ids if mask is None else np.where(counted, np.int32(mask), ids), offsets, counted, 0)
    return ScoredTokens(read, ids, np.array(text_of, dtype=np.int64), np.flatnonzero(counted), tokens.counted_lengths, cut)


def _windows(
    row: np.ndarray, free: np.ndarray, wanted: np.ndarray, *, causal: bool, max_length: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(ids, predicted) of every window of one text."""
    places = np.flatnonzero(free)
    head, tail = int(places[0]), int(places[-1]) + 1
    before, inner, after = row[:head], row[head:tail], row[tail:]
    alone = causal and head == 0  # the first token of a window has nothing before it
    room, overlap = max_length - len(before) - len(after), int(alone)
    if room <= overlap:
        least = max_length - room + overlap + 1
        raise InputError(f"max_length {max_length} asked for; with the special tokens around a text it must be at least {least}")
    found = []
    for start in range(0, max(1, len(inner) - overlap), room - overlap):
        piece = inner[start : start + room]
        marks = wanted[head + start : head + start + len(piece)].copy()
        if alone:
            marks[0] = False
        ends = np.zeros(len(before), bool), np.zeros(len(after), bool)
        found.append((np.concatenate([before, piece, after]), np.concatenate([ends[0], marks, ends[1]])))
    return found


def _marked(length: int, positions: np.ndarray) -> np.ndarray:
    marks = np.zeros(length, bool)
    marks[positions] = True
    return marks
