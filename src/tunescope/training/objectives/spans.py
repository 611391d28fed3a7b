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

    Anchors are tokens in random order that no span has yet; a span starts at the anchor's word and runs over whole words, those of earlier
    spans too, until its length, the end of the text, or a word that the budget has no room for. Spans that overlap or touch are one, as in
    the published code, so that a few are longer than 10 words. A text whose every word is above its budget gives one whole word.
    """
    groups, count = torch.full(words.shape, -1), 0
    for row, own, allowed in zip(groups, words, free, strict=True):
        spans = _spans(own, allowed, share, generator)
        for number, places in enumerate(spans):
            row[places] = count + number
        count += len(spans)
    return groups


def _spans(words: Tensor, free: Tensor, share: float, generator: torch.Generator) -> list[list[int]]:
    """The places of each span of one text, from left to right."""
    places = [place for place, allowed in enumerate(free.tolist()) if allowed]
    if not places:
        return []
    order = torch.randperm(len(places), generator=generator).tolist()
    starts, own = _starts(words[free].tolist())
    lengths = span_lengths(len(places), generator).tolist()
    room, taken = max(1, round(share * len(places))), [False] * (len(starts) - 1)
    for anchor, length in zip(order, lengths, strict=True):
        first = own[anchor]
        for word in range(first, first if taken[first] else min(first + length, len(taken))):
            size = 0 if taken[word] else starts[word + 1] - starts[word]
            if size > room:
                break
            taken[word], room = True, room - size
        if not room:
            break
    if not any(taken):
        taken[own[order[0]]] = True
    return [[places[token] for token in run] for run in _runs([token for token, word in enumerate(own) if taken[word]])]


def _runs(numbers: list[int]) -> list[list[int]]:
    """Ascending numbers cut where one is left out."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return found


def _starts(words: list[int]) -> tuple[list[int], list[int]]:
    """Where each word starts (and, last, where the text ends), and the word of each token."""
    starts, own = [], []
    for place, word in enumerate(words):
        if not place or word != words[place - 1] or word < 0:
            starts.append(place)
        own.append(len(starts) - 1)
    return [*starts, len(words)], own
