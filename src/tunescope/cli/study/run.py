"""tunescope study run PLAN --out DIR --workers 2"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from tunescope.cli.run import say

if TYPE_CHECKING:
    from tunescope.study.execute import Executor
    from tunescope.study.jobs import Job

_WHERE = "Where runs are made"
_ADDRESS = re.compile(r"local|auto|ray://.+|[\w.\[\]-]+:\d+")


class RunCommand(TyperCommand):
    """Takes --ray with or without an address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--ray" in args:
            after = args.index("--ray") + 1
            if not (after < len(args) and _ADDRESS.fullmatch(args[after])):
                args = [*args[:after], "", *args[after:]]
        return super().parse_args(ctx, args)


def run(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A plan.toml, or the name of a bundled plan.")],
    out: Annotated[
        str,
        typer.Option("--out", "-o", metavar="DIR", help="Folder of the study, or an fsspec URL. What is finished there is not done again."),
    ],
    workers: Annotated[
        int, typer.Option("--workers", min=1, rich_help_panel=_WHERE, help="Runs at once on this machine, each in a process of its own.")
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", metavar="[ADDRESS]", rich_help_panel=_WHERE, show_default=False,
            help="Make the runs on Ray: on the cluster at HOST:PORT; without an address on that of RAY_ADDRESS, or one of its own.",
        ),
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(
            "--cpus", min=1, rich_help_panel=_WHERE, show_default=False,
            help="Cores, and threads, of a run: the same number gives the same records. Default: all, shared by the workers; on Ray 1.",
        ),
    ] = None,
    gpus: Annotated[float, typer.Option("--gpus", min=0, rich_help_panel=_WHERE, help="On Ray: GPUs a run takes; .5 puts two on one.")] = 0,
    memory: Annotated[
        float | None, typer.Option("--memory", min=1, rich_help_panel=_WHERE, show_default=False, help="On Ray: MB of memory a run takes.")
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(
            "--scratch", metavar="DIR", rich_help_panel=_WHERE, show_default=False,
            help="Where runs work when --out is a URL; they are uploaded when finished. Default: a folder among the temporary files.",
        ),
    ] = None,
    retries: Annotated[int, typer.Option("--retries", min=0, help="Further attempts of a run that fails.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="CONDITION", show_default=False, help="Only this condition's runs and what they need. Repeatable."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the status at the end as JSON.")] = False,
) -> None:
    """Make the runs of a plan that are not finished yet, and collect their rows in DIR/ledger.

    Interrupted or killed, the same command goes on. A run that fails is tried again, then reported, and the others are finished; the exit
    status is then 1.
    """  # fmt: skip
    from tunescope.cli.study.live import shown, watched
    from tunescope.study.deviations import plan_changes
    from tunescope.study.execute import execute
    from tunescope.study.expand import expand
    from tunescope.study.folder import StudyFolder
    from tunescope.study.plan import read_plan
    from tunescope.study.registered import read_registration
    from tunescope.study.status import status
    from tunescope.study.work import check_pretraining, work

    read = read_plan(plan)
    specs = expand(read)
    executor = _executor(workers, ray, cpus, gpus, memory)
    folder = StudyFolder.at(out, scratch=scratch)
    check_pretraining(specs)
    if (sealed := read_registration(folder)) is not None:
        for line in plan_changes(sealed, read, specs):
            say(f"deviation  {line}")
    elif read.hypotheses and not folder.begun():
        say(f"note     nothing is registered in '{out}', so verdicts will be exploratory; tunescope study register seals a plan beforehand")
    try:
        # what libraries print while runs are made is no part of the answer
        with redirect_stdout(sys.stderr), watched(folder, show=not json) as announce:
            jobs = execute(
                read.name, specs, work, executor, out=out, retries=retries, conditions=only or (), scratch=scratch, announce=announce
            )
    except KeyboardInterrupt:
        kept = f"what is done is kept in '{out}', and the same command goes on"
        typer.secho(f"\ntunescope: interrupted; {kept}", err=True, fg=typer.colors.RED)
        sys.exit(130)
    if json:
        import json as formats

        typer.echo(formats.dumps(status(folder).describe(), ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(shown(status(folder)))
        typer.echo(f"rows     {out}/ledger.parquet")
        judged = "" if sealed is not None else f" --plan {plan}"
        verdict = f"tunescope study verdict {out}{judged}; " if read.hypotheses else ""
        typer.echo(f"next     {verdict}tunescope study report {out}")
    _end(jobs, out)


def _executor(workers: int, ray: str | None, cpus: int | None, gpus: float, memory: float | None) -> Executor:
    from tunescope.errors import InputError
    from tunescope.study.in_process import InProcess, Processes
    from tunescope.study.jobs import Resources

    resources = Resources(cpus, gpus, memory)
    if ray is None:
        idle = [name for name, value in (("--gpus", gpus), ("--memory", memory)) if value]
        if idle:
            raise InputError(f"{', '.join(idle)} asked for, which only Ray keeps account of; add --ray, or leave it out")
        return InProcess(resources) if workers == 1 else Processes(workers, resources)
    if workers != 1:
        raise InputError(f"--workers {workers} and --ray asked for; Ray makes as many runs at once as its nodes hold: leave one out")
    from tunescope.study.on_ray import OnRay

    executor = OnRay(ray or None, resources)
    if not executor.fits():
        say(f"no node of the cluster has {executor.asked} now; the runs wait for one")
    return executor


def _end(jobs: Collection[Job], out: str) -> None:
    """Of runs that failed one line that says what to do, and exit status 1."""
    from tunescope.study.folder import STATES
    from tunescope.study.jobs import FAILED

    if failed := sum(job.state == FAILED for job in jobs):
        what = f"where each was raised is in {out.rstrip('/')}/{STATES}; the same command tries them again"
        typer.secho(f"tunescope: {failed} of {len(jobs)} runs failed; {what}", err=True, fg=typer.colors.RED)
        raise typer.Exit(1)
