"""tunescope tune BASE --objective contrastive --update lora --pairs pairs.tsv --out run/"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunescope.cli import options
from tunescope.cli.run import progress, say

if TYPE_CHECKING:
    from tunescope.training import Run

_READ, _HOW, _STEP, _WATCH = "What is read", "How the model is moved", "Schedule", "What is watched"


def tune(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Hub id or folder of the model to tune.")],
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            help="mlm, nsp, span-denoise, causal-lm, causal-span, simcse, barlow-twins, sft, contrastive or classify; a weighted sum as "
            "mlm:0.5,contrastive.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run: the tuned model, its checkpoints, trajectory and report.")],
    update: Annotated[
        str,
        typer.Option(
            "--update",
            rich_help_panel=_HOW,
            help="lora, uniform, standard (layer-wise decay), frozen-norm, frozen-interior, top-2 (any number), bitfit, equal-step; "
            "or one of them with equal steps, as lora+equal-step.",
        ),
    ] = "lora",
    texts: Annotated[
        str | None,
        typer.Option("--texts", "-t", metavar="FILE", rich_help_panel=_READ, show_default=False, help="txt, jsonl, csv, tsv or parquet."),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            "--pairs", metavar="FILE", rich_help_panel=_READ, show_default=False,
            help="Columns query and passage; columns whose names begin with negative are hard negatives.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option("--columns", metavar="QUERY,PASSAGE", rich_help_panel=_READ, show_default=False, help="Of --pairs, by name."),
    ] = None,
    column: Annotated[
        str | None, typer.Option("--column", rich_help_panel=_READ, show_default=False, help="Of --texts: the column of the texts.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="COLUMN", rich_help_panel=_READ, help="Column of classes in the texts, for classify.")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep", metavar="FILE", rich_help_panel=_READ, show_default=False,
            help="General texts on which the model is held to what it was, the remedy for forgetting.",
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", rich_help_panel=_STEP, help="Default: 1.", show_default=False)] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, rich_help_panel=_STEP, help="Instead of --epochs.", show_default=False)
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            "--checkpoints", rich_help_panel=_STEP, show_default=False,
            help="Where models are kept and measured, in the unit of the length: 1,3,5. Start and end always are.",
        ),
    ] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", rich_help_panel=_STEP, show_default=False, help="Default: 2e-5, lora 2e-4, bitfit 1e-3.")
    ] = None,
    schedule: Annotated[str, typer.Option("--schedule", rich_help_panel=_STEP, help="constant, cosine or linear.")] = "constant",
    warmup: Annotated[int, typer.Option("--warmup", min=0, rich_help_panel=_STEP, help="Steps.")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, rich_help_panel=_STEP, help="Items to a forward pass.")] = 32,
    accumulate: Annotated[int, typer.Option("--accumulate", min=1, rich_help_panel=_STEP, help="Forward passes to a step.")] = 1,
    max_length: Annotated[int, typer.Option("--max-length", min=2, rich_help_panel=_READ, help="Tokens a text is cut at.")] = 128,
    precision: Annotated[
        str, typer.Option("--precision", rich_help_panel=_STEP, help="float32, bfloat16 or float16: of the passes; weights stay float32.")
    ] = "float32",
    checkpointing: Annotated[
        bool, typer.Option("--activation-checkpointing", rich_help_panel=_STEP, help="Less memory for one more forward pass.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", rich_help_panel=_HOW, show_default=False,
            help="Of the objective (temperature=.02, share=.2, head=fitted, views=forced; mlm.share=.2 of a sum) or of the update rule "
            "(rank=4, alpha=8, decay=.9). Repeatable.",
        ),
    ] = None,
    tau: Annotated[
        str | None,
        typer.Option(
            "--tau", rich_help_panel=_HOW, show_default=False,
            help="equal-step: the relative step of every block: a number, the folder of a paired run, or paired, which first makes one.",
        ),
    ] = None,
    frozen_head: Annotated[
        bool, typer.Option("--frozen-head", rich_help_panel=_HOW, help="A head of drawn weights does not learn along.")
    ] = False,
    fit_batches: Annotated[
        int, typer.Option("--fit-batches", min=1, rich_help_panel=_HOW, help="head=fitted: batches the head is fitted on, body frozen.")
    ] = 100,
    probe_texts: Annotated[
        str | None,
        typer.Option(
            "--probe-texts", metavar="FILE", rich_help_panel=_WATCH, show_default=False,
            help="Texts on which the distance from the start is measured at every checkpoint. Default: Python's own documentation.",
        ),
    ] = None,
    probe_sample: Annotated[
        int, typer.Option("--probe-sample", min=10, rich_help_panel=_WATCH, help="Of the probe texts that many, chosen by hash.")
    ] = 256,
    measures: Annotated[
        str | None, typer.Option("--measures", rich_help_panel=_WATCH, show_default=False, help="Of the trajectory, comma-separated.")
    ] = None,
    retrieval: Annotated[
        list[str] | None,
        typer.Option(
            "--retrieval", metavar="FOLDER[:SPLIT]", rich_help_panel=_WATCH, show_default=False,
            help="BEIR folder: nDCG@10 against the start at every checkpoint. Repeatable.",
        ),
    ] = None,
    unwatched: Annotated[bool, typer.Option("--no-trajectory", rich_help_panel=_WATCH, help="Measure nothing on the way.")] = False,
    log_to: Annotated[
        str | None, typer.Option("--log-to", rich_help_panel=_WATCH, show_default=False, help="tensorboard, wandb, mlflow, …")
    ] = None,
    fsdp: Annotated[
        bool, typer.Option("--fsdp", rich_help_panel=_STEP, help="Under torchrun: each process keeps a part of the weights (FSDP2).")
    ] = False,
    quantise: Annotated[
        str | None,
        typer.Option("--quantise", metavar="4bit", rich_help_panel=_HOW, show_default=False, help="Pack the frozen base, QLoRA."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the order, the masks, dropout and drawn weights.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT where it stopped; give the same options.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print run.json instead.")] = False,
    device: options.Device = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Tune a model by an objective under an update rule, and keep its checkpoints and the way it went.

    OUT is then a model that tunescope diff BASE OUT reads.
    """
    with _resumable(out), progress(not json) as report:
        from tunescope.comparison.run_report import run_report
        from tunescope.texts import as_corpus
        from tunescope.training import finetune

        _check(unwatched, retrieval, probe_texts, measures)
        of_objective, of_rule = _settings(settings or [], objective, update)
        probe = None if probe_texts is None else as_corpus(probe_texts, sample=probe_sample)
        trajectory = {"texts": probe, "measures": _parts(measures), "retrieval": tuple(retrieval or ())}
        run = finetune(
            base,
            objective=objective,
            update=update,
            texts=texts if texts is None or column is None else as_corpus(texts, column=column),
            pairs=_read_pairs(pairs, columns),
            labels=labels,
            keep=keep,
            out=out,
            resume=resume,
            epochs=epochs,
            steps=steps,
            checkpoints=_points(checkpoints),
            seed=seed,
            settings=of_objective,
            options=of_rule,
            tau=tau,
            max_length=max_length,
            schedule={
                "lr": lr, "schedule": schedule, "warmup": warmup, "batch_size": batch_size, "accumulate": accumulate,
                "precision": precision, "activation_checkpointing": checkpointing,
            },
            train_drawn_head=not frozen_head,
            fit_batches=fit_batches,
            trajectory=None if unwatched else {key: value for key, value in trajectory.items() if value},
            log_to=_parts(log_to),
            trainer={"fsdp": True} if fsdp else {},
            loading={"device": device, "trust_remote_code": trust_remote_code, "quantise": quantise},
            progress=report,
            announce=say,
        )  # fmt: skip
    if int(os.environ.get("RANK", "0")):  # of the processes that torchrun started, one writes and speaks
        return
    page = run_report(out)
    _print(run, base, out, page, as_json=json)


@contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """Ctrl-C ends with one line: a run that has begun can be gone on with."""
    try:
        yield
    except KeyboardInterrupt:
        begun = (out / "run.json").is_file() or (out / "paired").is_dir()
        left = "--resume goes on with the run" if begun else f"nothing was written to '{out}'"
        typer.secho(f"\ntunescope: interrupted; {left}", err=True, fg=typer.colors.RED)
        sys.exit(130)


def _check(unwatched: bool, retrieval: list[str] | None, probe_texts: str | None, measures: str | None) -> None:
    from tunescope.errors import InputError

    given = {"--retrieval": retrieval, "--probe-texts": probe_texts, "--measures": measures}
    idle = [name for name, value in given.items() if value]
    if unwatched and idle:
        raise InputError(f"--no-trajectory measures nothing on the way, and {', '.join(idle)} asked for it; leave one of them out")


def _read_pairs(pairs: str | None, columns: str | None) -> Any:
    from tunescope.errors import InputError
    from tunescope.texts import read_pairs

    if columns is None:
        return pairs
    names = [name.strip() for name in columns.split(",")]
    if pairs is None or len(names) != 2:
        raise InputError(f"--columns {columns} asked for; give --pairs FILE and its two columns: --columns QUERY,PASSAGE")
    return read_pairs(pairs, query=names[0], passage=names[1])


def _settings(given: list[str], objective: str, update: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """NAME=VALUE to the settings of the objective and the options of the update rule, by their names. Raises InputError."""
    from dataclasses import fields

    from tunescope.errors import InputError, UnknownName
    from tunescope.training.objectives import OBJECTIVES
    from tunescope.training.updates import UPDATES

    of_rules = {field.name for rule in UPDATES.values() for field in fields(rule)} - {"on", "tau"}
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set {text} asked for; write NAME=VALUE, such as temperature=.02")
        found[name.strip()] = options.parse_value(value.strip())
    asked = [part.partition(":")[0].strip() for part in objective.split(",")]
    kinds: list[Any] = [OBJECTIVES.get(part) for part in asked] + [UPDATES.get(update.partition("+")[0].strip())]
    known = {field.name for kind in kinds if kind is not None for field in fields(kind)} - {"on", "tau"}
    for name in found:
        if None not in kinds[:-1] and name.rpartition(".")[2] not in known | of_rules and not name.startswith("preserve."):
            raise UnknownName(f"setting of {objective} by {update}", name, known)
    return {k: v for k, v in found.items() if k not in of_rules}, {k: v for k, v in found.items() if k in of_rules}


def _points(text: str | None) -> list[float]:
    from tunescope.errors import InputError

    try:
        return [float(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        raise InputError(f"--checkpoints {text} asked for; give numbers such as 0,1,3,5") from None


def _parts(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def _print(run: Run, base: str, out: Path, page: Path, *, as_json: bool) -> None:
    import json

    from tunescope.report.run_words import distance
    from tunescope.report.thinning import last_steps

    if as_json:
        typer.echo(json.dumps(run.record, ensure_ascii=False, allow_nan=False))
        return
    losses = [row["loss"] for row in run.loss_rows]
    last = losses[-last_steps(len(losses)) :]
    over = f"over the last {len(last)}" if len(last) > 1 else "at the last"
    typer.echo(f"loss     {losses[0]:.3f} at the first step, {sum(last) / len(last):.3f} {over}")
    if run.trajectory_rows:
        typer.echo(f"moved    {distance({'record': run.record, 'trajectory': run.trajectory_rows})}")
    for row in run.trajectory_rows:
        if row["kind"] != "geometry" and row["step"] == run.record["ended"]["step"] and row.get("main"):
            told = f"{row['base']:.3f} → {row['tuned']:.3f}, {row['delta']:+.3f}: {row['verdict']}"
            typer.echo(f"outcome  {row['name']} {row['metric']} {told}")
    if run.record["ended"]["stopped"]:
        typer.echo(f"stopped  {run.record['ended']['stopped']}")
    typer.echo(f"model    {out}   checkpoints at steps {', '.join(map(str, run.checkpoints))}")
    typer.echo(f"report   {page}")
    typer.echo(f"compare  tunescope diff {base} {out}")
