"""A store of deltas while it is written: shards sealed one after the other, each with a record of where the pass was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunescope.activations.manifest import MANIFEST, file_of, read_json, write_json
from tunescope.dictionaries.delta_manifest import DTYPES, SPLITS, Layout, Manifest, difference
from tunescope.dictionaries.delta_norms import row_lengths
from tunescope.dictionaries.delta_pass import BASE, DeltaBatch
from tunescope.dictionaries.hygiene import Dropped
from tunescope.dictionaries.partial_forward import Place
from tunescope.dictionaries.shards import read_into, sync_folder, write_shard
from tunescope.dictionaries.shuffled import sums_of
from tunescope.errors import OutputError

PROGRESS, MEANS = "progress.json", "means.safetensors"
DRAFT_SCHEMA = "tunescope.deltas-draft/1"
Stream = tuple[str, Place]


def shard_file(name: str, place: Place, number: int) -> str:
    """The file of one shard of a stream, in the store's folder."""
    stem = file_of(place).removesuffix(".npy") if isinstance(place, int) else place
    return f"{name}/{stem}.{number:05d}.safetensors"


def token_file(number: int) -> str:
    """The file that says where the tokens of a shard stand."""
    return f"tokens.{number:05d}.safetensors"


def seal_file(number: int) -> str:
    """The record of a shard, in the draft."""
    return f"sealed.{number:05d}.json"


class OpenShard:
    """The rows of all streams that are not in a file yet; both splits together make a shard full, so that a crash loses no more."""

    def __init__(self, layout: Layout):
        rows, dtype = layout.shard_rows, DTYPES[layout.dtype]
        self.layout, self.filled = layout, 0
        self.rows: dict[Stream, Tensor] = {stream: torch.empty(rows, width, dtype=dtype) for stream, width in layout.widths.items()}
        self.lengths: dict[Stream, Tensor] = {stream: torch.empty(rows, dtype=torch.float64) for stream in layout.widths}
        self.base_lengths: dict[Place, Tensor] = {place: torch.empty(rows, dtype=torch.float64) for _, place in layout.widths}
        self.tokens = {name: torch.empty(rows, dtype=torch.int32) for name in ("document", "position", "token")}
        self.held = torch.empty(rows, dtype=torch.bool)

    @property
    def full(self) -> bool:
        """Whether it is to be sealed."""
        return self.filled == self.layout.shard_rows

    def add(self, batch: DeltaBatch, first: int) -> int:
        """Take rows of the batch from row `first` on; how many fitted. Only here are differences cast to the stored type."""
        count = min(self.layout.shard_rows - self.filled, len(batch) - first)
        mine, theirs = slice(self.filled, self.filled + count), slice(first, first + count)
        for name, place in self.rows:
            delta = batch.x[place][theirs] if name == BASE else batch.deltas[name, place][theirs]
            self.rows[name, place][mine] = delta.to(self.rows[name, place].dtype)
            self.lengths[name, place][mine] = row_lengths(delta)
        for place, lengths in self.base_lengths.items():
            lengths[mine] = row_lengths(batch.x[place][theirs])
        for name, values in self.tokens.items():
            values[mine] = getattr(batch, name)[theirs]
        self.held[mine] = batch.held_out[theirs]
        self.filled += count
        return count

    def splits(self) -> dict[str, Tensor]:
        """Which of the filled rows are in each split."""
        held = self.held[: self.filled]
        return dict(zip(SPLITS, (~held, held), strict=True))


@dataclass(eq=False)
class Draft:
    """The files of a store while it is made; every shard counts from the moment its record is there."""

    folder: Path
    head: Manifest
    layout: Layout
    sealed: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False

    @classmethod
    def of(cls, folder: Path, head: Manifest, layout: Layout) -> Draft:
        """What an earlier process left in the folder, or a new draft. Raises OutputError when it is of other rows, or nothing of ours."""
        names = {entry.name for entry in folder.iterdir()}
        if MANIFEST in names:
            _check_same(folder, read_json(folder / MANIFEST), head)
            return cls(folder, head, layout, finished=True)
        if PROGRESS in names:
            _check_same(folder, read_json(folder / PROGRESS)["deltas"], head)
        elif names - {f"{PROGRESS}.part"}:
            foreign = sorted(names)[0]
            raise OutputError(f"'{folder}' is where the draft would be and holds something else ({foreign}); move it away")
        else:
            write_json(folder / PROGRESS, {"schema": DRAFT_SCHEMA, "deltas": head})
        for name in head["streams"]:
            (folder / name).mkdir(exist_ok=True)
        return cls(folder, head, layout, list(_sealed(folder)))

    @property
    def next(self) -> tuple[int, int]:
        """The batch and the row in it where the open shard begins."""
        return tuple(self.sealed[-1]["next"]) if self.sealed else (0, 0)

    @property
    def dropped(self) -> Dropped:
        """What was dropped in the batches before that one."""
        return Dropped(**self.sealed[-1]["dropped"]) if self.sealed else Dropped()

    @property
    def bytes(self) -> int:
        """What is sealed already."""
        return sum(seal["bytes"] for shard in self.sealed for seal in shard["files"].values())

    def seal(self, shard: OpenShard, *, batch: int, row: int, dropped: Dropped) -> None:
        """Put the open shard into files; the pass goes on at that row of that batch, before which so much was dropped."""
        number, chosen = len(self.sealed), shard.splits()
        files, norms = {}, {}
        for (name, place), rows in shard.rows.items():
            parts = {split: rows[: shard.filled][mine] for split, mine in chosen.items()}
            sums = {split: sums_of(part) for split, part in parts.items()}
            file = shard_file(name, place, number)
            files[file] = write_shard(self.folder / file, parts | {f"{split}.sum": total for split, (total, _) in sums.items()})
            lengths = {split: shard.lengths[name, place][: shard.filled][mine] for split, mine in chosen.items()}
            norms[file] = {split: [float(lengths[split].sum()), sums[split][1]] for split in SPLITS}
        filled = {name: values[: shard.filled] for name, values in shard.tokens.items()}
        tokens = {f"{split}.{name}": values[mine] for split, mine in chosen.items() for name, values in filled.items()}
        files[token_file(number)] = write_shard(self.folder / token_file(number), tokens)
        for folder in (*(self.folder / name for name in self.head["streams"]), self.folder):
            sync_folder(folder)
        bases = shard.base_lengths.values()
        record = {
            "rows": {split: int(mine.sum()) for split, mine in chosen.items()},
            "files": files,
            "norms": norms,
            "base_norms": [{split: float(each[: shard.filled][mine].sum()) for split, mine in chosen.items()} for each in bases],
            "next": [batch, row],
            "dropped": dropped.describe(),
        }
        write_json(self.folder / seal_file(number), record)
        sync_folder(self.folder)
        self.sealed.append(record)
        shard.filled = 0

    def complete(self, dropped: Dropped) -> None:
        """The means and the manifest; with that the store is whole."""
        means = {}
        for (name, place), width in self.layout.widths.items():
            for split in SPLITS:
                total, shard = torch.zeros(width, dtype=torch.float64), torch.empty(width, dtype=torch.float64)
                for number in range(len(self.sealed)):
                    read_into(self.folder / shard_file(name, place, number), f"{split}.sum", shard)
                    total += shard
                means[f"{shard_key(name, place)}.{split}"] = total / max(self.rows[split], 1)
        seal = write_shard(self.folder / MEANS, means)
        shards = [{"rows": each["rows"], "files": each["files"]} for each in self.sealed]
        found = {"rows": self.rows, "dropped": dropped.describe(), "norms": self._norms(), "means": {MEANS: seal}, "shards": shards}
        write_json(self.folder / MANIFEST, self.head | found)
        self.finished = True

    @property
    def rows(self) -> dict[str, int]:
        """Sealed rows of each split."""
        return {split: sum(each["rows"][split] for each in self.sealed) for split in SPLITS}

    def move_to(self, target: Path) -> None:
        """The draft becomes the store, in one rename. Raises OutputError when something else is there by now."""
        for entry in self.folder.glob("sealed.*.json*"):
            entry.unlink()
        (self.folder / PROGRESS).unlink(missing_ok=True)
        if target.is_dir() and any(target.iterdir()):
            raise OutputError(f"'{target}' has been filled meanwhile; the deltas are kept in '{self.folder}'")
        os.rename(self.folder, target.resolve())
        sync_folder(target.resolve().parent)

    def discard(self) -> None:
        """Take the draft away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _norms(self) -> dict[str, dict[str, dict[str, float]]]:
        """By stream and split, the sums that the table of norms is made of."""
        places = list(dict.fromkeys(place for _, place in self.layout.widths))
        table: dict[str, dict[str, dict[str, float]]] = {}
        for name, place in self.layout.widths:
            files = [shard_file(name, place, number) for number in range(len(self.sealed))]
            pairs = {split: [each["norms"][file][split] for each, file in zip(self.sealed, files, strict=True)] for split in SPLITS}
            bases = {split: [each["base_norms"][places.index(place)][split] for each in self.sealed] for split in SPLITS}
            table[shard_key(name, place)] = {
                split: {
                    "rows": self.rows[split],
                    "norms": sum(norm for norm, _ in pairs[split]),
                    "base_norms": sum(bases[split]),
                    "squares": sum(squares for _, squares in pairs[split]),
                }
                for split in SPLITS
            }
        return table


def shard_key(name: str, place: Place) -> str:
    """What a stream is called in the manifest and among the means."""
    return shard_file(name, place, 0).rsplit(".", 2)[0]


def _sealed(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of the shards from the first to the last whose files are all there."""
    number = 0
    while (folder / seal_file(number)).is_file():
        record = read_json(folder / seal_file(number))
        if any(not (folder / name).is_file() or (folder / name).stat().st_size != seal["bytes"] for name, seal in record["files"].items()):
            return  # somebody was here; what is missing is made again
        yield record
        number += 1


def _check_same(folder: Path, found: Manifest, head: Manifest) -> None:
    if differs := difference(found, head, also=("versions",)):
        raise OutputError(
            f"'{folder}' holds an unfinished store of other deltas: {differs}; ask for the same to finish it, or remove it"
        )
