"""tunescope study: one file per command, each of which parses, calls and prints."""

from __future__ import annotations

import typer

from tunescope.cli.study.plan import plan
from tunescope.cli.study.register import register
from tunescope.cli.study.replay import replay
from tunescope.cli.study.report import report
from tunescope.cli.study.run import RunCommand, run
from tunescope.cli.study.status import status
from tunescope.cli.study.verdict import verdict

study = typer.Typer(name="study", help="Many runs, one honest table: plan them, run them, and read what they say.", no_args_is_help=True)
study.command(no_args_is_help=True)(plan)
study.command(no_args_is_help=True)(register)
study.command(no_args_is_help=True, cls=RunCommand)(run)
study.command(no_args_is_help=True)(status)
study.command(no_args_is_help=True)(verdict)
study.command(no_args_is_help=True)(report)
study.command()(replay)

__all__ = ["study"]
