"""Writing a store of deltas: one pass, shard after shard, going on where a killed process was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tunescope.activations.manifest import MANIFEST, read_json
from tunescope.dictionaries.delta_draft import PROGRESS, Draft, OpenShard, Stream
from tunescope.dictionaries.delta_manifest import Layout, Manifest, check_room, describe, difference, laid_out, read_layout, streams_of
from tunescope.dictionaries.delta_pass import Calibration, DeltaPass
from tunescope.dictionaries.delta_store import DeltaStore, load_deltas
from tunescope.dictionaries.hygiene import Hygiene
from tunescope.dictionaries.partial_forward import Place
from tunescope.errors import OutputError
from tunescope.folders import draft_folder, resumable, writable_folder
from tunescope.models import Model


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
