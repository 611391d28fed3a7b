"""Objective distances in a terminal: one table that fits 80 columns, the order with its stability, refusals, the task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunescope.report import objective_words as words
from tunescope.report import reading
from tunescope.report.terminal import plain

if TYPE_CHECKING:
    from rich.console import RenderableType

_HEADS = (
    ("objective", "name"), ("Pro-\ncrustes", "procrustes"), ("±95%", "half"), ("chance", "null"), ("1−cos", "cosine"),
    ("Fisher", "fisher_cosine"), ("1−CKA", "debiased_cka"), ("cohe-\nrence", "coherence"), ("by\nchance", "chance"),
)  # fmt: skip
_TASK = (("objective", "name"), ("cosine", "cosine"), ("floor", "floor"), ("95% of shufflings", "between"), ("", "shown"))


def distance_terminal(payload: reading.Payload) -> RenderableType:
    """The rich renderable that `tunescope distance` and `ObjectiveDistances.show()` print."""
    from rich.console import Group
    from rich.text import Text

    payload = reading.printable(payload)
    parts: list[Any] = [Text(plain(words.subject(payload)), style="dim"), Text(plain(words.headline(payload)), style="bold"), Text("")]
    parts += [_table(_HEADS, [words.cells(row) for row in words.measured(payload)]), Text("")]
    parts += [Text(line, style="dim") for line in _legend()]
    parts += [Text(""), *(Text(plain(line)) for line in words.agreement(payload))]
    parts += [Text(f"Cosine refused: {plain(reason)}.") for reason in words.noise(payload)]
    parts += [Text.assemble((f"{plain(name)} refused: ", "bold"), plain(reason)) for name, reason in words.refusals(payload)]
    if payload.get("alignment"):
        parts += [Text(""), Text(plain(words.task_words(payload)), style="dim"), Text("")]
        parts.append(_table(_TASK, words.alignment_rows(payload)))
    parts += [Text.assemble(("warning: ", "bold"), plain(warning)) for warning in payload.get("warnings") or []]
    return Group(*parts)


def _legend() -> list[str]:
    return [
        "Procrustes: of the gradient rows, 0 to √2; chance: the same with items shuffled",
        "1−cos, Fisher, 1−CKA: of the means, of the mean squares, of the rows, debiased",
        "coherence: size of the mean gradient over the spread of its rows, and what",
        "random signs give of it; noise: the mean cannot be told from 0",
    ]


def _table(heads: tuple[tuple[str, str], ...], rows: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    for order, (head, key) in enumerate(heads):
        left = order == 0 or key == "shown"
        style = "bold" if order == 1 else ""
        table.add_column(head, justify="left" if left else "right", no_wrap=order > 0, vertical="bottom", style=style)
    for row in rows:
        table.add_row(*(Text(plain(row[key])) for _, key in heads))
    return table
