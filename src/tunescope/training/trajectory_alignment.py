"""Whether two runs were measured alike, and whether a base is what they began from: only then do their distances compare."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from tunescope.errors import AlignmentError, InputError
from tunescope.models import Model
from tunescope.texts import Corpus, as_corpus
from tunescope.training.distance_read import DistanceReader, Place
from tunescope.training.trajectory_file import Start
from tunescope.training.trajectory_geometry import TEXTS

SAME = 0.01  # of the rows' norm: what number formats and devices make of one model's rows, and other weights do not
_READING = ("pooling", "max_length", "prompt")

Named = tuple[str, Start]


def check_alike(one: Named, two: Named, where: str) -> None:
    """Raise AlignmentError, which says what each has, when two runs were read on other texts, in another way, or began elsewhere."""
    (a, first), (b, second) = one, two
    if first.identity["texts_sha256"] != second.identity["texts_sha256"]:
        raise AlignmentError(
            f"run '{a}' was measured on {_texts(first, where)} and run '{b}' on {_texts(second, where)}, so their distances do not "
            "compare; measure both on the same texts"
        )
    other = [key for key in _READING if first.identity.get(key) != second.identity.get(key)]
    if other:
        found = "; ".join(f"{key} {first.identity.get(key)!r} and {second.identity.get(key)!r}" for key in other)
        raise AlignmentError(f"runs '{a}' and '{b}' were read differently, so their distances do not compare: {found}")
    if first.weights_sha256 != second.weights_sha256 and not same_rows(first.rows[where], second.rows[where]):
        raise AlignmentError(
            f"runs '{a}' and '{b}' began from other weights (sha256 {first.weights_sha256[:12]} and {second.weights_sha256[:12]}), so "
            "their distances do not compare; match runs of one base"
        )


def same_rows(one: Tensor, two: Tensor) -> bool:
    """Whether these are rows of one model: |X − Y| ≤ .01 |X|. An adapter that changes nothing yet has another hash and the same rows."""
    return one.shape == two.shape and bool((one.double() - two.double()).norm() <= SAME * one.double().norm())


def start_reader(base: Model, texts: Any, *, known: Named | None, measure: str, at: Place, where: str) -> DistanceReader:
    """A reader of `base` that reads as the run was read.

    known: a run and its start, where that was kept. Texts that are not given are then those that a trajectory has by default.

    Raises: InputError (other texts, another base), and what reading them raises.
    """
    if known is None:
        return DistanceReader.of(base, texts, measure=measure, at=at)
    name, start = known
    corpus = as_corpus(None, sample=TEXTS) if texts is None else as_corpus(texts)
    if corpus.sha256 != start.identity["texts_sha256"]:
        given = f"{_counted(len(corpus), corpus.sha256)} {'are the default' if texts is None else 'were given'}"
        had = f"run '{name}' was measured on {_texts(start, where)}"
        raise InputError(f"{had}, and {given}; give the texts its trajectory was measured with")
    return _read_alike(base, corpus, known, measure=measure, at=at, where=where)


def _read_alike(model: Model, corpus: Corpus, known: Named, *, measure: str, at: Place, where: str) -> DistanceReader:
    name, start = known
    alike = replace(model, max_length=start.identity["max_length"])
    reader = DistanceReader.of(alike, corpus, measure=measure, at=at, pooling=start.identity["pooling"])
    if not same_rows(start.rows[where], reader.rows):
        raise InputError(
            f"'{model.name}' is not what run '{name}' began from: its rows at {where} are not those of the start (weights sha256 "
            f"{start.weights_sha256[:12]}); give the base of both runs"
        )
    return reader


def _texts(start: Start, where: str) -> str:
    return _counted(len(start.rows[where]), start.identity["texts_sha256"])


def _counted(count: int, sha256: str) -> str:
    return f"{count:,} texts (sha256 {sha256[:12]})"
