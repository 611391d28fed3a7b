"""Pairs too large to hold: the base is loaded, read and freed, and only then is the tuned model loaded."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tunescope.activations.pooling import check_pooling
from tunescope.comparison.estimate import announce
from tunescope.comparison.reader import Noise, Reader, layers_of_base
from tunescope.comparison.side import Side, check_tokenizers
from tunescope.errors import InputError, ModelError
from tunescope.models import load_model
from tunescope.models.outline import outline
from tunescope.models.pretraining import UNKNOWN
from tunescope.models.sources import Folder, find_folder
from tunescope.models.weights import hash_tokenizer
from tunescope.texts import Corpus

if TYPE_CHECKING:
    from tunescope.comparison.findings import Progress
    from tunescope.comparison.sources import Request

SHARED = "one at a time changed nothing: an adapter and its base share one copy of the weights"
NO_WEIGHTS = "the weights were not compared: base and tuned were in memory one after the other"


@dataclass(frozen=True, eq=False)
class InTurn:
    """Both sides, the noise of the base, and the reader that further models would be read with."""

    base: Side
    tuned: Side
    noise: Noise
    reader: Reader


def separate(base: Any, tuned: Any, request: Request) -> Folder | None:
    """The tuned model's folder, where base and tuned are two models to be loaded; None for an adapter, whose base it shares.

    Raises: InputError when one of them is loaded already.
    """
    if request.method == "stream":
        raise InputError("--method stream reads both models side by side, and one_at_a_time does not hold both; leave one of the two out")
    for side in (base, tuned):
        if side is not None and not isinstance(side, str | Path):
            raise InputError("one_at_a_time loads and frees both models, and one of them is loaded already; give folders or hub ids")
    trust = request.loading.get("trust_remote_code", False)
    found = find_folder(tuned, revision=request.loading.get("tuned_revision"), trust_remote_code=trust)
    return None if base is None or found.is_adapter else found


def read_in_turn(base: Any, tuned: Folder, request: Request, corpus: Corpus, *, say: Progress, lap: Callable[[str], None]) -> InTurn:
    """Read the texts with the base and then with the tuned model, never both in memory; numbers as with both loaded, bit for bit.

    The length is the shorter of what the two declare, the tuned model's read off its files. Raises ModelError where these do not tell it,
    naming --max-length, and what loading and capturing raise.
    """
    one, noise, reader = _read_base(base, tuned, request, corpus, say, lap)
    free()
    two = _read_tuned(tuned, request, reader, lap)
    free()
    return InTurn(one, two, noise, reader)


def free() -> None:
    """Give back the memory of models nobody holds any more."""
    gc.collect()  # hooks and wrappers tie a model into cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _read_base(
    base: Any, tuned: Folder, request: Request, corpus: Corpus, say: Progress, lap: Callable[[str], None]
) -> tuple[Side, Noise, Reader]:
    loading = {key: value for key, value in request.loading.items() if key != "tuned_revision"}
    pooling = request.pooling or "mean"
    check_pooling(pooling)
    other = outline(tuned, trust_remote_code=loading.get("trust_remote_code", False))
    model = load_model(base, **loading)
    lap("load")
    if pooling == "none":
        check_tokenizers(*({"tokenizer_sha256": hash_tokenizer(side.tokenizer)} for side in (model, other)))
    reading = {
        "pooling": pooling,
        "prompt": model.output.prompt if request.prompt is None else request.prompt,
        "max_length": min(model.max_length, other.max_length) if request.max_length is None else request.max_length,
        "batch_size": request.batch_size,
    }
    layers = layers_of_base(request.layers, model.anatomy.n_layers, other.anatomy.n_layers, name=other.name)
    reader = Reader(corpus, reading, (layers, request.layers), None, request.measures, say, request.ranks)
    if request.announce is not None:
        announce(request.announce, [(model, layers)], [corpus], reading, copies=2, processes=request.ranks.count)
        lap("estimate")
    acts = reader.read(model, "base")
    found = Side.of(model, acts), reader.noise(model, acts), reader
    lap("forward")
    return found


def _read_tuned(tuned: Folder, request: Request, reader: Reader, lap: Callable[[str], None]) -> Side:
    loading = {key: value for key, value in request.loading.items() if key not in ("tuned_revision", "revision", "pretraining")}
    model = load_model(tuned, **loading)
    if model.pretraining == UNKNOWN:
        model = replace(model, pretraining=request.loading.get("pretraining") or UNKNOWN)
    lap("load")
    length = reader.reading["max_length"]
    if request.max_length is None and model.max_length < length:
        raise ModelError(
            f"'{model.name}' reads {model.max_length} tokens, its files said more, and the base has read {length}; "
            f"give the length: --max-length {model.max_length}"
        )
    acts = replace(reader, layers=(request.layers, None)).read(model, "tuned")
    side = Side.of(model, acts)
    lap("forward")
    return side
