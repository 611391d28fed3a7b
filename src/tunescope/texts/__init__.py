"""Texts: files, lists, datasets and conversations read into a `Corpus` or text sets, and retrieval collections; all that is odd is said."""

from __future__ import annotations

from tunescope.texts.collections import Collection, read_collection
from tunescope.texts.corpus import Corpus
from tunescope.texts.read import as_corpus, read_texts
from tunescope.texts.sets import TextSet, as_text_sets

__all__ = ["Collection", "Corpus", "TextSet", "as_corpus", "as_text_sets", "read_collection", "read_texts"]
