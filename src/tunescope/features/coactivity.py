"""Whether two dictionaries' features fire on the same tokens: debiased CKA of their activations, and overlap feature by feature.

Codes are sparse: n tokens with k active features cost n · k² where dense ones would cost n · latents².
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from scipy.sparse import csr_array, issparse, vstack
from torch import Tensor

from tunescope.errors import AlignmentError, Degenerate, NotEnoughRows
from tunescope.features.alignment_row import AlignmentRow, Figure, above, mean_and_sd
from tunescope.features.dictionary import Dictionary
from tunescope.geometry.hsic import Hsic, HsicTriple
from tunescope.geometry.null import debiased_sd, gram_product

GROUPS = 10  # of documents, left out in turn for the interval
DRAWS = 3
_PRODUCTS = 50_000_000  # products of active features held at a time
SHUFFLED = "tokens of one side shuffled"


def codes_of(dictionary: Dictionary, batches: Iterable[Tensor]) -> csr_array:
    """The feature activations (n, latents) of all batches of rows, sparse, float32: 8 bytes an active feature."""
    return vstack([csr_array(dictionary.encode(x).cpu().numpy()) for x in batches], format="csr")


@dataclass(frozen=True)
class CodeCKA:
    """CKA of two sets of activations on the same n tokens.

    debiased: 0 in expectation for unrelated codes, with its 95% jackknife interval over groups of documents. debiased_sd: its spread
    when tokens are shuffled, √(2/(n(n−3))), whatever the codes. biased, with the mean and spread of it when tokens are shuffled: printed
    for comparison alone, as few tokens raise it (.875 between independent Gaussian rows at n = 512, d = 3,584).
    """

    debiased: Figure
    debiased_sd: float
    biased: float
    biased_floor: tuple[float, float]
    n: int

    def rows(self, sides: str = "a with b", *, comparison: str = "feature_cka", ceiling: float | None = None) -> tuple[AlignmentRow, ...]:
        """The debiased value and, beside it, the biased one against its own floor."""
        value, of = self.debiased, None if ceiling is None else "the same dictionary trained from another seed"
        verdict = above(value.value, 0.0, sd=self.debiased_sd, ceiling=ceiling)
        biased = above(self.biased, self.biased_floor[0], sd=self.biased_floor[1])
        return (
            AlignmentRow(
                f"{comparison}_debiased", sides, value.value, 0.0, self.debiased_sd, SHUFFLED, ceiling, of, value.low, value.high,
                n=self.n, unit="tokens", verdict=verdict,
            ),
            AlignmentRow(
                f"{comparison}_biased", sides, self.biased, *self.biased_floor, SHUFFLED, n=self.n, unit="tokens", verdict=biased,
                note="biased upwards when tokens are few; read it against its floor only",
            ),
        )


def code_cka(a: Any, b: Any, *, documents: Int[Tensor, " n"] | None = None) -> CodeCKA:
    """Linear CKA of activations a (n, p) and b (n, q), row i of both being the same token; sparse (scipy) or dense.

    documents: of which document each token is; without them, tokens are dealt to the groups of the interval one by one.

    Raises: AlignmentError (other numbers of rows), NotEnoughRows (below 5 tokens), Degenerate (a side is the same on all tokens).

    Reference: Song et al. 2012, https://jmlr.org/papers/v13/song12a.html; Kornblith et al. 2019, https://arxiv.org/abs/1905.00414
    """
    x, y = _paired(a, b)
    n = x.shape[0]
    if n < 5:
        raise NotEnoughRows(f"a debiased CKA needs at least 5 tokens, got {n}")
    deal = _deal(n, documents)
    sums = [_Pair(*sides, deal) for sides in ((x, x), (x, y), (y, y))]
    whole = HsicTriple(*(pair.hsic() for pair in sums))
    if min(float(whole.xx.trace_x), float(whole.yy.trace_y)) <= 0:
        raise Degenerate("the activations of a side are the same on all tokens; does any of its features fire on them?")
    debiased = float(whole.debiased_cka)
    if not np.isfinite(debiased):
        raise Degenerate(f"a side's own unbiased HSIC is not above 0 on {n:,} tokens, so there is no debiased CKA; give more tokens")
    without = [float(HsicTriple(*(pair.hsic(group) for pair in sums)).debiased_cka) for group in range(int(deal.max()) + 1)]
    trace, square, fourth = (
        (float(getattr(whole.xx, name)), float(getattr(whole.yy, name))) for name in ("trace_x", "cross", "fourth")
    )
    mean, variance = gram_product(n, trace, square, fourth)
    scale = np.sqrt(square[0] * square[1])
    figure = Figure.of(debiased, np.array(without), bounds=(-np.inf, 1.0)) if np.isfinite(without).all() else Figure(debiased)
    return CodeCKA(figure, debiased_sd(n), float(whole.cka), (mean / scale, float(np.sqrt(variance)) / scale), n)


class _Pair:
    """What HSIC needs of two sides, for all rows and without each group of them: products of codes, summed group by group."""

    def __init__(self, x: csr_array, y: csr_array, deal: np.ndarray):
        self.deal, self.groups = deal, int(deal.max()) + 1
        self.count = np.bincount(deal).astype(np.float64)
        self.sides = x, y
        self.sums = tuple(np.stack([side[deal == g].sum(0) for g in range(self.groups)]) for side in (x, y))
        self.norms = tuple(np.asarray(side.multiply(side).sum(1)).ravel() for side in (x, y))
        # index −1 is all rows
        self.square = np.zeros(self.groups + 1)
        self.along = np.zeros(self.groups + 1)
        members = [tuple(side[deal == g] for side in (x, y)) for g in range(self.groups)]
        for block in _blocks(x, y):
            self._add([(left[:, block], right) for left, right in members], block)

    def _add(self, members: list[tuple[csr_array, csr_array]], block: slice) -> None:
        """Σ S² and μᵀSν of S = XᵀY over this block of x's latents, all rows and each group left out."""
        products = [left.T @ right for left, right in members]
        total = sum(products[1:], products[0])
        for group in range(-1, self.groups):
            rest = total if group < 0 else total - products[group]
            mean_x, mean_y = self._means(group)
            self.square[group] += float(rest.multiply(rest).sum())
            self.along[group] += float(mean_x[block] @ (rest @ mean_y))

    def _means(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        n = self._rows(group)
        return tuple((sums.sum(0) - (0 if group < 0 else sums[group])) / n for sums in self.sums)  # type: ignore[return-value]

    def _rows(self, group: int) -> float:
        return float(self.count.sum() - (0 if group < 0 else self.count[group]))

    def hsic(self, group: int = -1) -> Hsic:
        """Of all rows, or of those outside one group."""
        n, (mean_x, mean_y) = self._rows(group), self._means(group)
        kept = np.ones(len(self.deal), dtype=bool) if group < 0 else self.deal != group
        about = [
            np.maximum(norms - 2 * (side @ mean) + mean @ mean, 0.0)[kept]
            for side, norms, mean in zip(self.sides, self.norms, (mean_x, mean_y), strict=True)
        ]
        cross = self.square[group] - 2 * n * self.along[group] + n * n * float(mean_x @ mean_x) * float(mean_y @ mean_y)
        numbers = (cross, float(about[0] @ about[1]), float(about[0].sum()), float(about[1].sum()))
        return Hsic(int(n), *(torch.tensor(number, dtype=torch.float64) for number in numbers))


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
    x, y = (_binary(side) for side in _paired(a, b))
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
    return FiringOverlap(
        *means(found), found[3], mean_and_sd([means(draw)[0] for draw in chance]), mean_and_sd([means(draw)[1] for draw in chance]), of_pairs,
        np.where(live[0], found[1], -1), found[0], (int(live[0].sum()), int(live[1].sum())), x.shape[0],
    )


def _overlaps(x: csr_array, y: csr_array, pairs: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, float | None]:
    """Largest overlap of each of x's features and where, of each of y's, and the mean of the pairs that fire on either side."""
    fired_x, fired_y = (np.asarray(side.sum(0)).ravel() for side in (x, y))
    best_x, where, best_y = np.zeros(x.shape[1]), np.zeros(x.shape[1], dtype=np.int64), np.zeros(y.shape[1])
    of_pairs = None if pairs is None else np.zeros(len(pairs))
    for block in _blocks(x, y):
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


def _blocks(x: csr_array, y: csr_array) -> list[slice]:
    """Runs of x's latents whose products with y's are few enough to hold: each place of x meets the active ones of y in its row."""
    meets = np.bincount(x.indices, weights=np.repeat(np.diff(y.indptr), np.diff(x.indptr)), minlength=x.shape[1])
    cuts = np.flatnonzero(np.diff(meets.cumsum() // _PRODUCTS)) + 1
    edges = [0, *cuts.tolist(), x.shape[1]]
    return [slice(low, high) for low, high in zip(edges, edges[1:], strict=False) if high > low]


def _paired(a: Any, b: Any) -> tuple[csr_array, csr_array]:
    x, y = (_sparse(side) for side in (a, b))
    if x.shape[0] != y.shape[0]:
        raise AlignmentError(f"a has activations on {x.shape[0]:,} tokens and b on {y.shape[0]:,}; row i of both must be the same token")
    return x, y


def _sparse(side: Any) -> csr_array:
    return csr_array(side if issparse(side) else np.asarray(side.cpu() if isinstance(side, Tensor) else side), dtype=np.float64)


def _binary(side: csr_array) -> csr_array:
    kept = side.copy()
    kept.eliminate_zeros()
    kept.data = np.ones_like(kept.data)
    return kept


def _deal(n: int, documents: Any) -> np.ndarray:
    """A group for each token, up to `GROUPS`; those of one document stay together."""
    units = np.arange(n) if documents is None else np.unique(np.asarray(documents), return_inverse=True)[1]
    count = int(units.max()) + 1
    order = np.random.default_rng(0).permutation(count)
    return (order % min(GROUPS, count))[units]
