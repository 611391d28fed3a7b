"""Shuffled reading of a store of deltas, against a memory-mapped array of the same rows read row by row in the same shuffled order.

Row by row is a memmap behind a Dataset and PyTorch's DataLoader, as trainers of dictionaries read their caches; the note gives the leanest
loop that numpy allows. Files are in the page cache on both sides: from a cold disk both wait for the same bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pairing import Line, Pairs, within
from tunescope.dictionaries.delta_manifest import SCHEMA
from tunescope.dictionaries.delta_norms import root_mean_square
from tunescope.dictionaries.delta_store import DeltaStore, StoredRows
from tunescope.dictionaries.shards import write_shard

THREADS = 1
ROWS, WIDTH, SHARD, BATCH, WINDOW = 262_144, 384, 16_384, 4096, 4  # 400 MB in float32


def lines(repeats: int) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as place:
        store, array = stored(Path(place)), Path(place) / "rows.npy"
        order = order_of(store)

        def ours() -> float:
            return sum(float(batch[0, 0]) for batch in store.batches(BATCH, seed=0, epoch=0))

        def theirs() -> float:
            rows = MappedRows(np.load(array, mmap_mode="r"))
            return sum(float(batch[0, 0]) for batch in DataLoader(rows, batch_size=BATCH, sampler=order.tolist()))

        def leanest() -> float:
            rows, total = np.load(array, mmap_mode="r"), 0.0
            batch = np.empty((BATCH, WIDTH), np.float32)
            for start in range(0, ROWS, BATCH):
                for i, row in enumerate(order[start : start + BATCH]):
                    batch[i] = rows[row]
                total += float(batch[0, 0])
            return total

        for other in (theirs, leanest):
            within(abs(ours() - other()), 0, "first entries of the batches")
        item = f"shuffled epoch of {ROWS:,} deltas, d={WIDTH}, float32"
        lean = Pairs.time(ours, leanest, repeats).faster(item, "memmap, numpy loop", target=1)
        line = Pairs.time(ours, theirs, repeats).faster(item, "memmap, row by row, DataLoader", target=5)
        yield replace(line, note=f"the leanest loop over the memmap, batch[i] = rows[row]: {lean.theirs}, {lean.ratio} times ours")


class MappedRows(Dataset):
    """One row of a memory-mapped array at a time."""

    def __init__(self, rows: np.ndarray):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(np.array(self.rows[row]))


def stored(place: Path) -> StoredRows:
    """A store of one stream, each row's first entry its number, and the same rows as one array."""
    rows = np.lib.format.open_memmap(place / "rows.npy", mode="w+", dtype=np.float32, shape=(ROWS, WIDTH))
    generator, shards = torch.Generator().manual_seed(0), []
    (place / "a").mkdir()
    for number, start in enumerate(range(0, ROWS, SHARD)):
        block = torch.randn(SHARD, WIDTH, generator=generator)
        block[:, 0] = torch.arange(start, start + SHARD)
        rows[start : start + SHARD] = block.numpy()
        file = f"a/layer_01.{number:05d}.safetensors"
        shards.append({"rows": {"train": SHARD}, "files": {file: write_shard(place / file, {"train": block})}})
    rows.flush()
    manifest = {"schema": SCHEMA, "dtype": "float32", "shard_rows": SHARD, "rows": {"train": ROWS}, "shards": shards}
    mean = torch.zeros(WIDTH, dtype=torch.float64)
    return StoredRows(DeltaStore(place, manifest), ("a", 1), "train", mean, root_mean_square(ROWS, ROWS, mean), WINDOW)


def order_of(store: StoredRows) -> np.ndarray:
    """The rows an epoch reads, in its order."""
    order = torch.cat([batch[:, 0] for batch in store.batches(BATCH, seed=0, epoch=0)]).long().numpy()
    within(abs(len(set(order.tolist())) - ROWS), 0, "rows of an epoch")
    return order
