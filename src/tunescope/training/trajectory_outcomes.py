"""Good or bad on the way: each task's scores now, paired item by item with those of the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.activations import capture
from tunescope.activations.taps import layer_name
from tunescope.errors import InputError
from tunescope.models import Model
from tunescope.outcome import Outcome
from tunescope.outcome.embedding import Reading as Vectorising
from tunescope.outcome.embedding import model_vectors
from tunescope.outcome.probe_protocols import PROTOCOLS
from tunescope.outcome.probe_scores import probe_scores
from tunescope.outcome.probes import make_task
from tunescope.outcome.ranking import METRICS, evaluate
from tunescope.outcome.retrieval import collection_name, outcomes_of, paired_scores
from tunescope.outcome.search import search
from tunescope.stats import paired
from tunescope.texts import Collection, Corpus, as_corpus, read_collection
from tunescope.texts.labelled import Labelled, labelled

MARGIN = 0.01
PROBES = {"accuracy": "strong", "accuracy_weak": "weak"}  # metric -> protocol, the first one judged by
_RANKED = 1000

Scores = dict[str, Tensor]  # metric -> (items,)


@dataclass(frozen=True, eq=False)
class Search:
    """Retrieval in a collection, read as the model deploys itself."""

    collection: Collection
    max_length: int | None
    batch_size: int
    seed: int

    kind = "retrieval"
    metrics = METRICS

    @property
    def name(self) -> str:
        return collection_name(self.collection)

    @property
    def sha256(self) -> str:
        return self.collection.sha256

    def scores(self, model: Model) -> Scores:
        """Each metric of every query; NaN for a query without a relevant passage."""
        vectors = model_vectors(model, self.collection, Vectorising(max_length=self.max_length, batch_size=self.batch_size))
        declared = vectors.similarity if vectors.similarity in ("cosine", "dot") else "cosine"
        ranking = search(vectors.queries, vectors.passages, self.collection.doc_ids, k=_RANKED, similarity=declared)
        return {metric: torch.from_numpy(values) for metric, values in evaluate(ranking, self.collection).items()}

    def outcomes(self, start: Scores, now: Scores) -> tuple[Outcome, ...]:
        """One row a metric, the main one first."""
        one, two = ({metric: side[metric].numpy() for metric in METRICS if metric in side} for side in (start, now))
        return outcomes_of(paired_scores(one, two, margin=MARGIN, seed=self.seed), self.collection)


@dataclass(frozen=True, eq=False)
class Probe:
    """Linear probes of a column of classes, strong and weak, at the deployed embedding (or at the place given)."""

    texts: Labelled
    place: int | str
    pooling: str
    max_length: int | None
    batch_size: int
    seed: int

    kind = "probe"
    metrics = tuple(PROBES)

    @property
    def name(self) -> str:
        return self.texts.column

    @property
    def sha256(self) -> str:
        return self.texts.sha256

    def scores(self, model: Model) -> Scores:
        """For each held-out text whether it was answered rightly, by protocol."""
        places: dict[str, Any] = {"sites": (self.place,), "layers": ()} if isinstance(self.place, str) else {"layers": (self.place,)}
        read: dict[str, Any] = {"pooling": self.pooling, "max_length": self.max_length, "batch_size": self.batch_size}
        acts = capture(model, self.texts.texts, ids=self.texts.ids, **places, **read)
        rows = acts.sites[self.place] if isinstance(self.place, str) else acts.layers[self.place]
        task, _ = make_task([self.texts.classes[label] for label in self.texts.labels], np.array(self.texts.test))
        protocols = {metric: PROTOCOLS[name] for metric, name in PROBES.items()}
        found = {metric: probe_scores([rows], task, protocol, seed=self.seed)[0] for metric, protocol in protocols.items()}
        return {metric: torch.from_numpy(scores.correct) for metric, scores in found.items()}

    def outcomes(self, start: Scores, now: Scores) -> tuple[Outcome, ...]:
        """One row a protocol, the strong one first."""
        compared = {m: paired(start[m].numpy(), now[m].numpy(), margin=MARGIN, seed=self.seed) for m in PROBES}
        layer = None if self.place == "output" else layer_name(self.place) if isinstance(self.place, int) else self.place
        shared: dict[str, Any] = {"kind": "probe", "name": self.name, "items": "held-out texts", "layer": layer}
        return tuple(Outcome.of(found, metric=metric, main=metric == "accuracy", **shared) for metric, found in compared.items())


Task = Search | Probe


def tasks_identity(tasks: Mapping[str, Task]) -> dict[str, Any]:
    """What scores of the start and of now must share, JSON-able."""
    found: dict[str, Any] = {key: task.sha256 for key, task in tasks.items()}
    for task in tasks.values():
        found["max_length of outcomes"] = task.max_length or "the model's own"  # one for all
    return found


def at_start(outcome: Outcome) -> Outcome:
    """The start against itself: no difference, and nothing uncertain about that, so neither interval nor test."""
    if outcome.delta is None:
        return outcome
    none = dict.fromkeys(("low", "high", "p", "sd", "equivalence_p", "detectable"))
    return replace(outcome, delta=0.0, verdict="equivalent", **none)


def read_tasks(
    retrieval: Any,
    labels: str | None,
    test: Any,
    corpus: Corpus,
    *,
    layers: Sequence[int] | None,
    sites: Sequence[str],
    pooling: str,
    max_length: int | None,
    batch_size: int,
    seed: int,
) -> dict[str, Task]:
    """The tasks by kind/name. labels: a column of the corpus; test: further texts with that column, to be judged by.

    Raises what reading them raises, and InputError (test without labels, two tasks of one name).
    """
    if test is not None and labels is None:
        raise InputError("test texts were given without labels; name the column that holds their classes (labels=…)")
    given = list(retrieval) if isinstance(retrieval, list | tuple) else [retrieval] if retrieval else []
    read: dict[str, Any] = {"max_length": max_length, "batch_size": batch_size, "seed": seed}
    found: list[Task] = [Search(each if isinstance(each, Collection) else read_collection(each), **read) for each in given]
    if labels is not None:
        known = labelled(corpus, labels, test=None if test is None else as_corpus(test), seed=seed)
        place = sites[0] if sites and "output" not in sites else "output" if sites else max(layers or (0,))
        found.append(Probe(known, place, pooling, **read))
    tasks = {f"{task.kind}/{task.name}": task for task in found}
    if len(tasks) < len(found):
        raise InputError(f"two outcomes of one name were asked for ({', '.join(f'{t.kind}/{t.name}' for t in found)}); name them apart")
    return tasks
