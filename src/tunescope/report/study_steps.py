"""Standard → equal-step: each cell's two slopes as a dumbbell, by block type, saturated ones marked."""

from __future__ import annotations

from typing import Any

from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import signed
from tunescope.report.study_axes import amounts, domain, rows_axis
from tunescope.report.study_series import shades
from tunescope.report.theme import LIGHT

STEP_PX = 22
BLOCK_ROLES = {"sequential": "main", "parallel": "control_0", "unknown": "floor"}


def ordered_cells(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """By block type, then model, then the slope that is left."""
    order = list(BLOCK_ROLES)
    return sorted(entry["cells"], key=lambda cell: (order.index(cell["block"]), cell["model"], -(cell["equal"] or 0.0)))


def step_dumbbells(entry: dict[str, Any], tables: Tables) -> Any | None:
    """Hollow: under the standard rule; filled: under equal-step; a square where the curve lies at its floor."""
    import altair as alt

    cells = [cell for cell in ordered_cells(entry) if cell["equal"] is not None]
    if not cells:
        return None
    rows = [
        cell
        | {
            "row": row + 0.5,
            "colour": BLOCK_ROLES[cell["block"]],
            "before": signed(cell["standard"]),
            "after": signed(cell["equal"]),
            "named": f"{cell['model']}, {cell['objective']}",
            "word": "saturated" if cell["saturated"] else "not saturated",
        }
        for row, cell in enumerate(cells)
    ]
    every = [cell[name] for cell in cells for name in ("standard", "equal")]
    scale = alt.Scale(domain=list(domain(every)), nice=False, zero=False)
    names = [row["named"] for row in rows]
    y, colour = rows_axis(names, limit=210, width=34, lines=1), shades()

    def across(key: str) -> Any:
        return alt.X(f"{key}:Q", axis=amounts("slope over depth"), scale=scale)

    told = [
        alt.Tooltip("named:N", title="of"),
        alt.Tooltip("block:N", title="blocks"),
        alt.Tooltip("from:N", title="from"),
        alt.Tooltip("before:N", title="its slope"),
        alt.Tooltip("after:N", title="equal-step"),
        alt.Tooltip("word:N", title="curve"),
    ]
    edges = [row for row in range(1, len(cells)) if cells[row]["block"] != cells[row - 1]["block"]]
    both = tables([row for row in rows if row["standard"] is not None])
    full, flat = tables([row for row in rows if not row["saturated"]]), tables([row for row in rows if row["saturated"]])
    parts = [
        tables([{"row": edge} for edge in edges]).mark_rule(color=LIGHT["rule"]).encode(y=y),
        tables([{"zero": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1).encode(x=across("zero")),
        both.mark_rule(strokeWidth=2, opacity=0.45).encode(x=across("standard"), x2="equal:Q", y=y, color=colour),
        both.mark_point(size=52, filled=True, opacity=1, color=LIGHT["paper"]).encode(
            x=across("standard"), y=y, stroke=shades("Stroke"), tooltip=told
        ),
        full.mark_point(size=64, filled=True, opacity=1).encode(x=across("equal"), y=y, color=colour, tooltip=told),
        flat.mark_point(size=84, shape="square", filled=True, opacity=1, color=LIGHT["paper"], strokeWidth=2).encode(
            x=across("equal"), y=y, stroke=shades("Stroke"), tooltip=told
        ),
    ]
    return alt.layer(*parts).properties(height=STEP_PX * len(rows))
