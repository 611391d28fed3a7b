"""Which features of two dictionaries fire on the same tokens, feature by feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array
from torch import Tensor

from tunescope.dictionaries.alignment_row import AlignmentRow, above, mean_and_sd
from tunescope.dictionaries.sparse_codes import SHUFFLED, binary, latent_blocks, paired
from tunescope.errors import Degenerate

DRAWS = 3


@dataclass(frozen=True, eq=False)
class FiringOverlap:
    """Jaccard overlaps |tokens of both| / |tokens of either|, of features that fire at all.

    nearest_a: mean over features of a of the largest overlap with one of b, its floor, and the other way round; pairs: mean over the
    pairs given. partner (n_a,): which of b's features fires most like each of a's, −1 for one that never fires; overlap (n_a,) theirs.
    """

    nearest_a: float
    nearest_b: float
    pairs: float | None
    floor_a: tuple[float, float]
    floor_b: tuple[float, float]
    floor_pairs: tuple[float, float] | None
    partner: np.ndarray
    overlap: np.ndarray
    live: tuple[int, int]
    n: int

    def rows(self, sides: str = "a with b") -> tuple[AlignmentRow, ...]:
        """Each overlap against shuffled tokens."""
        first, last = sides.split(" with ") if " with " in sides else ("a", "b")
        parts: list[tuple[str, str, float | None, tuple[float, float] | None, int, str]] = [
            ("firing_overlap", f"each of {first} with the likest of {last}", self.nearest_a, self.floor_a, self.live[0], "features"),
            ("firing_overlap", f"each of {last} with the likest of {first}", self.nearest_b, self.floor_b, self.live[1], "features"),
            ("firing_overlap_of_pairs", sides, self.pairs, self.floor_pairs, min(self.live), "pairs"),
        ]
        return tuple(
            AlignmentRow(name, of, value, *floor, SHUFFLED, n=n, unit=unit, verdict=above(value, floor[0], sd=floor[1]))
            for name, of, value, floor, n, unit in parts
            if value is not None and floor is not None
        )


def firing_overlap(a: Any, b: Any, *, pairs: Int[Tensor, "p 2"] | None = None, draws: int = DRAWS, seed: int = 0) -> FiringOverlap:
    """Which features fire on the same tokens, against the same with the tokens of b shuffled. a (n, p), b (n, q), sparse or dense.

    A rare feature meets a rare one by luck: the largest of many overlaps has a floor well above 0, which shuffling shows.

    Raises: AlignmentError (other numbers of rows), Degenerate (no feature of a side fires).
    """
    x, y = (binary(side) for side in paired(a, b))
    if not x.nnz or not y.nnz:
        raise Degenerate(f"no feature of {'a' if not x.nnz else 'b'} fires on any of {x.shape[0]:,} tokens")
    at = None if pairs is None else pairs.cpu().numpy()
    rng = np.random.default_rng(seed)
    found = _overlaps(x, y, at)
    chance = [_overlaps(x, y[rng.permutation(y.shape[0])], at) for _ in range(draws)]
    live = tuple(np.asarray(side.sum(0)).ravel() > 0 for side in (x, y))

    def means(best: tuple[np.ndarray, np.ndarray, np.ndarray, float | None]) -> tuple[float, float]:
        return float(best[0][live[0]].mean()), float(best[2][live[1]].mean())

    of_pairs = None if at is None else mean_and_sd([float(draw[3] or 0.0) for draw in chance])
    floor_a, floor_b = (mean_and_sd(side) for side in zip(*map(means, chance), strict=True))
    return FiringOverlap(
        *means(found), found[3], floor_a, floor_b, of_pairs,
        np.where(live[0], found[1], -1), found[0], (int(live[0].sum()), int(live[1].sum())), x.shape[0],
    )


def _overlaps(x: csr_array, y: csr_array, pairs: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, float | None]:
    """Largest overlap of each of x's features and where, of each of y's, and the mean of the pairs that fire on either side."""
    fired_x, fired_y = (np.asarray(side.sum(0)).ravel() for side in (x, y))
    best_x, where, best_y = np.zeros(x.shape[1]), np.zeros(x.shape[1], dtype=np.int64), np.zeros(y.shape[1])
    of_pairs = None if pairs is None else np.zeros(len(pairs))
    for block in latent_blocks(x, y):
        both = (x[:, block].T @ y).tocoo()
        row = both.row + block.start
        overlap = both.data / (fired_x[row] + fired_y[both.col] - both.data)
        np.maximum.at(best_y, both.col, overlap)
        order = np.argsort(overlap, kind="stable")  # the largest is written last
        best_x[row[order]], where[row[order]] = overlap[order], both.col[order]
        if pairs is not None and of_pairs is not None:
            inside = np.flatnonzero((pairs[:, 0] >= block.start) & (pairs[:, 0] < block.stop))
            table = csr_array((overlap, (both.row, both.col)), shape=both.shape)
            of_pairs[inside] = np.asarray(table[pairs[inside, 0] - block.start, pairs[inside, 1]]).ravel()
    if pairs is None or of_pairs is None:
        return best_x, where, best_y, None
    alive = (fired_x[pairs[:, 0]] + fired_y[pairs[:, 1]]) > 0
    return best_x, where, best_y, float(of_pairs[alive].mean()) if alive.any() else 0.0
