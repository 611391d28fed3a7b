"""manifest.json: what a capture on disk says of itself, and whether two of them are of the same thing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tunescope.errors import FormatError
from tunescope.identity import versions
from tunescope.models import Model
from tunescope.texts import Corpus

SCHEMA = "tunescope.capture/1"
MANIFEST = "manifest.json"
IDS, TOKENS, COUNTED = "ids.json", "tokens.npy", "counted.npy"
FREE = ("name", "revision")  # of the model: what it is called does not change its rows

Manifest = dict[str, Any]


def file_of(key: int | str) -> str:
    """The file that holds a layer's or a site's rows."""
    return f"layer_{key:02d}.npy" if isinstance(key, int) else f"{key}.npy"


def describe(model: Model, corpus: Corpus, reading: dict[str, Any]) -> Manifest:
    """The manifest as far as it is known before any text was read; the shapes and what was cut come when it is done."""
    texts = {"n": len(corpus), "sha256": corpus.sha256, "source": corpus.source, "sampled_from": corpus.sampled_from}
    head = {
        "schema": SCHEMA,
        "model": model.identity(),
        "model_warnings": model.warnings,
        "texts": texts | {"warnings": corpus.warnings},
        **reading,
        "dtype": "float32",
        "device": model.device.type,
        "versions": versions(),
    }
    return json.loads(json.dumps(head))


def difference(found: Manifest, asked: Manifest, *, also: tuple[str, ...] = ()) -> str | None:
    """The first field in which two captures are not of the same rows, with both values; None when there is none.

    also: further fields of the manifest that must agree.
    """
    one, two = (_compared(manifest, also) for manifest in (found, asked))
    for field in one | two:
        if one.get(field) != two.get(field):
            return f"{field} {shown(one.get(field))} there, {shown(two.get(field))} asked for"
    return None


def _compared(manifest: Manifest, also: tuple[str, ...]) -> dict[str, Any]:
    kept = ("pooling", "prompt", "max_length", "special_tokens", "layers", "sites", "batch_size", "device", *also)
    model = {f"model.{name}": value for name, value in manifest["model"].items() if name not in FREE}
    return model | {"texts.sha256": manifest["texts"]["sha256"]} | {field: manifest.get(field) for field in kept}


def shown(value: Any) -> str:
    """A value in a message: hashes and long values cut."""
    said = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else repr(value)
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:12]}…"
    return said if len(said) <= 60 else f"{said[:59]}…"


def is_capture(path: str | Path) -> bool:
    """Whether a folder holds a finished capture, of whatever version."""
    return _schema(Path(path) / MANIFEST).startswith("tunescope.capture/")


def read_manifest(folder: Path) -> Manifest:
    """Raises FormatError when there is none, or its schema is not the one this version reads."""
    path = folder / MANIFEST
    if not path.is_file():
        raise FormatError(f"no {MANIFEST} in '{folder}'; give the folder a capture was saved to")
    if (found := _schema(path)) != SCHEMA:
        raise FormatError(f"'{path}' has schema {found!r}; this version reads {SCHEMA!r}")
    return read_json(path)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"'{path}' cannot be read ({error}); the capture is damaged, make it again") from error


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all, and on the disk when this returns."""
    draft = path.with_name(f"{path.name}.part")
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _schema(path: Path) -> str:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(content.get("schema", "")) if isinstance(content, dict) else ""
