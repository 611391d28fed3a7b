"""Results measured elsewhere become outcomes: read both sides, match their items, test the differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunescope.errors import UnknownName
from tunescope.outcome.external.measured import Measured
from tunescope.outcome.external.metrics import Direction, direction, undirected
from tunescope.outcome.external.mteb_predictions import Qrels
from tunescope.outcome.external.pairing import Matched, match
from tunescope.outcome.external.sides import Pair, Scores, read_sides, shared_tasks
from tunescope.outcome.outcome import Outcome
from tunescope.stats import paired

LISTED = 20  # most-changed items in the detail


@dataclass(frozen=True)
class TaskScores:
    """One task: its outcomes, the main metric first, and the per-item scores (n,) of that metric."""

    name: str
    outcomes: tuple[Outcome, ...]
    ids: tuple[str, ...]
    base: np.ndarray
    tuned: np.ndarray
    detail: dict[str, Any]


@dataclass(frozen=True)
class ExternalResults:
    """Outcomes measured by another program, one a task and metric, and what was left out on the way."""

    source: str
    reader: str
    tasks: tuple[TaskScores, ...]
    warnings: tuple[str, ...]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Every row; a task's main metric before its others."""
        return tuple(outcome for task in self.tasks for outcome in task.outcomes)

    @property
    def details(self) -> tuple[dict[str, Any], ...]:
        """One a task, JSON-able."""
        return tuple(task.detail for task in self.tasks)

    @property
    def detail(self) -> dict[str, Any]:
        """The only task's detail; of several, their counts together, the items that changed most of all, and `tasks`."""
        if len(self.tasks) == 1:
            return self.details[0]
        changed = [{**row, "id": f"{task['name']}: {row['id']}"} for task in self.details for row in task["most_changed"]]
        return {
            "kind": "external",
            "name": self.source,
            "source": self.source,
            "reader": self.reader,
            "items": sum(task["items"] for task in self.details),
            "unmatched": sum(task["unmatched"] for task in self.details),
            "most_changed": sorted(changed, key=lambda row: -abs(row["delta"]))[:LISTED],
            "warnings": list(self.warnings),
            "tasks": list(self.details),
        }


def external_results(
    base: Scores,
    tuned: Scores | None = None,
    *,
    metric: str | None = None,
    higher_is_better: Direction = None,
    margin: float = 0.0,
    reader: str | None = None,
    name: str | None = None,
    qrels: Qrels | str | Path | None = None,
    seed: int = 0,
) -> ExternalResults:
    """Read per-item results of both models that another program measured, and test the paired differences.

    Items are matched by id, never by place; those on one side only are counted in `unmatched` and said in `warnings`.

    Args:
        base, tuned: a samples file of lm-evaluation-harness, a log of Inspect, a result of MTEB, a .csv, .tsv, .jsonl or .parquet of
            (id, score), a folder of the first three, or a mapping {id: score}. base alone: one table of (id, base, tuned).
        metric: the metric to read; without it all that are there, the first of each task being its main one. Of a table: the column,
            or what its scores are called.
        higher_is_better: for a metric whose name does not say; or a mapping of metrics.
        margin: the difference that would not matter, in units of the metric. Without one nothing is called equivalent.
        reader: "lm-eval", "inspect", "mteb" or "table", where the file does not show it.
        qrels: the judgements of a retrieval task (query id → document id → grade, or a .tsv of BEIR) for two <task>_predictions.json that
            MTEB saved, which hold rankings.
        name: what to call the task of a table or mapping; the file's name without it.

    Raises:
        AlignmentError: no task, metric or item on both sides, or another text under the same id.
        FormatError: a layout that no reader knows. UnknownName: no such reader or metric.
        InputError: an id twice, a score that is not a finite number, a metric without a direction.
    """
    kind, sides = read_sides(base, tuned, metric, reader, qrels)
    given = f"{_shown(base)}, {_shown(tuned)}" if tuned is not None else _shown(base)
    tasks, warnings = shared_tasks(*sides)
    compared: list[TaskScores] = []
    for title, pairs in tasks.items():
        title = title or name or (Path(base).stem if isinstance(base, (str, Path)) else "scores")
        chosen = pairs if kind == "table" else _chosen(pairs, metric, title)
        directed, left_out = _directed(chosen, higher_is_better, title)
        compared.append(_compare(title, directed, given, kind, margin, seed))
        warnings += (*left_out, *compared[-1].detail["warnings"])
    if kind == "mteb" and len(compared) > 1:
        compared.insert(0, _over_tasks(compared, given, margin, seed))
    return ExternalResults(given, kind, tuple(compared), tuple(dict.fromkeys(warnings)))


Directed = tuple[Measured, Measured, bool]


def _chosen(pairs: list[Pair], metric: str | None, title: str) -> list[Pair]:
    """Those of the metric asked for, under any filter of it, a perplexity by its own name too; all without one."""
    if metric is None:
        return pairs
    names = [(base.metric, base.metric.split(",")[0], base.metric.split(",")[0].removeprefix("log_")) for base, _ in pairs]
    chosen = [pair for pair, known in zip(pairs, names, strict=True) if metric in known]
    if not chosen:
        raise UnknownName(f"metric of {title}", metric, [base.metric for base, _ in pairs])
    return chosen


def _directed(pairs: list[Pair], said: Direction, title: str) -> tuple[list[Directed], tuple[str, ...]]:
    """The metrics whose direction is known; the main one has to be."""
    known: list[Directed] = []
    warnings = []
    for base, tuned in pairs:
        higher = direction(base, said)
        if higher is not None:
            known.append((base, tuned, higher))
        elif not known:
            raise undirected(base)
        else:
            said_so = f"higher_is_better={{'{base.metric}': True}}"
            warnings.append(f"{title}: '{base.metric}' is left out: is more of it better or worse? Say {said_so}")
    return known, tuple(warnings)


def _compare(title: str, pairs: list[Directed], source: str, reader: str, margin: float, seed: int) -> TaskScores:
    """The outcomes of a task, the first pair being its main metric."""
    matches = [match(base, tuned) for base, tuned, _ in pairs]
    outcomes = tuple(
        _outcome(matched, title, base.metric, base.items, higher, margin, seed, main=place == 0)
        for place, (matched, (base, _, higher)) in enumerate(zip(matches, pairs, strict=True))
    )
    main = matches[0]
    warnings = [text for matched in matches for text in matched.warnings] + _unlike(main, title)
    detail = {
        "kind": "external",
        "name": title,
        "source": source,
        "reader": reader,
        "metric": outcomes[0].metric,
        "items": len(main.ids),
        "unmatched": main.only_base + main.only_tuned,
        "most_changed": _most_changed(main, outcomes[0].higher_is_better),
        "warnings": list(dict.fromkeys(warnings)),
    }
    return TaskScores(title, outcomes, main.ids, main.base, main.tuned, detail)


def _outcome(
    matched: Matched, title: str, metric: str, items: str, higher: bool, margin: float, seed: int, *, main: bool
) -> Outcome:
    test = paired(matched.base, matched.tuned, margin=margin, higher_is_better=higher, clusters=matched.groups, seed=seed)
    few = f"a test needs at least two {items}, got {len(matched.ids)}"
    reason = few if test.verdict == "not evaluable" and len(matched.ids) < 2 else None
    return Outcome.of(test, kind="external", name=title, metric=metric, items=items, main=main, reason=reason)


def _unlike(matched: Matched, title: str) -> list[str]:
    """A warning where one side looks like per cent and the other like fractions."""
    sizes = sorted(float(np.abs(side).max()) for side in (matched.base, matched.tuned))
    percent = sizes[0] <= 1 < 10 < sizes[1]
    return [f"{title}: one side's scores reach {sizes[1]:g} and the other's {sizes[0]:g}: is one of them in per cent?"] if percent else []


def _most_changed(matched: Matched, higher: bool) -> list[dict[str, Any]]:
    """The items that changed most; of two that changed alike, the one that got worse first."""
    delta = matched.tuned - matched.base
    order = np.lexsort((delta if higher else -delta, -np.abs(delta)))
    shown = [row for row in order[:LISTED].tolist() if delta[row] != 0]
    return [
        {"id": matched.ids[row], "base": float(matched.base[row]), "tuned": float(matched.tuned[row]), "delta": float(delta[row])}
        for row in shown
    ]


def _over_tasks(tasks: list[TaskScores], source: str, margin: float, seed: int) -> TaskScores:
    """All tasks of MTEB as one comparison whose items are the tasks, each with its mean main score."""
    base, tuned = (
        Measured("MTEB", "main_score", {task.name: float(side(task).mean()) for task in tasks}, source, items="tasks")
        for side in (lambda task: task.base, lambda task: task.tuned)
    )
    return _compare("MTEB", [(base, tuned, True)], source, "mteb", margin, seed)


def _shown(given: Scores | None) -> str:
    return "scores in memory" if isinstance(given, Mapping) else str(given)
