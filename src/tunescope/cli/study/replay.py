"""tunescope study replay [--tables DIR]"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def replay(
    tables: Annotated[
        Path | None,
        typer.Option(
            "--tables",
            metavar="DIR",
            show_default=False,
            help="Folder of the same CSV files with other numbers. Default: the bundled ones, as printed.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead, with the figures not rounded.")] = False,
) -> None:
    """Recompute what three published studies claim of their tables: claim, recomputed, paper, agrees or not, and what differs.

    Exits with status 0 whatever it finds: that a printed claim does not hold is a result. A table that cannot be read is an error.
    """
    from tunescope.study.replay import replay as recompute

    found = recompute(tables)
    if json:
        import json as format_json

        typer.echo(format_json.dumps(found.describe(), ensure_ascii=False, allow_nan=False))
    else:
        found.show()
