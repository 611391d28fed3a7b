"""What the charts of a study share: quiet axes, domains that take everything in, rows with a name."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tunescope.report.chart_parts import DROP_ZERO, wrap

ROW_PX = 26


def domain(values: Iterable[float | None], *, zero: bool = True, room: float = 0.05) -> tuple[float, float]:
    """The range of what is known, with 0 where asked, and some room."""
    known = [value for value in values if value is not None] + ([0.0] if zero else [])
    low, high = min(known, default=0.0), max(known, default=1.0)
    reach = (high - low) * room or 0.05 * abs(high) or 0.05
    return (low - (0 if zero and low == 0 else reach), high + reach)


def amounts(
    title: str | None = None, *, ticks: int = 5, grid: bool = False, signed: bool = False, values: list[float] | None = None
) -> Any:
    """An axis of amounts printed as the house prints numbers."""
    import altair as alt

    label = f"(datum.value > 0 ? '+' : '') + {DROP_ZERO}" if signed else DROP_ZERO
    return alt.Axis(
        title=title,
        labelExpr=label,
        tickCount=ticks,
        grid=grid,
        ticks=False,
        domain=False,
        labelPadding=4,
        titlePadding=6,
        labelOverlap="greedy",
        values=alt.Undefined if values is None else values,
    )


def rows_axis(names: list[str], *, field: str = "row", limit: int = 150, width: int = 22, lines: int = 2, at: float = 0.5) -> Any:
    """Rows from the top, each named at this share of its height."""
    import altair as alt

    labels = json.dumps([wrap(name, width=width, lines=lines) for name in names], ensure_ascii=False)
    axis = alt.Axis(
        values=[row + at for row in range(len(names))],
        labelExpr=f"{labels}[floor(datum.value)]",
        grid=False,
        ticks=False,
        domain=False,
        title=None,
        labelPadding=8,
        labelLimit=limit,
    )
    return alt.Y(f"{field}:Q", axis=axis, scale=alt.Scale(domain=[0, max(len(names), 1)], nice=False, reverse=True))
