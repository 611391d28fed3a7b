"""tunescope study verdict DIR"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunescope.cli.run import tell

if TYPE_CHECKING:
    from tunescope.study.verdicts import Verdict


def verdict(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a study, as given to tunescope study run --out.")],
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan", metavar="PLAN", show_default=False,
            help="The plan as it is now: what was changed since it was sealed is told. Without a registration, the plan that is judged.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Judge the hypotheses that were registered by the rows of the ledger: supported, falsified, invalid window or not evaluable.

    How what ran departs from what was registered is printed first. The exit status is 0 whatever the verdicts are.
    """
    from tunescope.study.judged import judge

    found = judge(folder, plan)
    if json:
        import json as format_json

        typer.echo(format_json.dumps(found.describe(), ensure_ascii=False, allow_nan=False))
        return
    sealed = f", sealed at {found.sealed} ({found.hash[:12]})" if found.sealed and found.hash else ""
    typer.echo(f"study      {found.study}{sealed}")
    for line in found.deviations or ("none: what ran is what was registered",):
        tell(f"deviation  {line}", label=11)
    for line in found.notes:
        tell(f"note       {line}", label=11)
    for each in found.verdicts:
        typer.echo(_line(each))
        tell(f"           {each.says}", label=11)
        tell(f"           {each.why}; predicted: {each.predicted}", label=11)
    if not found.verdicts:
        typer.echo("verdicts   none: no hypothesis was stated")


def _line(each: Verdict) -> Any:
    return f"{each.state.upper():<15}{each.name}"
