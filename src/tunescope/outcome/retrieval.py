"""Did retrieval get better or worse: every query of a collection through base and tuned."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunescope.errors import InputError
from tunescope.outcome.embedding import Progress, Reading, Vectors, vectors_of
from tunescope.outcome.outcome import Outcome
from tunescope.outcome.ranking import CUT, METRICS, STEEPEST, evaluate, first_relevant, relevant_places
from tunescope.outcome.search import Ranking, search
from tunescope.stats import Paired, paired
from tunescope.texts.collections import SPLIT, Collection, read_collection

if TYPE_CHECKING:
    import pandas as pd

MAIN = METRICS[0]
SHOWN = 20  # broken and mended queries in the detail


@dataclass(frozen=True, repr=False)
class RetrievalResult:
    """What `ts.retrieval` found.

    paired: metric -> the paired comparison over the evaluated queries, the main metric (ndcg@10) first. rankings, vectors: of base and
    tuned, for what is asked next (`ts.reembedding(*result.vectors, result.collection)`). k: passages ranked for each query.
    """

    collection: Collection
    paired: dict[str, Paired]
    scores: dict[str, tuple[np.ndarray, np.ndarray]]  # metric -> base, tuned (q,); NaN for a query without a relevant passage
    rankings: tuple[Ranking, Ranking]
    vectors: tuple[Vectors, Vectors]
    k: int
    warnings: tuple[str, ...] = ()
    statuses: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "statuses", _statuses(self))

    @property
    def counts(self) -> dict[str, int]:
        """How many queries are broken, mended and the same."""
        return {status: int((self.statuses == status).sum()) for status in ("broken", "mended", "same")}

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """One row a metric, the main one first."""
        return outcomes_of(self.paired, self.collection)

    @property
    def per_query(self) -> pd.DataFrame:
        """One row a query, indexed by its id: text, status (broken, mended, same), base_rank and tuned_rank of its best relevant passage
        (NaN beyond the k ranked), and each metric as <metric>_base, <metric>_tuned, <metric>_delta."""
        import pandas as pd

        ranks = [first_relevant(ranking, self.collection) for ranking in self.rankings]
        columns = {"text": self.collection.query_texts, "status": self.statuses, "base_rank": ranks[0], "tuned_rank": ranks[1]}
        for metric, (base, tuned) in self.scores.items():
            columns |= {f"{metric}_base": base, f"{metric}_tuned": tuned, f"{metric}_delta": tuned - base}
        return pd.DataFrame(columns, index=pd.Index(self.collection.query_ids, name="query"))

    def queries(self, status: str) -> pd.DataFrame:
        """The rows of `per_query` that are "broken" or "mended", the largest change first."""
        table = self.per_query
        return table[table["status"] == status].sort_values(f"{MAIN}_delta", ascending=status == "broken", kind="stable")

    @property
    def detail(self) -> dict[str, Any]:
        """JSON-able: what was read and how, the intervals of each side, and up to 20 of the queries broken and mended."""
        main, (base, tuned) = self.paired[MAIN], self.vectors
        return {
            "kind": "retrieval",
            "name": collection_name(self.collection),
            "split": self.collection.split,
            "source": self.collection.source,
            "corpus": len(self.collection.doc_ids),
            "queries": main.n,
            "judged_missing": self.collection.unjudged,
            "prompts": {"query": tuned.query_prompt, "passage": tuned.passage_prompt},
            "max_length": tuned.max_length,
            "truncated": max((side.truncated for side in (base, tuned) if side.truncated is not None), default=None),
            "similarity": self.rankings[0].similarity,
            "k": self.k,
            "main_metric": MAIN,
            "base_interval": [main.base_low, main.base_high],
            "tuned_interval": [main.tuned_low, main.tuned_high],
            "disjoint": main.disjoint,
            "counts": self.counts,
            **{status: self._shown(status) for status in ("broken", "mended")},
            "hash": self.collection.sha256,
            "warnings": list(self.warnings),
        }

    def _shown(self, status: str) -> list[dict[str, Any]]:
        return [
            {"id": id, "text": row["text"]}
            | {rank: None if np.isnan(row[rank]) else int(row[rank]) for rank in ("base_rank", "tuned_rank")}
            | {score: row[f"{MAIN}_{score}"] for score in ("base", "tuned", "delta")}
            for id, row in self.queries(status).head(SHOWN).iterrows()
        ]

    def __repr__(self) -> str:
        main, count = self.paired[MAIN], self.counts
        interval = "" if main.low is None else f" [{main.low:+.3f}, {main.high:+.3f}]"
        return (
            f"<Retrieval on {collection_name(self.collection)}: {MAIN} {main.base:.3f} to {main.tuned:.3f}, {main.delta:+.3f}{interval}, "
            f"{main.n:,} queries: {main.verdict}; {count['broken']:,} broken, {count['mended']:,} mended>"
        )


def retrieval(
    base: Any,
    tuned: Any,
    collection: str | Path | Collection,
    *,
    query_prompt: str | None = None,
    passage_prompt: str | None = None,
    similarity: str | None = None,
    max_length: int | None = None,
    batch_size: int = 32,
    k: int = 1000,
    margin: float = 0.01,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "float32",
    progress: Progress | None = None,
) -> RetrievalResult:
    """Search a collection with base and with tuned, exactly, and compare them query by query.

    base, tuned: models, names or folders as `ts.load_pair` takes them, or pairs of arrays (queries (q, e), passages (n, e)) in the
    collection's order. collection: a folder in the BEIR layout, "folder:split", or a Collection. query_prompt, passage_prompt: put
    before every query or passage ("query: "); None is the prompt the base declares. similarity: cosine or dot; None is what the base
    declares, else cosine. max_length: in tokens;
    None is the shorter of what the two declare. k: passages ranked for each query, which `map` reads to the end. margin: the
    difference in a score that would not matter. seed: of the bootstrap. progress(stage, done, total).

    A query is **broken** when nDCG@10 fell and a relevant passage that was among its first ten no longer is; **mended** when nDCG@10 rose
    and a relevant passage came among its first ten; **same** otherwise (scores may still differ: a passage that moves within the first ten
    breaks nothing). Queries without a relevant passage are not evaluated. `detail` has the interval of each side alone as well; that
    these are disjoint is the weaker test: paired differences can be clear where the intervals overlap.

    Raises TextsError and UnknownName (collection), AlignmentError, InputError, and as loading and capturing do.
    """
    collection = collection if isinstance(collection, Collection) else read_collection(collection)
    if not margin >= 0:
        raise InputError(f"margin={margin} asked for; it is a difference in a score, 0 or more")
    reading = Reading(query_prompt, passage_prompt, max_length, batch_size, device, dtype)
    vectors = vectors_of(base, tuned, collection, reading, progress=progress)
    chosen, unlike = _similarity(similarity, vectors)
    rankings = [search(side.queries, side.passages, collection.doc_ids, k=k, similarity=chosen) for side in vectors]
    one, two = (evaluate(ranking, collection) for ranking in rankings)
    return RetrievalResult(
        collection=collection,
        paired=paired_scores(one, two, margin=margin, seed=seed),
        scores={metric: (one[metric], two[metric]) for metric in one},
        rankings=(rankings[0], rankings[1]),
        vectors=vectors,
        k=rankings[0].documents.shape[1],
        warnings=(*unlike, *_said(collection, vectors, one)),
    )


def paired_scores(base: dict[str, np.ndarray], tuned: dict[str, np.ndarray], *, margin: float, seed: int = 0) -> dict[str, Paired]:
    """Scores by metric, (q,) each as `evaluate` gives them, compared over the queries that have a relevant passage."""
    defined = ~np.isnan(base[MAIN])
    return {metric: paired(base[metric][defined], tuned[metric][defined], margin=margin, seed=seed) for metric in base}


def outcomes_of(found: dict[str, Paired], collection: Collection) -> tuple[Outcome, ...]:
    """One row a metric, in the order of `found`."""
    name = collection_name(collection)
    return tuple(
        Outcome.of(one, kind="retrieval", name=name, metric=metric, items="queries", main=metric == MAIN) for metric, one in found.items()
    )


def _similarity(asked: str | None, vectors: tuple[Vectors, Vectors]) -> tuple[str, list[str]]:
    """The similarity to search by, and a warning where a side declares another."""
    declared = [side.similarity or "cosine" for side in vectors]
    chosen = asked or (declared[0] if declared[0] in ("cosine", "dot") else "cosine")
    unlike = [f"'{side.name}' declares the similarity {own}" for side, own in zip(vectors, declared, strict=True) if own != chosen]
    return chosen, [f"{' and '.join(unlike)}; both are searched by {chosen}"] if unlike else []


def collection_name(collection: Collection) -> str:
    """What an outcome calls it: with its split, where that is another than the usual one."""
    return collection.name if collection.split == SPLIT else f"{collection.name}:{collection.split}"


def _statuses(result: RetrievalResult) -> np.ndarray:
    """(q,) broken, mended or same."""
    base, tuned = (
        [set(ranking.documents[row, places[places < CUT]]) for row, places in enumerate(relevant_places(ranking, result.collection))]
        for ranking in result.rankings
    )
    delta = np.subtract(*result.scores[MAIN][::-1])
    left = np.array([bool(one - two) for one, two in zip(base, tuned, strict=True)])
    came = np.array([bool(two - one) for one, two in zip(base, tuned, strict=True)])
    return np.select([left & (delta < 0), came & (delta > 0)], ["broken", "mended"], "same")


def _said(collection: Collection, vectors: tuple[Vectors, Vectors], scores: dict[str, np.ndarray]) -> tuple[str, ...]:
    steep = [] if len(scores) == len(METRICS) else [f"ndcg_exp@{CUT} is left out: a grade is above {STEEPEST}"]
    said = [*collection.warnings, *steep, *vectors[0].warnings, *vectors[1].warnings]
    return tuple(dict.fromkeys(said))
