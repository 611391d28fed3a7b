"""From texts to padded batches of tokens, with what an objective must know of each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tunescope.errors import ModelError, TextsError
from tunescope.models.model import Model
from tunescope.models.quiet import quietly
from tunescope.training.number_ranges import Number, check_numbers
from tunescope.training.objectives.embedding import reads_left_only

LENGTH = 128  # tokens, as the depth study trained
LEAST_LENGTH = Number(whole=True, least=2)
_SHOWN = 40


@dataclass(frozen=True, eq=False)
class Tokens:
    """A batch padded on the right: ids (b, t), mask (b, t) 1 for real tokens, free (b, t) True for tokens that are not special.

    words (b, t): the number of the word a token is of, −1 where it is of none. segments (b, t): 0 and 1 for the two parts of a pair.
    offsets: per item, (first character, after the last) of each real token.
    """

    ids: Tensor
    mask: Tensor
    free: Tensor
    words: Tensor
    segments: Tensor
    offsets: list[list[tuple[int, int]]]


@dataclass(frozen=True, eq=False)
class TextReader:
    """A model's tokenizer as objectives use it: cut at max_length tokens, special ones included, and padded on the right.

    vocabulary: tokens the model has embeddings for. causal: whether it reads to the left only.
    """

    name: str
    tokenizer: Any
    max_length: int
    lowercase: bool
    vocabulary: int
    causal: bool

    @classmethod
    def of(cls, model: Model, *, max_length: int = LENGTH) -> TextReader:
        """The reader of `model`, at no more tokens than it declares.

        Raises: ModelError for a tokenizer that knows no words, InputError for a length of no two tokens.
        """
        check_numbers("", {"max_length": max_length}, {"max_length": LEAST_LENGTH})
        if not getattr(model.tokenizer, "is_fast", False):
            raise ModelError(
                f"the tokenizer of '{model.name}' does not say which words and characters its tokens stand for, which training reads; "
                "save it as tokenizer.json (AutoTokenizer.from_pretrained(..., use_fast=True))"
            )
        rows = int(model.module.get_input_embeddings().weight.shape[0])
        return cls(model.name, model.tokenizer, min(max_length, model.max_length), model.lowercase, rows, reads_left_only(model))

    @cached_property
    def ordinary(self) -> Tensor:
        """The ids (n,) of tokens that are not special and that the model has embeddings for."""
        special = set(self.tokenizer.all_special_ids)
        return torch.tensor([id for id in range(min(len(self.tokenizer), self.vocabulary)) if id not in special])

    def read(self, texts: Sequence[str], *, second: Sequence[str] | None = None, prompt: str = "", templated: bool = False) -> Tokens:
        """The tokens of prompt + text, or of pairs of texts. templated: the texts hold their special tokens already.

        Raises TextsError for a text that is no string or has no tokens, ModelError for tokens beyond the embeddings.
        """
        first = [self._prepared(prompt, text) for text in texts]
        others = [] if second is None else [[self._prepared("", text) for text in second]]
        with quietly():
            encoded = self.tokenizer(
                first, *others, truncation=True, max_length=self.max_length, padding=False, add_special_tokens=not templated
            ).encodings
        for text, row in zip(first, encoded, strict=True):
            if not len(row.ids) or (all(row.special_tokens_mask) and not templated):
                raise TextsError(f"the text '{text[:_SHOWN]}' has no tokens to train on; take empty texts out")
        return self._padded(encoded, first)

    def _prepared(self, prompt: str, text: Any) -> str:
        if not isinstance(text, str):
            raise TextsError(f"a text to train on is a {type(text).__name__}, not a string: {str(text)[:_SHOWN]}")
        return (prompt + text).lower() if self.lowercase else prompt + text

    def _padded(self, encoded: list[Any], texts: list[str]) -> Tokens:
        pad = self.tokenizer.pad_token_id or 0
        ids = _stack([row.ids for row in encoded], pad)
        if int(ids.max()) >= self.vocabulary:
            raise ModelError(
                f"the tokenizer of '{self.name}' makes token {int(ids.max())}, but the model has embeddings for {self.vocabulary} tokens "
                "only; give the tokenizer it was trained with, or resize its embeddings"
            )
        return Tokens(
            ids,
            _stack([[1] * len(row.ids) for row in encoded], 0),
            _stack([row.special_tokens_mask for row in encoded], 1) == 0,
            _stack([_words(row, text) for row, text in zip(encoded, texts, strict=True)], -1),
            _stack([row.type_ids for row in encoded], 0),
            [row.offsets for row in encoded],
        )


def _stack(rows: list[list[int]], filler: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def _words(row: Any, text: str) -> list[int]:
    """The word of each token: the pre-tokenizer's, or what stands between spaces where that takes a whole text for one word."""
    found = [-1 if word is None else word for word in row.word_ids]
    if len({word for word in found if word >= 0}) > 1 or not text.strip().count(" "):
        return found
    return [-1 if word < 0 else text[: max(end - 1, 0)].count(" ") for word, (_, end) in zip(found, row.offsets, strict=True)]
