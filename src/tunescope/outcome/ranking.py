"""Scores of a ranking, query by query, by trec_eval itself."""

from __future__ import annotations

import numpy as np
import pytrec_eval

from tunescope.outcome.search import Ranking
from tunescope.texts.collections import Collection

CUT = 10
METRICS = (f"ndcg@{CUT}", f"ndcg_exp@{CUT}", f"mrr@{CUT}", "map", f"recall@{CUT}", "recall@100")
STEEPEST = 16  # the highest grade with an exponential gain: trec_eval counts by gain, and 2^16 counters a query are enough
_CHUNK = 256  # queries in trec_eval's dictionaries at a time


def evaluate(ranking: Ranking, collection: Collection) -> dict[str, np.ndarray]:
    """Each metric of every query, (q,) float64, by pytrec_eval (trec_eval in C); NaN for a query without a relevant passage.

    ndcg@10: Σ g_i / log2(i + 1) over the first ten, over its best possible value, gain g = grade (trec_eval, BEIR, MTEB). ndcg_exp@10:
    the same with g = 2^grade − 1, which trec_eval is given as grades; equal to ndcg@10 while grades are 0 and 1, and left out where one
    is above 16. mrr@10: 1 / rank of the first relevant passage, 0 beyond ten: trec_eval's recip_rank of the first ten. map: average
    precision of all k passages searched. recall@10, recall@100: the share of relevant passages found. Relevant is a grade of 1 or more.

    Reference: https://github.com/usnistgov/trec_eval, https://github.com/terrierteam/pytrec_eval
    """
    steep = max(grade for row in collection.qrels.values() for grade in row.values()) > STEEPEST
    metrics = [name for name in METRICS if not (steep and "exp" in name)]
    found = {name: np.full(len(collection.query_ids), np.nan) for name in metrics}
    for start in range(0, len(collection.query_ids), _CHUNK):
        chunk = [row for row in range(start, min(start + _CHUNK, len(collection.query_ids))) if _defined(collection, row)]
        for name, values in _chunk(ranking, collection, chunk, steep=steep).items():
            found[name][chunk] = values
    return found


def first_relevant(ranking: Ranking, collection: Collection) -> np.ndarray:
    """(q,) the rank, from 1, of the best relevant passage of each query; NaN where none is among the k."""
    ranks = np.full(len(collection.query_ids), np.nan)
    for row, places in enumerate(relevant_places(ranking, collection)):
        if len(places):
            ranks[row] = places[0] + 1
    return ranks


def relevant_places(ranking: Ranking, collection: Collection) -> list[np.ndarray]:
    """For each query the places, from 0, of its relevant passages in the ranking."""
    number = {id: row for row, id in enumerate(collection.doc_ids)}
    wanted = ([number[id] for id, grade in collection.qrels[query].items() if grade] for query in collection.query_ids)
    return [np.flatnonzero(np.isin(found, some)) for found, some in zip(ranking.documents, wanted, strict=True)]


def _defined(collection: Collection, row: int) -> bool:
    return any(collection.qrels[collection.query_ids[row]].values())


def _chunk(ranking: Ranking, collection: Collection, rows: list[int], *, steep: bool) -> dict[str, list[float]]:
    ids, queries = collection.doc_ids, [collection.query_ids[row] for row in rows]
    names = [[ids[document] for document in ranking.documents[row].tolist()] for row in rows]
    scores = [ranking.scores[row].tolist() for row in rows]
    whole = {query: dict(zip(*pair, strict=True)) for query, *pair in zip(queries, names, scores, strict=True)}
    cut = {query: dict(zip(one[:CUT], two[:CUT], strict=True)) for query, one, two in zip(queries, names, scores, strict=True)}
    grades = {query: collection.qrels[query] for query in queries}
    recall = {f"recall@{depth}": f"recall_{depth}" for depth in (CUT, 100)}
    values = _trec(grades, whole, {f"ndcg@{CUT}": f"ndcg_cut_{CUT}", "map": "map"} | recall)
    values |= _trec(grades, cut, {f"mrr@{CUT}": "recip_rank"})
    if not steep:
        gains = {query: {id: 2**grade - 1 for id, grade in row.items()} for query, row in grades.items()}
        values |= _trec(gains, cut, {f"ndcg_exp@{CUT}": f"ndcg_cut_{CUT}"})
    return values


def _trec(grades: dict[str, dict[str, int]], run: dict[str, dict[str, float]], measures: dict[str, str]) -> dict[str, list[float]]:
    """measures: our name -> trec_eval's."""
    found = pytrec_eval.RelevanceEvaluator(grades, set(measures.values())).evaluate(run)
    return {name: [found[query][measure] for query in run] for name, measure in measures.items()}
