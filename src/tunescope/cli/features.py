"""tunescope features BASE TUNED --layer 5 --texts FILE --out DIR"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunescope.cli import options
from tunescope.cli.run import interruptible, progress, say

if TYPE_CHECKING:
    from tunescope.comparison.features import FeatureComparison

_PANEL = "Dictionaries"


def features(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Hub id or folder of the model before tuning.")],
    tuned: Annotated[
        list[str],
        typer.Argument(metavar="TUNED...", help="Adapters or models tuned from it, one pass for all; NAME=SOURCE says what to call one."),
    ],
    layer: Annotated[
        list[str], typer.Option("--layer", metavar="N", help="0 is the embeddings, L what block L returns. Repeatable, or such as 3,5.")
    ],
    texts: options.Texts = None,
    column: Annotated[str | None, typer.Option("--column", help="Column that holds the texts, for tables and jsonl.")] = None,
    sample: options.Sample = None,
    dictionary: Annotated[
        list[str] | None,
        typer.Option(
            "--dictionary", metavar="[N=]PATH", show_default=False, rich_help_panel=_PANEL,
            help="The base's own dictionary (Gemma Scope, SAELens, sparsify …), of layer N. Default: one is trained on the same tokens.",
        ),
    ] = None,
    latents: Annotated[
        int | None, typer.Option("--latents", min=1, show_default=False, rich_help_panel=_PANEL, help="Features. Default: 4 × width.")
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("--k", min=1, show_default=False, rich_help_panel=_PANEL, help="Active in a token. Default: width / 24, 4 to 32."),
    ] = None,
    architecture: Annotated[
        str, typer.Option("--architecture", rich_help_panel=_PANEL, help="topk, batchtopk, jumprelu or standard (L1).")
    ] = "topk",
    seeds: Annotated[
        str, typer.Option("--seeds", rich_help_panel=_PANEL, help="Two or more make the ceiling of every comparison.")
    ] = "0,1",
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, show_default=False, rich_help_panel=_PANEL,
            help="Of training. Default: 2,000, or more until each token was read four times.",
        ),
    ] = None,
    controls: Annotated[
        str, typer.Option("--controls", help="Comma-separated: zero, noise, random, shuffled; or none. zero and random copy the weights.")
    ] = "zero,noise,random,shuffled",
    kind: Annotated[
        str, typer.Option("--kind", help="residual: with all that earlier blocks changed; patched: what one block adds.")
    ] = "residual",
    held_out: Annotated[float, typer.Option("--held-out", help="Share of documents that dictionaries are judged on.")] = 0.1,
    max_length: options.MaxLength = None,
    store_dtype: Annotated[str, typer.Option("--store-dtype", help="Of the deltas on disk: float32 or bfloat16.")] = "float32",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pages, features.json, dictionaries and deltas.")] = Path(
        "tunescope-features"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in OUT.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print features.json to standard output instead of the table.")] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Which features did tuning write? Autoencoders of what it changed, against the base's own features and against chance."""
    with interruptible(out, begun="request.json"):
        from tunescope.comparison.features import features as compare

        asked: dict[str, Any] = {"latents": latents, "k": k, "architecture": architecture, "steps": steps, "kind": kind, "resume": resume}
        data: dict[str, Any] = {"column": column, "sample": sample, "max_length": max_length, "held_out_share": held_out}
        loading: dict[str, Any] = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code, "batch_size": batch_size}
        with progress(not json) as report:
            found = compare(
                base,
                _named(tuned),
                texts,
                out=out,
                layers=[number for part in layer for number in options.parse_layers(part, option="--layer") or ()],
                dictionary=_dictionaries(dictionary),
                seeds=_numbers(seeds),
                controls=[] if controls == "none" else [name.strip() for name in controls.split(",")],
                store_dtype=store_dtype,
                seed=seed,
                **asked,
                **data,
                **loading,
                progress=report,
                announce=say,
            )
        _tell(found, as_json=json)


def _numbers(text: str) -> list[int]:
    from tunescope.errors import InputError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--seeds {text} asked for; give whole numbers such as 0,1")
    return [int(part) for part in parts]


def _named(tuned: list[str]) -> Any:
    """As given, or by the names that NAME=SOURCE gives; a source that is there is never split."""
    from tunescope.errors import InputError

    pairs = [(None, text) if Path(text).exists() or "=" not in text else text.split("=", 1) for text in tuned]
    if all(name is None for name, _ in pairs):
        return tuned
    found: dict[str, str] = {}
    for name, source in pairs:
        called = name or Path(source).name
        if called in found:
            raise InputError(f"'{called}' names two tuned models, {found[called]} and {source}; give each a NAME=SOURCE of its own")
        found[called] = source
    return found


def _dictionaries(given: list[str] | None) -> Any:
    """One for all layers, or {layer: path} of N=PATH."""
    from tunescope.errors import InputError

    if not given:
        return None
    found: dict[int, str] = {}
    for text in given:
        number, equals, path = text.partition("=")
        if not equals or not number.isdigit():
            if len(given) > 1:
                raise InputError(f"--dictionary {text} asked for beside others; say of which layer each is, as in --dictionary 5={text}")
            return text
        found[int(number)] = path
    return found


def _tell(found: FeatureComparison, *, as_json: bool) -> None:
    import json

    from rich.console import Console

    from tunescope.report import features_terminal

    if as_json:
        typer.echo(json.dumps(found.payload, ensure_ascii=False, allow_nan=False))
        return
    console = Console()
    console.print(features_terminal(found.payload))
    out = found.folder
    console.print(f"\nreport   {out / 'report.html'}\nnumbers  {out / 'features.json'}", highlight=False, soft_wrap=True)
