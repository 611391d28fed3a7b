"""Whether models, texts and dictionaries can be compared at all: said before anything long begins, or before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunescope.dictionaries import DeltaStore, Dictionary
from tunescope.dictionaries.formats import read_dictionary
from tunescope.dictionaries.hygiene import held_out
from tunescope.errors import InputError, NotEnoughRows
from tunescope.models import Model
from tunescope.texts import Corpus

DOCUMENTS, TOKENS = 2, 32  # held out, at least: intervals are over documents


def weights_of(model: Model) -> dict[str, Any]:
    """What tells one model from another, whatever it is called and wherever it lies."""
    return {name: value for name, value in model.identity().items() if name in ("weights_sha256", "tokenizer_sha256", "dtype")}


def told(dictionary: Any) -> Any:
    """How a dictionary was asked for, JSON-able."""
    if isinstance(dictionary, Mapping):
        return {str(layer): told(one) for layer, one in dictionary.items()}
    return dictionary.name if isinstance(dictionary, Dictionary) else None if dictionary is None else str(dictionary)


def read_dictionaries(asked: Any, layers: Sequence[int], *, width: int) -> dict[int, Dictionary]:
    """The base's own dictionaries by layer, read; none where none was given.

    Args: a dictionary or its place, or {layer: dictionary or place}; width: of the base's activations.

    Raises: InputError (a layer that is not compared; another width or layer than asked), and as `read_dictionary`.
    """
    if asked is None:
        return {}
    if not isinstance(asked, Mapping):
        one = _read(asked)
        asked = dict.fromkeys(layers, one)
    if idle := sorted(set(asked) - set(layers)):
        raise InputError(f"a dictionary of layer {idle[0]} was given, and layers {', '.join(map(str, layers))} are asked for")
    found = {layer: _read(one) for layer, one in asked.items()}
    for layer, one in found.items():
        _check_fits(one, layer, width)
    return found


def _read(asked: Any) -> Dictionary:
    return asked if isinstance(asked, Dictionary) else read_dictionary(asked)


def _check_fits(dictionary: Dictionary, layer: int, width: int) -> None:
    if dictionary.width != width:
        raise InputError(f"'{dictionary.name}' reads activations of width {dictionary.width}, layer {layer} of the base has {width}")
    if (delta_of := dictionary.metadata.get("delta_of")) is not None:
        raise InputError(
            f"'{dictionary.name}' was trained on the deltas of '{delta_of}', not on the base's activations; give a dictionary of the base, "
            "or none, and one is trained"
        )
    said = dictionary.metadata.get("layer")
    if said is not None and said != layer:
        raise InputError(
            f"'{dictionary.name}' is of layer {said} ({dictionary.metadata.get('hook_name', 'as its files say')}) and layer {layer} was "
            f"asked for (0 is the embeddings, L what block L returns); ask for --layer {said}, or give the dictionary of layer {layer}"
        )


def texts_held_out(corpus: Corpus, share: float) -> None:
    """Raises NotEnoughRows where fewer than two documents are held out, InputError for a share outside [0, 1)."""
    count = int(held_out(corpus.texts, share).sum())
    if count < DOCUMENTS:
        raise NotEnoughRows(
            f"{count} of {len(corpus):,} documents would be held out at a share of {share:g}, and dictionaries are judged on at least "
            f"{DOCUMENTS}; give more texts, or raise the share (--held-out)"
        )


def unmoved_places(store: DeltaStore, layers: Sequence[int], names: Sequence[str]) -> frozenset[tuple[int, str]]:
    """Every (layer, tuned model) whose delta is the same at every token, 0 or a constant: there is nothing to train on.

    Raises: NotEnoughRows where too few tokens are held out, InputError where no delta is anything else.
    """
    kept = store.rows(layers[0], names[0], "held_out").rows
    if kept < TOKENS:
        raise NotEnoughRows(f"{kept} tokens are held out, and at least {TOKENS} are needed; give more or longer texts")
    places = [(layer, name) for layer in layers for name in names]
    found = frozenset(place for place in places if store.rows(*place, "train").rms == 0)
    if len(found) == len(places):
        said = " and ".join(f"'{name}' at layer {layer}" for layer, name in places[:2])
        more = "" if len(places) <= 2 else f", and {len(places) - 2} more places"
        raise InputError(
            f"the delta of {said}{more} is the same at every token, 0 or a constant: nothing before it was tuned; "
            "ask for a layer behind what was tuned, or give a model that was"
        )
    return found
