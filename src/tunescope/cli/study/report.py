"""tunescope study report DIR"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    given: Annotated[
        str,
        typer.Argument(
            metavar="DIR|PLAN",
            help="Folder of a study, as given to tunescope study run --out, finished or not. Or a .jsonl or .parquet file of rows; a "
            "plan, of which nothing ran yet; or published: the printed tables.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="PAGE", show_default=False, help="Default: report.html in the folder of the study, else here."),
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan", metavar="PLAN", show_default=False, help="The plan as it is now: what was changed since it was sealed is told."
        ),
    ] = None,
) -> None:
    """Write one self-contained page of a study: verdicts and deviations, every analysis of its ledger, and its place among published runs.

    What it was made from is written beside it as JSON.
    """
    from tunescope.study.reported import report_study

    typer.echo(f"report   {report_study(given, plan=plan, out=out)}")
