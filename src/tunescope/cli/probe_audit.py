"""tunescope probe-audit MODEL --texts FILE --labels COLUMN"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunescope.cli import options
from tunescope.cli.run import interruptible, progress

if TYPE_CHECKING:
    from rich.table import Table

    from tunescope.outcome.probe_audit import ProbeAudit


def probe_audit(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hub id, folder or PEFT adapter folder.")],
    texts: Annotated[str, typer.Option("--texts", "-t", metavar="FILE", help="jsonl, csv, tsv, parquet, or hf:org/name:split.")],
    labels: Annotated[str, typer.Option("--labels", metavar="COLUMN", help="Column that holds the classes.")],
    test: Annotated[
        str | None,
        typer.Option("--test", metavar="FILE", show_default=False, help="Held-out texts. Default: 25% of every class, chosen by hash."),
    ] = None,
    column: Annotated[str | None, typer.Option("--column", help="Column that holds the texts.")] = None,
    prompt: options.Prompt = None,
    max_length: options.MaxLength = None,
    json: Annotated[bool, typer.Option("--json", help="Print the audit as JSON instead of the table.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="Also write the audit as JSON.")] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """How much of a probe's accuracy is the probe? One embedding, many configurations: rows, C and scaling.

    An effect of tuning that is smaller than the swing printed here says nothing unless the probe is strongly configured.
    """
    with interruptible(out or Path("tunescope-out")):
        from tunescope.activations import capture
        from tunescope.errors import OutputError
        from tunescope.models import load_model
        from tunescope.outcome.probe_audit import probe_audit as audit
        from tunescope.texts import read_texts
        from tunescope.texts.labelled import labelled

        if out is not None and not out.parent.is_dir():
            raise OutputError(f"cannot write to '{out}': there is no folder '{out.parent}'")
        given = labelled(
            read_texts(texts, column=column), labels, test=None if test is None else read_texts(test, column=column), seed=seed
        )
        loaded = load_model(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        with progress(not json) as report:
            acts = capture(
                loaded,
                given.texts,
                layers=(),
                sites=("output",),
                prompt=prompt,
                max_length=max_length,
                batch_size=batch_size,
                ids=given.ids,
                progress=lambda done, total: report("reading texts", done, total),
            )
        found = audit(acts.sites["output"], [given.classes[label] for label in given.labels], test=list(given.test), seed=seed)
        split = {"text": given.source, "labels": given.column, "split": given.split, "hash": given.sha256}
        payload = {"schema": 1, "model": loaded.name, **split, "warnings": list(given.warnings), **found.detail}
        _tell(payload, found, as_json=json, out=out)


def _tell(payload: dict, found: ProbeAudit, *, as_json: bool, out: Path | None) -> None:
    import json

    from rich.console import Console

    text = json.dumps(payload, ensure_ascii=False, allow_nan=False)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    if as_json:
        typer.echo(text)
        return
    console = Console()
    for warning in payload["warnings"]:
        console.print(f"note: {warning}", highlight=False)
    console.print(_table(found))
    for line in _lines(found):
        console.print(line, highlight=False, soft_wrap=True)


def _table(found: ProbeAudit) -> Table:
    """One line a number of rows and scaling, one column a C; the weak corner and the strong one in bold."""
    from rich.table import Table

    Cs = sorted({C for _, C, _ in found.surface})
    table = Table(title=f"accuracy on {found.test:,} held-out texts, {found.classes} classes; the same embedding everywhere")
    table.add_column("training texts", justify="right")
    table.add_column("scaling")
    for C in Cs:
        table.add_column(f"C={C:g}", justify="right")
    for rows, scaling in dict.fromkeys((rows, scaling) for rows, _, scaling in found.surface):
        cells = []
        for C in Cs:
            mark = " weak" if (rows, C, scaling) == found.weak else " strong" if (rows, C, scaling) == found.strong else ""
            star = "*" if (rows, C, scaling) in found.unconverged else ""
            cell = f"{100 * found.surface[rows, C, scaling]:.1f}{star}{mark}"
            cells.append(f"[bold]{cell}[/bold]" if mark else cell)
        table.add_row(f"{rows:,}", scaling, *cells)
    return table


def _lines(found: ProbeAudit) -> list[str]:
    def corner(of: tuple[int, float, str]) -> str:
        return f"{of[0]:,} texts, C={of[1]:g}, {of[2]}: {100 * found.surface[of]:.1f}%"

    parts = ", ".join(f"{factor} {100 * share:+.1f}" for factor, share in found.share.items())
    lines = [
        f"majority {100 * found.majority:.1f}%",
        f"weak     {corner(found.weak)}",
        f"strong   {corner(found.strong)} (C chosen on the held-out texts: an upper end)",
        f"swing    {100 * found.swing:+.1f} points at one and the same embedding, of which {parts} (averaged over the orders of change)",
        "A smaller difference between two models needs a strongly configured probe (all texts, C by cross-validation).",
    ]
    return lines + (["* the solver stopped before its tolerance"] if found.unconverged else [])
