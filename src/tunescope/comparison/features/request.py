"""What a comparison of features was asked: its sizes and its controls, checked, and what tells two of them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunescope.dictionaries.architectures import ARCHITECTURES
from tunescope.errors import InputError, UnknownName

CONTROLS = {
    "zero": "the base read again as if it were tuned: its deltas are 0, or the reading is wrong",
    "noise": "base − base in another batch composition: the delta of the arithmetic",
    "random": "a random update of the same rank and size in every adapted matrix, run through the model",
    "shuffled": "tuned − base of another token: what an autoencoder finds where there is no pair",
}
_WIDTHS = 4  # latents by default, in widths of the activations
_LEAST_K, _MOST_K, _K_SHARE = 4, 32, 24


@dataclass(frozen=True)
class Request:
    """Sizes as asked; None is decided by the width of the activations, see `latents_for` and `k_for`."""

    layers: tuple[int, ...]
    latents: int | None
    k: int | None
    architecture: str
    seeds: tuple[int, ...]
    steps: int | None
    controls: tuple[str, ...]
    data_seed: int

    @classmethod
    def of(
        cls,
        layers: int | Sequence[int],
        *,
        latents: int | None,
        k: int | None,
        architecture: str,
        seeds: Sequence[int],
        steps: int | None,
        controls: Sequence[str],
        data_seed: int,
    ) -> Request:
        """Raises UnknownName (architecture, control), InputError (no layer, seeds that repeat, sizes)."""
        wanted = (layers,) if isinstance(layers, int) else tuple(dict.fromkeys(layers))
        if not wanted:
            raise InputError("no layer asked for; name one at least, such as --layer 5 (0 is the embeddings, L the last block)")
        if architecture not in ARCHITECTURES:
            raise UnknownName("architecture", architecture, ARCHITECTURES)
        for name in controls:
            if name not in CONTROLS:
                raise UnknownName("control", name, CONTROLS)
        if not seeds or len(set(seeds)) < len(seeds):
            raise InputError(f"seeds {list(seeds)} asked for; at least one is needed, and none twice: two of them make the ceiling")
        for name, value in (("latents", latents), ("k", k), ("steps", steps)):
            if value is not None and value < 1:
                raise InputError(f"{name} {value} asked for; it must be at least 1")
        return cls(wanted, latents, k, architecture, tuple(seeds), steps, tuple(dict.fromkeys(controls)), data_seed)

    def latents_for(self, width: int) -> int:
        """Four times the width, unless given."""
        return _WIDTHS * width if self.latents is None else self.latents

    def k_for(self, width: int) -> int:
        """A 24th of the width, between 4 and 32, unless given."""
        return min(max(width // _K_SHARE, _LEAST_K), _MOST_K, self.latents_for(width)) if self.k is None else self.k

    def check(self, *, depth: int, width: int) -> None:
        """Raises InputError for a layer the base has not, or more active features than there are; before anything is read."""
        if outside := [layer for layer in self.layers if not 0 <= layer <= depth]:
            raise InputError(f"layer {outside[0]} asked for; this model has 0 (embeddings) to {depth}")
        if self.k_for(width) > self.latents_for(width):
            raise InputError(f"k {self.k_for(width)} asked for with {self.latents_for(width)} latents; k is at most that")

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def named(tuned: Any) -> dict[str, Any]:
    """The tuned models by the names reports call them: a mapping as it is, others by the last part of their folder's name.

    Raises InputError for none, or for two of one name.
    """
    if isinstance(tuned, Mapping):
        found = dict(tuned)
    else:
        several = list(tuned) if isinstance(tuned, list | tuple) else [tuned]
        names = [Path(str(one)).name if isinstance(one, str | Path) else getattr(one, "name", "tuned") for one in several]
        if len(set(names)) < len(names):
            said = ", ".join(names)
            raise InputError(f'tuned models of one name ({said}) were given; give a name to each: NAME=SOURCE, or {{"rank8": "folder"}}')
        found = dict(zip(names, several, strict=True))
    if not found:
        raise InputError("no tuned model was given; name at least one")
    return found
