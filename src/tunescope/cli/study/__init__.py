"""tunescope study: one file per command, each of which parses, calls and prints."""

from __future__ import annotations

import typer

from tunescope.cli.study.replay import replay

study = typer.Typer(name="study", help="Many runs, one honest table: plan them, run them, and read what they say.", no_args_is_help=True)
study.command()(replay)
from tunescope.cli.study.run import RunCommand, run
from tunescope.cli.study.status import status
study.command(no_args_is_help=True, cls=RunCommand)(run)
study.command(no_args_is_help=True)(status)

__all__ = ["study"]
