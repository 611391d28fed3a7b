"""The folder of a comparison of features: what is kept while it is made, and what it is when it is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunescope.activations.manifest import shown
from tunescope.comparison.features.payload import FILE, SCHEMA
from tunescope.errors import FormatError, OutputError, TunescopeError
from tunescope.folders import locked, writable_folder, write_whole
from tunescope.report import feature_page, features_report, page_name

ASKED, REPORT = "request.json", "report.html"


@dataclass(frozen=True)
class FeatureFolder:
    """`request.json` (what was asked), `deltas/` (the store), `training/` (checkpoints, gone at the end), `dictionaries/`,
    `features/` (each place's features, one by one), `features.json`
    and the pages."""

    path: Path
    resume: bool

    @classmethod
    def of(cls, folder: str | Path, *, resume: bool) -> FeatureFolder:
        """Raises OutputError unless it is absent or empty, or holds a comparison that is to be gone on with."""
        path = writable_folder(folder)
        names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
        if names and ASKED not in names:
            raise OutputError(f"'{folder}' holds something else ({', '.join(names[:3])}); name another folder with --out, or empty it")
        if names and not resume:
            left = "a finished comparison of features" if FILE in names else "an unfinished comparison of features"
            raise OutputError(f"'{folder}' holds {left}; go on with it (--resume), name another folder with --out, or remove it")
        return cls(path, resume)

    @property
    def deltas(self) -> Path:
        return self.path / "deltas"

    @property
    def features(self) -> Path:
        return self.path / "features"

    @property
    def training(self) -> Path:
        return self.path / "training"

    @contextmanager
    def held(self, asked: dict[str, Any]) -> Iterator[None]:
        """Against other processes, while what was asked is written down. Raises OutputError when something else was asked before, or
        another process is at it."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self.path, wait=False):
                self._agree(json.loads(json.dumps(asked)))
                with self._left_as_it_was():
                    yield
        except BlockingIOError as error:
            raise OutputError(f"another process is writing to '{self.path}'; wait for it, or name another folder with --out") from error

    @contextmanager
    def _left_as_it_was(self) -> Iterator[None]:
        """What is refused before anything was kept leaves no folder, so that the mended command is not told of an unfinished one."""
        try:
            yield
        except TunescopeError:
            if [entry.name for entry in self.path.iterdir()] == [ASKED]:
                shutil.rmtree(self.path)
            raise

    def finished(self) -> dict[str, Any] | None:
        """features.json, where it is there."""
        return read_features(self.path) if (self.path / FILE).is_file() else None

    def keep_features(self, place: dict[str, Any], features: dict[str, Any]) -> None:
        """The features of one place, as they are read one by one."""
        self.features.mkdir(exist_ok=True)
        write_whole(self._of(place), json.dumps(place | features, ensure_ascii=False, allow_nan=False))

    def finish(self, payload: dict[str, Any]) -> None:
        """The pages are written, then the result; checkpoints are no longer needed."""
        for row in payload["pages"]:
            place = row["layer"], row["name"]
            write_whole(self.path / page_name(place), feature_page(payload, place, json.loads(self._of(row).read_text(encoding="utf-8"))))
        write_whole(self.path / REPORT, features_report(payload))
        write_whole(self.path / FILE, json.dumps(payload, ensure_ascii=False, allow_nan=False, indent=1))
        shutil.rmtree(self.training, ignore_errors=True)

    def _of(self, place: dict[str, Any]) -> Path:
        return self.features / f"{place['name']}-layer-{place['layer']}.json"

    def _agree(self, asked: dict[str, Any]) -> None:
        place = self.path / ASKED
        if not place.is_file():
            write_whole(place, json.dumps(asked, ensure_ascii=False, indent=1))
            return
        found = json.loads(place.read_text(encoding="utf-8"))
        for name in found | asked:
            if found.get(name) != asked.get(name):
                raise OutputError(
                    f"'{self.path}' holds another comparison: {name} {shown(found.get(name))} there, {shown(asked.get(name))} asked for; "
                    "ask for the same, name another folder with --out, or remove it"
                )


def read_features(folder: str | Path) -> dict[str, Any]:
    """features.json of a folder. Raises FormatError for none, or a schema this version does not read."""
    place = Path(folder) / FILE
    try:
        payload = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"no {FILE} can be read in '{folder}' ({error}); give the folder of a finished comparison") from error
    if payload.get("schema") != SCHEMA:
        raise FormatError(f"'{place}' has schema {payload.get('schema')!r}; this version reads {SCHEMA!r}")
    return payload
