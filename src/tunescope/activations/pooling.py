"""From the hidden states of a batch (b, t, d) to rows: one per text, or one per token. Every sum is float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tunescope.errors import UnknownName

Pool = Callable[[Tensor], Tensor]


def _mean(counted: Tensor) -> Pool:
    weights = counted.float()
    weights = (weights / weights.sum(dim=1, keepdim=True)).unsqueeze(1)
    return lambda states: torch.bmm(weights.to(states.device), states.float()).squeeze(1)


def _cls(counted: Tensor) -> Pool:
    return _pick(counted.to(torch.int32).argmax(dim=1))


def _last(counted: Tensor) -> Pool:
    return _pick(counted.shape[1] - 1 - counted.flip(1).to(torch.int32).argmax(dim=1))


def _none(counted: Tensor) -> Pool:
    keep = counted.bool().reshape(-1).nonzero().squeeze(1)
    return lambda states: states.flatten(0, 1).index_select(0, keep.to(states.device)).float()


def _pick(position: Tensor) -> Pool:
    texts = torch.arange(len(position), device=position.device)
    return lambda states: states[texts.to(states.device), position.to(states.device)].float()


POOLINGS: dict[str, Callable[[Tensor], Pool]] = {"mean": _mean, "cls": _cls, "last": _last, "none": _none}


def check_pooling(pooling: str) -> None:
    """Raise UnknownName for a pooling nobody knows."""
    if pooling not in POOLINGS:
        raise UnknownName("pooling", pooling, POOLINGS)


def pooler(pooling: str, counted: Tensor) -> Pool:
    """A function from hidden states (b, t, d) to float32 rows, made once per batch and used at every layer.

    counted (b, t): 1 for the tokens that count. mean: (b, d), (1/m) Σ over the m counted tokens. cls: the first counted
    token. last: the last one. none: every counted token, texts in batch order. The rows stay on the device of the states.
    """
    return POOLINGS[pooling](counted)
