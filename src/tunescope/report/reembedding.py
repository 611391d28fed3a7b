"""Must the corpus be embedded again? What each way to deploy the tuned model costs, and what it loses."""

from __future__ import annotations

from typing import Any

from tunescope.report import outcome_words, reading
from tunescope.report.numbers import MISSING, count, percent, signed, three

KEPT = "re-embed"  # the choice that the others are measured against


def view(payload: reading.Payload) -> list[dict[str, Any]]:
    """What the page prints of each collection."""
    return [_view(found) for found in payload.get("outcome_details") or [] if found.get("kind") == "reembedding" and found.get("choices")]


def _view(found: dict[str, Any]) -> dict[str, Any]:
    anchors = f" The bridges were fitted on {count(found['anchors'])} passages embedded by both models." if found.get("anchors") else ""
    return {
        "name": found.get("name") or "retrieval", "metric": outcome_words.metric(str(found.get("metric") or "ndcg@10")),
        "lead": f"{_lead(found)}{anchors}", "rows": [_choice(row) for row in found["choices"]],
    }  # fmt: skip


def _lead(found: dict[str, Any]) -> str:
    """Which choices were shown worse than embedding again, and the cheapest that was shown as good."""
    worse = [str(row["title"]) for row in found["choices"] if row.get("verdict") == "worse"]
    said = ["Tuned queries, searched in passages that were embedded in one way or another."]
    if worse:
        said.append(f"Worse than embedding the corpus again: {'; '.join(worse)}.")
    best = next((row for row in found["choices"] if row.get("key") == found.get("cheapest")), None)
    if best and best["key"] != KEPT:
        said.append(f"The cheapest choice shown to be as good: {best['title']}.")
    elif best:
        said.append("No cheaper choice was shown to be as good as embedding it again.")
    return " ".join(said)


def _choice(row: dict[str, Any]) -> dict[str, str]:
    low, high, own = row.get("low"), row.get("high"), row.get("key") == KEPT
    score = row.get("ndcg") if row.get("ndcg") is not None else row.get("score")
    return {
        "title": str(row.get("title") or row.get("key") or MISSING), "score": three(score),
        "delta": MISSING if own else signed(row.get("delta_to_reembed")),
        "interval": f"[{signed(low)}, {signed(high)}]" if low is not None and high is not None and not own else "",
        "kept": percent(row.get("kept")), "cost": _cost(row.get("cost")), "said": str(row.get("verdict") or row.get("reason") or ""),
    }  # fmt: skip


def _cost(cost: Any) -> str:
    return MISSING if cost is None else count(cost) if isinstance(cost, int | float) else str(cost)
