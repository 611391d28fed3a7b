"""Deltas on disk: written once, crash-safe, and read in shuffled order, in their own order, or as a table of norms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunescope.activations.manifest import MANIFEST, read_json
from tunescope.errors import AlignmentError, InputError, OutputError, UnknownName
from tunescope.features.delta_draft import MEANS, PROGRESS, Draft, OpenShard, Stream, shard_file, shard_key, token_file
from tunescope.features.delta_manifest import (
    DTYPES,
    SPLITS,
    Layout,
    Manifest,
    check_room,
    describe,
    difference,
    identities,
    laid_out,
    read_layout,
    read_manifest,
    streams_of,
)
from tunescope.features.delta_norms import DeltaNorms, NormSummary, root_mean_square
from tunescope.features.delta_pass import Calibration, DeltaPass
from tunescope.features.hygiene import Hygiene
from tunescope.features.partial_forward import Place, place_name
from tunescope.features.shards import check_length, check_sum, read_into
from tunescope.features.shuffled import windowed_batches
from tunescope.folders import draft_folder, resumable, writable_folder
from tunescope.models import Model
from tunescope.texts import as_corpus

WINDOW = 256 * 2**20  # bytes of rows that shuffled reading holds in memory, by default


@dataclass(frozen=True, eq=False)
class StoredRows:
    """The rows of one layer, adapter and split of a store; a `DeltaRows`. Memory of `batches`: `window_bytes`, and a batch.

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
        """See `DeltaRows`. Raises FormatError naming a shard that is damaged."""
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


def save_deltas(
    base: Model,
    tuned: Mapping[str, Model],
    texts: Any,
    folder: str | Path,
    *,
    layers: Iterable[Place] | Place | None = None,
    kind: str = "residual",
    dtype: str = "float32",
    batch_size: int = 32,
    max_length: int | None = None,
    prompt: str | None = None,
    hygiene: Hygiene | None = None,
    held_out_share: float = 0.1,
    noise: bool = False,
    base_rows: bool = False,
    shard_rows: int | None = None,
    announce: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DeltaStore:
    """Run texts through a base and its tuned models once and keep the deltas in a folder; memory does not grow with the texts.

    The same call after an interruption (Ctrl-C, kill -9, a full disk) goes on from the last whole shard, and the files come out as if
    nothing had happened, byte for byte. A folder that already holds these very deltas is returned as it is.

    Arguments as in `delta_batches`. dtype: of what is stored, float32 or bfloat16, of a difference made in float32. base_rows: keep the
    base's own rows too, as the adapter "base". shard_rows: tokens a shard; None makes files of up to 32 MB. announce: is told the size
    in one line before anything is written. progress(done, total) counts batches.

    Raises: OutputError (no room on the disk, the folder holds something else or deltas whose named field differs), and what
    `delta_batches` raises; then no draft is left.
    """
    path = writable_folder(folder)
    _check_empty(path)
    reading: dict[str, Any] = {"batch_size": batch_size, "max_length": max_length, "prompt": prompt}
    chosen: dict[str, Any] = {"hygiene": hygiene, "held_out_share": held_out_share, "noise": noise}
    whole = DeltaPass.of(base, tuned, texts, layers=layers, kind=kind, **reading, **chosen)
    streams = streams_of(whole, base_rows=base_rows)
    head = describe(whole, streams, dtype=dtype) | ({} if shard_rows is None else {"shard_rows": shard_rows})
    if _held(path, head):
        return load_deltas(path)
    layout, calibration = _layout(path, head, whole, streams, shard_rows)
    if announce is not None:
        announce(layout.say(whole.most_rows))
    with resumable(path, lambda place: Draft.of(place, head | laid_out(layout, calibration), layout), what="store of deltas") as draft:
        if not draft.finished:
            _write(draft, whole, calibration, progress)
        draft.move_to(path)
    return load_deltas(path)


def load_deltas(folder: str | Path) -> DeltaStore:
    """Open a store. Raises FormatError when there is none, its schema is not one this version reads, or a file is missing or cut off."""
    path = Path(folder)
    store = DeltaStore(path, read_manifest(path))
    for file, seal in store._files():
        check_length(path / file, seal)
    return store


def _write(draft: Draft, whole: DeltaPass, calibration: Calibration, progress: Callable[[int, int], None] | None) -> None:
    shard, dropped = OpenShard(draft.layout), draft.dropped
    start, row = draft.next
    for batch in whole.batches(calibration, start=start):
        while row < len(batch):
            row += shard.add(batch, row)
            if shard.full:
                draft.seal(shard, batch=batch.number, row=row, dropped=dropped)
        row, dropped = 0, dropped + batch.dropped
        if progress is not None:
            progress(batch.number + 1, len(whole.plan))
    if shard.filled:
        draft.seal(shard, batch=len(whole.plan), row=0, dropped=dropped)
    draft.complete(dropped)


def _layout(
    path: Path, head: Manifest, whole: DeltaPass, streams: list[Stream], shard_rows: int | None
) -> tuple[Layout, Calibration]:
    """What an unfinished draft of the same deltas fixed, or what a first sample of rows fixes now; the disk has room for the rest."""
    left = draft_folder(path) / PROGRESS
    found = read_json(left)["deltas"] if left.is_file() else None
    if found is not None and difference(found, head, also=("versions", "shard_rows")) is None:
        layout, calibration = read_layout(found)
        done = sum(file.stat().st_size for file in left.parent.rglob("*.safetensors"))
    else:
        calibration = whole.calibrate()
        layout, done = Layout.of(streams, calibration, dtype=head["dtype"], shard_rows=shard_rows), 0
    check_room(path, layout, whole.most_rows, done=done)
    return layout, calibration


def _check_empty(path: Path) -> None:
    """Raises OutputError unless the folder is absent, empty, or holds a store (which is never overwritten)."""
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if names and MANIFEST not in names:
        raise OutputError(f"'{path}' holds something else ({', '.join(names[:3])}); name another folder, or empty it")


def _held(path: Path, head: Manifest) -> bool:
    """Whether the folder already holds the deltas asked for. Raises OutputError when it holds anything else."""
    if not (path / MANIFEST).is_file():
        return False
    found = read_json(path / MANIFEST)
    if not isinstance(found, dict) or found.get("schema") != head["schema"]:
        raise OutputError(f"'{path}' holds something else ({MANIFEST}); name another folder, or empty it")
    if differs := difference(found, head, also=("shard_rows",)):
        raise OutputError(f"'{path}' holds other deltas: {differs}; name another folder, or remove these")
    return True
