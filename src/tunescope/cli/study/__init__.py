"""tunescope study: one file per command, each of which parses, calls and prints."""

from __future__ import annotations

import typer

from tunescope.cli.study.replay import replay

study = typer.Typer(name="study", help="Many runs, one honest table: plan them, run them, and read what they say.", no_args_is_help=True)
study.command()(replay)

__all__ = ["study"]
