"""A plan sealed before its first run: what was planned and expected, hashed with the time; and how what ran departs from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tunescope.errors import FormatError, OutputError
from tunescope.folders import writable_folder
from tunescope.identity import spec_hash, versions
from tunescope.study.alternatives import warnings_of
from tunescope.study.folder import PLAN, REGISTRATION, StudyFolder
from tunescope.study.hypotheses import Hypothesis, Selection, hypothesis_of
from tunescope.study.names import renamed
from tunescope.study.plan import Plan
from tunescope.study.recorded import data_of, records, update_of
from tunescope.study.run_spec import RunSpec, spec_of

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "tunescope.registration/1"


@dataclass(frozen=True)
class Registration:
    """sealed: the time, UTC. hash: of everything here, the time too; publish it, and nobody can say the file was changed later.

    runs: by hash: condition, model, seed, kind and the whole spec. warnings: what was said of the hypotheses when they were sealed.
    """

    study: str
    sealed: str
    plan: str
    runs: Mapping[str, Mapping[str, Any]]
    hypotheses: tuple[Hypothesis, ...]
    warnings: tuple[str, ...]
    versions: Mapping[str, str]

    def describe(self) -> dict[str, Any]:
        """JSON-able, without the hash."""
        return {
            "schema": SCHEMA, "study": self.study, "sealed": self.sealed, "plan": self.plan, "runs": dict(self.runs),
            "hypotheses": [each.describe() for each in self.hypotheses], "warnings": list(self.warnings), "versions": dict(self.versions),
        }  # fmt: skip

    @property
    def hash(self) -> str:
        """sha256 of `describe`."""
        return spec_hash(_as_read(self.describe()))

    def planned(self) -> dict[Selection, dict[str, str]]:
        """Of which runs every selection of a hypothesis must have a number, by hash and name: what `verdicts` takes."""
        axes = ("model", "condition", "objective", "update", "data")
        specs = {hash: spec_of(run["spec"]) for hash, run in self.runs.items()}
        return {
            selection: {
                hash: f"{run['condition']} of {run['model']} seed {run['seed']}" for hash, run in self.runs.items()
                if all(getattr(selection, axis) in (None, run[axis]) for axis in axes) and records(selection, specs[hash])
            }
            for hypothesis in self.hypotheses for selection in hypothesis.selections
        }  # fmt: skip


def register(plan: Plan, specs: Iterable[RunSpec], folder: StudyFolder, *, now: datetime | None = None) -> Registration:
    """Seal a plan in the folder of its study: plan.toml, registration.json.

    Refused once a run has begun there: what is stated after the first number is no prediction. now: the time, for tests.

    Raises: OutputError (runs have begun; sealed already; the folder holds something else).
    """
    if folder.place.local is not None:
        writable_folder(folder.place.local)
    there = read_registration(folder)
    if there is not None:
        raise OutputError(
            f"'{folder.url}' was sealed at {there.sealed} ({there.hash[:12]}); a plan is sealed once: changes are reported by "
            "tunescope study verdict, and another study takes another folder"
        )
    begun = len(folder.begun() | folder.finished().keys())
    if begun:
        runs = "a run has" if begun == 1 else f"{begun} runs have"
        raise OutputError(
            f"{runs} begun in '{folder.url}', so this would be no registration: what is stated after the first number is no prediction; "
            "seal the plan in a new folder and run it there, or go on without (verdicts are then called exploratory)"
        )
    sealed = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    found = Registration(
        plan.name, sealed, plan.text, {spec.hash: _told(spec) for spec in specs}, plan.hypotheses, warnings_of(plan.hypotheses), versions()
    )
    folder.place.make_folder()
    (folder.place / PLAN).write(plan.text.encode())
    content = {**found.describe(), "hash": found.hash}
    (folder.place / REGISTRATION).write(json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False).encode())
    return found


def read_registration(folder: StudyFolder) -> Registration | None:
    """What was sealed there; None where nothing was.

    Raises: FormatError for another schema, or a file that was changed after it was sealed.
    """
    content = (folder.place / REGISTRATION).read()
    if content is None:
        return None
    name = f"{folder.url}/{REGISTRATION}"
    try:
        read = json.loads(content)
    except ValueError as error:
        raise FormatError(f"{name}: not JSON ({error}); put the sealed file back") from error
    if read.get("schema") != SCHEMA:
        raise FormatError(f"{name}: schema {read.get('schema')!r} found, this version reads {SCHEMA!r}")
    sealed = read.pop("hash", None)
    if spec_hash(read) != sealed:
        when = f"{read.get('sealed')} ({str(sealed)[:12]})"
        raise FormatError(f"{name}: it was changed after it was sealed at {when}; put the sealed file back")
    hypotheses = tuple(hypothesis_of(each) for each in read["hypotheses"])
    return Registration(
        read["study"], read["sealed"], read["plan"], read["runs"], hypotheses, tuple(read["warnings"]), read["versions"]
    )


def registered_rows(registration: Registration, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs that were registered, under the names they were registered by: what verdicts are read from."""
    return renamed(rows, {hash: run["spec"] for hash, run in registration.runs.items()})


def _told(spec: RunSpec) -> dict[str, Any]:
    objective = None if spec.objective is None else spec.objective.name
    named = {"condition": spec.condition, "model": spec.model.name, "seed": spec.seed, "kind": spec.kind}
    return _as_read({**named, "objective": objective, "update": update_of(spec), "data": data_of(spec), "spec": spec.describe()})


def _as_read(content: Any) -> Any:
    """As JSON gives it back: tuples are lists, keys are text."""
    return json.loads(json.dumps(content, ensure_ascii=False))
