"""Must the corpus be embedded again? Tuned queries against the base's index, as they are and through a bridge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeCV

from tunescope.errors import InputError
from tunescope.outcome.embedding import Progress, Reading, Vectors, vectors_of
from tunescope.outcome.outcome import Outcome
from tunescope.outcome.ranking import CUT, METRICS, evaluate
from tunescope.outcome.search import Ranking, as_compared, search
from tunescope.stats import Paired, paired
from tunescope.texts.collections import Collection, read_collection

METRIC = METRICS[0]
ANCHORS = 1000
ALPHAS = tuple(10.0**power for power in range(-4, 4))  # ridge penalties tried, for rows of length 1
TITLES = {
    "re-embed": "embed the corpus again",
    "as-is": "old index, queries as they are",
    "orthogonal": "old index, orthogonal bridge",
    "linear": "old index, linear bridge",
}


@dataclass(frozen=True, eq=False)
class Choice:
    """One way to serve tuned queries. scores (q,): nDCG@10; kept: share of the re-embedded top ten that is found, mean over queries; cost:
    passages to embed with the tuned model; paired: against re-embedding. reason: why it cannot be evaluated, where it cannot."""

    key: str
    cost: int
    scores: np.ndarray | None = None
    kept: float | None = None
    paired: Paired | None = None
    reason: str | None = None

    @property
    def title(self) -> str:
        return TITLES[self.key]


@dataclass(frozen=True, repr=False)
class ReembeddingResult:
    """What `ts.reembedding` found: its choices, "re-embed" first, and the anchors that the bridges were fitted on."""

    name: str
    choices: tuple[Choice, ...]
    anchors: int
    judged_anchors: int
    margin: float
    base_ndcg: float
    warnings: tuple[str, ...] = ()

    @property
    def cheapest(self) -> Choice:
        """The choice with fewest passages to embed that was shown equivalent to re-embedding, or better; else re-embedding."""
        good = [choice for choice in self.choices[1:] if choice.paired is not None and choice.paired.verdict in ("equivalent", "better")]
        return min(good, key=lambda choice: choice.cost, default=self.choices[0])

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """One row a choice: base is re-embedding, tuned is the choice."""
        return tuple(_outcome(choice, self.name, self.margin, main=choice.key == "as-is") for choice in self.choices[1:])

    @property
    def detail(self) -> dict[str, Any]:
        """JSON-able: every choice with its score, its difference to re-embedding, the neighbours kept and the cost."""
        return {
            "kind": "reembedding",
            "name": self.name,
            "metric": METRIC,
            "anchors": self.anchors,
            "judged_anchors": self.judged_anchors,
            "base": self.base_ndcg,
            "cheapest": self.cheapest.key,
            "choices": [_row(choice) for choice in self.choices],
            "warnings": list(self.warnings),
        }

    def __repr__(self) -> str:
        shown = ", ".join(f"{row['key']} {'–' if row['ndcg'] is None else format(row['ndcg'], '.3f')}" for row in self.detail["choices"])
        return f"<Re-embedding {self.name}: {METRIC} {shown}; cheapest that is equivalent to re-embedding: {self.cheapest.title}>"


def reembedding(
    base: Any,
    tuned: Any,
    collection: str | Path | Collection,
    *,
    anchors: int | None = None,
    query_prompt: str | None = None,
    passage_prompt: str | None = None,
    similarity: str = "cosine",
    max_length: int | None = None,
    batch_size: int = 32,
    margin: float = 0.01,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "float32",
    progress: Progress | None = None,
) -> ReembeddingResult:
    """How well tuned queries find passages in the index the base made, against embedding every passage again with the tuned model.

    base, tuned, collection and the reading of texts: as in `ts.retrieval`, whose `vectors` are taken too. The bridges map tuned
    vectors into the base's space and are fitted on `anchors` passages embedded by both (1,000, or half the corpus), drawn from those
    that are judged for no query while these last: **orthogonal**, min |XQ − Y|_F over Q with orthonormal rows or columns (Procrustes; where
    widths differ Q is rectangular, which is the same as widening with zeros), and **linear**, ridge regression with an intercept, its
    penalty chosen by leave-one-out. **as-is** has no value where widths differ. Vectors have length 1 first where similarity is the
    cosine. Scores are nDCG@10, differences are choice − re-embedding, paired over queries.

    Raises InputError (anchors) and as `ts.retrieval`. Reference: Schönemann 1966, https://doi.org/10.1007/BF02289451
    """
    collection = collection if isinstance(collection, Collection) else read_collection(collection)
    number, n = _number(anchors, collection), len(collection.doc_ids)
    reading = Reading(query_prompt, passage_prompt, max_length, batch_size, device, dtype)
    old, new = vectors_of(base, tuned, collection, reading, progress=progress)
    chosen, judged = _draw(collection, number, seed)
    index = _Index(collection, old, similarity)
    truth, target = _ranked(new.queries, new.passages, collection, similarity)
    x, y = (as_compared(side.passages[chosen], similarity) for side in (new, old))
    queries = as_compared(new.queries, similarity)
    wide = new.queries.shape[1], old.queries.shape[1]
    mapped = {"as-is": queries, "orthogonal": queries @ orthogonal_bridge(x, y), "linear": _linear_bridge(x, y).predict(queries)}
    choices = [Choice("re-embed", n, target, 1.0)]
    for key, rows in mapped.items():
        cost = 0 if key == "as-is" else number
        if rows.shape[1] != wide[1]:
            choices.append(Choice(key, cost, reason=f"tuned queries have {wide[0]:,} features and the index {wide[1]:,}"))
            continue
        ranking, scores = index.find(rows)
        defined = ~np.isnan(scores)
        against = paired(target[defined], scores[defined], margin=margin, seed=seed)
        choices.append(Choice(key, cost, scores, _kept(truth, ranking), against))
    return ReembeddingResult(
        name=collection.name,
        choices=tuple(choices),
        anchors=number,
        judged_anchors=judged,
        margin=margin,
        base_ndcg=float(np.nanmean(index.find(old.queries)[1])),
        warnings=_said(collection, judged, number),
    )


def orthogonal_bridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Q (d, e) with orthonormal rows (d ≤ e) or columns that minimises |XQ − Y|_F where d = e, and maximises tr(QᵀXᵀY) at any widths:
    UVᵀ of the thin SVD of XᵀY."""
    u, _, vt = np.linalg.svd(x.T @ y, full_matrices=False)
    return u @ vt


def _linear_bridge(x: np.ndarray, y: np.ndarray) -> RidgeCV:
    return RidgeCV(alphas=ALPHAS).fit(x, y)


@dataclass(frozen=True)
class _Index:
    """The base's passages, to be searched with any queries of their width."""

    collection: Collection
    vectors: Vectors
    similarity: str

    def find(self, queries: np.ndarray) -> tuple[Ranking, np.ndarray]:
        return _ranked(queries, self.vectors.passages, self.collection, self.similarity)


def _ranked(queries: np.ndarray, passages: np.ndarray, collection: Collection, similarity: str) -> tuple[Ranking, np.ndarray]:
    """The first ten, and nDCG@10 of every query."""
    ranking = search(queries, passages, collection.doc_ids, k=CUT, similarity=similarity)
    return ranking, evaluate(ranking, collection)[METRIC]


def _number(anchors: int | None, collection: Collection) -> int:
    n = len(collection.doc_ids)
    if anchors is None:
        anchors = min(ANCHORS, n // 2)
    if isinstance(anchors, bool) or not isinstance(anchors, int) or not 2 <= anchors <= n:
        raise InputError(f"anchors={anchors!r} for a corpus of {n:,} passages; a bridge is fitted on 2 to {n:,} of them")
    return anchors


def _draw(collection: Collection, number: int, seed: int) -> tuple[np.ndarray, int]:
    """Rows of the anchor passages, and how many of them are judged for a query."""
    judged = {id for row in collection.qrels.values() for id in row}
    known = np.array([id in judged for id in collection.doc_ids])
    shuffled = np.random.default_rng(seed).permutation(len(known))
    chosen = shuffled[np.argsort(known[shuffled], kind="stable")][:number]
    return np.sort(chosen), int(known[chosen].sum())


def _said(collection: Collection, judged: int, number: int) -> tuple[str, ...]:
    if not judged:
        return collection.warnings
    few = f"{judged:,} of {number:,} anchors are judged passages, for want of others: bridges may look better here than they are"
    return (*collection.warnings, few)


def _kept(truth: Ranking, found: Ranking) -> float:
    shared = [np.isin(one, two).mean() for one, two in zip(truth.documents, found.documents, strict=True)]
    return float(np.mean(shared))


def _row(choice: Choice) -> dict[str, Any]:
    against = choice.paired
    return {
        "key": choice.key,
        "title": choice.title,
        "ndcg": None if choice.scores is None else float(np.nanmean(choice.scores)),
        "delta_to_reembed": None if against is None else float(against.delta),
        "low": None if against is None else against.low,
        "high": None if against is None else against.high,
        "verdict": None if against is None else against.verdict,
        "kept": choice.kept,
        "cost": choice.cost,
        "reason": choice.reason,
    }


def _outcome(choice: Choice, name: str, margin: float, *, main: bool) -> Outcome:
    title = f"{name}: {choice.title}"
    if choice.paired is not None:
        return Outcome.of(choice.paired, kind="reembedding", name=title, metric=METRIC, items="queries", main=main)
    return Outcome(
        kind="reembedding",
        name=title,
        metric=METRIC,
        base=None,
        tuned=None,
        delta=None,
        low=None,
        high=None,
        p=None,
        n=0,
        margin=margin,
        higher_is_better=True,
        verdict="not evaluable",
        main=main,
        items="queries",
        reason=choice.reason,
    )
