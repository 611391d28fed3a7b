"""The folder of a study: what lies where, which runs are finished, and what is known of the others.

    plan.toml, registration.json     what was planned, and sealed before the first run
    study.json                       the runs by hash and name, what they need and their whole specs
    ledger/<run>.jsonl               the rows of a finished run; it is finished when this is there
    states/<run>.json                how far a run is, its errors, its time
    runs/<run>/                      the run's own folder: its models and what it goes on from
    driver.json, driver.lock         who is running the study at this moment
    ledger.parquet                   all rows once more, made anew whenever `tunescope study run` ends

On a disk, also one that several hosts share, runs work in runs/<run>. Behind another fsspec URL they work in a scratch folder of the host
and are uploaded when finished, so that a killed run goes on where it was only on the same host; its rows are as whole as on a disk.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunescope.errors import FormatError, OutputError
from tunescope.folders import writable_folder
from tunescope.identity import spec_hash
from tunescope.study.jobs import Job
from tunescope.study.ledger import LEDGER
from tunescope.study.places import Place, place

SCHEMA = "tunescope.study/1"
STUDY, STATES, RUNS, PARQUET = "study.json", "states", "runs", "ledger.parquet"
PLAN, REGISTRATION = "plan.toml", "registration.json"


@dataclass(frozen=True)
class StudyFolder:
    """A path or fsspec URL. scratch: where runs work when it is not on a disk; default: a folder in the system's for temporary files."""

    place: Place
    scratch: str | None = None

    @classmethod
    def at(cls, path: str | Path, *, scratch: str | Path | None = None) -> StudyFolder:
        return cls(place(path), None if scratch is None else str(Path(scratch).absolute()))

    @property
    def url(self) -> str:
        return self.place.url

    def open(self, study: str, jobs: Iterable[Job]) -> None:
        """Make the folders, and say which runs the study has. Raises OutputError where another study, or something else, is in the way."""
        if self.place.local is not None:
            writable_folder(self.place.local)
        there = self.record(missing_ok=True)
        if there is not None and there["study"] != study:
            raise OutputError(f"'{self.url}' holds the study '{there['study']}', not '{study}'; name another folder with --out")
        for name in (LEDGER, STATES, RUNS):
            (self.place / name).make_folder()
        listed = [
            {"run": job.run, "condition": job.spec.condition, "model": job.spec.model.name, "seed": job.spec.seed, "kind": job.spec.kind,
             "needs": list(job.spec.needs), "spec": job.spec.describe()}
            for job in jobs
        ]  # fmt: skip
        self._write_json(STUDY, {"schema": SCHEMA, "study": study, "runs": listed})

    def record(self, *, missing_ok: bool = False) -> dict[str, Any] | None:
        """What study.json says. Raises OutputError when it is not there, FormatError for another schema."""
        content = self._read_json(STUDY)
        if content is None:
            if missing_ok:
                return None
            if (self.place / REGISTRATION).read() is not None:
                raise OutputError(f"'{self.url}' is registered and nothing of it ran yet; begin with tunescope study run")
            raise OutputError(f"'{self.url}' holds no study ({STUDY} is not there); give the folder that tunescope study run writes to")
        if content.get("schema") != SCHEMA:
            raise FormatError(f"{self.url}/{STUDY}: schema {content.get('schema')!r} found, this version reads {SCHEMA!r}")
        return content

    def rows_of(self, run: str) -> Place:
        """The file of a run's rows."""
        return self.place / LEDGER / f"{run}.jsonl"

    def finished(self) -> dict[str, int]:
        """Runs whose rows are there, with their bytes."""
        sizes = (self.place / LEDGER).sizes()
        return {name.removesuffix(".jsonl"): size for name, size in sizes.items() if name.endswith(".jsonl")}

    def mend(self) -> list[str]:
        """Take away rows that a copy has cut short or a disk has changed, so that their runs are done again; returns those runs."""
        broken = [run for run in self.finished() if not _whole(self.rows_of(run).read() or b"", self.state(run) or {})]
        for run in broken:
            self.rows_of(run).remove()
        return broken

    def state(self, run: str) -> dict[str, Any] | None:
        """What was last told of a run."""
        return self._read_json(f"{STATES}/{run}.json")

    def write_state(self, run: str, content: dict[str, Any]) -> None:
        self._write_json(f"{STATES}/{run}.json", {**content, "told": time.time()})

    def begun(self) -> set[str]:
        """Runs of which something was told."""
        return {name.removesuffix(".json") for name in (self.place / STATES).sizes() if name.endswith(".json")}

    def working(self, run: str) -> Path:
        """Where the run works, on this host."""
        local = self.place.local
        base = local / RUNS if local is not None else self._scratch() / RUNS
        return base / run

    def bring(self, run: str, needs: Iterable[str]) -> Path:
        """The run's working folder, made; those of the runs it needs are beside it."""
        folder = self.working(run)
        folder.mkdir(parents=True, exist_ok=True)
        if self.place.local is None:
            for need in needs:
                if not self.working(need).exists():
                    draft = self.working(f".{need}.part")
                    shutil.rmtree(draft, ignore_errors=True)
                    (self.place / RUNS / need).fetch(draft)
                    draft.rename(self.working(need))
        return folder

    def keep(self, run: str) -> None:
        """Upload the finished run's folder, where it is not in place already."""
        if self.place.local is None and any(self.working(run).iterdir()):
            (self.place / RUNS / run).put(self.working(run))

    def _scratch(self) -> Path:
        base = Path(self.scratch) if self.scratch else Path(tempfile.gettempdir())
        return base / f"tunescope-study-{spec_hash({'url': self.url})[:12]}"

    def _read_json(self, name: str) -> dict[str, Any] | None:
        content = (self.place / name).read()
        if content is None:
            return None
        todo = "remove it, and the study goes on from its ledger"
        try:
            read = json.loads(content)
        except ValueError as error:
            raise FormatError(f"{self.url}/{name}: not JSON ({error}); {todo}") from error
        if not isinstance(read, dict):
            raise FormatError(f"{self.url}/{name}: not a JSON object but {type(read).__name__}; {todo}")
        return read

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        (self.place / name).write(json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False).encode(errors="backslashreplace"))


def _whole(rows: bytes, told: dict[str, Any]) -> bool:
    """Whether the rows are those that were written; where no hash was told of them, whether there are as many."""
    if "sha256" in told:
        return hashlib.sha256(rows).hexdigest() == told["sha256"]
    return rows.endswith(b"\n") and rows.count(b"\n") >= told.get("rows", 1)
