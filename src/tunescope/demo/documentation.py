"""The texts of the first command: Python's own documentation, which needs no download, and a search in it."""

from __future__ import annotations

from tunescope.texts.docstring_search import HELD_OUT, PASSAGES, QUERIES, docstring_search, held_out, training_pairs
from tunescope.texts.documentation import docstring_pairs, documentation_source, paragraphs

__all__ = [
    "HELD_OUT",
    "PASSAGES",
    "QUERIES",
    "docstring_pairs",
    "docstring_search",
    "documentation_source",
    "held_out",
    "paragraphs",
    "training_pairs",
]
