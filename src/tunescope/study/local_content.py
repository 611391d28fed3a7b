"""What lies at a plan's local places, hashed, so that changed data are another run and the same data elsewhere the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path

from tunescope.errors import InputError
from tunescope.study.embedded import PACKAGE, PLACES, embedded_sha256, packaged_model
from tunescope.study.possible import local_folder
from tunescope.study.run_spec import Model, Source
from tunescope.texts.hub import PREFIX

_WEIGHTS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken")


@dataclass
class LocalContent:
    """Sources and models with the hash of what is there, each read once.

    folder: that relative places are relative to. lenient: a file that is not there is noted in `missing` instead of refused, and nothing
    is hashed.
    """

    folder: Path
    lenient: bool = False
    missing: dict[str, str] = field(default_factory=dict)  # place -> what names it
    _hashes: dict[tuple[str, str], str] = field(default_factory=dict)

    def source(self, source: Source | None, use: str) -> Source | None:
        """use: texts, pairs or retrieval. Raises InputError where there is nothing."""
        if source is None or source.place.startswith(PREFIX):
            return source
        if source.place in PLACES:
            return source if self.lenient else replace(source, sha256=embedded_sha256(source.place, use))
        path, split = self._path(source.place, use)
        if not path.exists():
            self._miss(source.place, f"sources.{source.name}", use)
            return source
        place = f"{path.absolute()}{split}"
        if self.lenient:
            return replace(source, place=place)
        found = self._hash(path, "*")
        return replace(source, place=place, sha256=hashlib.sha256(f"{found}{split}".encode()).hexdigest() if split else found)

    def model(self, model: Model) -> Model:
        """A folder's weights hashed; what a hub holds is named by its revision."""
        if model.pretrain is not None:
            texts = self.source(model.pretrain.texts, "texts")
            assert texts is not None
            return replace(model, pretrain=replace(model.pretrain, texts=texts))
        if model.place.startswith(PACKAGE):
            return model if self.lenient else replace(model, sha256=self._hash(Path(packaged_model(model.place)), *_WEIGHTS))
        path = local_folder(model.place, self.folder)
        if not path.is_dir():
            return model
        placed = replace(model, place=str(path.absolute()))
        return placed if self.lenient else replace(placed, sha256=self._hash(path, *_WEIGHTS))

    def dictionary(self, place: str, *, where: str) -> dict[str, str]:
        """The place of a dictionary of features, with the hash of what lies there, as an option of a measurement.

        Raises InputError where there is nothing.
        """
        path = local_folder(place, self.folder)
        if not path.exists():
            self._miss(place, where, "dictionary")
            return {"place": place}
        found = {"place": str(path.absolute())}
        beside = ("*",) if path.is_dir() else (escape(path.name), "*.json")  # a file's settings lie beside it
        return found if self.lenient else found | {"sha256": self._hash(path if path.is_dir() else path.parent, *beside)}

    def _path(self, place: str, use: str) -> tuple[Path, str]:
        """The file or folder, and the ":split" of a retrieval collection."""
        path = local_folder(place, self.folder)
        if use == "retrieval" and not path.exists() and ":" in place:
            place, _, split = place.rpartition(":")
            return local_folder(place, self.folder), f":{split}"
        return path, ""

    def _miss(self, place: str, name: str, use: str) -> None:
        if not self.lenient:
            kind = {"retrieval": "folder in the BEIR layout", "dictionary": "dictionary"}.get(use, "file")
            raise InputError(f"{name}: no such {kind} '{place}' (from {self.folder.absolute()}); put it there, or change its place")
        self.missing.setdefault(place, name)

    def _hash(self, path: Path, *patterns: str) -> str:
        key = (str(path), "|".join(patterns))
        if key not in self._hashes:
            self._hashes[key] = _sha256(path, patterns)
        return self._hashes[key]


def _sha256(path: Path, patterns: tuple[str, ...]) -> str:
    """Of a file, or of the files of a folder with their names."""
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    found = {each for pattern in patterns for each in path.rglob(pattern) if each.is_file()}
    for each in sorted(found, key=lambda one: one.relative_to(path).as_posix()):
        with open(each, "rb") as file:
            digest.update(f"{each.relative_to(path).as_posix()}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
