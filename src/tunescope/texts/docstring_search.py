"""A search among docstrings: find the text by its summary. What is asked for is held out of the pairs that models are trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tunescope.texts.collections import Collection
from tunescope.texts.documentation import docstring_pairs

HELD_OUT = 8  # one pair in so many
QUERIES, PASSAGES = 200, 400


def held_out(summary: str) -> bool:
    """Whether a docstring is kept from training, by its summary alone, so that every Python agrees on the docstrings it shares."""
    return hashlib.blake2b(summary.encode(), digest_size=8).digest()[0] % HELD_OUT == 0


def training_pairs(*, pairs: Sequence[tuple[str, str]] | None = None) -> list[tuple[str, str]]:
    """(summary, prose after it) of the docstrings that are not held out. pairs: of `docstring_pairs`, where they are at hand."""
    return [pair for pair in (docstring_pairs() if pairs is None else pairs) if not held_out(pair[0])]


def docstring_search(
    queries: int = QUERIES, passages: int = PASSAGES, *, pairs: Sequence[tuple[str, str]] | None = None
) -> Collection:
    """Summaries of docstrings that no adapter of the demo was trained on, and the texts after them, among those of others."""
    pairs = docstring_pairs() if pairs is None else pairs
    asked = [number for number, (summary, _) in enumerate(pairs) if held_out(summary)][:queries]
    rest = [number for number in range(len(pairs)) if number not in set(asked)]
    others = rest[:: max(1, len(rest) // max(1, passages - len(asked)))][: max(0, passages - len(asked))]
    return Collection.of(
        {str(number): pairs[number][1] for number in sorted((*asked, *others))},
        {str(number): pairs[number][0] for number in asked},
        {str(number): {str(number): 1} for number in asked},
        name="docstrings",
        source="docstrings of the standard library that were held out of training",
    )
