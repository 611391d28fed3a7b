"""Saved captures as sides: whether they are of the same texts, read the same way, and how a model has to read to stand beside one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tunescope.activations import Capture
from tunescope.activations.manifest import shown
from tunescope.comparison.side import Side, partner
from tunescope.errors import AlignmentError, InputError
from tunescope.models import Model
from tunescope.texts import Corpus

AGREE = ("pooling", "prompt", "special_tokens")


def side_of_capture(capture: Capture) -> Side:
    """The side of a capture, as if its model had just been run."""
    return Side(capture.acts, capture.model["layers"], capture.model, tuple(capture.manifest["model_warnings"]))


def corpus_of_capture(capture: Capture) -> Corpus:
    """What a capture says of its texts, which it does not hold."""
    texts = capture.texts
    known = {"sha256": texts["sha256"], "sampled_from": texts["sampled_from"], "warnings": texts["warnings"]}
    return Corpus.unread(capture.ids, texts["source"], **known)


def check_agreement(base: Capture, tuned: Capture) -> None:
    """Raise AlignmentError naming the first field in which two captures were read differently, with both values.

    max_length may differ as long as neither cut a text.
    """
    read = [capture.reading | {"texts": capture.texts["sha256"]} for capture in (base, tuned)]
    fields = ["texts", *AGREE, *(["max_length"] if base.acts.truncated or tuned.acts.truncated else [])]
    for field in fields:
        one, two = (values[field] for values in read)
        if one != two:
            what = "texts (sha256)" if field == "texts" else field
            cut = f", and texts were cut ({base.acts.truncated:,} and {tuned.acts.truncated:,})" if field == "max_length" else ""
            raise AlignmentError(
                f"the captures were not read alike: {what} {shown(one)} in '{base.folder}', {shown(two)} in '{tuned.folder}'{cut}; "
                "capture one of them again as the other was"
            )


def check_texts(capture: Capture, corpus: Corpus) -> None:
    """Raise AlignmentError when the texts given are not those of the capture."""
    if corpus.sha256 != capture.texts["sha256"]:
        raise AlignmentError(
            f"'{capture.folder}' was captured on other texts: sha256 {shown(capture.texts['sha256'])} ({capture.texts['n']:,} texts, "
            f"{capture.texts['source']}), given {shown(corpus.sha256)} ({len(corpus):,} texts, {corpus.source}); give the same texts"
        )


def check_here(capture: Capture, texts: Any) -> None:
    """Raise InputError when no texts were given for a model to read beside a capture."""
    if texts is None:
        raise InputError(
            f"a model must read the texts that '{capture.folder}' was captured on, and a capture does not hold them; give them with --texts"
        )


def check_asked(capture: Capture, asked: dict[str, Any]) -> None:
    """Raise AlignmentError when a setting was asked for (is not None) and the capture was made with another."""
    for field, value in asked.items():
        if value is not None and value != capture.reading[field]:
            raise AlignmentError(
                f"{field} {shown(value)} asked for, and '{capture.folder}' was captured with {shown(capture.reading[field])}; "
                "leave it out, or capture again"
            )


def reading_beside(capture: Capture, model: Model, *, batch_size: int) -> dict[str, Any]:
    """How a model must read the texts to stand beside a capture: the shorter of both lengths, as long as the capture cut nothing."""
    length = capture.acts.max_length if capture.acts.truncated else min(capture.acts.max_length, model.max_length)
    return capture.reading | {"max_length": length, "batch_size": batch_size}


def check_cut(capture: Capture, side: Side) -> None:
    """Raise AlignmentError when the model beside a capture cut texts that the capture read further."""
    if side.acts.truncated and side.acts.max_length != capture.acts.max_length:
        raise AlignmentError(
            f"'{side.name}' cuts {side.acts.truncated:,} texts at its max_length {side.acts.max_length}, and '{capture.folder}' was "
            f"captured with {capture.acts.max_length}; capture it again with --max-length {side.acts.max_length}"
        )


def joint_reading(base: Capture, tuned: Capture) -> dict[str, Any]:
    """How two captures that agree were read, as one reading."""
    one, two = base.reading, tuned.reading
    return one | {
        "max_length": min(one["max_length"], two["max_length"]),
        "batch_size": one["batch_size"] if one["batch_size"] == two["batch_size"] else None,
    }


def versions_differ(base: Capture, tuned: Capture) -> list[str]:
    """The warning that two captures were made with different libraries, or nothing."""
    one, two = base.manifest["versions"], tuned.manifest["versions"]
    odd = [f"{name} {one.get(name)} and {two.get(name)}" for name in one | two if one.get(name) != two.get(name)]
    return [f"captured with other versions ({', '.join(odd)}): part of the change may be theirs"] if odd else []


def pairable(base: Side, tuned: Side, layers: list[int] | None) -> tuple[Side, Side]:
    """Both sides cut down to layers that have a partner; what only one of them has is said among the warnings.

    Raises: InputError (a layer asked for that a side does not have), AlignmentError (nothing in common).
    """
    own = {index: partner(index, tuned.depth, base.depth) for index in tuned.acts.layers}
    missing = [index for index in own if own[index] not in base.acts.layers]
    if layers is not None:
        missing = [index for index in layers if index not in own or index in missing]
        own = {index: own[index] for index in layers if index in own}
    if layers is not None and missing:
        held = ", ".join(map(str, tuned.acts.layers)) or "none"
        raise InputError(
            f"layers {','.join(map(str, layers))} asked for; '{tuned.name}' holds {held}, and '{base.name}' must have their partners"
        )
    kept = [index for index in own if index not in missing]
    sites = [site for site in tuned.acts.sites if site in base.acts.sites]
    if not kept and not sites:
        raise AlignmentError(f"'{base.name}' and '{tuned.name}' have no layer or site in common, so there is nothing to compare")
    ours = list(base.acts.layers) if layers is None and kept else sorted({own[index] for index in kept})
    alone = [tuned.acts.names[index] for index in missing]
    alone += sorted({*base.acts.sites, *tuned.acts.sites} - set(sites))
    said = [f"left out, for want of a partner on the other side: {', '.join(alone)}"] if alone else []
    cut = replace(tuned.acts, layers={index: tuned.acts.layers[index] for index in kept})
    return (
        replace(base, acts=replace(base.acts, layers={index: base.acts.layers[index] for index in ours})),
        replace(tuned, acts=cut, warnings=(*tuned.warnings, *said)),
    )
