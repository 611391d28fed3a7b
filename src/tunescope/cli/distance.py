"""tunescope distance BASE --objectives mlm,simcse,contrastive --pairs FILE"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunescope.cli import options
from tunescope.cli.run import interruptible, progress

if TYPE_CHECKING:
    from tunescope.comparison.objective_distances import ObjectiveDistances

_TASK = "Alignment with a task"


def distance(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Hub id or folder of the model, as it is before tuning.")],
    objectives: Annotated[
        str,
        typer.Option("--objectives", metavar="NAMES", help="Comma-separated, such as mlm,simcse,contrastive. An unknown one shows all."),
    ],
    texts: options.Texts = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            "--pairs", metavar="FILE", show_default=False,
            help="Queries and their passages (tsv, csv, jsonl, parquet), in place of --texts: every objective then reads their texts.",
        ),
    ] = None,
    labels: Annotated[str | None, typer.Option("--labels", metavar="COLUMN", help="Column of --texts with a class a text.")] = None,
    column: Annotated[str | None, typer.Option("--column", help="Column that holds the texts.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", metavar="NAME", show_default=False, help="Measure from this objective. Default: what BASE was pretrained with."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="OBJECTIVE.SETTING=VALUE",
            show_default=False,
            help="Such as mlm.head=fitted or simcse.temperature=.1. Repeatable.",
        ),
    ] = None,
    items: Annotated[int, typer.Option("--items", min=10, help="Texts or pairs that are read, chosen by hash and seed.")] = 512,
    task: Annotated[
        str | None,
        typer.Option(
            "--task", metavar="FOLDER|FILE:COLUMN", rich_help_panel=_TASK, show_default=False,
            help="A retrieval collection in the BEIR layout, or labelled texts: does each objective pull the weights where the task would?",
        ),
    ] = None,
    task_items: Annotated[
        int, typer.Option("--task-items", min=1, rich_help_panel=_TASK, help="Queries or held-out texts read of it.")
    ] = 128,
    tuned: Annotated[
        str | None,
        typer.Option("--tuned", metavar="RUN", rich_help_panel=_TASK, show_default=False, help="A finished run of BASE: its ΔW as well."),
    ] = None,
    draws: Annotated[int, typer.Option("--draws", min=3, rich_help_panel=_TASK, help="Times the task is shuffled, for the floor.")] = 10,
    max_length: Annotated[int, typer.Option("--max-length", min=1, help="Tokens per text; longer ones are cut.")] = 128,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for report.html, distance.json and records.jsonl. An earlier result of ours is replaced."),
    ] = Path("tunescope-distance"),
    json: Annotated[bool, typer.Option("--json", help="Print distance.json to standard output instead of the table.")] = False,
    pretraining: Annotated[
        str | None,
        typer.Option("--pretraining", help="What BASE was pretrained on, such as mlm+nsp or causal-lm. Default: from its name."),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """How far is each objective from what BASE was pretrained with, and does it pull where a task would? Nothing is trained."""
    with interruptible(out):
        from tunescope.comparison.folder import check_folder
        from tunescope.comparison.objective_distances import objective_distance

        check_folder(out)
        settings = parse_settings(set_)
        data: dict[str, Any] = {"texts": texts, "pairs": pairs, "labels": labels, "column": column}
        against: dict[str, Any] = {"task": task, "task_items": task_items, "tuned": tuned, "draws": draws}
        loading: dict[str, Any] = {"pretraining": pretraining, "device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
        with progress(not json) as report:
            found = objective_distance(
                base,
                objectives,
                **data,
                **against,
                **loading,
                reference=reference,
                settings=settings,
                items=items,
                batch_size=batch_size,
                max_length=max_length,
                seed=seed,
                progress=report,
            )
        _finish(found, out, as_json=json)


def parse_settings(given: list[str] | None) -> dict[str, dict[str, Any]]:
    """'mlm.head=fitted' as {"mlm": {"head": "fitted"}}; numbers and true/false as such. Raises InputError."""
    from tunescope.errors import InputError

    found: dict[str, dict[str, Any]] = {}
    for text in given or []:
        place, equals, value = text.partition("=")
        objective, dot, name = place.strip().partition(".")
        if not (equals and dot and objective and name and value):
            raise InputError(f"--set {text} asked for; give OBJECTIVE.SETTING=VALUE, such as mlm.head=fitted")
        found.setdefault(objective, {})[name] = options.parse_value(value.strip())
    return found


def _finish(found: ObjectiveDistances, out: Path, *, as_json: bool) -> None:
    import json
    import sys
    from contextlib import nullcontext

    from rich.console import Console

    from tunescope.report.objective_lines import distance_terminal

    with Console(stderr=True).status("writing the report") if sys.stderr.isatty() and not as_json else nullcontext():
        found.save(out)
    if as_json:
        typer.echo(json.dumps(found.payload, ensure_ascii=False, allow_nan=False))
        return
    console = Console()
    console.print(distance_terminal(found.payload))
    console.print(f"\nreport   {out / 'report.html'}\nnumbers  {out / 'distance.json'}", highlight=False, soft_wrap=True)
