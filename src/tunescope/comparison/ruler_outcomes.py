"""The ruler in outcome units: what known disturbances of the base do to each task, on a small part of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tunescope.comparison.findings import Progress
from tunescope.comparison.tasks import Tasks
from tunescope.models import Model
from tunescope.outcome.embedding import Vectors
from tunescope.outcome.language import language_loss
from tunescope.outcome.outcome import Outcome
from tunescope.outcome.retrieval import retrieval
from tunescope.texts import Corpus
from tunescope.texts.collections import Collection

QUERIES, PASSAGES, TEXTS = 60, 300, 64  # that every disturbance is judged on


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges further models of one base by small parts of the tasks that need no labels: the same queries, passages and texts for all."""

    base: Model
    tasks: Tasks
    batch_size: int
    max_length: int | None = None
    say: Progress = lambda stage, done, total: None
    vectors: dict[str, Vectors] = field(default_factory=dict)  # of the base, by collection

    @cached_property
    def collections(self) -> list[Collection]:
        return [smaller(collection, queries=QUERIES, passages=PASSAGES) for collection in self.tasks.collections]

    @cached_property
    def texts(self) -> dict[str, Corpus]:
        return {name: corpus.sample(TEXTS) if len(corpus) > TEXTS else corpus for name, corpus in self.tasks.texts.items()}

    @property
    def _reading(self) -> dict[str, Any]:
        return {"max_length": self.max_length, "batch_size": self.batch_size}

    def rows(self, model: Model, label: str, *, tuned: bool = False) -> list[dict[str, Any]]:
        """One row a task: {label, tuned, kind, name, metric, base, value, delta}."""
        self.say(f"outcomes of {label}", 0, 1)
        found = ((outcome.kind, outcome) for outcome in self._outcomes(model))
        return [
            {"label": label, "tuned": tuned, "kind": kind, "name": one.name, "metric": one.metric}
            | {"base": one.base, "value": one.tuned, "delta": one.delta, "higher_is_better": one.higher_is_better}
            for kind, one in found
        ]

    def _outcomes(self, model: Model) -> Iterator[Outcome]:
        for collection in self.collections:
            base: Any = self.vectors.get(collection.sha256, self.base)
            found = retrieval(base, model, collection, **self.tasks.prompts, **self._reading)
            self.vectors[collection.sha256] = found.vectors[0]
            yield found.outcomes[0]
        for name, corpus in self.texts.items():
            yield language_loss(self.base, model, corpus, name=name, **self._reading).outcomes[0]


def smaller(collection: Collection, *, queries: int, passages: int, seed: int = 0) -> Collection:
    """A part of a collection: that many of its queries, their judged passages, and others up to `passages`, drawn by seed."""
    if len(collection.query_ids) <= queries and len(collection.doc_ids) <= passages:
        return collection
    rng = np.random.default_rng(seed)
    answered = [row for row, query in enumerate(collection.query_ids) if any(collection.qrels[query].values())]
    asked = [answered[place] for place in _some(rng, len(answered), queries)]
    texts = {collection.query_ids[row]: collection.query_texts[row] for row in asked}
    qrels = {query: collection.qrels[query] for query in texts}
    judged = {document for row in qrels.values() for document in row}
    others = [row for row, document in enumerate(collection.doc_ids) if document not in judged]
    kept = {others[place] for place in _some(rng, len(others), max(0, passages - len(judged)))}
    documents = {
        document: text
        for row, (document, text) in enumerate(zip(collection.doc_ids, collection.doc_texts, strict=True))
        if row in kept or document in judged
    }
    said = f"{len(texts):,} queries and {len(documents):,} passages of {collection.source}"
    return Collection.of(documents, texts, qrels, name=collection.name, split=collection.split, source=said)


def _some(rng: np.random.Generator, n: int, wanted: int) -> Sequence[int]:
    """At most `wanted` of n positions, in order."""
    return sorted(rng.permutation(n)[:wanted].tolist())
