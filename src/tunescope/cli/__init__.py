"""The command line: one file per command, each of which parses, calls and prints. Importing this does not import torch."""

from __future__ import annotations

import sys

import typer

from tunescope.cli.capture import capture
from tunescope.cli.demo import demo
from tunescope.cli.diff import diff
from tunescope.cli.distance import distance
from tunescope.cli.doctor import doctor
from tunescope.cli.features import features
from tunescope.cli.perturb import perturb
from tunescope.cli.power import power
from tunescope.cli.probe_audit import probe_audit
from tunescope.cli.study import study
from tunescope.cli.tune import tune
from tunescope.version import __version__

app = typer.Typer(
    name="tunescope",
    help="What did fine-tuning do to this model? Where it changed and by how much against chance.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(no_args_is_help=True)(diff)
app.command(no_args_is_help=True)(capture)
app.command(no_args_is_help=True)(tune)
app.command(no_args_is_help=True)(perturb)
app.command(no_args_is_help=True)(distance)
app.command(no_args_is_help=True)(features)
app.command(no_args_is_help=True)(power)
app.command("probe-audit", no_args_is_help=True)(probe_audit)
app.command(no_args_is_help=True)(doctor)
app.command()(demo)
app.add_typer(study)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tunescope {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit."),
) -> None:
    """What did fine-tuning do to this model? Where it changed and by how much against chance."""


def main() -> None:
    """Run the command line; errors of ours are one line on stderr and status 2."""
    from tunescope.errors import TunescopeError

    try:
        app()
    except KeyboardInterrupt:
        typer.secho("tunescope: interrupted; nothing was written", err=True, fg=typer.colors.RED)
        sys.exit(130)
    except TunescopeError as error:
        typer.secho(f"tunescope: {' '.join(str(error).split())}", err=True, fg=typer.colors.RED)
        sys.exit(2)


__all__ = ["app", "main"]
