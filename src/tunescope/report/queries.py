"""Retrieval, query by query: which queries broke, which were mended, and where their best relevant passage stood before and after."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading
from tunescope.report.numbers import count, signed, three


def view(payload: reading.Payload) -> list[dict[str, Any]]:
    """What the page prints of each retrieval task."""
    return [_view(found) for found in payload.get("outcome_details") or [] if found.get("kind") == "retrieval"]


def _view(found: dict[str, Any]) -> dict[str, Any]:
    counts = found.get("counts") or {}
    sides = [
        {
            "title": f"{count(counts.get(key))} {_queries(counts.get(key))} {verb}",
            "word": key,
            "rows": [_query(row, found.get("k")) for row in found.get(key) or []],
            "left_out": _left_out(counts.get(key), found.get(key) or []),
        }
        for key, verb in (("broken", "broke"), ("mended", "mended"))
    ]
    return {"name": found.get("name") or "retrieval", "lead": _lead(found, counts), "about": _about(found),
            "sides": [side for side in sides if side["rows"]]}  # fmt: skip


def _queries(many: float | None) -> str:
    return "query" if many == 1 else "queries"


def _lead(found: dict[str, Any], counts: dict[str, Any]) -> str:
    """How many broke, were mended or did neither, and what that means."""
    cut = str(found.get("main_metric") or "").partition("@")[2]
    top = f"the first {cut}" if cut else "the top"
    return (
        f"Of {count(found.get('queries'))} queries {count(counts.get('broken'))} broke: a relevant passage left {top} and the score fell. "
        f"{count(counts.get('mended'))} mended, the other way round; {count(counts.get('same'))} did neither."
    )


def _about(found: dict[str, Any]) -> str:
    """What was searched, and how it was read."""
    said = []
    if found.get("corpus"):
        said.append(f"{count(found['corpus'])} passages")
    if found.get("split"):
        said.append(f"split {found['split']}")
    prompts = found.get("prompts") or {}
    said += [f"{side} prompt “{prompts[side]}”" for side in ("query", "passage") if prompts.get(side)]
    if found.get("max_length"):
        said.append(f"at most {count(found['max_length'])} tokens a text")
    cut, missing = found.get("truncated"), found.get("judged_missing")
    if isinstance(cut, int | float) and cut:
        said.append(f"{count(cut)} texts cut at that length")
    if isinstance(missing, int | float) and missing:
        said.append(f"{count(missing)} queries have no judgement and are left out")
    said += [str(warning).rstrip(".") for warning in found.get("warnings") or []]
    return f"{'; '.join(said)}." if said else ""


def _left_out(total: float | None, rows: list[dict]) -> str:
    more = int(total or 0) - len(rows)
    return f"{count(more)} more are in the scores of each query, not shown here." if more > 0 else ""


def _query(row: dict[str, Any], ranked: int | None) -> dict[str, str]:
    return {
        "id": str(row.get("id", "")), "text": str(row.get("text") or ""), "base_rank": _rank(row.get("base_rank"), ranked),
        "tuned_rank": _rank(row.get("tuned_rank"), ranked), "base": three(row.get("base")), "tuned": three(row.get("tuned")),
        "delta": signed(row.get("delta")),
    }  # fmt: skip


def _rank(rank: float | None, ranked: int | None) -> str:
    if rank is not None:
        return f"rank {count(rank)}"
    return f"beyond the first {count(ranked)}" if ranked else "not ranked"
