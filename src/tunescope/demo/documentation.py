"""The texts of the first command: Python's own documentation, which needs no download."""

from __future__ import annotations

from tunescope.texts.documentation import docstring_pairs, documentation_source, paragraphs

__all__ = ["docstring_pairs", "documentation_source", "paragraphs"]
