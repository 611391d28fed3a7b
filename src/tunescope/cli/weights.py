"""tunescope diff BASE TUNED --weights-only"""

from __future__ import annotations

from pathlib import Path

import typer

from tunescope.cli.run import progress

LOADING = ("base", "tuned", "device", "dtype", "revision", "tuned_revision", "trust_remote_code")  # what `weight_profile` takes
ALLOWED = {*LOADING, "weights_only", "out", "json", "seed", "batch_size"}


def only_weights(context: typer.Context, out: Path, *, as_json: bool) -> None:
    """Compare the weights, save weights.json and print the table (or the JSON). Raises InputError when an option needs a forward pass."""
    import json

    from rich.console import Console

    from tunescope.comparison.weights import FILE, weight_profile
    from tunescope.errors import InputError
    from tunescope.report.weight_table import weights_terminal

    given = [name for name in context.params if name not in ALLOWED and str(context.get_parameter_source(name)).endswith("COMMANDLINE")]
    if given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"--weights-only runs no model, so {named} means nothing beside it; leave one or the other out")
    with progress(not as_json) as report:
        found = weight_profile(**{name: context.params[name] for name in LOADING}, progress=report)
    found.save(out)
    if as_json:
        typer.echo(json.dumps(found.payload, ensure_ascii=False, allow_nan=False))
        return
    console = Console()
    console.print(weights_terminal(found.payload))
    console.print(f"\nnumbers  {out / FILE}", highlight=False, soft_wrap=True)
