"""The comparison in a terminal: the headline, one table that fits 80 columns, and what a reader must not miss."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

from tunescope.report import cross_words, elsewhere, outcome_lines, outcome_section, reading, weight_table
from tunescope.report.numbers import MISSING, count, half_width, percent, signed, three

if TYPE_CHECKING:
    from rich.console import RenderableType

COLUMNS = 80
_BAR = 6
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_NAME = 12
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # characters that reorder what follows


def plain(text: object) -> str:
    """A string safe to print: no escapes, no control or direction-changing characters, lines joined."""
    kept = (" " if char in "\n\r\t" else char for char in str(text))
    return "".join(char for char in kept if unicodedata.category(char) not in ("Cc", "Cs") and char not in _TURNS)


def bar(share: float, width: int = _BAR) -> str:
    """A bar of eighth blocks for a share in [0, 1]; anything above nothing shows at least the thinnest."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    eighths = max(eighths, 1) if share > 0 else 0
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()).ljust(width)


def terminal(payload: reading.Payload) -> RenderableType:
    """The rich renderable that the command line and `Comparison.show()` print."""
    from rich.console import Group
    from rich.text import Text

    payload = reading.printable(payload)
    parts: list[Any] = [Text(_subject(payload), style="dim"), Text(plain(payload.get("headline") or ""), style="bold")]
    measured = plain(outcome_section.headline(payload))
    parts += [Text(measured, style="bold"), Text("")] if measured else [Text("")]
    names = reading.comparing(payload)
    if names and (reading.layers(payload) or reading.sites(payload)):
        shown, table = _table(payload, names)
        parts += [table, Text("")]
        parts += [Text(line, style="dim") for line in _legend(payload, names[0], [name for name in names if name not in shown])]
        parts.append(Text(""))
    parts += outcome_lines.block(payload, COLUMNS)
    parts += [Text(line) for line in _lines(payload, names[0] if names else "")]
    parts += [Text.assemble(("warning: ", "bold"), plain(warning)) for warning in payload.get("warnings") or []]
    return Group(*parts)


def _subject(payload: reading.Payload) -> str:
    """Which models, on what."""
    data = payload.get("data") or {}
    names = " → ".join(plain((payload.get(side) or {}).get("name") or MISSING) for side in ("base", "tuned"))
    source, pooling = (plain(data.get(key) or MISSING) for key in ("source", "pooling"))
    if reading.unit(payload) == "row":
        return f"{names} · {count(data.get('n'))} rows, {source}"
    return f"{names} · {count(data.get('n'))} texts: {source} · {reading.how_read(pooling)}"


def _table(payload: reading.Payload, names: list[str]) -> tuple[list[str], Any]:
    """The table of layers, and the measures that fitted in it."""
    from rich import box
    from rich.table import Table

    layers = reading.layers(payload)
    rows = layers + reading.sites(payload)
    main, shown = names[0], [names[0]]
    full = reading.scale(payload, main)
    heads = ["layer" if layers else "", "status", _head(main), "±95%", "change", "", "chance"]
    lines = [_main_cells(payload, main, row, full) for row in rows]
    for name in names[1:]:
        longer = [[*line, three(reading.entry(row, name).get("value"))] for line, row in zip(lines, rows, strict=True)]
        if _needs([*heads, _head(name)], longer) <= COLUMNS:
            heads, lines, shown = [*heads, _head(name)], longer, [*shown, name]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False, header_style="dim")
    for order, head in enumerate(heads):
        table.add_column(
            head, justify="left" if order in (0, 1, 5) else "right", no_wrap=True, vertical="bottom", style="bold" if order == 4 else ""
        )
    for order, line in enumerate(lines):
        table.add_row(*(_text(cell) for cell in line), end_section=order == len(layers) - 1 < len(lines) - 1)
    return shown, table


def _text(cell: str) -> Any:
    from rich.text import Text

    return Text(cell)


def _head(name: str) -> str:
    return "\n".join(name.split("_"))


def _needs(heads: list[str], lines: list[list[str]]) -> int:
    from rich.cells import cell_len

    widths = [max(max(cell_len(part) for part in head.split("\n")), *(cell_len(line[i]) for line in lines)) for i, head in enumerate(heads)]
    return sum(widths) + len(widths) - 1


def _main_cells(payload: reading.Payload, measure: str, row: dict, full: float) -> list[str]:
    numbers = reading.entry(row, measure)
    change = numbers.get("change")
    name = plain(row["name"])
    name = name if len(name) <= _NAME else name[: _NAME - 1] + "…"
    value = numbers.get("value")
    word = plain(row.get("status") or MISSING) + ("*" if row.get("saturated") else "")
    return [name, word, three(value), half_width(value, numbers.get("low"), numbers.get("high")), three(change),
            bar(change / full) if change is not None else "", three(reading.floor(payload, measure, numbers))]  # fmt: skip


def _legend(payload: reading.Payload, measure: str, left_out: list[str]) -> list[str]:
    change = reading.about(payload, measure)["change"]
    carries = "; it carries forward from block to block" if reading.layers(payload) else ""
    lines = [f"change: {plain(change)}{carries}"]
    lines.append("chance: the change of an unrelated representation; a full bar is that far")
    lines.append("untouched: CKA ≥ .99 or within noise; refined: ≥ .87; rewritten: below")
    if any(row.get("saturated") for row in reading.layers(payload) + reading.sites(payload)):
        lines.append("* at the chance floor: carries no more information")
    if left_out:
        lines.append(f"also measured, in the report: {', '.join(left_out)}")
    return lines


def _lines(payload: reading.Payload, measure: str) -> list[str]:
    """One-sided measures, locality and width, then the ruler."""
    lines = []
    for name in reading.one_sided(payload) if not reading.unchanged(payload) else []:
        found = reading.largest_difference(payload, name)
        if found:
            where, base, tuned = found
            many = len(reading.layers(payload) + reading.sites(payload)) > 1
            what, at = (f"{name}, largest difference", f" at {plain(where)}") if many else (name, "")
            lines.append(f"{what}: {three(base)} → {three(tuned)} ({signed(tuned - base)}){at}")
    locality = (payload.get("locality") or {}).get(measure) or {}
    said = []
    if locality.get("slope") is not None and not reading.unchanged(payload):
        said.append(f"slope {signed(locality['slope'])} over depth")
    if locality.get("peak_layer") is not None:
        names = {row["index"]: plain(row["name"]) for row in reading.layers(payload)}
        said.append(f"peak at {names.get(locality['peak_layer'], locality['peak_layer'])}")
    width = payload.get("width") or {}
    if width.get("final_share") is not None:
        larger = plain(reading.largest_share(payload))
        said.append(f"{percent(width['final_share'])} of the change in the last block{f' ({larger})' if larger else ''}")
    if said:
        lines.append("where: " + ", ".join(said))
    lines += [plain(line) for line in weight_table.summary(payload)]
    matched = cross_words.line(payload)
    if matched:
        lines.append(plain(matched))
    ruler = []
    for control in payload.get("controls") or []:
        changes = [reading.entry(row, measure).get("change") for row in control["layers"]]
        largest = max((change for change in changes if change is not None), default=None)
        if largest is not None:
            ruler.append(f"{plain(control['name'])}: {three(largest)}")
    if ruler:
        lines.append("controls, largest change: " + " · ".join(ruler))
    if payload.get("ruler"):
        lines.append(f"as far as what? {payload['ruler']['said']}")
    return lines + [plain(line) for line in elsewhere.lines(payload)]
