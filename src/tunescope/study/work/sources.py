"""From a plan's sources to what the calls that read them take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunescope.study.embedded import DOCSTRINGS, PLACES, embedded_pairs, embedded_search, embedded_texts
from tunescope.study.run_spec import Source


def texts_of(source: Source, *, seed: int = 0, chats: bool = False) -> Any:
    """A Corpus. The sample is the plan's, the same for every run, whatever the run's own seed. chats: rows may be conversations.

    Raises TextsError.
    """
    from tunescope.texts import as_corpus

    place = embedded_texts(source.place) if source.place in PLACES else source.place
    return as_corpus(place, column=source.column, sample=source.sample, seed=seed, chats=chats)


def pairs_of(source: Source) -> Any:
    """Pairs, as `ts.read_pairs` reads them. Raises TextsError."""
    from tunescope.texts import as_pairs

    pairs = embedded_pairs() if source.place == DOCSTRINGS else as_pairs(Path(source.place))
    return pairs if source.sample is None else pairs.sample(source.sample)


def collection_of(source: Source) -> Any:
    """A retrieval collection, as `ts.diff` takes it."""
    return embedded_search() if source.place == DOCSTRINGS else source.place
