"""tunescope diff BASE TUNED --texts FILE"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunescope.cli import options
from tunescope.cli.run import finish, interruptible, progress
from tunescope.cli.weights import only_weights


def diff(
    context: typer.Context,
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE", help="Hub id or folder. With TUNED left out: an adapter folder, whose own base is read from its config."
        ),
    ],
    tuned: Annotated[
        str | None, typer.Argument(metavar="TUNED", help="Hub id, folder or PEFT adapter folder.", show_default=False)
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option("--texts", "-t", help="txt (one text a line), jsonl, csv, tsv or parquet. Default: Python's own documentation."),
    ] = None,
    column: Annotated[str | None, typer.Option("--column", help="Column that holds the texts, for tables and jsonl.")] = None,
    sample: options.Sample = None,
    measures: options.Measures = None,
    layers: options.Layers = None,
    pooling: Annotated[
        str, typer.Option("--pooling", help="How tokens become one row a text: mean, cls, last; none keeps token rows.")
    ] = "mean",
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="Put before every text, such as 'passage: '. Default: what the base declares.")
    ] = None,
    max_length: options.MaxLength = None,
    ruler: Annotated[
        bool, typer.Option("--ruler", help="Also measure known disturbances of BASE: weight noise, rounding, dropout. Ten short passes.")
    ] = False,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="Compare the weights alone: no texts, no forward pass; writes weights.json to --out.")
    ] = False,
    out: options.Out = Path("tunescope-out"),
    json: options.Json = False,
    figures: options.Figures = False,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of BASE on the hub.")] = None,
    tuned_revision: Annotated[str | None, typer.Option("--tuned-revision", help="The same for TUNED.")] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Only for models you trust.")
    ] = False,
) -> None:
    """Where did fine-tuning change the representations, and by how much against chance?

    Prints a table; writes report.html and comparison.json to --out.
    """
    with interruptible(out):
        from tunescope.comparison.folder import check_folder

        check_folder(out)
        if weights_only:
            only_weights(context, out, as_json=json)
            return
        wanted = options.parse_layers(layers)
        from tunescope.comparison import diff as compare

        with progress(not json) as report:
            comparison = compare(
                base,
                tuned,
                texts,
                measures=measures,
                layers=wanted,
                sample=sample,
                column=column,
                pooling=pooling,
                prompt=prompt,
                max_length=max_length,
                batch_size=batch_size,
                device=device,
                dtype=dtype,
                revision=revision,
                tuned_revision=tuned_revision,
                trust_remote_code=trust_remote_code,
                seed=seed,
                ruler=ruler,
                progress=report,
            )
        finish(comparison, out, as_json=json, figures=figures)
