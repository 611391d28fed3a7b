"""Did it help or hurt? A card for every task, an overview where there are many, and a table of every metric."""

from __future__ import annotations

from typing import Any

from tunescope.report import outcome_words, reading
from tunescope.report.numbers import amount, count, interval, p_value, signed, three
from tunescope.report.outcome_words import Row

CARDS = 6  # tasks beyond these stand in the overview alone
GLYPHS = {"better": "▲", "worse": "▼", "equivalent": "=", "no difference shown": "○", "not evaluable": "×"}
_CLASSES = {"better": "better", "worse": "worse"}


def carded(payload: reading.Payload) -> list[Row]:
    """The tasks that get a card: all of them where they are few, else those with most to say, the worse ones first."""
    found = outcome_words.tasks(payload.get("outcomes") or [])
    if len(found) <= CARDS:
        return found
    return sorted(found, key=_urgency)[:CARDS]


def _urgency(row: Row) -> tuple[int, float]:
    known = [row[key] for key in ("p_holm", "p") if row.get(key) is not None]
    return outcome_words.VERDICTS.index(row["verdict"]), known[0] if known else 1.0


def alike(rows: list[Row], row: Row) -> list[Row]:
    """The rows that are drawn on one scale with this one: the same kind and metric."""
    return [other for other in rows if (other["kind"], other["metric"]) == (row["kind"], row["metric"])]


def detail(payload: reading.Payload, row: Row) -> dict[str, Any]:
    """What was kept of the task beyond its row; empty where nothing was."""
    found = [task for each in payload.get("outcome_details") or [] for task in (each, *(each.get("tasks") or []))]
    return next((each for each in found if (each.get("kind"), each.get("name")) == (row["kind"], row["name"])), {})


def cards(payload: reading.Payload, drawn: dict[str, dict]) -> list[dict[str, Any]]:
    """What the page prints of each card."""
    many = len(outcome_words.tasks(payload.get("outcomes") or [])) > 1
    return [_card(payload, row, order, many, drawn) for order, row in enumerate(carded(payload))]


def _card(payload: reading.Payload, row: Row, order: int, many: bool, drawn: dict[str, dict]) -> dict[str, Any]:
    chart = f"outcome_{order}"
    name, meaning = outcome_words.metric(row["metric"]), outcome_words.meaning(row["metric"])
    at = outcome_words.where(row)
    kind = outcome_words.KINDS.get(row["kind"], row["kind"])
    return {
        **verdict(row), "name": row["name"], "kind": f"{kind} at {at}" if at else kind,
        "metric": name, "meaning": f"{meaning}; {outcome_words.direction(row)}" if meaning else outcome_words.direction(row),
        "base": amount(row.get("base")), "tuned": amount(row.get("tuned")), "known": row.get("delta") is not None,
        "chart": chart if chart in drawn else None, "rest": f"{outcome_words.verdict(row)[len(row['verdict']):]}.",
        "test": _test(row, many), "separate": _separate(detail(payload, row), row),
    }  # fmt: skip


def verdict(row: Row) -> dict[str, str]:
    """The word of a verdict, with its sign and its colour."""
    return {"word": row["verdict"], "glyph": GLYPHS.get(row["verdict"], ""), "verdict_class": _CLASSES.get(row["verdict"], "even")}


def _test(row: Row, many: bool) -> str:
    """The paired test, its Holm correction where there are several tasks, and the test of equivalence where a margin was stated."""
    if row.get("p") is None:
        return ""
    said = [f"Paired test {p_value(row['p'])}"]
    if many and row.get("p_holm") is not None:
        said.append(f"after Holm’s correction over the tasks {p_value(row['p_holm'])}")
    if row.get("equivalence_p") is not None and row["verdict"] in ("equivalent", "no difference shown") and row.get("margin"):
        said.append(f"equivalence {p_value(row['equivalence_p'])}")
    lost = " Not shown once all tasks are counted." if outcome_words.unproven([row]) else ""
    return f"{'; '.join(said)}.{lost}"


def _separate(found: dict[str, Any], row: Row) -> str:
    """Each side's own interval, named as the weaker test it is."""
    base, tuned = found.get("base_interval"), found.get("tuned_interval")
    if not base or not tuned or None in (*base, *tuned):
        return ""
    touch = "apart" if found.get("disjoint") else "overlapping"
    weaker = " although the paired difference is clear" if touch == "overlapping" and row["verdict"] in ("better", "worse") else ""
    return f"Each side alone (the weaker test): base {interval(*base)}, tuned {interval(*tuned)}, {touch}{weaker}."


def overview(payload: reading.Payload) -> list[dict[str, Any]]:
    """A line for each task where they are more than the cards; none where every task has its card."""
    found = outcome_words.tasks(payload.get("outcomes") or [])
    return [_line(row) for row in found] if len(found) > CARDS else []


def every(payload: reading.Payload) -> list[dict[str, Any]]:
    """Every row measured, where there is more than the cards tell."""
    rows = [row for row in payload.get("outcomes") or [] if row["kind"] != "reembedding"]
    return [_line(row) for row in rows] if len(rows) > len(outcome_words.tasks(rows)) else []


def _line(row: Row) -> dict[str, Any]:
    return {
        **verdict(row),
        "name": row["name"],
        "kind": outcome_words.KINDS.get(row["kind"], row["kind"]),
        "where": outcome_words.where(row),
        "metric": outcome_words.metric(row["metric"]),
        "base": amount(row.get("base")),
        "tuned": amount(row.get("tuned")),
        "delta": signed(row.get("delta")),
        "interval": f"[{outcome_words.reach(row).replace(' to ', ', ')}]" if outcome_words.reach(row) else "–",
        "p": three(row.get("p")),
        "p_holm": three(row.get("p_holm")),
        "n": count(row.get("n")),
        "reason": row.get("reason") or "",
        "lost": bool(outcome_words.unproven([row])),
    }
