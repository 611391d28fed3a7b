"""The weight-space profile in words: a table for the page, a table for the terminal, and a line of the comparison's summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunescope.report import reading
from tunescope.report.numbers import MINUS, MISSING, count, one_decimal, signed, three, two_digits

if TYPE_CHECKING:
    from rich.console import RenderableType

RANKS = (
    "Ranks are those of the update of the part's most changed matrix: stable is its squared Frobenius over its squared spectral norm, "
    "effective the exponential of the entropy of its singular values."
)


def weights_of(payload: reading.Payload) -> dict[str, Any]:
    """The weight-space profile of a payload; empty where it has none."""
    return payload.get("weights") or {}


def section(payload: reading.Payload, drawn: dict[str, dict]) -> dict[str, Any] | None:
    """What the page prints of the weights: None where they were not compared."""
    weights = weights_of(payload)
    if not weights:
        return None
    if not weights["blocks"]:
        return {"lead": f"The weights were not compared: {weights.get('reason') or 'no reason is given'}.", "charts": [], "rows": []}
    rows = [_row(row) for row in weights["blocks"]]
    titles = {"weight_change": "How far the weights moved", "representation_change": "How far the outputs moved"}
    return {
        "lead": _lead(payload),
        "charts": [{"name": name, "title": title} for name, title in titles.items() if name in drawn],
        "rows": rows,
        "per_unit": any(row["per_unit"] != MISSING for row in rows),
        "ranks": RANKS,
        "notes": weights.get("notes") or [],
    }


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": row["name"],
        "frozen": bool(row["frozen"]),
        "change": two_digits(row["relative_change"]),
        "stable": one_decimal(row["stable_rank"]),
        "effective": one_decimal(row["effective_rank"]),
        "output": three(row.get("representation_change")),
        "per_unit": _ratio(row.get("change_per_weight_change")),
        "reason": row.get("reason") or "",
    }


def _lead(payload: reading.Payload) -> str:
    """The two slopes in a sentence."""
    weights = weights_of(payload)
    said = [extent(weights) + "."]
    locality = (payload.get("locality") or {}).get("cka") or {}
    if weights.get("rank_slope") is not None and locality.get("rank_slope") is not None:
        weight = f"{signed(weights['rank_slope'])} (slope {_slope(weights['slope'])})"
        output = f"{signed(locality['rank_slope'])} (slope {signed(locality['slope'])})"
        said.append(f"Over depth, weight change has rank correlation {weight}, the change of the outputs {output}.")
        said.append("Where they differ, the depth profile is more than where the updates were large.")
    return " ".join(said)


def extent(weights: dict[str, Any]) -> str:
    """Which blocks moved, by how much, and which did not."""
    blocks = [row for row in weights["blocks"] if row["index"]]
    moved = [row for row in blocks if not row["frozen"] and row["relative_change"] is not None]
    frozen = [row["name"] for row in weights["blocks"] if row["frozen"]]
    if not moved:
        return "No block’s weights changed" if len(frozen) < len(weights["blocks"]) else "Every weight is bit-identical"
    sizes = sorted(row["relative_change"] for row in moved)
    most = max(moved, key=lambda row: row["relative_change"])["name"]
    low, high = two_digits(sizes[0]), two_digits(sizes[-1])
    amount = f"by {high} of their norm" if low == high else f"by {low} to {high} of their norm, {most} most"
    which = f"all {count(len(blocks))}" if len(moved) == len(blocks) else f"{count(len(moved))} of {count(len(blocks))}"
    said = f"The weights of {which} blocks moved {amount}"
    return said + (f"; bit-identical: {_listed(frozen)}" if frozen else "")


def summary(payload: reading.Payload) -> list[str]:
    """The line of the terminal's summary; none where the weights were not compared."""
    weights = weights_of(payload)
    return [f"weights: {extent(weights)}"] if weights.get("blocks") else []


def weights_terminal(payload: reading.Payload) -> RenderableType:
    """The rich renderable of weights.json: the pair, one row a block, and how to read it."""
    from rich.console import Group
    from rich.text import Text

    from tunescope.report.terminal import plain

    payload = reading.printable(payload)
    weights = weights_of(payload)
    names = " → ".join(plain((payload.get(side) or {}).get("name") or MISSING) for side in ("base", "tuned"))
    parts: list[Any] = [Text(f"{names} · weights only, no forward pass", style="dim"), Text(extent(weights), style="bold"), Text("")]
    parts += [_table(weights), Text("")]
    parts.append(Text("|ΔW|/|W|: Frobenius norms over all tensors of the part; ranks: of its most changed matrix", style="dim"))
    if weights.get("slope") is not None:
        rank = f", rank correlation {signed(weights['rank_slope'])}" if weights.get("rank_slope") is not None else ""
        parts.append(Text(f"slope of |ΔW|/|W| over depth {_slope(weights['slope'])}{rank}"))
    reasons = dict.fromkeys(f"{row['name']}: {row['reason']}" for row in weights["blocks"] if row.get("reason"))
    parts += [Text(plain(said), style="dim") for said in [*reasons, *(weights.get("notes") or [])]]
    parts += [Text.assemble(("warning: ", "bold"), plain(warning)) for warning in payload.get("warnings") or []]
    return Group(*parts)


def _table(weights: dict[str, Any]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    for head in ("part", "|ΔW|/|W|", "stable\nrank", "effective\nrank", ""):
        table.add_column(head, justify="left" if head in ("part", "") else "right", no_wrap=True, vertical="bottom")
    for row in map(_row, weights["blocks"]):
        cells = [row["name"], row["change"], row["stable"], row["effective"], "frozen" if row["frozen"] else ""]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _ratio(value: float | None) -> str:
    return one_decimal(value) if value is not None and value >= 10 else two_digits(value)


def _slope(value: float | None) -> str:
    if value is None or value == 0:
        return three(value)
    return ("+" if value > 0 else MINUS) + two_digits(abs(value))


def _listed(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {count(len(names) - most)} more" if len(names) > most else "")
