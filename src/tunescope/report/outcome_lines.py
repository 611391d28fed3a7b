"""Did it help or hurt, in a terminal: one line a task, by its main metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunescope.report import outcome_words, reading, side_by_side
from tunescope.report.numbers import amount, count, percent, signed, three

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST = 12  # tasks listed; the others are counted
_STYLES = {"worse": "bold", "better": "bold"}
_NAME, _METRIC = 6, 8  # the fewest characters a name or a metric is cut to


def block(payload: reading.Payload, width: int) -> list[RenderableType]:
    """The table and what must be said beside it; nothing where nothing was measured about function."""
    found = outcome_words.tasks(payload.get("outcomes") or [])
    if not found:
        return []
    from rich.text import Text

    shown = sorted(found, key=lambda row: outcome_words.VERDICTS.index(row["verdict"]))[:MOST] if len(found) > MOST else found
    parts: list[RenderableType] = [Text("did it help or hurt? (tuned − base, 95% interval)", style="dim"), _table(shown, width)]
    parts += [Text(line, style="dim") for line in _asides(payload, found, shown)]
    parts += side_by_side.table(payload)
    return [*parts, Text("")]


def _table(rows: list[outcome_words.Row], width: int) -> Any:
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    from tunescope.report.terminal import plain

    lines = [_cells(row) for row in rows]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(lines[0]))]
    kept = list(range(len(widths)))
    if _NAME + min(widths[1], _METRIC) + sum(widths[2:]) + len(widths) > width:
        kept.remove(2)  # base → tuned: the difference says it too
    metric = min(widths[1], 14)
    room = width - metric - sum(widths[i] for i in kept if i > 1) - len(kept)
    limits = {0: max(_NAME, min(widths[0], room)), 1: metric}
    table = Table.grid(padding=(0, 1, 0, 0))
    for i in kept:
        table.add_column(justify="right" if i == 3 else "left", no_wrap=True)
    for row, line in zip(rows, lines, strict=True):
        style = _STYLES.get(row["verdict"], "")
        table.add_row(*(Text(_cut(plain(line[i]), limits.get(i, widths[i])), style=style if i == len(line) - 1 else "") for i in kept))
    return table


def _cells(row: outcome_words.Row) -> list[str]:
    from tunescope.report.terminal import plain

    span = outcome_words.reach(row)
    both = f"{amount(row.get('base'))} → {amount(row.get('tuned'))}" if row.get("delta") is not None else ""
    delta = signed(row.get("delta")) if row.get("delta") is not None else ""
    return [plain(row["name"]), plain(outcome_words.metric(row["metric"])), both, delta,
            f"[{span.replace(' to ', ', ')}]" if span else "", row["verdict"]]  # fmt: skip


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _language(detail: dict[str, Any]) -> str:
    """How far the predictions parted, which a loss that hardly moved does not show."""
    from tunescope.report.terminal import plain

    if detail.get("kl") is None:
        return f"{plain(detail['name'])}: the tokenizers differ, so there is no KL"
    agreement = percent(detail.get("agreement"))
    return f"{plain(detail['name'])}: KL {three(detail['kl'])} nats a token; the likeliest token is the same at {agreement}"


def _asides(payload: reading.Payload, found: list[outcome_words.Row], shown: list[outcome_words.Row]) -> list[str]:
    """What a reader must not miss: tasks left out, verdicts that fall with Holm's correction, reasons, the association."""
    from tunescope.report.terminal import plain

    said = [f"and {count(len(found) - len(shown))} more tasks, in the report"] if len(shown) < len(found) else []
    lost = [plain(row["name"]) for row in outcome_words.unproven(found)]
    if lost:
        said.append(f"not shown after Holm's correction over {count(len(found))} tasks: {', '.join(lost[:4])}")
    said += [
        f"{plain(row['name'])}: {plain(row.get('reason') or 'no reason is given')}" for row in shown if row["verdict"] == "not evaluable"
    ]
    said += [_language(detail) for detail in payload.get("outcome_details") or [] if detail.get("kind") == "language"]
    association = (payload.get("association") or {}).get("said")
    return said + ([f"change and gain: {plain(association)}"] if association else [])
