"""A study's folder, a ledger, or a plan made into one page, and the payload it was made from beside it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import InputError, OutputError
from tunescope.study.reporting import study_payload
from tunescope.study.reporting.block_types import block_types

if TYPE_CHECKING:
    import pandas as pd

    from tunescope.study.folder import StudyFolder
    from tunescope.study.plan import Plan
    from tunescope.study.registered import Registration

PUBLISHED = "published"
PAGE = "report.html"
_LEDGERS = (".jsonl", ".parquet")


def report_study(given: str | Path, *, plan: str | Path | None = None, out: str | Path | None = None) -> Path:
    """Write the page of a study, and report.json beside it (named like the page); where the page is.

    Args:
        given: the folder of a study, finished or not; a file of rows; a plan, which has none yet; or "published", the printed tables.
        plan: as it is now, where it is at hand: what was changed since it was sealed is then told.
        out: default report.html in the folder of the study, else in the current folder.

    Raises: InputError where nothing of this is there, OutputError where the page cannot be written, FormatError for files that were
    changed, and as `read_ledger`.
    """
    from tunescope.report import study_report

    payload = reported(given, plan=plan)
    page = _place(given, out)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.with_suffix(".json").write_text(json.dumps(payload, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        page.write_text(study_report(payload), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {page}: {error.strerror or error}; give another place with --out") from error
    return page


def reported(given: str | Path, *, plan: str | Path | None = None) -> dict[str, Any]:
    """The payload of `report_study`. Raises as it does, but for OutputError."""
    if str(given) == PUBLISHED:
        from tunescope.study.published import published_rows

        return study_payload(published_rows(), name="published tables") | {"source": "the bundled tables"}
    if _is_plan(given):
        return _planned(given)
    if str(given).endswith(_LEDGERS):
        from tunescope.study.ledger import read_ledger

        return study_payload(read_ledger(given)) | {"source": str(given)}
    return _of_folder(given, plan)


def _is_plan(given: str | Path) -> bool:
    from tunescope.study.plan import BUNDLED

    return str(given).endswith(".toml") or (str(given) in BUNDLED and not Path(given).exists())


def _place(given: str | Path, out: str | Path | None) -> Path:
    if out is not None:
        page = Path(out)
        if page.is_dir():
            page /= PAGE
        if page.suffix not in (".html", ".htm"):
            raise InputError(f"--out {out} asked for; give a page, such as {page.with_suffix('.html')}, or a folder that is there")
        return page
    return Path(given) / PAGE if Path(given).is_dir() else Path(PAGE)


def _of_folder(given: str | Path, plan: str | Path | None) -> dict[str, Any]:
    """Rows, states, and what was registered."""
    from tunescope.study.folder import StudyFolder
    from tunescope.study.judged import judge
    from tunescope.study.ledger import read_ledger
    from tunescope.study.names import renamed
    from tunescope.study.plan import read_plan
    from tunescope.study.registered import read_registration

    folder = StudyFolder.at(given)
    record, sealed = folder.record(missing_ok=True), read_registration(folder)
    now = None if plan is None else read_plan(plan)
    held = _no_rows() if record is None and sealed is not None else read_ledger(given)
    runs = _runs_of(sealed, now, record)
    rows = renamed(held, runs) if runs else held
    judged = judge(given, plan) if (sealed is not None or now is not None) and record is not None else None
    return study_payload(
        rows,
        name=_name(record, sealed),
        runs=_states_of(runs, folder, record, held),
        left_out=held["run"].nunique() - rows["run"].nunique(),
        plan=_about(sealed, now),
        verdicts=[] if judged is None else [each.describe() for each in judged.verdicts],
        deviations=None if judged is None else judged.deviations,
        blocks=block_types(_models(sealed, now, record)),
        sealed=None if sealed is None else {"sealed": sealed.sealed, "hash": sealed.hash, "warnings": list(sealed.warnings)},
    ) | {"source": str(given)}


def _runs_of(sealed: Registration | None, now: Plan | None, record: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The runs that are reported, by hash with their specs: those registered, else of the plan at hand, else of the plan that ran last."""
    from tunescope.study.judged import specs_of

    if sealed is not None:
        return {hash: run["spec"] for hash, run in sealed.runs.items()}
    if now is not None and (specs := specs_of(now)):
        return {spec.hash: spec.describe() for spec in specs}
    return {} if record is None else {run["run"]: run["spec"] for run in record["runs"] if "spec" in run}


def _planned(given: str | Path) -> dict[str, Any]:
    """A plan of which nothing ran: its runs, and its hypotheses, none of which can be judged."""
    from tunescope.study.expand import expand
    from tunescope.study.jobs import run_name
    from tunescope.study.local_content import LocalContent
    from tunescope.study.plan import read_plan
    from tunescope.study.verdicts import verdicts

    plan, rows = read_plan(given), _no_rows()
    specs = expand(plan, content=LocalContent(plan.folder, lenient=True))
    runs = [{"name": run_name(spec), "state": "queued"} for spec in specs]
    found = [each.describe() for each in verdicts(plan.hypotheses, rows)]
    return study_payload(rows, name=plan.name, runs=runs, plan=_about(None, plan), verdicts=found) | {"source": str(given)}


def _no_rows() -> Any:
    from tunescope.study.ledger import frame

    return frame(())


def _name(record: Mapping[str, Any] | None, sealed: Registration | None) -> str | None:
    return record["study"] if record is not None else sealed.study if sealed is not None else None


def _states(folder: StudyFolder) -> list[dict[str, Any]]:
    from tunescope.study.status import status

    return status(folder).describe()["runs"]


def _states_of(
    runs: Mapping[str, Mapping[str, Any]], folder: StudyFolder, record: Mapping[str, Any] | None, rows: pd.DataFrame
) -> list[dict[str, Any]]:
    """How far the runs are, as the folder tells; where it tells of others, which plan ran last, by their rows alone."""
    if record is not None and (not runs or runs.keys() == {run["run"] for run in record["runs"]}):
        return _states(folder)
    done = set(rows["run"])
    return [
        {"name": f"{spec['condition']} {spec['model']['name']} seed {spec['seed']}", "state": "done" if hash in done else "queued"}
        for hash, spec in runs.items()
    ]


def _about(sealed: Registration | None, now: Plan | None) -> dict[str, Any] | None:
    """The plan's name, what it asks, and its hash: of the sealed one, else of the one at hand."""
    text = sealed.plan if sealed is not None else now.text if now is not None else None
    if text is None:
        return None
    told = tomllib.loads(text)
    return {"name": told.get("name"), "about": told.get("about"), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _models(sealed: Registration | None, now: Plan | None, record: Mapping[str, Any] | None) -> Iterable[Mapping[str, Any]]:
    """As their runs describe them: of those that ran, else of those that were sealed, else of the plan at hand."""
    runs = record["runs"] if record is not None else [] if sealed is None else sealed.runs.values()
    told = [run["spec"]["model"] for run in runs if "spec" in run]
    return told or ([] if now is None else [asdict(model) for model in now.models.values()])
