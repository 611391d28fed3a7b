"""Everything the report shows of outcomes, in one place: what the page prints, which charts there are, what each is called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tunescope.report import (
    external_results,
    outcome_cards,
    outcome_words,
    probe_surface,
    queries,
    reading,
    reembedding,
    ruler_outcomes,
    side_by_side,
    token_view,
    two_questions,
)
from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import count
from tunescope.report.outcome_whiskers import outcome_whisker
from tunescope.report.two_questions_chart import two_questions_chart


def headline(payload: reading.Payload) -> str:
    """The sentence on function beside the geometry's; empty where nothing was measured about it."""
    return str(payload.get("outcome_headline") or outcome_words.headline(payload.get("outcomes") or []))


def drawings(payload: reading.Payload) -> dict[str, Callable[[Tables], Any]]:
    """Every chart of outcomes, by name."""
    rows = outcome_cards.carded(payload)
    draw: dict[str, Callable[[Tables], Any]] = {
        f"outcome_{order}": functools.partial(outcome_whisker, row, outcome_cards.alike(rows, row)) for order, row in enumerate(rows)
    }
    for order, probe in enumerate(two_questions.probes(payload)):
        draw[f"two_questions_{order}"] = functools.partial(two_questions_chart, payload, probe)
    for order, (_, audit) in enumerate(probe_surface.audits(payload)):
        for scaling in range(len(audit["accuracy"])):
            draw[f"probe_surface_{order}_{scaling}"] = functools.partial(probe_surface.surface, audit, scaling)
    for order, marks in enumerate(ruler_outcomes.groups(payload)):
        draw[f"ruler_outcome_{order}"] = functools.partial(ruler_outcomes.ruler_outcome, marks)
    return draw


def titles(payload: reading.Payload) -> dict[str, dict[str, str]]:
    """What each of these charts is called where it stands alone as a figure."""
    made = {}
    for order, row in enumerate(outcome_cards.carded(payload)):
        made[f"outcome_{order}"] = _title(f"{row['name']}: {outcome_words.metric(row['metric'])}", outcome_words.verdict(row))
    for order, probe in enumerate(two_questions.probes(payload)):
        made[f"two_questions_{order}"] = _title(f"Changed? Helped? {probe['name']}", "Change of each layer against the probes’ difference")
    for order, (name, audit) in enumerate(probe_surface.audits(payload)):
        for scaling, word in enumerate(audit.get("scalings") or []):
            made[f"probe_surface_{order}_{scaling}"] = _title(f"Accuracy of a probe by its settings: {name}", f"features: {word}")
    for order, rows in enumerate(ruler_outcomes.groups(payload)):
        name = f"{rows[0]['name']}, {outcome_words.metric(rows[0]['metric'])}"
        made[f"ruler_outcome_{order}"] = _title("As far as what? Known disturbances in outcome units", name)
    return made


def _title(text: str, subtitle: str) -> dict[str, str]:
    return {"text": text, "subtitle": subtitle}


def view(payload: reading.Payload, drawn: dict[str, dict]) -> dict[str, Any] | None:
    """What the page prints of outcomes; None where nothing was measured about function."""
    found = payload.get("outcomes") or []
    if not found:
        return None
    shown, tasks = outcome_cards.cards(payload, drawn), outcome_words.tasks(found)
    return {
        "lead": _lead(len(tasks)), "cards": shown, "overview": outcome_cards.overview(payload),
        "left_out": f"The {count(len(shown))} with most to say, the worse first:" if len(tasks) > len(shown) else "",
        "every": outcome_cards.every(payload), "caption": _caption(payload), "probes": two_questions.view(payload, drawn),
        "retrieval": queries.view(payload), "language": token_view.view(payload), "audits": probe_surface.view(payload, drawn),
        "reembedding": reembedding.view(payload), "external": external_results.view(payload), "ruler": ruler_outcomes.view(payload, drawn),
        "beside": side_by_side.view(payload),
    }  # fmt: skip


def _lead(tasks: int) -> str:
    one = "Every item went through base and tuned, and the difference of each item is what is tested."
    many = " Several tasks are several chances to be wrong, so Holm’s correction stands beside each p-value." if tasks > 1 else ""
    return f"{one}{many} “No difference shown” is not “preserved”: only “equivalent” says that, within its margin."


def _caption(payload: reading.Payload) -> str:
    rows = outcome_cards.carded(payload)
    band = " Band: the margin within which a difference would not matter." if any(row.get("margin") for row in rows) else ""
    alike = " Tasks of one metric share a scale." if len({(row["kind"], row["metric"]) for row in rows}) < len(rows) else ""
    return f"Dot: the mean difference, tuned − base; line: its 95% interval; upright line: zero.{band}{alike}"
