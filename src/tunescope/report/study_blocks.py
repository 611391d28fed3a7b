"""What a section of a study's page is made of: charts in a grid, tables, notes, and parts that open; plain data for the template."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tunescope.report.study_series import Series

Block = dict[str, Any]


class Sheet:
    """The drawings of a page by name, collected while its sections are written."""

    def __init__(self) -> None:
        self.draw: dict[str, Callable[..., Any]] = {}

    def __call__(self, kind: str, drawing: Callable[..., Any], *given: Any, **named: Any) -> str:
        """The name under which the page finds the drawing."""
        name = f"{kind}_{sum(1 for known in self.draw if known.rpartition('_')[0] == kind)}"
        self.draw[name] = functools.partial(drawing, *given, **named)
        return name


def panels(items: Iterable[Block], layout: str = "two") -> Block:
    """Charts in a grid; layout: one, two, three or five in a row where there is room. An item: chart, title, note."""
    return {"type": "panels", "layout": layout, "items": list(items)}


def panel(chart: str, title: str = "", note: str = "") -> Block:
    return {"chart": chart, "title": title, "note": note}


def table(label: str, heads: Sequence[str], rows: Iterable[Sequence[Any]], *, words: Sequence[int] = ()) -> Block:
    """A table whose first column names the row; words: other columns that are text and not numbers."""
    left = {0, *words}
    return {
        "type": "table",
        "label": label,
        "heads": [{"said": head, "n": order not in left} for order, head in enumerate(heads)],
        "rows": [[{"said": cell, "n": order not in left} for order, cell in enumerate(row)] for row in rows],
    }


def note(text: str) -> Block:
    return {"type": "note", "said": text}


def heading(text: str) -> Block:
    return {"type": "heading", "said": text}


def bullets(lines: Iterable[str]) -> Block:
    return {"type": "bullets", "lines": list(lines)}


def key(series: Iterable[Series], *, mark: str = "line") -> Block:
    """What the colours stand for."""
    return {
        "type": "key",
        "marks": [{"said": one.said, "variable": one.variable, "mark": mark, "dashed": bool(one.dash)} for one in series],
    }


def fold(summary: str, *blocks: Block, aside: str = "") -> Block:
    """A part that opens."""
    return {"type": "fold", "summary": summary, "aside": aside, "blocks": [block for block in blocks if block]}


def section(name: str, title: str, lead: str, *blocks: Block | None) -> Block:
    return {"name": name, "title": title, "lead": lead, "blocks": [block for block in blocks if block]}
