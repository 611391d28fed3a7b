"""How many tokens of a text a model reads."""

from __future__ import annotations

from typing import Any

from torch import nn

DEFAULT_LENGTH = 512  # tokens, where a model declares nothing or more: a 128k-token decoder should not read whole books unasked
_UNSET = 1_000_000  # tokenizers without a length of their own say 10^30


def position_limit(body: nn.Module) -> int | None:
    """The most tokens the body has positions for, or None when nothing bounds it.

    A learned table with a padding row (RoBERTa, MPNet, XLM-R) starts counting after that row, so 514 rows hold 512 tokens.
    """
    table = getattr(getattr(body, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding):
        return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    config = getattr(body, "config", None)
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if isinstance(limit, int) and limit > 0 else None


def declared_length(body: nn.Module, tokenizer: Any, *, declared: int | None) -> int:
    """The length a model is used at: what its sentence-transformers files declare, else its tokenizer's up to DEFAULT_LENGTH.

    Never more than it has positions for.
    """
    own = getattr(tokenizer, "model_max_length", None) or _UNSET
    wanted = declared if declared and declared < _UNSET else min(own, DEFAULT_LENGTH)
    limit = position_limit(body)
    return int(min(wanted, limit) if limit else wanted)
