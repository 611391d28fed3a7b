"""Dictionaries that others trained, read from the files they are published in; and SAELens' own format, which is written too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.formats import dictionary_learning, gemma_scope, releases, saelens, sparsify
from tunescope.dictionaries.formats.saelens_writer import save_dictionary
from tunescope.dictionaries.formats.stored_tensors import read_pickle
from tunescope.errors import FormatError, InputError

__all__ = ["FORMATS", "read_dictionary", "save_dictionary"]


@dataclass(frozen=True)
class Format:
    """How a format is known, and what reads it: `files`, patterns of its weights below a folder, and `has`, a tensor only it has."""

    files: tuple[str, ...]
    read: Callable[..., Dictionary]
    has: str | None = None  # for files that several formats share


FORMATS: dict[str, Format] = {
    "gemma-scope": Format(("params.npz",), gemma_scope.read_first),
    "gemma-scope-2": Format(("params.safetensors",), gemma_scope.read_second),
    "saelens": Format((saelens.WEIGHTS,), saelens.read),
    "sparsify": Format(("sae.safetensors",), sparsify.read),
    "llama-scope": Format(("checkpoints/final.safetensors",), releases.read_llama_scope),
    "qwen-scope": Format(("layer*.sae.pt",), releases.read_qwen_scope, has="W_enc"),
    "goodfire": Format(("*.pt", "*.pth"), releases.read_goodfire, has="encoder_linear.weight"),
    "openai": Format(("*.pt",), releases.read_openai, has="pre_bias"),
    "dictionary_learning": Format(("ae.pt", "ae_*.pt"), dictionary_learning.read),
}
_PICKLES = (".pt", ".pth")
_SHOWN = 4  # of the dictionaries below a folder, in a message


def read_dictionary(path: str | Path, *, name: str | None = None, scale: float | None = None) -> Dictionary:
    """A dictionary of features, from its folder or its file, in any of `FORMATS`; float32 on the CPU, for raw activations.

    What a training did to its inputs (a constant factor, decoder norms, whitening) is folded into the weights, so that x is always an
    activation as the model gives it. name: what reports call it; by default its place. scale: the constant by which the inputs of a
    SAELens dictionary were multiplied, where its folder does not hold it. `metadata` has what the files say: `model`, `hook_name`, `layer`
    (0 is what enters block 1: a dictionary of the output of block L, counted from 0, is of layer L + 1, hidden_states[L + 1]), `site`,
    `l0`, `dtype`, `format`, `path`, `config`.

    Raises: FormatError (no such file or format, a shape that does not fit, a missing or unknown tensor, a transcoder), UnknownName
    (architecture), ActivationError (NaN or Inf in the weights), UnsafeWeights (a pickle that could run code), InputError (scale).
    """
    place = Path(path)
    kind, weights, content = _recognise(place)
    options: dict[str, Any] = {} if content is None else {"content": content}
    if kind == "saelens":
        options["scale"] = scale
    elif scale is not None:
        raise InputError(f"scale={scale:g} given for '{path}', which is not in SAELens' format; leave it out")
    read = FORMATS[kind].read(weights, **options)
    said = {"format": kind, "path": str(path)}
    return replace(read, name=name or read.metadata.get("name") or _name(weights), metadata=read.metadata | said)


def _recognise(place: Path) -> tuple[str, Path, dict[str, Any] | None]:
    """The format, its weights, and what is in them where that had to be looked at."""
    if place.is_dir():
        for kind, format in FORMATS.items():
            if format.has is None and (found := [file for pattern in format.files for file in sorted(place.glob(pattern))]):
                return kind, found[0], None
        pickles = sorted(file for file in place.iterdir() if file.suffix in _PICKLES)
        if len(pickles) == 1:
            return _recognise(pickles[0])
        raise FormatError(_none_in(place))
    if not place.is_file():
        raise FormatError(f"no dictionary at '{place}': there is no such folder or file; fetch it first, such as with `hf download`")
    if place.suffix in _PICKLES:
        content = read_pickle(place)
        kind = next((kind for kind, format in FORMATS.items() if format.has in content and _matches(place, format)), "dictionary_learning")
        return kind, place, content
    for kind, format in FORMATS.items():
        if format.has is None and _matches(place, format):
            return kind, place, None
    if place.name == saelens.CFG:
        return _recognise(place.parent)
    raise FormatError(f"'{place}' is no file of weights that this version knows: {_known()}")


def _matches(place: Path, format: Format) -> bool:
    return any(place.match(pattern) for pattern in format.files)


def _none_in(folder: Path) -> str:
    patterns = [pattern for format in FORMATS.values() if not format.has for pattern in format.files]
    below = {file.parent.relative_to(folder).as_posix() for pattern in patterns for file in folder.rglob(pattern)}
    below |= {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.suffix in _PICKLES and file.name != "ae.pt"}
    if below:
        shown = ", ".join(sorted(below)[:_SHOWN]) + (", …" if len(below) > _SHOWN else "")
        return f"'{folder}' holds {len(below)} dictionaries below it; name one: {shown}"
    return f"no dictionary in '{folder}': it has none of {_known()}"


def _known() -> str:
    return ", ".join(dict.fromkeys(pattern for format in FORMATS.values() for pattern in format.files))


def _name(weights: Path) -> str:
    """The last folders of its place, as far as they tell dictionaries apart: layer_20/width_16k/average_l0_71."""
    parts = [part for part in weights.resolve().parent.parts if part not in ("/", "checkpoints")]
    return "/".join(parts[-3:] if "average_l0" in parts[-1:][0] else parts[-1:]) if parts else weights.stem
