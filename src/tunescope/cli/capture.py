"""tunescope capture MODEL --texts FILE --out FOLDER"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tunescope.cli import options
from tunescope.cli.run import progress, say


def capture(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hub id, folder or PEFT adapter folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the capture: absent, empty, or holding this very capture.")],
    texts: options.Texts = None,
    column: Annotated[str | None, typer.Option("--column", help="Column that holds the texts, for tables and jsonl.")] = None,
    sample: options.Sample = None,
    layers: options.Layers = None,
    pooling: Annotated[
        str, typer.Option("--pooling", help="How tokens become one row a text: mean, cls, last; none keeps token rows.")
    ] = "mean",
    prompt: options.Prompt = None,
    max_length: options.MaxLength = None,
    special_tokens: Annotated[
        bool, typer.Option("--special-tokens/--no-special-tokens", help="Whether pooling counts special tokens such as [CLS].")
    ] = True,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of MODEL on the hub.")] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    device_map: options.DeviceMap = None,
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Run texts through a model once and keep its rows at every layer, to compare them later: tunescope diff CAPTURE CAPTURE.

    Interrupted, even by kill -9, the same command goes on where it was.
    """
    try:
        from tunescope.activations.store import check_target, save_capture
        from tunescope.comparison.estimate import announce
        from tunescope.models import load_model
        from tunescope.texts import as_corpus

        check_target(out)
        wanted = options.parse_layers(layers)
        corpus = as_corpus(texts, column=column, sample=sample, seed=seed)
        loaded = load_model(
            model, revision=revision, device=device, dtype=dtype, trust_remote_code=trust_remote_code, device_map=device_map
        )
        reading: dict[str, Any] = {
            "pooling": pooling,
            "prompt": loaded.output.prompt if prompt is None else prompt,
            "max_length": loaded.max_length if max_length is None else max_length,
            "special_tokens": special_tokens,
        }
        announce(say, [(loaded, wanted)], [corpus], reading, method="capture")
        with progress(True) as report:
            saved = save_capture(
                loaded,
                corpus,
                out,
                layers=wanted,
                **reading,
                batch_size=batch_size,
                progress=lambda done, total: report("reading texts", done, total),
            )
    except KeyboardInterrupt:
        typer.secho("\ntunescope: interrupted; the same command goes on from here", err=True, fg=typer.colors.RED)
        sys.stderr.flush()
        os._exit(130)  # worker threads of a running forward pass would hold the exit back
    size = sum(file.stat().st_size for file in out.iterdir())
    places = len(saved.acts.layers) + len(saved.acts.sites)
    typer.echo(f"{saved.acts.n:,} texts through {saved.model['name']}: {places} layers and sites, {size / 1e6:,.1f} MB in {out}")
