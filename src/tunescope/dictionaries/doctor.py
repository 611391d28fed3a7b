"""`ts.doctor`: is this dictionary read as it was trained to be? One row a usual mistake, with what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.doctor_checks import Check, check_layer, check_model, check_norms, check_site, check_threshold, check_width
from tunescope.dictionaries.doctor_rows import TokenRows, check_rows
from tunescope.dictionaries.formats import read_dictionary
from tunescope.errors import InputError, NotEnoughRows
from tunescope.models import load_model
from tunescope.models.model import Model
from tunescope.texts import Corpus, as_corpus

SCHEMA = "tunescope.doctor/1"
_LEAST = 32  # tokens


@dataclass(frozen=True)
class Diagnosis:
    """What was found of a dictionary at a layer of a model; `figures` are the numbers behind the checks.

    layer: 0 is what enters block 1, i what block i returns: hidden_states[i]. texts, tokens: that were read; 0 where none could be.
    """

    dictionary: str
    model: str
    layer: int
    texts: int
    tokens: int
    checks: tuple[Check, ...]
    figures: dict[str, Any]

    @property
    def status(self) -> str:
        """The worst of the checks: ok, warn or wrong."""
        found = {check.status for check in self.checks}
        return next(status for status in ("wrong", "warn", "ok") if status in found)

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return {"schema": SCHEMA, "status": self.status, **asdict(self)}


def doctor(
    dictionary: str | Path | Dictionary,
    model: Any,
    *,
    layer: int | None = None,
    texts: str | Path | Sequence[str] | Corpus | None = None,
    column: str | None = None,
    sample: int | None = 128,
    max_length: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Check a dictionary against the residual stream of a model: hook point, b_dec, input scale, position 0, sinks, L0, R² and more.

    dictionary: a folder or file (see `ts.read_dictionary`), or one that is read. model: as `ts.load_model` takes it. layer: as everywhere
    here, 0 (embeddings) to L; a dictionary of block 12, counted from 0, is of layer 13. Default: what the dictionary's files say. texts:
    by default the documentation that ships with Python; sample: so many of them, None is all. R² is 1 − E|x−x̂|² / (E|x|² − |E x|²) over
    all tokens but position 0 and attention sinks (norm above 10 × the median), in float64, so that an error in the mean counts.

    Raises: InputError (no layer said, or one the model lacks), NotEnoughRows (fewer than 32 tokens), and what reading raises.
    """
    read = dictionary if isinstance(dictionary, Dictionary) else read_dictionary(dictionary)
    loaded = model if isinstance(model, Model) else load_model(model)
    check_reads_activations(read)
    at = _layer(read, loaded, layer)
    checks = [
        check_width(read, loaded.anatomy.width),
        check_model(read, loaded.name),
        check_site(read),
        check_layer(read, at),
        check_norms(read),
        check_threshold(read),
    ]
    unreadable = any(check.status == "wrong" for check in (checks[0], checks[2]))
    if unreadable:
        return Diagnosis(read.name, loaded.name, at, 0, 0, tuple(checks), {})
    corpus = as_corpus(texts, column=column)
    corpus = corpus if sample is None or sample >= len(corpus) else corpus.sample(sample, seed=seed)
    rows = TokenRows.captured(loaded, corpus.texts, at, max_length=max_length, batch_size=batch_size, progress=progress)
    if int(rows.kept.sum()) < _LEAST:
        raise NotEnoughRows(
            f"{int(rows.kept.sum())} tokens left of {len(corpus)} texts, and a dictionary is judged by {_LEAST} at least; give more texts"
        )
    found, figures = check_rows(read, loaded, rows)
    return Diagnosis(read.name, loaded.name, at, len(corpus), len(rows.document), (*checks, *found), figures)


def _layer(dictionary: Dictionary, model: Model, asked: int | None) -> int:
    at = dictionary.metadata.get("layer") if asked is None else asked
    last = model.anatomy.n_layers
    if at is None:
        raise InputError(
            f"the files of '{dictionary.name}' do not say which layer it is of; give one with --layer: 0 (embeddings) to {last}"
        )
    if not 0 <= at <= last:
        said = "asked for" if asked is not None else f"is what the files of '{dictionary.name}' say"
        raise InputError(f"layer {at} {said}; '{model.name}' has 0 (embeddings) to {last}")
    return int(at)


def check_reads_activations(dictionary: Dictionary) -> None:
    """Raises InputError for a dictionary of deltas, which no activation is like."""
    if (name := dictionary.metadata.get("delta_of")) is not None:
        raise InputError(f"'{dictionary.name}' was trained on the deltas of '{name}', not on activations; there is nothing to check")
