"""The rows a place's figures are made of: a sample of the training rows, and held-out rows with the base's beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tunescope.dictionaries import DeltaStore
from tunescope.dictionaries.spectrum import Spectrum

TRAINED, HELD = 50_000, 20_000  # rows a place that are held in memory; up to twice as many
BASE = "base"
_BLOCK = 2048


@dataclass(frozen=True, eq=False)
class PlaceRows:
    """Rows of one layer and one delta, spread over all tokens: train (t, d) and held-out (h, d); x (h, d) are the base's rows on the
    held-out tokens, and document (h,) says of which text each is."""

    layer: int
    name: str
    train: Tensor
    held: Tensor
    x: Tensor
    document: Tensor

    @classmethod
    def of(cls, store: DeltaStore, layer: int, name: str, *, least: int) -> PlaceRows:
        """Of a store; least: the training rows that are needed, where there are as many."""
        x, held = (spread(store, layer, stream, "held_out", HELD) for stream in (BASE, name))
        every = max(1, store.rows(layer, name, "held_out").rows // HELD)
        document = store.tokens("held_out")["document"][::every].long()
        return cls(layer, name, spread(store, layer, name, "train", max(TRAINED, least)), held, x, document)

    @cached_property
    def spectrum(self) -> Spectrum:
        """Of the training rows."""
        return Spectrum.of(self.train)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out rows and their documents, block by block."""
        yield from zip(self.held.split(_BLOCK), self.document.split(_BLOCK), strict=True)


def spread(store: DeltaStore, layer: int, name: str, split: str, most: int) -> Tensor:
    """Every i-th row of a stream in the order they were stored, so many to twice as many of them: the same tokens whatever the stream."""
    rows = store.rows(layer, name, split)
    step, start, kept = max(1, rows.rows // most), 0, []
    for block in rows.in_order():
        kept.append(block[-start % step :: step])
        start += len(block)
    return torch.cat(kept)


def shuffled_pairs(delta: Tensor, x: Tensor, *, seed: int) -> Tensor:
    """Tuned rows less the base's rows of other tokens: (x + Δ) − π(x)."""
    order = torch.from_numpy(np.random.default_rng((seed, len(x))).permutation(len(x)))
    return delta + x - x[order]
