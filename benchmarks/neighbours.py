"""Neighbourhood preservation: against scikit-learn's brute-force search, in memory, and all pairs of layers against one search per pair."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

import tunescope as ts
from cross_layer import LAYERS, two_models
from memory import in_fresh_process, peak_above
from pairing import Line, Pairs, within

THREADS = 1
N, D, K = 10_000, 384, 10
MEMORY = 200  # MB


def lines(repeats: int) -> Iterator[Line]:
    x, y = two_spaces()
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y)]

    def ours() -> float:
        return ts.nps(x, y, k=K)

    what = f"(d) nps, N={N:,}, D={D}, k={K}"
    for metric, sides in (("cosine", (x, y)), ("euclidean", unit)):

        def sklearn(metric: str = metric, sides: tuple = sides) -> float:
            return sklearn_nps(*sides, metric)

        within(abs(ours() - sklearn()), 1e-4, f"nps against scikit-learn, {metric}")
        name = metric if metric == "cosine" else "euclidean, unit rows"
        yield Pairs.time(ours, sklearn, repeats).faster(what, f"scikit-learn, {name}", target=1.0)
    used = in_fresh_process("neighbours", "memory_of_nps", threads=THREADS)
    yield Line(what, "memory beyond the rows", f"{used:.0f} MB", f"{MEMORY} MB", f"{used / MEMORY:.2f}", "≤ 1", used <= MEMORY)
    yield all_pairs(repeats)


def all_pairs(repeats: int) -> Line:
    """Searching per pair is tunescope's own search, both sides anew for every pair, so that only the sharing is measured."""
    xs, ys = two_models()

    def ours() -> torch.Tensor:
        return ts.cross_nps(xs, ys, k=K)

    def one_row_of_pairs() -> list[float]:
        return [ts.nps(xs[0], y, k=K) for y in ys]

    within(float((ours()[0] - torch.tensor(one_row_of_pairs())).abs().max()), 1e-6, "cross_nps against nps")
    pairs = Pairs.time(ours, one_row_of_pairs, repeats).scaled(LAYERS)
    item = f"(d) nps of {LAYERS}×{LAYERS} layers, N={len(xs[0]):,}, D={xs[0].shape[1]}"
    return pairs.faster(item, f"a search per pair ({LAYERS} of {LAYERS**2} run)", target=10.0)


def two_spaces() -> tuple[np.ndarray, np.ndarray]:
    """Clustered rows, as texts are, and the same rows moved."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((200, D), dtype=np.float32)
    x = centres[generator.integers(0, 200, N)] + 0.7 * generator.standard_normal((N, D), dtype=np.float32)
    return x, x + 0.3 * generator.standard_normal((N, D), dtype=np.float32)


def sklearn_nps(x: np.ndarray, y: np.ndarray, metric: str) -> float:
    searches = (NearestNeighbors(n_neighbors=K, algorithm="brute", metric=metric).fit(side) for side in (x, y))
    left, right = (search.kneighbors(return_distance=False) for search in searches)
    return float((left[:, :, None] == right[:, None, :]).sum() / (N * K))


def memory_of_nps() -> float:
    """MB by which the peak of a whole `ts.nps` exceeds what was in memory before it."""
    x, y = two_spaces()
    ts.nps(x[:500], y[:500], k=K)  # libraries and thread pools are no part of the cost
    return peak_above(lambda: ts.nps(x, y, k=K)) / 1e6
