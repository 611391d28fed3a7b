"""A study's folder judged: the registration, the deviations from it, and the verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunescope.errors import InputError
from tunescope.study.alternatives import warnings_of
from tunescope.study.deviations import begun_before, deviations
from tunescope.study.expand import expand
from tunescope.study.folder import StudyFolder
from tunescope.study.ledger import read_ledger
from tunescope.study.local_content import LocalContent
from tunescope.study.names import renamed
from tunescope.study.plan import Plan, read_plan
from tunescope.study.registered import read_registration, registered_rows
from tunescope.study.run_spec import RunSpec
from tunescope.study.verdicts import Verdict, verdicts


@dataclass(frozen=True)
class Judged:
    """sealed, hash: of the registration; None without one. deviations come before verdicts wherever they are shown."""

    study: str
    sealed: str | None
    hash: str | None
    deviations: tuple[str, ...]
    notes: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "study": self.study, "sealed": self.sealed, "hash": self.hash, "deviations": list(self.deviations), "notes": list(self.notes),
            "verdicts": [each.describe() for each in self.verdicts],
        }  # fmt: skip


def judge(path: str | Path, plan: str | Path | None = None) -> Judged:
    """Judge what is in a study's folder. plan: as it is now; what is judged is what was sealed, or the plan where nothing was.

    Raises: InputError (neither a registration nor a plan), OutputError (no study), FormatError (a registration that was changed), and as
    `read_ledger`.
    """
    if Path(path).is_file():
        raise InputError(f"'{path}' is a file of rows, and verdicts are of a study's folder; tunescope study report reads files of rows")
    folder = StudyFolder.at(path)
    sealed = read_registration(folder)
    now = None if plan is None else read_plan(plan)
    if sealed is None and now is None:
        if not folder.finished():
            folder.record()  # a folder that is no study's is said to be none
        raise InputError(f"nothing was registered in '{path}'; give the plan to be judged with --plan, its verdicts are exploratory then")
    specs = () if now is None else specs_of(now)
    rows = read_ledger(path)
    departed = (*deviations(sealed, rows, plan=now, specs=specs), *begun_before(sealed, folder))
    if sealed is None:
        assert now is not None
        own = renamed(rows, {spec.hash: spec.describe() for spec in specs}) if specs else rows
        return Judged(now.name, None, None, departed, warnings_of(now.hypotheses), verdicts(now.hypotheses, own))
    found = verdicts(sealed.hypotheses, registered_rows(sealed, rows), planned=sealed.planned())
    return Judged(sealed.study, sealed.sealed, sealed.hash, departed, sealed.warnings, found)


def specs_of(plan: Plan) -> tuple[RunSpec, ...]:
    """Its runs; none where a data file is gone, since they cannot be compared with the sealed ones then."""
    lenient = LocalContent(plan.folder, lenient=True)
    expand(plan, content=lenient)
    return () if lenient.missing else expand(plan)
