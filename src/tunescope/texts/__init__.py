"""Texts: files and lists read into a `Corpus`, with everything odd about them said."""

from __future__ import annotations

from tunescope.texts.corpus import Corpus
from tunescope.texts.read import as_corpus, read_texts

__all__ = ["Corpus", "as_corpus", "read_texts"]
