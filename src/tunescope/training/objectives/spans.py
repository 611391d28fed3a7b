"""Which spans of whole words a text is asked for, as SpanBERT chooses them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

GEOMETRIC, LONGEST = 0.2, 10  # p of the span length in words, and the longest span


def length_probabilities(p: float = GEOMETRIC, longest: int = LONGEST) -> Tensor:
    """P(ℓ) = p(1−p)^(ℓ−1) / Σ over ℓ = 1 … longest, (longest,) float64: no length beyond, its probability spread over the others.

    Mean 3.797 words at p = .2 and 10: the 3.8 of the paper, where min(ℓ, 10) would have 4.46.
    Reference: Joshi et al. 2020, https://arxiv.org/abs/1907.10529
    """
    weights = p * (1 - p) ** torch.arange(longest, dtype=torch.float64)
    return weights / weights.sum()


def span_lengths(count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
    """`count` lengths in words."""
    return torch.multinomial(length_probabilities(), count, replacement=True, generator=generator) + 1


def chosen_spans(words: Int[Tensor, "b t"], free: Bool[Tensor, "b t"], share: float, generator: torch.Generator) -> Int[Tensor, "b t"]:
    """The number of the span each token is of, −1 for tokens not chosen, from a budget of max(1, round(share·m)) of m free tokens a text.

    Anchors are tokens in random order; a span starts at the anchor's word and takes whole words until its length, the end of the text, a
    word of an earlier span, or a word that the budget has no room for. A text whose every word is above its budget gives one whole word.
    """
    groups, count = torch.full(words.shape, -1), 0
    for row, own, allowed in zip(groups, words, free, strict=True):
        spans = _spans(own, allowed, share, generator)
        for number, places in enumerate(spans):
            row[places] = count + number
        count += len(spans)
    return groups


def _spans(words: Tensor, free: Tensor, share: float, generator: torch.Generator) -> list[list[int]]:
    """The places of each span of one text, in the order they were drawn."""
    places = [place for place, allowed in enumerate(free.tolist()) if allowed]
    if not places:
        return []
    order = torch.randperm(len(places), generator=generator).tolist()
    starts, own = _starts(words[free].tolist())
    lengths = span_lengths(len(places), generator).tolist()
    room, taken, spans = max(1, round(share * len(places))), [False] * (len(starts) - 1), []
    for anchor, length in zip(order, lengths, strict=True):
        first = last = own[anchor]
        while last < min(first + length, len(taken)) and not taken[last] and starts[last + 1] - starts[last] <= room:
            room -= starts[last + 1] - starts[last]
            taken[last] = True
            last += 1
        if last > first:
            spans.append(places[starts[first] : starts[last]])
        if not room:
            break
    return spans or [places[starts[own[order[0]]] : starts[own[order[0]] + 1]]]


def _starts(words: list[int]) -> tuple[list[int], list[int]]:
    """Where each word starts (and, last, where the text ends), and the word of each token."""
    starts, own = [], []
    for place, word in enumerate(words):
        if not place or word != words[place - 1] or word < 0:
            starts.append(place)
        own.append(len(starts) - 1)
    return [*starts, len(words)], own
