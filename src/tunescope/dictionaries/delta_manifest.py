"""What a store of deltas says of itself, whether two are of the same rows, and how large one will be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tunescope.activations.manifest import MANIFEST, shown
from tunescope.dictionaries.delta_pass import BASE, NOISE, Calibration, DeltaPass
from tunescope.dictionaries.partial_forward import Place, place_name
from tunescope.errors import FormatError, InputError, OutputError, UnknownName
from tunescope.identity import versions
from tunescope.models import Model

SCHEMA = "tunescope.deltas/1"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SPLITS = ("train", "held_out")
_NAMES = ("name", "revision", "adapter")  # of a model: what it is called and where its adapter was found; its hash is of both weights
_READING = ("kind", "layers", "streams", "hygiene", "held_out", "prompt", "max_length", "batch_size", "dtype", "device")
_SHARD, _OPEN = 32 * 2**20, 2**30  # bytes: of one file, and of all that are open at a time
_PROVENANCE = 12  # bytes a row: document, position, token

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """How rows become files: `dtype` of the stored differences, rows a shard, and by stream (adapter, place) the width of its rows."""

    dtype: str
    shard_rows: int
    widths: dict[tuple[str, Place], int]

    @classmethod
    def of(cls, streams: list[tuple[str, Place]], calibration: Calibration, *, dtype: str, shard_rows: int | None) -> Layout:
        """shard_rows None: a power of two that makes files of up to 32 MB, and no more than 1 GB of them open at a time.

        Raises UnknownName (dtype), InputError (shard_rows).
        """
        if dtype not in DTYPES:
            raise UnknownName("dtype of a store", dtype, DTYPES)
        widths = {(name, place): calibration.widths[place] for name, place in streams}
        if shard_rows is None:
            item = DTYPES[dtype].itemsize
            fitting = min(_SHARD // (max(widths.values()) * item), _OPEN // (sum(widths.values()) * item))
            shard_rows = 2 ** min(max(fitting.bit_length() - 1, 8), 16)
        if shard_rows < 1:
            raise InputError(f"shard_rows={shard_rows} asked for; a shard holds at least 1 row")
        return cls(dtype, shard_rows, widths)

    def bytes_of(self, rows: int) -> int:
        """What so many rows take on the disk: 7.2 GB per million tokens and layer at width 3,584 in bfloat16."""
        return rows * (sum(self.widths.values()) * DTYPES[self.dtype].itemsize + _PROVENANCE)

    def say(self, rows: int) -> str:
        """The size in a line."""
        streams, wide = len(self.widths), sum(self.widths.values())
        return f"up to {rows:,} tokens × {streams} deltas ({wide:,} numbers a token) in {self.dtype}: {in_bytes(self.bytes_of(rows))}"


def streams_of(whole: DeltaPass, *, base_rows: bool) -> list[tuple[str, Place]]:
    """The (adapter, place) whose rows are stored: every tuned model, the noise where it was asked for, the base's own rows if wanted."""
    names = [*whole.tuned, *([NOISE] if whole.noise else []), *([BASE] if base_rows else [])]
    return [(name, place) for name in names for place in whole.places]


def describe(whole: DeltaPass, streams: list[tuple[str, Place]], *, dtype: str) -> Manifest:
    """The manifest as far as it is known before anything has run."""
    known: dict = {}
    corpus, tokens = whole.corpus, whole.tokens
    head = {
        "schema": SCHEMA,
        "base": whole.base.identity(known=known),
        "tuned": {name: model.identity(known=known) for name, model in whole.tuned.items()},
        "texts": {"n": len(corpus), "sha256": corpus.sha256, "source": corpus.source, "sampled_from": corpus.sampled_from},
        "warnings": sorted({*corpus.warnings, *whole.base.warnings, *(said for model in whole.tuned.values() for said in model.warnings)}),
        "layers": list(whole.places),
        "streams": list(dict.fromkeys(name for name, _ in streams)),
        "hygiene": asdict(whole.hygiene),
        **whole.reading,
        "tokens": int(tokens.lengths.sum()),
        "truncated": tokens.truncated,
        "dtype": dtype,
        "device": whole.base.device.type,
        "versions": versions(),
    }
    return json.loads(json.dumps(head))


def laid_out(layout: Layout, calibration: Calibration) -> Manifest:
    """What the first rows fixed: rows a shard, widths, the median norms that attention sinks are judged by."""
    named = {place_name(place): width for (_, place), width in layout.widths.items()}
    medians = {place_name(place): norm for place, norm in calibration.medians.items()}
    return {"shard_rows": layout.shard_rows, "widths": named, "medians": medians, "median_rows": calibration.rows}


def read_layout(manifest: Manifest) -> tuple[Layout, Calibration]:
    """The layout and the calibration a manifest or a draft records."""
    places = manifest["layers"]
    widths = {place: manifest["widths"][place_name(place)] for place in places}
    medians = {place: manifest["medians"][place_name(place)] for place in places}
    streams = {(name, place): widths[place] for name in manifest["streams"] for place in places}
    return Layout(manifest["dtype"], manifest["shard_rows"], streams), Calibration(medians, widths, manifest["median_rows"])


def difference(found: Manifest, asked: Mapping[str, Any], *, also: tuple[str, ...] = ()) -> str | None:
    """The first field in which two stores are not of the same rows, with both values; None when there is none. Fields that `asked` lacks
    are not compared. also: further fields of the manifest that must agree."""
    one, two = (_compared(manifest, also) for manifest in (found, asked))
    for name in two:
        if one.get(name) != two[name]:
            return f"{name} {shown(one.get(name))} there, {shown(two[name])} asked for"
    return None


def identities(base: Model | None, tuned: Mapping[str, Model], sha256: str | None) -> Manifest:
    """The part of a manifest that says which models and texts."""
    known: dict = {}
    said: Manifest = {"tuned": {name: model.identity(known=known) for name, model in tuned.items()}}
    said |= {} if base is None else {"base": base.identity(known=known)}
    return json.loads(json.dumps(said | ({} if sha256 is None else {"texts": {"sha256": sha256}})))


def _compared(manifest: Mapping[str, Any], also: tuple[str, ...]) -> dict[str, Any]:
    models = {"base": manifest["base"]} if "base" in manifest else {}
    models |= {f"tuned {name}": identity for name, identity in manifest.get("tuned", {}).items()}
    fields = {f"{side}: {name}": value for side, model in models.items() for name, value in model.items() if name not in _NAMES}
    fields |= {"texts: sha256": manifest["texts"]["sha256"]} if "texts" in manifest else {}
    return fields | {name: manifest[name] for name in (*_READING, *also) if name in manifest}


def read_manifest(folder: Path) -> Manifest:
    """Raises FormatError when there is none, it cannot be read, or its schema is not the one this version reads."""
    path = folder / MANIFEST
    if not path.is_file():
        raise FormatError(f"no {MANIFEST} in '{folder}'; give the folder deltas were saved to")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"'{path}' cannot be read ({error}); the store is damaged, make it again") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        raise FormatError(f"'{path}' has schema {schema!r}; this version reads {SCHEMA!r}")
    return found


def check_room(folder: Path, layout: Layout, rows: int, *, done: int = 0) -> None:
    """Raises OutputError when the disk has no room for so many rows, of which `done` bytes are written already."""
    place = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    needed, free = layout.bytes_of(rows) - done, shutil.disk_usage(place).free
    if needed > free:
        raise OutputError(
            f"no room for the deltas in '{folder}': {layout.say(rows)}, {in_bytes(free)} are free; ask for fewer texts or layers, "
            "or dtype bfloat16, or name another folder"
        )


def in_bytes(count: int) -> str:
    """A number of bytes for people, in powers of a thousand."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"
