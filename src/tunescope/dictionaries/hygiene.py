"""Which tokens count: no first position, no special tokens, no attention sinks; and which documents are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor

from tunescope.dictionaries.partial_forward import Place, place_name
from tunescope.errors import InputError


@dataclass(frozen=True)
class Hygiene:
    """What is dropped beside padding, and said in the record.

    first: the token at position 0 (BOS, [CLS], or a first word that attention rests on). special: the tokens the tokenizer adds. sinks: a
    token whose base row, at any place read, is longer than so many times the median row there; None keeps them. They are a few tokens whose
    norms are hundreds of times the others' (Sun et al. 2024, arXiv:2402.17762), and would be all that a dictionary learns.
    """

    first: bool = True
    special: bool = True
    sinks: float | None = 10.0

    def __post_init__(self) -> None:
        if self.sinks is not None and not self.sinks > 1:
            raise InputError(f"sinks={self.sinks!r} asked for; a sink is so many times the median norm: give more than 1, or None")

    def kept(self, counted: Tensor) -> Tensor:
        """Flat positions (rows,) in a batch (b, t) of the tokens that stay, sinks not yet looked for; `counted` marks those that count."""
        kept = counted.clone()
        if self.first:
            kept[:, 0] = False
        return kept.reshape(-1).nonzero().squeeze(1)

    def sinks_in(self, norms: Mapping[Place, Tensor], medians: Mapping[Place, float]) -> dict[Place, Tensor]:
        """Which rows are sinks at each place, from the norms (rows,) of the base's rows there."""
        if self.sinks is None:
            return {}
        return {place: found > self.sinks * medians[place] for place, found in norms.items()}


@dataclass(frozen=True)
class Dropped:
    """How many tokens were read, and what became of them; `sinks_at` counts a token at every place where it is a sink."""

    read: int = 0
    first: int = 0
    special: int = 0
    sinks: int = 0
    kept: int = 0
    sinks_at: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, hygiene: Hygiene, mask: Tensor, counted: Tensor, sinks: Mapping[Place, Tensor], kept: int) -> Dropped:
        """Of one batch: mask and counted (b, t), sinks (rows,) by place, kept rows."""
        real = mask.bool()
        special = real & ~counted.bool()
        first = int(real[:, 0].sum()) if hygiene.first else 0
        at = {place_name(place): int(found.sum()) for place, found in sinks.items()}
        dropped = int(torch.stack(list(sinks.values())).any(dim=0).sum()) if sinks else 0
        return cls(int(real.sum()), first, int((special[:, 1:] if hygiene.first else special).sum()), dropped, kept, at)

    def __add__(self, other: Dropped) -> Dropped:
        at = {place: self.sinks_at.get(place, 0) + other.sinks_at.get(place, 0) for place in self.sinks_at | other.sinks_at}
        numbers = {name: getattr(self, name) + getattr(other, name) for name in ("read", "first", "special", "sinks", "kept")}
        return Dropped(**numbers, sinks_at=at)

    def describe(self) -> dict:
        """JSON-able."""
        return asdict(self)


def held_out(texts: Sequence[str], share: float) -> np.ndarray:
    """Which documents (n,) are held out: those whose blake2b, read as a fraction of 1, is below `share`.

    By the text alone: the same document is on the same side in every corpus, and its duplicates are with it.
    Raises InputError for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise InputError(f"held_out={share!r} asked for; it is the share of documents held out, at least 0 and below 1")
    return np.array([_fraction(text) < share for text in texts], dtype=bool)


def _fraction(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48
