"""tunescope doctor DICTIONARY --model MODEL"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunescope.cli import options
from tunescope.cli.run import interruptible, progress

if TYPE_CHECKING:
    from tunescope.dictionaries.doctor import Diagnosis

_STYLES = {"ok": "green", "warn": "yellow", "wrong": "bold red"}


def doctor(
    dictionary: Annotated[
        str,
        typer.Argument(metavar="DICTIONARY", help="Folder or file: Gemma Scope, SAELens, sparsify, dictionary_learning and others."),
    ],
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="Hub id, folder or PEFT adapter folder.")],
    layer: Annotated[
        int | None,
        typer.Option(
            "--layer",
            show_default=False,
            help="0 is the embeddings; a dictionary of block 12, counted from 0, is of layer 13. Default: what its files say.",
        ),
    ] = None,
    texts: options.Texts = None,
    column: Annotated[str | None, typer.Option("--column", help="Column that holds the texts, for tables and jsonl.")] = None,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Use that many texts, chosen by hash and seed.")] = 128,
    max_length: options.MaxLength = None,
    scale: Annotated[
        float | None,
        typer.Option("--scale", help="What a SAELens dictionary's inputs were multiplied by, where its folder does not hold it."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON instead of the table.")] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Is this dictionary of features read as it was trained to be? Hook point, b_dec, input scale, position 0, sinks, L0, R² and more.

    One row a usual mistake: what was found, what was expected, and what to do. Exits with status 1 when something is wrong.
    """
    with interruptible(Path("tunescope-out")):
        from tunescope.dictionaries.doctor import doctor as diagnose
        from tunescope.dictionaries.formats import read_dictionary
        from tunescope.models import load_model

        read = read_dictionary(dictionary, scale=scale)
        loaded = load_model(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        with progress(not json) as report:
            found = diagnose(
                read,
                loaded,
                layer=layer,
                texts=texts,
                column=column,
                sample=sample,
                max_length=max_length,
                batch_size=batch_size,
                seed=seed,
                progress=lambda done, total: report("reading texts", done, total),
            )
        _tell(found, as_json=json)
    raise typer.Exit(int(found.status == "wrong"))


def _tell(found: Diagnosis, *, as_json: bool) -> None:
    import json

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if as_json:
        typer.echo(json.dumps(found.describe(), ensure_ascii=False, allow_nan=False))
        return
    read = f"{found.tokens:,} tokens of {found.texts:,} texts" if found.tokens else "no text was read"
    table = Table(title=escape(f"{found.dictionary} at layer {found.layer} of {found.model}; {read}"))
    for column in ("", "check", "found", "expected"):
        table.add_column(column)
    for check in found.checks:
        style = _STYLES[check.status]
        table.add_row(f"[{style}]{check.status}[/]", check.check, escape(check.found), escape(check.expected))
    console = Console()
    console.print(table)
    for check in found.checks:
        if check.todo:
            console.print(escape(f"{check.check}: {check.todo}"), highlight=False, soft_wrap=True)
