"""Texts to tokens, compactly, and tokens to batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.errors import ModelError, TextsError
from tunescope.models.model import Model
from tunescope.models.quiet import quietly

_CHUNK = 1024  # texts tokenised at a time: python lists of ids never outlive a chunk


@dataclass(frozen=True)
class TokenisedTexts:
    """All texts as one flat array: text i is ids[offsets[i]:offsets[i+1]]; counted marks tokens that pooling reads (None: all)."""

    ids: np.ndarray  # (tokens,) int32
    offsets: np.ndarray  # (n + 1,) int64
    counted: np.ndarray | None  # (tokens,) bool
    truncated: int  # texts cut at max_length

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per text, (n,)."""
        return np.diff(self.offsets)

    @property
    def counted_lengths(self) -> np.ndarray:
        """Tokens per text that pooling reads, (n,)."""
        if self.counted is None:
            return self.lengths
        return np.diff(np.concatenate([[0], np.cumsum(self.counted)])[self.offsets])


def tokenise(
    model: Model,
    texts: Sequence[str],
    *,
    prompt: str,
    max_length: int,
    special_tokens: bool,
    label: Callable[[int], str],
    templated: bool = False,
) -> TokenisedTexts:
    """Tokenise prompt + text for every text, cut at max_length (special tokens included).

    special_tokens=False leaves the special tokens in what the model reads, and out of what pooling reads. templated: the texts hold
    their special tokens already, and a second [CLS] or <s> before the template's own would be one the model never met.
    Raises TextsError naming the text that is no string, or has no token that counts.
    """
    lengths: list[int] = []
    ids, counted, truncated, tokenizer = [], [], 0, model.tokenizer
    for start in range(0, len(texts), _CHUNK):
        chunk = [_prepared(model, text, prompt, label, start + i) for i, text in enumerate(texts[start : start + _CHUNK])]
        with quietly():
            encoded = tokenizer(
                chunk,
                truncation=True,
                max_length=max_length,
                padding=False,
                add_special_tokens=not templated,
                return_attention_mask=False,
                return_token_type_ids=False,
                return_special_tokens_mask=not special_tokens,
            )
        rows = encoded["input_ids"]
        ids.append(np.fromiter(chain.from_iterable(rows), dtype=np.int32))
        if not special_tokens:
            counted.append(np.fromiter(chain.from_iterable(encoded["special_tokens_mask"]), dtype=np.int8) == 0)
        lengths += map(len, rows)
        truncated += sum(_was_cut(tokenizer, encoded, chunk, i, templated) for i, row in enumerate(rows) if len(row) >= max_length)
    tokens = TokenisedTexts(
        ids=np.concatenate(ids),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        counted=np.concatenate(counted) if counted else None,
        truncated=truncated,
    )
    empty = np.flatnonzero(tokens.counted_lengths == 0)
    if len(empty):
        raise TextsError(f"{label(int(empty[0]))} has no tokens ({len(empty)} such texts); take empty texts out")
    return tokens


def plan_batches(lengths: np.ndarray, batch_size: int, *, reverse: bool = False) -> list[np.ndarray]:
    """Text numbers batch by batch, longest texts first (memory fails early or not at all).

    reverse: the last batch first, and cut half a batch off, so that texts meet other neighbours and other padding.
    """
    order = np.argsort(-lengths, kind="stable")
    cuts = range(batch_size // 2 if reverse else 0, len(order), batch_size)
    batches = [batch for batch in np.split(order, cuts) if len(batch)]
    return batches[::-1] if reverse else batches


def collate(tokens: TokenisedTexts, batch: np.ndarray, *, pad_id: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """One batch, padded on the right: ids (b, t), attention mask (b, t), and which tokens pooling reads (b, t)."""
    lengths = tokens.lengths[batch]
    real = np.arange(lengths.max()) < lengths[:, None]
    spans = [slice(tokens.offsets[i], tokens.offsets[i + 1]) for i in batch]
    ids = np.full(real.shape, pad_id, dtype=np.int64)
    ids[real] = np.concatenate([tokens.ids[span] for span in spans])
    counted = real
    if tokens.counted is not None:
        counted = np.zeros_like(real)
        counted[real] = np.concatenate([tokens.counted[span] for span in spans])
    mask = torch.from_numpy(real).to(device)
    return torch.from_numpy(ids).to(device), mask.long(), mask if counted is real else torch.from_numpy(counted).to(device)


def check_vocabulary(tokens: TokenisedTexts, model: Model) -> None:
    """Raise ModelError when the tokenizer makes ids the model has no embedding for."""
    table, highest = getattr(model.module, "get_input_embeddings", lambda: None)(), int(tokens.ids.max())
    rows = getattr(table, "num_embeddings", None)
    if rows is not None and highest >= rows:
        raise ModelError(
            f"the tokenizer of '{model.name}' makes token {highest}, but the model has embeddings for {rows} tokens only; "
            "give the tokenizer the model was trained with, or resize its embeddings"
        )


def prompt_tokens(model: Model, prompt: str) -> int:
    """How many leading tokens of a prompted text are the prompt's (leading special tokens included, a trailing one not)."""
    if not prompt:
        return 0
    with quietly():
        ids = model.tokenizer(prompt.lower() if model.lowercase else prompt)["input_ids"]
    return len(ids) - (bool(ids) and ids[-1] in model.tokenizer.all_special_ids)


def _prepared(model: Model, text: Any, prompt: str, label: Callable[[int], str], number: int) -> str:
    if not isinstance(text, str):
        raise TextsError(f"{label(number)} is a {type(text).__name__}, not a string")
    return (prompt + text).lower() if model.lowercase else prompt + text


def _was_cut(tokenizer: Any, encoded: Any, chunk: list[str], number: int, templated: bool) -> bool:
    if encoded.encodings:
        return bool(encoded.encodings[number].overflowing)
    with quietly():
        whole = tokenizer(chunk[number], verbose=False, add_special_tokens=not templated)["input_ids"]
        return len(whole) > len(encoded["input_ids"][number])
