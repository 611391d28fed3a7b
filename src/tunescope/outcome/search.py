"""Exact nearest passages of every query, in memory that does not grow with queries × passages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tunescope.errors import InputError, UnknownName

SIMILARITIES = ("cosine", "dot")
DOCUMENTS, QUERIES = 4096, 256  # a block of scores: 256 × 4096 × 8 bytes = 8 MB
_LOW = 2**32 - 1


@dataclass(frozen=True, eq=False)
class Ranking:
    """The k nearest passages of every query, best first: documents (q, k) their row numbers, scores (q, k) float32, similarity."""

    documents: np.ndarray
    scores: np.ndarray
    similarity: str


def search(
    queries: np.ndarray,
    documents: np.ndarray,
    ids: Sequence[str],
    *,
    k: int = 1000,
    similarity: str = "cosine",
    blocks: tuple[int, int] = (QUERIES, DOCUMENTS),
) -> Ranking:
    """The k passages of highest cosine (or dot product) with each query, exactly.

    queries (q, e), documents (n, e), ids (n,) of the documents. Equal scores are ordered as trec_eval orders them, by id descending as
    UTF-8 bytes, also where they decide who is among the k. So that equal is equal: products are summed in float64, rounded to 2⁻⁴⁰ of
    the largest possible (else the noise of a sum decides between zeros), then to float32, in which trec_eval compares. Copies of a
    passage then tie wherever in a block they stand, which a float32 product does not give. k is at most n.

    One block of scores (blocks: queries, documents) is in memory at a time, and the k best of every query as 64-bit keys whose high half
    orders as the score does and whose low half as the ids do; all keys of a query differ, so a partition is enough.

    Raises InputError (k, widths that differ, another number of ids), UnknownName (similarity).
    """
    _check(queries, documents, ids, k, similarity)
    n, k = len(documents), min(k, len(documents))
    order = np.array(sorted(range(n), key=ids.__getitem__, reverse=True))
    grid = _grid(queries, documents, similarity, blocks[1])
    prepared = as_compared(queries, similarity) / grid  # a power of two: nothing is lost
    best = np.full((len(queries), k), np.iinfo(np.int64).min)
    for some in _slices(n, blocks[1]):
        block = as_compared(documents[order[some]], similarity).T
        places = _LOW - np.arange(some.start, some.stop)
        for rows in _slices(len(queries), blocks[0]):
            scores = np.rint(prepared[rows] @ block)
            found = np.concatenate([best[rows], _keys(scores.astype(np.float32), places)], axis=1)
            best[rows] = np.partition(found, -k, axis=1)[:, -k:]
    best = np.sort(best, axis=1)[:, ::-1]
    return Ranking(order[_LOW - (best & _LOW)], _scores(best) * np.float32(grid), similarity)


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def as_compared(rows: np.ndarray, similarity: str) -> np.ndarray:
    """Rows in float64, of length 1 for the cosine; a row of zeros stays one, and its cosines are 0."""
    rows = np.asarray(rows, dtype=np.float64)
    if similarity == "dot":
        return rows
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def _grid(queries: np.ndarray, documents: np.ndarray, similarity: str, block: int) -> float:
    """2⁻⁴⁰ of the largest score there can be, |query| |document|, brought up to a power of two."""
    if similarity == "cosine":
        return 2.0**-40
    bound = _longest(queries, block) * _longest(documents, block)
    return 2.0 ** (np.ceil(np.log2(bound)) - 40) if bound > 0 else 1.0


def _longest(rows: np.ndarray, block: int) -> float:
    return max(float(np.linalg.norm(rows[some].astype(np.float64), axis=1).max()) for some in _slices(len(rows), block))


def _keys(scores: np.ndarray, places: np.ndarray) -> np.ndarray:
    """int64 keys that order as (score, place) does: a float32's bits, those of negatives turned round, are ordered as integers."""
    bits = (scores + np.float32(0)).view(np.int32)  # + 0 makes −0 into 0, which it equals
    ordered = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return (ordered.astype(np.int64) << 32) | places


def _scores(keys: np.ndarray) -> np.ndarray:
    ordered = (keys >> 32).astype(np.int32)
    return (ordered ^ ((ordered >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)


def _check(queries: np.ndarray, documents: np.ndarray, ids: Sequence[str], k: int, similarity: str) -> None:
    if similarity not in SIMILARITIES:
        raise UnknownName("similarity", similarity, SIMILARITIES)
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InputError(f"k={k!r} asked for; it must be a whole number of passages, 1 or more")
    if queries.shape[1] != documents.shape[1]:
        raise InputError(f"queries have {queries.shape[1]:,} features and passages {documents.shape[1]:,}; both come from one model")
    if len(ids) != len(documents):
        raise InputError(f"{len(ids):,} ids for {len(documents):,} passages; give one each, in their order")
