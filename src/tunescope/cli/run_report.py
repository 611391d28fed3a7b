"""The page of a finished run, written beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path


def write_run_report(out: Path) -> Path:
    """report.html in the folder of a run, whole or not at all, from what lies there. Raises InputError, FormatError."""
    from tunescope.comparison.findings import describe
    from tunescope.geometry import MEASURES
    from tunescope.report import run_report
    from tunescope.training.run.folder import LOSSES, REPORT, STEPS, TRAJECTORY, RunFolder, write_whole

    folder = RunFolder.of(out)
    rows = folder.rows(TRAJECTORY)
    known = dict.fromkeys(row["measure"] for row in rows if row["kind"] == "geometry")
    page = run_report(
        {
            "record": folder.record(),
            "losses": folder.rows(LOSSES),
            "steps": folder.rows(STEPS),
            "trajectory": rows,
            "measures": {name: describe(MEASURES[name]) for name in known if name in MEASURES},
            "name": out.resolve().name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    write_whole(out / REPORT, page)
    return out / REPORT
