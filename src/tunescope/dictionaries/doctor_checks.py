"""What can be told of a dictionary without running its model: from its weights, and from what its files say."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.firing import Threshold
from tunescope.dictionaries.formats.hook_points import RESIDUAL

_UNIT = 0.01  # a norm is 1 where it is this near to it
_LENS_NAMES = {"gpt2-small": "gpt2"}  # TransformerLens' names that are no names of the hub


@dataclass(frozen=True)
class Check:
    """One thing that is often wrong: what was found, what was expected, ok, warn or wrong, and what to do where it is not ok."""

    check: str
    found: str
    expected: str
    status: str
    todo: str = ""


def number(value: float, digits: int = 2) -> str:
    """With a minus sign that is one."""
    return f"{value:,.{digits}f}".replace("-", "−")


def check_width(dictionary: Dictionary, width: int) -> Check:
    """The features of an activation that it reads, against those the model has."""
    status = "ok" if dictionary.width == width else "wrong"
    todo = "" if status == "ok" else "give the model it was trained on; one of attention heads has another width than the residual stream"
    return Check("width", f"{dictionary.width:,}", f"{width:,}, the model's", status, todo)


def check_model(dictionary: Dictionary, name: str) -> Check:
    """The model that the files name, against the one that is given: by any part of its name or place, since folders are called anything."""
    declared = dictionary.metadata.get("model")
    if not declared:
        return Check("model", name, "not declared", "ok")
    ours, theirs = _plain_names(name), _plain_names(str(declared))[-1]
    if theirs in ours:
        return Check("model", name, str(declared), "ok")
    kin = ours[-1].startswith(theirs) or theirs.startswith(ours[-1])
    todo = "one may be tuned from the other: expect a lower R²" if kin else "give the model it was trained on, unless this is a copy of it"
    return Check("model", name, str(declared), "warn", todo)


def check_site(dictionary: Dictionary) -> Check:
    """Whether it reads the residual stream, which is all that is checked here."""
    site = dictionary.metadata.get("site")
    if site is None:
        return Check("site", "not declared", "the residual stream", "ok")
    if site in RESIDUAL:
        return Check("site", str(dictionary.metadata["hook_name"]), "the residual stream", "ok")
    todo = "it reads inside a block, not what a layer returns, so no R² is measured here; give one of the residual stream"
    return Check("site", str(dictionary.metadata["hook_name"]), "the residual stream", "wrong", todo)


def check_layer(dictionary: Dictionary, layer: int) -> Check:
    """The layer that the files name, against the one asked for. They count blocks from 0, and layers here begin with the embeddings."""
    declared, name = dictionary.metadata.get("layer"), dictionary.metadata.get("hook_name")
    found = f"layer {layer}"
    if declared is None:
        return Check("layer", found, "not declared", "ok")
    expected = f"layer {declared} ({name})"
    if declared == layer:
        return Check("layer", found, expected, "ok")
    todo = f"--layer {declared}: block L counted from 0 returns hidden_states[L + 1], which is layer L + 1 here"
    return Check("layer", found, expected, "wrong", todo)


def check_norms(dictionary: Dictionary) -> Check:
    """Decoder rows of norm 1: else feature activations are in units of their own, latent by latent."""
    norms = dictionary.decoder.norm(dim=1)
    low, high = float(norms.min()), float(norms.max())
    found = f"{number(low, 3)} to {number(high, 3)}"
    if low >= 1 - _UNIT and high <= 1 + _UNIT:
        return Check("decoder norms", found, "1", "ok")
    todo = "multiply activations by the norm of their decoder row before they are compared between latents"
    if (zero := int((norms == 0).sum())) > 0:
        todo = f"{zero:,} latents write nothing; leave them out. Else {todo}"
    return Check("decoder norms", found, "1", "warn", todo)


def check_threshold(dictionary: Dictionary) -> Check:
    """A threshold that was never set (−1 in dictionary_learning) or is below 0 lets through whatever is positive."""
    if not isinstance(dictionary.firing, Threshold):
        return Check("threshold", f"none ({dictionary.firing.architecture})", "none", "ok")
    threshold = dictionary.firing.threshold
    low, high = float(threshold.min()), float(threshold.max())
    found = number(low, 3) if low == high else f"{number(low, 3)} to {number(high, 3)}"
    if low >= 0:
        return Check("threshold", found, "0 or more", "ok")
    todo = "it was never set, so every positive latent fires: train past threshold_start_step, or choose it so that L0 is k"
    return Check("threshold", found, "0 or more", "wrong", todo)


def _plain_names(name: str) -> list[str]:
    parts = [part.lower() for part in re.split(r"[/\\]|--", name) if part]
    return [_LENS_NAMES.get(part, part) for part in parts] or [""]
