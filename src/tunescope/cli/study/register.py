"""tunescope study register PLAN --out DIR"""

from __future__ import annotations

from typing import Annotated

import typer

from tunescope.cli.run import tell


def register(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A plan.toml, or the name of a bundled plan.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the study, where nothing ran yet, or an fsspec URL.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Seal a plan, its runs and its hypotheses by hash and time, before the first run.

    Hypotheses of one set that overlap or leave gaps are named. Refused once a run has begun in DIR, and for a folder that is sealed.
    """
    from tunescope.report.study_names import counted
    from tunescope.study.expand import expand
    from tunescope.study.folder import StudyFolder
    from tunescope.study.plan import read_plan
    from tunescope.study.registered import register as seal
    from tunescope.study.work import check_pretraining

    read = read_plan(plan)
    specs = expand(read)
    check_pretraining(specs)
    found = seal(read, specs, StudyFolder.at(out))
    if json:
        import json as format_json

        typer.echo(format_json.dumps({**found.describe(), "hash": found.hash}, ensure_ascii=False, allow_nan=False))
        return
    stated = counted(len(found.hypotheses), "hypothesis", "hypotheses")
    typer.echo(f"sealed   {found.study}: {counted(len(found.runs), 'run')}, {stated}, at {found.sealed}")
    typer.echo(f"hash     {found.hash}")
    typer.echo("         publish it: whoever has it can tell that the file was not changed later")
    if not found.hypotheses:
        typer.echo("note     the plan states no hypothesis; only the runs are sealed")
    for line in found.warnings:
        tell(f"note     {line}", label=9)
    typer.echo(f"next     tunescope study run {plan} --out {out}")
