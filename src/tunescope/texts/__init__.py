"""Texts: files, lists, datasets and conversations read into a `Corpus`, several of them into text sets, everything odd about them said."""

from __future__ import annotations

from tunescope.texts.corpus import Corpus
from tunescope.texts.read import as_corpus, read_texts
from tunescope.texts.sets import TextSet, as_text_sets

__all__ = ["Corpus", "TextSet", "as_corpus", "as_text_sets", "read_texts"]
