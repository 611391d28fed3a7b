"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="Folder for report.html, comparison.json and records.jsonl. An earlier result of ours is replaced."),
]
Json = Annotated[bool, typer.Option("--json", help="Print comparison.json to standard output instead of the table.")]
Figures = Annotated[bool, typer.Option("--figures", help="Also write every chart as PNG and SVG, to OUT/figures.")]
Measures = Annotated[
    str | None,
    typer.Option(
        "--measures",
        "-m",
        help="Comma-separated, or 'all'. Default: cka, debiased_cka, procrustes, nps, isotropy. An unknown one, such as list, shows all.",
    ),
]
Layers = Annotated[str | None, typer.Option("--layers", help="Which layers: 0 is the embeddings. For example 0,3,6 or 8-12. Default: all.")]
Sample = Annotated[int | None, typer.Option("--sample", min=1, help="Use that many texts, chosen by hash and seed; of hf:, the first.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 …")]
DeviceMap = Annotated[
    str | None,
    typer.Option(
        "--device-map",
        metavar="PLAN",
        show_default=False,
        help='Instead of --device, for large models: auto, balanced, sequential, cpu, or JSON such as {"encoder": 0, "pooler": "disk"}.',
    ),
]
Dtype = Annotated[str, typer.Option("--dtype", help="Number format of the weights: float32, bfloat16 or float16.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Texts in one forward pass.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the sample and of the permutation draws.")]
Texts = Annotated[
    str | None,
    typer.Option(
        "--texts",
        "-t",
        metavar="FILE",
        help="txt (one text a line), jsonl, csv, tsv, parquet, or hf:org/name:split. Default: Python's own documentation.",
    ),
]
Pooling = Annotated[
    str | None,
    typer.Option(
        "--pooling",
        help="How tokens become one row a text: mean, cls, last; none keeps token rows. Default: mean, or what a capture was read with.",
    ),
]
Prompt = Annotated[
    str | None, typer.Option("--prompt", help="Put before every text, such as 'passage: '. Default: what the base declares.")
]
_OUTCOMES = "Did it help or hurt"
Retrieval = Annotated[
    list[str] | None,
    typer.Option(
        "--retrieval",
        metavar="FOLDER[:SPLIT]",
        show_default=False,
        rich_help_panel=_OUTCOMES,
        help="Search a collection in the BEIR layout with both models and compare query by query. Repeatable.",
    ),
]
QueryPrompt = Annotated[
    str | None,
    typer.Option(
        "--query-prompt", rich_help_panel=_OUTCOMES, help="Put before every query, such as 'query: '. Default: as the base declares."
    ),
]
PassagePrompt = Annotated[
    str | None, typer.Option("--passage-prompt", rich_help_panel=_OUTCOMES, help="Put before every passage, such as 'passage: '.")
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="COLUMN",
        rich_help_panel=_OUTCOMES,
        help="Column of --texts with a class a text: linear probes at every layer of both models.",
    ),
]
Test = Annotated[
    str | None,
    typer.Option(
        "--test", metavar="FILE", rich_help_panel=_OUTCOMES, help="Labelled texts that probes are judged by. Default: a quarter of --texts."
    ),
]
Audit = Annotated[
    bool, typer.Option("--audit", rich_help_panel=_OUTCOMES, help="Also how much of BASE's accuracy is the probe: rows, C and scaling.")
]
LanguageTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--lm",
        metavar="FILE",
        show_default=False,
        rich_help_panel=_OUTCOMES,
        help="Held-out texts: compare loss, perplexity and predictions as language models. Repeatable.",
    ),
]
Results = Annotated[
    list[str] | None,
    typer.Option(
        "--results",
        metavar="[METRIC=]BASE,TUNED",
        show_default=False,
        rich_help_panel=_OUTCOMES,
        help="Per-item results measured elsewhere: two files or folders of lm-evaluation-harness, Inspect, MTEB or tables (id, score), or "
        "one table (id, base, tuned). METRIC where the file names none: acc; +mine, -mine: more is better, worse. Repeatable.",
    ),
]
Mteb = Annotated[
    list[str] | None,
    typer.Option(
        "--mteb",
        metavar="TASK",
        show_default=False,
        rich_help_panel=_OUTCOMES,
        help="An MTEB task by name; needs the extra 'mteb' and a network. Repeatable.",
    ),
]
Margin = Annotated[
    str | None,
    typer.Option(
        "--margin",
        rich_help_panel=_OUTCOMES,
        help="The difference that would not matter: a number, or by kind. Default: retrieval=.01, probe=.01, language=.01, external=0.",
    ),
]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Only for models you trust.")]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=1, help="Tokens per text; longer ones are cut. Default: what the models declare.")
]


def parse_layers(text: str | None, *, option: str = "--layers") -> list[int] | None:
    """'0,3,8-12' as a list of indices. Raises InputError."""
    from tunescope.errors import InputError

    if text is None:
        return None
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.strip().isdecimal() or (dash and not (last.strip().isdecimal() and int(first) <= int(last))):
            raise InputError(f"{option} {text} asked for; give indices and ranges such as 0,3,8-12")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def parse_texts(given: list[str] | None) -> tuple[str | dict[str, str] | None, list[str]]:
    """The --texts as `ts.diff` takes them: one file as it is, several as {name: file}; and which names are tagged tuning.

    Raises InputError when two have one name, UnknownName for another tag.
    """
    from tunescope.errors import InputError
    from tunescope.texts.sets import TUNING, default_name, parse_text_set

    parsed = [parse_text_set(text) for text in given or []]
    if not parsed:
        return None, []
    if len(parsed) == 1 and parsed[0][0] is None:
        return parsed[0][1], []
    names = [name or default_name(path) for name, path, _ in parsed]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two of --texts are called '{twice}'; give each a name of its own: --texts NAME=FILE")
    return dict(zip(names, (path for _, path, _ in parsed), strict=True)), [
        name for name, (_, _, role) in zip(names, parsed, strict=True) if role == TUNING
    ]


def parse_value(text: str) -> Any:
    """A number where it is one, a comma-separated list where there are commas, else the word."""
    if "," in text:
        return tuple(parse_value(part) for part in text.split(","))
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)
