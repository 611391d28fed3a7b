"""The folder of a run: what lies where, which parts of it are whole, and what is read back from it.

    run.json            schema, spec and its hash, versions, checkpoints, whether it is finished
    losses.jsonl        a row a step of the optimizer: loss, learning rate, gradient norm, and what the objective says beside
    steps.jsonl         a row a step and group of tensors: how far it moved, relative to its size
    trajectory.jsonl    how far from the start the model was at the checkpoints, and its outcomes there
    checkpoints/step-N  models; step-0 is the start
    .resume/            the Trainer's last snapshot; gone when the run is finished
    base/               the base of an adapter that was given as an object, which no name leads to
    paired/             the run that τ was taken from, where it was made for this one
    and the final model itself, so that the folder can be given as TUNED
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunescope.errors import FormatError, InputError, OutputError
from tunescope.folders import writable_folder, write_whole

SCHEMA = "tunescope.run/1"
RUN, LOSSES, STEPS, TRAJECTORY, REPORT = "run.json", "losses.jsonl", "steps.jsonl", "trajectory.jsonl", "report.html"
CHECKPOINTS, CHECKPOINT, SNAPSHOTS = "checkpoints", "checkpoint.json", ".resume"
BASE = "base"  # a base that was given as an object, which an adapter must find again
PAIRED = "paired"  # the run that τ was taken from, where it was made for this one


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @classmethod
    def for_new(cls, folder: str | Path, *, resume: bool) -> RunFolder:
        """A folder in which a run may begin, or go on.

        Raises OutputError when it holds something else, or a run and `resume` is off; InputError when there is nothing to resume.
        """
        path = writable_folder(folder)
        there = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
        if there == [PAIRED]:
            if resume:
                return cls(path)
            raise OutputError(f"'{folder}' holds the beginning of a run; --resume goes on with it, or remove it")
        if resume and RUN not in there:
            raise InputError(f"'{folder}' holds no run to resume ({', '.join(there[:3]) or 'nothing is there'}); leave --resume out")
        if not resume and RUN in there:
            how = "it is finished: name another folder" if cls(path).record().get("finished") else "--resume goes on with it"
            raise OutputError(f"'{folder}' holds a run already; {how}, or remove it")
        if there and RUN not in there:
            raise OutputError(f"'{folder}' holds something else ({', '.join(there[:3])}); name another folder with --out, or empty it")
        return cls(path)

    @classmethod
    def of(cls, folder: str | Path) -> RunFolder:
        """The folder of a run that was written. Raises InputError when it holds none."""
        path = Path(folder)
        if not (path / RUN).is_file():
            raise InputError(f"'{folder}' holds no run ({RUN} is not there); give a folder that tunescope tune wrote")
        return cls(path)

    def record(self) -> dict[str, Any]:
        """What run.json says. Raises FormatError for another schema."""
        try:
            content = json.loads((self.path / RUN).read_text(encoding="utf-8"))
        except ValueError as error:
            raise FormatError(f"{self.path / RUN}: not JSON ({error}); the run cannot be read") from error
        if content.get("schema") != SCHEMA:
            raise FormatError(f"{self.path / RUN}: schema {content.get('schema')!r} found, this version reads {SCHEMA!r}")
        return content

    def write_record(self, content: Mapping[str, Any]) -> None:
        """Replace run.json, whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / RUN, json.dumps({"schema": SCHEMA, **content}, ensure_ascii=False, indent=1, allow_nan=False))

    def write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace a file of rows, whole or not at all."""
        write_whole(self.path / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a file; none when it is not there."""
        path = self.path / name
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []

    @contextmanager
    def kept_once_begun(self) -> Iterator[None]:
        """What a new run leaves that fails is taken away again, by the main process, unless a model was kept; the paired run stays."""
        there, done = self.path.is_dir(), False
        try:
            yield
            done = True
        except KeyboardInterrupt:  # which is gone on with
            done = True
            raise
        finally:
            if not done and self.path.is_dir() and not self.checkpoints() and os.environ.get("RANK", "0") == "0":
                for entry in self.path.iterdir():
                    if entry.name != PAIRED:
                        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                if not there and not any(self.path.iterdir()):
                    self.path.rmdir()

    @property
    def begun(self) -> bool:
        """Whether there is a run in it."""
        return (self.path / RUN).is_file()

    def checkpoints(self) -> list[dict[str, Any]]:
        """What the models that were kept say of themselves, by step."""
        found = [json.loads(file.read_text(encoding="utf-8")) for file in (self.path / CHECKPOINTS).glob(f"step-*/{CHECKPOINT}")]
        return sorted(found, key=lambda each: each["step"])

    def checkpoint(self, step: int) -> Path:
        """Where the model of a step is."""
        return self.path / CHECKPOINTS / f"step-{step}"

    @property
    def snapshots(self) -> Path:
        """Where the Trainer keeps what it goes on from."""
        return self.path / SNAPSHOTS

    def last_snapshot(self) -> Path | None:
        """The newest snapshot that is whole: the Trainer writes its state last."""
        found = [path for path in self.snapshots.glob("checkpoint-*") if _parses(path / "trainer_state.json")]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def clear_snapshots(self) -> None:
        """When the run is finished there is nothing to resume."""
        shutil.rmtree(self.snapshots, ignore_errors=True)


def has_ended(snapshot: Path) -> bool:
    """Whether the run that left this snapshot was through, or had been told to stop: then no step is to be made any more."""
    state = json.loads((snapshot / "trainer_state.json").read_text(encoding="utf-8"))
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {}).get("args", {})
    return state["global_step"] >= state["max_steps"] or bool(control.get("should_training_stop"))


def _parses(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
