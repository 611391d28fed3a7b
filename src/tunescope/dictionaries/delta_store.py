"""A finished store of deltas: read in shuffled order, in its own order, or as a table of norms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunescope.dictionaries.delta_draft import MEANS, Stream, shard_file, shard_key, token_file
from tunescope.dictionaries.delta_manifest import DTYPES, SPLITS, Manifest, difference, identities, read_manifest
from tunescope.dictionaries.delta_norms import DeltaNorms, NormSummary, root_mean_square
from tunescope.dictionaries.partial_forward import Place, place_name
from tunescope.dictionaries.shards import check_length, check_sum, read_into
from tunescope.dictionaries.shuffled import windowed_batches
from tunescope.errors import AlignmentError, InputError, UnknownName
from tunescope.models import Model
from tunescope.texts import as_corpus

WINDOW = 256 * 2**20  # bytes of rows that shuffled reading holds in memory, by default


@dataclass(frozen=True, eq=False)
class StoredRows:
    """The rows of one layer, adapter and split of a store; read as training reads rows. Memory of `batches`: `window_bytes`, and a batch.

    The order of an epoch: shards shuffled, rows shuffled within `window` shards, each shard read once and in one piece. The first time a
    shard is read by a store, its checksum is checked.
    """

    store: DeltaStore = field(repr=False)
    stream: Stream
    split: str
    mean: Tensor  # (d,) float64
    rms: float
    window: int  # shards

    @property
    def sizes(self) -> list[int]:
        """Rows of each shard."""
        return [shard["rows"][self.split] for shard in self.store.manifest["shards"]]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.store.manifest["rows"][self.split]

    @property
    def width(self) -> int:
        """Features of a row."""
        return len(self.mean)

    @property
    def window_bytes(self) -> int:
        """What a window of rows takes in memory, at most."""
        return self.window * max(self.sizes, default=0) * self.width * DTYPES[self.store.manifest["dtype"]].itemsize

    def batches(self, batch_size: int, *, seed: int, epoch: int, skip: int = 0) -> Iterator[Tensor]:
        """Full batches (batch_size, d) float32, from batch `skip` on without reading what is before it; every row at most once an epoch,
        the last rows % batch_size left out; the order is a function of (seed, epoch) alone.

        Raises: FormatError naming a shard that is damaged, NotEnoughRows when not one batch is full.
        """
        return windowed_batches(
            self.sizes, partial(self.store.read, self.stream, self.split), width=self.width, dtype=DTYPES[self.store.manifest["dtype"]],
            window=self.window, batch_size=batch_size, seed=seed, epoch=epoch, skip=skip,
        )  # fmt: skip

    def in_order(self) -> Iterator[Tensor]:
        """The rows (rows, d) float32 shard by shard, in the order of `DeltaStore.tokens`."""
        for number, rows in enumerate(self.sizes):
            block = torch.empty(rows, self.width, dtype=DTYPES[self.store.manifest["dtype"]])
            self.store.read(self.stream, self.split, number, block)
            yield block.float()


@dataclass(frozen=True, eq=False)
class DeltaStore:
    """A finished store of deltas in a folder; opening it reads no rows."""

    folder: Path
    manifest: Manifest = field(repr=False)
    checked: set[str] = field(default_factory=set, repr=False)

    @property
    def layers(self) -> list[Place]:
        """Where its deltas are: layers, or names of modules."""
        return self.manifest["layers"]

    @property
    def adapters(self) -> list[str]:
        """Whose: the names of the tuned models, and "noise" and "base" where they were asked for."""
        return self.manifest["streams"]

    def rows(self, layer: Place, adapter: str, split: str = "train", *, window: int | None = None) -> StoredRows:
        """The rows of one layer and adapter. window: shards that are shuffled together; None is as many as 256 MB hold, at least two.

        Raises UnknownName (adapter, split, module), InputError (layer, window).
        """
        stream = self._stream(layer, adapter, split)
        mean = torch.empty(self.manifest["widths"][place_name(layer)], dtype=torch.float64)
        self._check(MEANS, self.manifest["means"][MEANS])
        read_into(self.folder / MEANS, f"{shard_key(adapter, layer)}.{split}", mean)
        squares = self.manifest["norms"][shard_key(adapter, layer)][split]["squares"]
        item = DTYPES[self.manifest["dtype"]].itemsize
        fitting = max(WINDOW // (self.manifest["shard_rows"] * len(mean) * item), 2) if window is None else window
        if fitting < 1:
            raise InputError(f"window={window} asked for; at least 1 shard is read at a time")
        shards = min(fitting, max(len(self.manifest["shards"]), 1))
        return StoredRows(self, stream, split, mean, root_mean_square(self.manifest["rows"][split], squares, mean), shards)

    def tokens(self, split: str = "train") -> dict[str, Tensor]:
        """document, position and token id (rows,) int32 of the rows of a split, in the order of `StoredRows.in_order`."""
        self._known("split", split, SPLITS)
        found: dict[str, list[Tensor]] = {"document": [], "position": [], "token": []}
        for number, shard in enumerate(self.manifest["shards"]):
            self._check(token_file(number), shard["files"][token_file(number)])
            for name, parts in found.items():
                parts.append(torch.empty(shard["rows"][split], dtype=torch.int32))
                read_into(self.folder / token_file(number), f"{split}.{name}", parts[-1])
        return {name: torch.cat(parts) for name, parts in found.items()}

    def norms(self, split: str = "train") -> dict[tuple[str, Place], NormSummary]:
        """How large the deltas are by (adapter, layer); no rows are read. Raises NotEnoughRows for a split without rows."""
        table = {}
        for name in self.adapters:
            for layer in self.layers:
                sums = self.manifest["norms"][shard_key(name, layer)][split]
                mean = self.rows(layer, name, split).mean
                table[name, layer] = DeltaNorms(**sums, total=mean * sums["rows"]).summary()
        return table

    def verify(self) -> None:
        """Read every file and compare its checksum. Raises FormatError naming the first that is damaged."""
        for file, seal in self._files():
            check_sum(self.folder / file, seal)
            self.checked.add(file)

    def check_made_from(self, base: Model | None = None, tuned: Mapping[str, Model] | None = None, texts: Any = None) -> None:
        """Raises AlignmentError naming the field in which the store was made from other models or texts than these."""
        sha256 = None if texts is None else as_corpus(texts).sha256
        if differs := difference(self.manifest, identities(base, tuned or {}, sha256)):
            raise AlignmentError(f"the deltas in '{self.folder}' were made from something else: {differs}; give what they were made from")

    def read(self, stream: Stream, split: str, number: int, out: Tensor) -> None:
        """Rows of one shard into `out` (rows, d) of the stored type. Raises FormatError naming a shard that is damaged."""
        file = shard_file(*stream, number)
        self._check(file, self.manifest["shards"][number]["files"][file])
        read_into(self.folder / file, split, out)

    def _files(self) -> Iterator[tuple[str, dict]]:
        yield from self.manifest["means"].items()
        for shard in self.manifest["shards"]:
            yield from shard["files"].items()

    def _check(self, file: str, seal: dict) -> None:
        if file not in self.checked:
            check_sum(self.folder / file, seal)
            self.checked.add(file)

    def _stream(self, layer: Place, adapter: str, split: str) -> Stream:
        self._known("split", split, SPLITS)
        self._known(f"adapter in '{self.folder}'", adapter, self.adapters)
        if isinstance(layer, str):
            self._known(f"module in '{self.folder}'", layer, [str(each) for each in self.layers])
        elif layer not in self.layers:
            raise InputError(f"layer {layer} asked for; '{self.folder}' holds {', '.join(map(str, self.layers))}")
        return adapter, layer

    @staticmethod
    def _known(kind: str, name: str, known: Iterable[str]) -> None:
        if name not in known:
            raise UnknownName(kind, name, known)


def load_deltas(folder: str | Path) -> DeltaStore:
    """Open a store. Raises FormatError when there is none, its schema is not one this version reads, or a file is missing or cut off."""
    path = Path(folder)
    store = DeltaStore(path, read_manifest(path))
    for file, seal in store._files():
        check_length(path / file, seal)
    return store
