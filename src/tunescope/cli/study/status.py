"""tunescope study status DIR"""

from __future__ import annotations

import time
from typing import Annotated

import typer


def status(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a study, as given to tunescope study run --out.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing it until nothing runs any more.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON: every run with its state, step, time and errors.")] = False,
) -> None:
    """Tell how far a study is, from its files alone: what is queued, running with step and time left, done, and failed with the reason.

    The exit status is 1 when a run failed.
    """
    from tunescope.cli.study.live import live, shown
    from tunescope.study.folder import StudyFolder
    from tunescope.study.jobs import FAILED
    from tunescope.study.status import status as read

    study = StudyFolder.at(folder)
    now = read(study)
    if follow and not json:
        with live(study):
            while now.driver is not None:
                time.sleep(1)
                now = read(study)
    if json:
        import json as formats

        typer.echo(formats.dumps(now.describe(), ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(shown(now))
    if now.of(FAILED):
        raise typer.Exit(1)
