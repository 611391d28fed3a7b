"""Rows of deltas with the place each has in the texts, read in order, block by block, and more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tunescope.dictionaries.delta_manifest import SPLITS
from tunescope.dictionaries.delta_pass import DeltaBatch
from tunescope.dictionaries.delta_store import DeltaStore
from tunescope.dictionaries.partial_forward import Place
from tunescope.errors import NotEnoughRows

_PLACE = ("document", "position", "token")


@dataclass(frozen=True, eq=False)
class PlacedRows:
    """Where each of so many rows stands: document, position and token (rows,); a document's rows follow one another, in its order.

    read: gives the rows (·, d) float32 in that order, block by block, anew at each call. prompt, max_length: how the texts were read;
    None: as the model declares.
    """

    document: Tensor
    position: Tensor
    token: Tensor
    read: Callable[[], Iterable[Tensor]]
    prompt: str | None = None
    max_length: int | None = None

    @classmethod
    def of_store(cls, store: DeltaStore, layer: Place, adapter: str, *, splits: Sequence[str] = SPLITS) -> PlacedRows:
        """The rows of a store; of both splits, one after the other, unless told otherwise. Raises as `DeltaStore.rows`."""
        stored = [store.rows(layer, adapter, split) for split in splits]
        tokens = [store.tokens(split) for split in splits]
        document, position, token = (torch.cat([each[name] for each in tokens]) for name in _PLACE)
        reading = {"prompt": store.manifest["prompt"], "max_length": store.manifest["max_length"]}
        return cls(document, position, token, lambda: (block for rows in stored for block in rows.in_order()), **reading)

    @classmethod
    def of_batches(
        cls, batches: Iterable[DeltaBatch], layer: Place, adapter: str, *, prompt: str | None = None, max_length: int | None = None
    ) -> PlacedRows:
        """The rows of delta batches, which are kept in memory; prompt and max_length those they were made with."""
        kept = list(batches)
        document, position, token = (torch.cat([getattr(batch, name) for batch in kept]) for name in _PLACE)
        return cls(document, position, token, lambda: (batch.deltas[adapter, layer] for batch in kept), prompt, max_length)

    def __len__(self) -> int:
        return len(self.document)

    def blocks(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """(first row, rows) of at most `size` rows. Raises NotEnoughRows where there are none."""
        if not len(self):
            raise NotEnoughRows("no row was kept, so no feature fires anywhere; give more or longer texts")
        start = 0
        for rows in self.read():
            for block in rows.split(size) if len(rows) else ():  # a shard may hold no row of a split
                yield start, block
                start += len(block)
