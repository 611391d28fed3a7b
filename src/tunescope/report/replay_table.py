"""The replayed claims in a terminal: a table that fits 80 columns, and below it what differs, claim by claim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunescope.report.terminal import plain

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDEST = 120  # columns of a terminal that the table fills
_STYLES = {"yes": "green", "no": "bold red", "not reported": "dim", "not computable": "yellow"}
_WORDS = {"yes": "agree", "no": "do not", "not reported": "were not reported", "not computable": "are not computable"}


def replay_terminal(payload: dict[str, Any]) -> RenderableType:
    """The rich renderable that the command line and `Replay.show()` print; payload as `Replay.describe()`."""
    from rich.console import Group
    from rich.text import Text

    noted = [row for row in payload["rows"] if row["words"]]
    where = "the bundled tables" if payload["tables"] is None else f"the tables of {plain(payload['tables'])}"
    parts: list[Any] = [Text(f"Published claims, recomputed from {where}: {_counted(payload['counts'])}", style="bold"), Text("")]
    parts += [_table(payload["rows"], noted), Text("")]
    return Group(*parts, _notes(noted))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {_WORDS[verdict]}" for verdict, count in counts.items() if count or verdict in ("yes", "no"))


def _table(rows: list[dict[str, Any]], noted: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.constrain import Constrain
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True, show_edge=False, expand=True)
    table.header_style = "dim"
    for head, ratio in (("claim", 30), ("recomputed", 22), ("paper", 17)):
        table.add_column(head, ratio=ratio, overflow="fold")
    table.add_column("agrees?", no_wrap=True)
    for order, row in enumerate(rows):
        if order == 0 or rows[order - 1]["study"] != row["study"]:
            table.add_row(Text(plain(row["study"]), style="bold"))
        mark = f" [{noted.index(row) + 1}]" if row in noted else ""
        cells = [Text(plain(row[name])) for name in ("claim", "recomputed", "paper")]
        last = order + 1 == len(rows) or rows[order + 1]["study"] != row["study"]
        table.add_row(*cells, Text(_verdict(row["agrees"]) + mark, style=_STYLES[row["agrees"]]), end_section=last)
    return Constrain(table, WIDEST)


def _verdict(agrees: str) -> str:
    """On two lines where it is long, so that the other columns keep their width."""
    return "\n".join(agrees.rsplit(" ", 1))


def _notes(noted: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    notes = Table.grid(padding=(0, 1))
    for number, row in enumerate(noted, start=1):
        notes.add_row(Text(f"[{number}]", style="dim"), Text(plain(row["words"])))
    return notes
