"""The page of a finished run, written beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tunescope.comparison.findings import describe
from tunescope.folders import write_whole
from tunescope.geometry import MEASURES
from tunescope.report import run_report as render
from tunescope.training.run.folder import LOSSES, REPORT, STEPS, TRAJECTORY, RunFolder


def run_report(folder: str | Path) -> Path:
    """Write report.html into the folder of a run, whole or not at all, from what lies there; `tunescope tune` does so at its end.

    Raises: InputError (no run there), FormatError.
    """
    run = RunFolder.of(folder)
    rows = run.rows(TRAJECTORY)
    known = dict.fromkeys(row["measure"] for row in rows if row["kind"] == "geometry")
    page = render(
        {
            "record": run.record(),
            "losses": run.rows(LOSSES),
            "steps": run.rows(STEPS),
            "trajectory": rows,
            "measures": {name: describe(MEASURES[name]) for name in known if name in MEASURES},
            "name": run.path.resolve().name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    write_whole(run.path / REPORT, page)
    return run.path / REPORT
