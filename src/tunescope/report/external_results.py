"""Results measured elsewhere: where they come from, how many items met, and the items that changed most."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading
from tunescope.report.numbers import MISSING, count, signed, three


def view(payload: reading.Payload) -> list[dict[str, Any]]:
    """What the page prints of each set of results."""
    found = [each for each in payload.get("outcome_details") or [] if each.get("kind") == "external"]
    return [_view(task) for each in found for task in each.get("tasks") or [each]]


def _view(found: dict[str, Any]) -> dict[str, Any]:
    items = found.get("items")
    unmatched = found.get("unmatched")
    unmatched = sum(map(_size, unmatched.values())) if isinstance(unmatched, dict) else _size(unmatched)
    said = f"{count(_size(items))} items" + (f"; {count(unmatched)} were in one file only and are left out" if unmatched else "")
    rows = [
        {"id": str(row.get("id", "")), "base": three(row.get("base")), "tuned": three(row.get("tuned")), "delta": signed(row.get("delta"))}
        for row in found.get("most_changed") or []
    ]
    return {
        "name": str(found.get("name") or "results"),
        "source": _source(found.get("source")),
        "reader": str(found.get("reader") or MISSING),
        "said": said,
        "rows": rows,
        "notes": [str(said).rstrip(".") for said in found.get("warnings") or []],
    }


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list | tuple | dict) else int(value or 0)


def _source(source: Any) -> str:
    if isinstance(source, dict):
        return " and ".join(str(value) for value in source.values())
    return " and ".join(map(str, source)) if isinstance(source, list | tuple) else str(source or MISSING)
