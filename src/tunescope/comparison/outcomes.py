"""Did it help or hurt, inside a comparison: every task measured on the models that are loaded, and put beside the geometry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tunescope.comparison.control_outcomes import control_outcomes
from tunescope.comparison.findings import NO_FUNCTION, Progress
from tunescope.comparison.headline import NO_OUTCOME
from tunescope.comparison.probing import probe_classification, probe_labels
from tunescope.comparison.sources import Given
from tunescope.comparison.tasks import Measured, Tasks
from tunescope.models import Model
from tunescope.outcome.embedding import Vectors
from tunescope.outcome.language import language_loss
from tunescope.outcome.reembedding import reembedding
from tunescope.outcome.retrieval import retrieval
from tunescope.report import outcome_words
from tunescope.report.numbers import p_value, signed
from tunescope.stats import Correlation, association, holm

BRIDGED = 4  # passages from which a bridge between two spaces can be fitted
FEW = 4  # layers below which nothing can be held fixed


def with_outcomes(
    payload: dict[str, Any],
    tasks: Tasks,
    given: Given,
    *,
    controls: Mapping[str, Model] | None = None,
    max_length: int | None,
    batch_size: int,
    say: Progress,
) -> dict[str, Any]:
    """The payload with every task measured: `outcomes`, `outcome_details`, `outcome_headline`, `association`, and the controls' outcomes.

    Raises what the measuring raises; that both sides are models where a task needs them is checked before they are read.
    """
    if not tasks:
        return payload | {"outcome_details": [], "outcome_headline": "", "association": None}
    vectors: dict[str, Vectors] = {}  # of the base, by collection
    measured = _apart(_measured(tasks, given, vectors, max_length=max_length, batch_size=batch_size, say=say))
    details = [detail for one in measured for detail in one.details]
    rows = _corrected([outcome.row() for one in measured for outcome in one.outcomes])
    warnings = [warning for one in measured for warning in one.warnings]
    judged = control_outcomes(controls or {}, tasks, vectors, max_length=max_length, batch_size=batch_size, say=say)
    return payload | {
        "controls": [control | {"outcomes": judged.get(control["name"], [])} for control in payload.get("controls") or []],
        "headline": payload["headline"].removesuffix(NO_OUTCOME).rstrip(),
        "outcomes": rows,
        "outcome_details": details,
        "outcome_headline": outcome_words.headline(rows),
        "association": associated(payload["layers"], details),
        "warnings": list(dict.fromkeys([*payload["warnings"], *tasks.warnings, *warnings])),
        "notes": [note for note in payload["notes"] if note != NO_FUNCTION],
    }


def _apart(measured: Sequence[Measured]) -> list[Measured]:
    """Tasks of one kind and name told apart: the second is called "name (2)"."""
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for one in measured:
        names = {(row.kind, row.name) for row in one.outcomes}
        again = {key[1]: f"{key[1]} ({seen[key] + 1})" for key in names if seen[key]}
        seen.update(names)
        rows = tuple(replace(row, name=again.get(row.name, row.name)) for row in one.outcomes)
        details = tuple(detail | {"name": again.get(detail["name"], detail["name"])} for detail in one.details)
        found.append(replace(one, outcomes=rows, details=details))
    return found


def _measured(
    tasks: Tasks, given: Given, vectors: dict[str, Vectors], *, max_length: int | None, batch_size: int, say: Progress
) -> list[Measured]:
    pair = given.pair
    found: list[Measured] = []
    if pair is not None:
        for collection in tasks.collections:
            found += _retrieval(tasks, collection, pair, vectors, max_length, batch_size, say)
    known = tasks.labelled(given.corpus)
    if known is not None:
        found.append(probe_labels(known, tasks, given, say))
    if pair is not None:
        found += [probe_classification(task, tasks, given, say) for task in tasks.classifications]
        found += [_language(tasks, name, corpus, pair, max_length, batch_size, say) for name, corpus in tasks.texts.items()]
    return [*found, *(Measured(one.outcomes, one.details, one.warnings) for one in tasks.results)]


def _retrieval(
    tasks: Tasks,
    collection: Any,
    pair: tuple[Model, Model],
    vectors: dict[str, Vectors],
    max_length: int | None,
    batch_size: int,
    say: Progress,
) -> list[Measured]:
    options: dict[str, Any] = {"margin": tasks.margins["retrieval"], "seed": tasks.seed}
    base, tuned = pair
    ranked = retrieval(base, tuned, collection, **tasks.prompts, max_length=max_length, batch_size=batch_size, progress=say, **options)
    vectors[collection.sha256] = ranked.vectors[0]
    found: list[Any] = [ranked]
    if len(collection.doc_ids) >= BRIDGED:
        found.append(reembedding(*ranked.vectors, collection, similarity=ranked.rankings[0].similarity, **options))
    known = {*base.warnings, *tuned.warnings}  # said of the comparison already
    return [Measured(one.outcomes, (_without(one.detail, known),), one.warnings) for one in found]


def _without(detail: dict[str, Any], known: set[str]) -> dict[str, Any]:
    return detail | {"warnings": [line for line in detail["warnings"] if line not in known]}


def _language(
    tasks: Tasks, name: str, corpus: Any, pair: tuple[Model, Model], max_length: int | None, batch_size: int, say: Progress
) -> Measured:
    def report(done: int, total: int) -> None:
        say(f"language-model loss on {name}", done, total)

    options: dict[str, Any] = {"margin": tasks.margins["language"], "seed": tasks.seed, "max_length": max_length}
    found = language_loss(*pair, corpus, name=name, batch_size=batch_size, progress=report, **options)
    return Measured(found.outcomes, (found.detail,), tuple(found.detail["notes"]))


def _corrected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Holm's correction over the tasks: the main row of each, re-embedding apart, which compares two ways to deploy one model."""
    mains = [row for row in rows if row["main"] and row["kind"] != "reembedding"]
    for row, p in zip(mains, holm([row["p"] for row in mains]), strict=True):
        row["p_holm"] = p
    return rows


def associated(layers: Sequence[Mapping[str, Any]], details: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How 1 − CKA of the layers goes with what their probes gained, and whether more than their common trend over depth is behind it.

    None without a probe at four layers or more that changed.
    """
    gains = next(({row["index"]: row["delta"] for row in detail["layers"]} for detail in details if detail["kind"] == "probe"), {})
    rows = [(row["index"], row["measures"].get("cka", {}).get("change"), gains.get(row["index"])) for row in layers]
    known = [row for row in rows if None not in row]
    if len(known) < FEW:
        return None
    index, change, gain = (np.array(column, dtype=float) for column in zip(*known, strict=True))
    found = association(change, gain, index, covariate_name="depth")
    numbers = {"spearman": found.spearman, "pearson": found.pearson, "partial_pearson": found.partial, "partial_rank": found.rank_partial}
    told = {name: {"value": one.value, "p": one.p, "reason": one.reason} for name, one in numbers.items()}
    return told | {"n": len(known), "said": _said(found.spearman, found.partial)}


def _said(plain: Correlation, partial: Correlation) -> str:
    """The association in a sentence, the layer held fixed."""
    if plain.value is None:
        return f"Change and gain over layers have no correlation: {plain.reason}."
    start = f"Over {plain.n} layers, change and gain correlate at {signed(plain.value)} (Spearman, {p_value(plain.p)})"
    if partial.value is None:
        return f"{start}; with depth held fixed there is no value: {partial.reason}."
    return f"{start}; with depth held fixed, at {signed(partial.value)} (Pearson, {p_value(partial.p)})."
