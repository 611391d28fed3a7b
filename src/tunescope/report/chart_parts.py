"""What the charts share: inline data, labels that wrap and keep apart, the axis of layers and the axis of amounts.

Altair is imported when a chart is made.
"""

from __future__ import annotations

import json
from typing import Any

from tunescope.report import reading

LINE_PX = 13
CHAR_PX = 6.1
DROP_ZERO = "replace(format(datum.value, '~g'), /^(−?)0\\./, '$1.')"


class Tables:
    """The rows a chart draws, kept out of the chart while Altair copies it and put into its specification at the end."""

    def __init__(self) -> None:
        self.datasets: dict[str, list[dict]] = {}

    def __call__(self, rows: list[dict]) -> Any:
        """A chart of these rows; unknown values are left out."""
        import altair as alt

        name = f"rows_{len(self.datasets)}"
        self.datasets[name] = [{key: value for key, value in row.items() if value is not None} for row in rows]
        return alt.Chart(alt.NamedData(name))


def wrap(text: str, width: int = 15, lines: int = 3) -> list[str]:
    """A label broken at spaces into at most so many lines; what doesn't fit ends in an ellipsis."""
    out: list[str] = []
    for word in text.split():
        if out and len(out[-1]) + 1 + len(word) <= width:
            out[-1] += " " + word
        else:
            out.append(word)
    out = [line if len(line) <= width else line[: width - 1] + "…" for line in out] or [""]
    return out if len(out) <= lines else [*out[: lines - 1], out[lines - 1][: width - 1] + "…"]


def spread(wanted: list[float], heights: list[float], top: float, bottom: float) -> list[float]:
    """Centres for labels of these heights, near the wanted ones, not overlapping, inside [top, bottom] if they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = list(wanted)
    edge = top
    for i in order:
        placed[i] = max(wanted[i], edge + heights[i] / 2)
        edge = placed[i] + heights[i] / 2
    edge = bottom
    for i in reversed(order):
        placed[i] = min(placed[i], edge - heights[i] / 2)
        edge = placed[i] - heights[i] / 2
    return placed


def block_axis(rows: list[dict], *, offset: float = 0, title: str | None = "block") -> tuple[Any, Any]:
    """The x axis of layers (every index where few, thinned where many) and its scale."""
    import altair as alt

    indices = [row["index"] for row in rows]
    step = next((s for s in (1, 2, 4, 6, 8, 12, 16, 24, 32) if len(indices) / s <= 16), 64)
    ticks = [i for i in indices if i % step == 0 or i == indices[-1]]
    if len(ticks) > 1 and 0 < ticks[-1] - ticks[-2] < step / 2:
        ticks.pop(-2)
    names = json.dumps({str(row["index"]): reading.short_name(row) for row in rows})
    axis = alt.Axis(values=ticks, labelExpr=f"{names}[datum.value]", grid=False, ticks=False, offset=offset, domain=False,
                    labelPadding=4, labelOverlap="greedy", title=title, titlePadding=6)  # fmt: skip
    return axis, alt.Scale(domain=[indices[0] - 0.5, indices[-1] + 0.5], nice=False, zero=False)


def amount_axis(title: str) -> Any:
    import altair as alt

    return alt.Axis(title=title, titleAngle=0, titleAlign="left", titleAnchor="start", titleBaseline="bottom", titleX=0, titleY=-10,
                    labelExpr=DROP_ZERO, tickCount=5, ticks=False, domain=False, minExtent=30, maxExtent=48)  # fmt: skip
