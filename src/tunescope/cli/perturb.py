"""tunescope perturb BASE --kind gaussian --sigma .04 --out DIR"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunescope.cli import options
from tunescope.cli.run import interruptible, say

if TYPE_CHECKING:
    from tunescope.models import Model
    from tunescope.training import AtDistance

_TO = "As far as a target"


def perturb(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Hub id or folder of the model to move.")],
    kind: Annotated[str, typer.Option("--kind", help="gaussian, random-rank, random-direction, interpolate or rounding.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model. An earlier perturbed model is replaced.")],
    sigma: Annotated[
        float | None, typer.Option("--sigma", help="gaussian: spread of the noise relative to a weight, as .04.", show_default=False)
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option("--scale", help="random-rank, random-direction: times the size of the tuned change. Default: 1.", show_default=False),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", help="interpolate: share of the way to TUNED; above 1 goes beyond it.", show_default=False),
    ] = None,
    bits: Annotated[int | None, typer.Option("--bits", help="rounding: 2 to 8.", show_default=False)] = None,
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            "--tuned",
            metavar="TUNED",
            show_default=False,
            help="The tuned model or adapter to interpolate to, or whose change sets rank and norm.",
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option("--layers", help="Move these alone: 0 is the embeddings. For example 0,3,6 or 8-12. Default: all.")
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option("--draws", min=1, help="Seeds SEED, SEED+1, …, into OUT/seed-… Default: 1, or 3 with --to.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first draw.")] = 0,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="MEASURE=VALUE",
            rich_help_panel=_TO,
            show_default=False,
            help="Instead of --sigma, --scale or --alpha: find the one that moves BASE to this value, such as nps=.48.",
        ),
    ] = None,
    at: Annotated[
        str, typer.Option("--at", rich_help_panel=_TO, help="Where it is measured: output (the deployed embedding), final, or a layer.")
    ] = "output",
    tolerance: Annotated[float, typer.Option("--tolerance", rich_help_panel=_TO, help="How near, in units of the measure.")] = 0.005,
    texts: Annotated[
        str | None,
        typer.Option(
            "--texts", "-t", metavar="FILE", rich_help_panel=_TO, help="Texts it is measured on. Default: Python's own documentation."
        ),
    ] = None,
    column: Annotated[str | None, typer.Option("--column", rich_help_panel=_TO, help="Column that holds the texts.")] = None,
    sample: Annotated[int | None, typer.Option("--sample", min=1, rich_help_panel=_TO, help="Use that many texts, chosen by hash.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print perturbation.json instead.")] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    batch_size: options.BatchSize = 32,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Move a model without training it: noise, a random update of a tuned one's size, or part of the way to it.

    Writes a model folder that tunescope diff BASE OUT reads, and perturbation.json: what was done, and with which seed.
    """
    with interruptible(out):
        from tunescope.training.perturbed_folder import check_perturbed_folder

        check_perturbed_folder(out)
        amount = {"sigma": sigma, "scale": scale, "alpha": alpha, "bits": bits}
        given: dict[str, Any] = {name: value for name, value in amount.items() if value is not None}
        _check(kind, given, to=to, draws=draws)
        model, tuned = _load(base, like, {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code})
        asked: dict[str, Any] = {"kind": kind, "like": tuned, "layers": options.parse_layers(layers)}
        found = None
        if to is not None:
            reading = {"at": int(at) if at.isdecimal() else at, "tolerance": tolerance, "batch_size": batch_size}
            found = _to(model, {**asked, **reading, "to": to, "draws": draws, "seed": seed}, texts, column, sample, seed)
            models = {draw.seed: draw.model for draw in found.draws}
            sizes = {draw.seed: {found.parameter: draw.parameter} for draw in found.draws}
        else:
            from tunescope.training import perturb as moved

            models = {number: moved(model, **asked, **given, seed=number) for number in range(seed, seed + (draws or 1))}
            sizes = dict.fromkeys(models, given)
        record = _record(model, asked, found)
        _finish(models, out, record, sizes, found, base=base, as_json=json)


def _check(kind: str, given: dict[str, float], *, to: str | None, draws: int | None) -> None:
    from tunescope.errors import InputError

    if kind == "dropout":
        raise InputError("--kind dropout changes no weights, so there is no model to write; use tunescope.perturb from Python")
    if to is not None and given:
        named = ", ".join(f"--{name}" for name in given)
        raise InputError(f"{named} and --to were both given; --to finds the size, leave the other out")
    if to is None and kind in ("interpolate", "rounding") and (draws or 1) > 1:
        raise InputError(f"{draws} draws of --kind {kind} asked for, which draws nothing; leave --draws out")


def _load(base: str, like: str | None, loading: dict[str, Any]) -> tuple[Model, Model | None]:
    from tunescope.models import load_model, load_pair

    return (load_model(base, **loading), None) if like is None else load_pair(base, like, **loading)


def _to(model: Model, asked: dict[str, Any], texts: str | None, column: str | None, sample: int | None, seed: int) -> AtDistance:
    from tunescope.texts import as_corpus
    from tunescope.training import perturb_to

    return perturb_to(model, as_corpus(texts, column=column, sample=sample, seed=seed), **asked, announce=say)


def _record(model: Model, asked: dict[str, Any], found: AtDistance | None) -> dict[str, Any]:
    like = asked["like"]
    identities = {"base": model.identity(), "like": None if like is None else like.identity()}
    return {"kind": asked["kind"], "layers": asked["layers"], "to": None if found is None else found.row(), **identities}


def _finish(
    models: dict[int, Model],
    out: Path,
    record: dict[str, Any],
    sizes: dict[int, dict],
    found: AtDistance | None,
    *,
    base: str,
    as_json: bool,
) -> None:
    from tunescope.training.perturbed_folder import FILE, save_perturbed

    save_perturbed(models, out, record=record, sizes=sizes)
    if as_json:
        typer.echo((out / FILE).read_text(encoding="utf-8"))
        return
    said = [note for model in models.values() for note in model.warnings] if found is None else [f"{found.kind}: {found}"]
    for line in dict.fromkeys(said + [note for draw in (found.draws if found else ()) for note in draw.notes]):
        typer.echo(line)
    places = [out if len(models) == 1 else out / f"seed-{seed}" for seed in models]
    typer.echo(f"model    {'  '.join(map(str, places))}")
    for place in places:
        typer.echo(f"compare  tunescope diff {base} {place}")
