"""The embeddings a model deploys, of the queries and passages of a collection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from tunescope.activations import capture
from tunescope.errors import ActivationError, AlignmentError, InputError
from tunescope.models import Model, load_model, load_pair
from tunescope.texts.collections import Collection

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Vectors:
    """One side's embeddings of a collection: queries (q, e) and passages (n, e), float32, row by row as the collection has them.

    query_prompt, passage_prompt, max_length: how the texts were read; None where the vectors were given. truncated: texts cut.
    """

    name: str
    queries: np.ndarray
    passages: np.ndarray
    query_prompt: str | None = None
    passage_prompt: str | None = None
    max_length: int | None = None
    truncated: int | None = None
    warnings: tuple[str, ...] = ()
    similarity: str | None = None  # that the model declares


@dataclass(frozen=True)
class Reading:
    """How texts are read: prompts and length (None: what the models declare), and where the models run."""

    query_prompt: str | None = None
    passage_prompt: str | None = None
    max_length: int | None = None
    batch_size: int = 32
    device: str = "auto"
    dtype: str = "float32"


def embed(
    model: Model,
    texts: Sequence[str],
    *,
    prompt: str | None = None,
    max_length: int | None = None,
    batch_size: int = 32,
    ids: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, int]:
    """The deployed `output` rows (n, e), float32, of texts, and how many texts were cut. No layer is kept, only these rows.

    Arguments and errors as of `activations.capture`.
    """
    acts = capture(
        model, texts, layers=(), sites=("output",), prompt=prompt, max_length=max_length, batch_size=batch_size, ids=ids, progress=progress
    )
    return acts.sites["output"].numpy(), acts.truncated


def vectors_of(
    base: Any, tuned: Any, collection: Collection, reading: Reading, *, progress: Progress | None = None
) -> tuple[Vectors, Vectors]:
    """Both sides of a collection as vectors.

    base, tuned: models or what `load_pair` takes, so that an adapter shares its base's weights; Vectors; or a pair of arrays (queries,
    passages). Two models read alike: with the prompts the base declares and the shorter of their lengths, unless told otherwise.

    Raises AlignmentError (arrays that are not of this collection), InputError, ActivationError (NaN or Inf), and as loading and
    capturing do.
    """
    given = [_given(side, name, collection) for side, name in ((base, "base"), (tuned, "tuned"))]
    if given[0] is None and given[1] is None:
        models = list(load_pair(base, tuned, device=reading.device, dtype=reading.dtype))
    else:
        alone = [side for side, vectors in zip((base, tuned), given, strict=True) if vectors is None]
        models = [load_model(side, device=reading.device, dtype=reading.dtype) for side in alone]
    length = min((model.max_length for model in models), default=None) if reading.max_length is None else reading.max_length
    prompts = [_prompt(asked, models) for asked in (reading.query_prompt, reading.passage_prompt)]
    made = iter([_of_model(model, collection, prompts, length, reading.batch_size, progress) for model in models])
    first, second = (next(made) if vectors is None else vectors for vectors in given)
    return first, second


def model_vectors(model: Model, collection: Collection, reading: Reading, *, progress: Progress | None = None) -> Vectors:
    """One model's vectors of a collection, read with the prompts and the length it declares unless told otherwise."""
    length = model.max_length if reading.max_length is None else reading.max_length
    prompts = [_prompt(asked, [model]) for asked in (reading.query_prompt, reading.passage_prompt)]
    return _of_model(model, collection, prompts, length, reading.batch_size, progress)


def _prompt(asked: str | None, models: list[Model]) -> str:
    if asked is not None:
        return asked
    return models[0].output.prompt if models else ""


def _of_model(
    model: Model, collection: Collection, prompts: list[str], max_length: int | None, batch_size: int, progress: Progress | None
) -> Vectors:
    def side(what: str, texts: Sequence[str], ids: Sequence[str], prompt: str) -> tuple[np.ndarray, int]:
        short = model.name.rstrip("/").rsplit("/", 1)[-1]
        say = None if progress is None else partial(progress, f"{what} of {collection.name}, {short}")
        return embed(model, texts, prompt=prompt, max_length=max_length, batch_size=batch_size, ids=ids, progress=say)

    queries, cut = side("queries", collection.query_texts, collection.query_ids, prompts[0])
    passages, cut_too = side("passages", collection.doc_texts, collection.doc_ids, prompts[1])
    read: dict[str, Any] = {"query_prompt": prompts[0], "passage_prompt": prompts[1], "max_length": max_length}
    said: dict[str, Any] = {"truncated": cut + cut_too, "warnings": _warnings(model, prompts), "similarity": model.output.similarity}
    return Vectors(model.name, queries, passages, **read, **said)


def _warnings(model: Model, prompts: list[str]) -> tuple[str, ...]:
    declared = model.output.prompt
    other = f"'{model.name}' declares the prompt {declared!r} and was read with {prompts[0]!r} (queries) and {prompts[1]!r} (passages)"
    return (*model.warnings, *([other] if declared and declared not in prompts else []))


def _float32(rows: Any) -> np.ndarray:
    return rows.detach().float().cpu().numpy() if isinstance(rows, torch.Tensor) else np.asarray(rows, dtype=np.float32)


def _given(side: Any, name: str, collection: Collection) -> Vectors | None:
    """The vectors of a side that was given as vectors; None for a model."""
    if isinstance(side, Vectors):
        vectors = side
    elif isinstance(side, tuple | list) and len(side) == 2 and all(getattr(part, "ndim", None) == 2 for part in side):
        vectors = Vectors(name, _float32(side[0]), _float32(side[1]))
    elif isinstance(side, np.ndarray):
        raise InputError(f"{name} is one array; give two, (queries, passages), or a model")
    else:
        return None
    expected = {"queries": (vectors.queries, collection.query_ids), "passages": (vectors.passages, collection.doc_ids)}
    for what, (rows, ids) in expected.items():
        if len(rows) != len(ids):
            raise AlignmentError(f"{name} has {len(rows):,} rows of {what}, and {collection!r}; give one a row, in its order")
        if not np.isfinite(rows).all():
            bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise ActivationError(f"{name} holds NaN or Inf in the row of {what} '{ids[bad]}'; a vector has to be finite")
    if vectors.queries.shape[1] != vectors.passages.shape[1]:
        one, two = vectors.queries.shape[1], vectors.passages.shape[1]
        raise AlignmentError(f"{name} has queries of {one:,} features and passages of {two:,}; one model makes both")
    return vectors
