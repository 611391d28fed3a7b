"""Linear probes inside a comparison: at every layer and at the output, on the rows that were read for the geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.comparison.findings import Progress
from tunescope.comparison.side import Pairing, pairings
from tunescope.comparison.sources import Given
from tunescope.comparison.tasks import Measured, Tasks
from tunescope.errors import InputError
from tunescope.outcome.mteb_tasks import ClassificationTask
from tunescope.outcome.probe_audit import probe_audit
from tunescope.outcome.probe_protocols import PROTOCOLS, Protocol
from tunescope.outcome.probes import probe
from tunescope.texts.labelled import Labelled, labelled

Place = int | str
NO_ROWS = "labels are of whole texts and need a row of each; leave out --method stream and --pooling none"
LAST = "final"  # the last layer again, but for a norm


def probe_labels(known: Labelled, tasks: Tasks, given: Given, say: Progress) -> Measured:
    """Probes of the classes of the comparison's own texts. Raises InputError where no row of every text was kept."""
    _check_rows(given)
    further = [] if tasks.test is None else [given.read_both(tasks.test, "test")]
    return _probed(known, [pairings(given.base, given.tuned), *further], known.column, tasks, say)


def probe_classification(task: ClassificationTask, tasks: Tasks, given: Given, say: Progress) -> Measured:
    """Probes of a classification task that brings its own texts, which both models read here."""
    _check_rows(given)
    known = labelled(task.train, task.column, test=task.test, seed=tasks.seed)
    sides = [given.read_both(task.train, task.name), given.read_both(task.test, f"{task.name}, {task.split}")]
    own = replace(PROTOCOLS["mteb"], per_class=task.samples_per_class, resamples=task.experiments)
    return _probed(known, sides, task.name, tasks, say, beside=("weak", own))


def _check_rows(given: Given) -> None:
    if given.passed is not None or given.base.acts.pooling == "none":
        raise InputError(NO_ROWS)


def _probed(
    known: Labelled,
    sides: Sequence[Sequence[Pairing]],
    name: str,
    tasks: Tasks,
    say: Progress,
    *,
    beside: Sequence[str | Protocol] = ("weak", "mteb"),
) -> Measured:
    order, labels = torch.tensor(known.order), [known.classes[label] for label in known.labels]
    places = {_key(pairing): pairing for pairing in sides[0] if pairing.where != LAST}
    base, tuned = ({key: _stacked(sides, key, side)[order] for key in places} for side in ("x", "y"))
    say(f"probing {name}", 0, 1)
    found = probe(base, tuned, labels, test=np.array(known.test), beside=beside, name=name, margin=tasks.margins["probe"], seed=tasks.seed)
    detail = _placed(found.detail, places) | {"split": known.split, "source": known.source, "hash": known.sha256}
    if tasks.audit:
        detail["audit"] = probe_audit(base[found.main], labels, test=np.array(known.test), seed=tasks.seed).table
    say(f"probing {name}", 1, 1)
    return Measured(found.outcomes, (detail,), (*known.warnings, *found.warnings))


def _key(pairing: Pairing) -> Place:
    return pairing.place.name if pairing.place.index is None else pairing.place.index


def _stacked(sides: Sequence[Sequence[Pairing]], key: Place, side: str) -> Tensor:
    """The rows of one place, those of further texts below the comparison's own."""
    return torch.cat([getattr(pairing, side) for pieces in sides for pairing in pieces if _key(pairing) == key])


def _placed(detail: Mapping[str, Any], places: Mapping[Place, Pairing]) -> dict[str, Any]:
    """The detail of a probe with the names and depths of the comparison's layers."""

    def named(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        where = [places[row["name"] if row["index"] is None else row["index"]].place for row in rows]
        return [dict(row) | {"name": place.name, "depth": place.depth} for row, place in zip(rows, where, strict=True)]

    return dict(detail) | {key: named(detail[key]) for key in ("layers", "weak", "mteb") if detail.get(key)}
