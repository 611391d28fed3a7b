"""Texts: files, lists, datasets and conversations read into a `Corpus`, text sets, pairs or collections; all that is odd is said."""

from __future__ import annotations

from tunescope.texts.collections import Collection, read_collection
from tunescope.texts.corpus import Corpus
from tunescope.texts.pairs import Pairs, as_pairs, read_pairs
from tunescope.texts.read import as_corpus, read_texts
from tunescope.texts.sets import TextSet, as_text_sets

__all__ = [
    "Collection",
    "Corpus",
    "Pairs",
    "TextSet",
    "as_corpus",
    "as_pairs",
    "as_text_sets",
    "read_collection",
    "read_pairs",
    "read_texts",
]
