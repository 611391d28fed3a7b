"""Whether two dictionaries' features are active on the same tokens: debiased CKA of their activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from scipy.sparse import csr_array
from torch import Tensor

from tunescope.dictionaries.alignment_row import AlignmentRow, Figure, above
from tunescope.dictionaries.sparse_codes import SHUFFLED, latent_blocks, paired
from tunescope.errors import Degenerate, NotEnoughRows
from tunescope.geometry import Rows
from tunescope.geometry.hsic import Hsic, HsicTriple
from tunescope.geometry.matching import Fit
from tunescope.geometry.measures.cka import CKA
from tunescope.geometry.null import debiased_sd, gram_product

GROUPS = 10  # of documents, left out in turn for the interval
_FEWEST = 3  # tokens, of which there is no unbiased HSIC


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
    x, y = paired(a, b)
    n = x.shape[0]
    if n <= _FEWEST + 1:
        raise NotEnoughRows(f"a debiased CKA needs at least {_FEWEST + 2} tokens, got {n}")
    deal = _deal(n, documents)
    sums = [_Pair(*sides, deal) for sides in ((x, x), (x, y), (y, y))]
    whole = HsicTriple(*(pair.hsic() for pair in sums))
    if min(float(whole.xx.trace_x), float(whole.yy.trace_y)) <= 0:
        raise Degenerate("the activations of a side are the same on all tokens; does any of its features fire on them?")
    debiased = float(whole.debiased_cka)
    if not np.isfinite(debiased):
        raise Degenerate(f"a side's own unbiased HSIC is not above 0 on {n:,} tokens, so there is no debiased CKA; give more tokens")
    groups = range(int(deal.max()) + 1) if n - int(np.bincount(deal).max()) > _FEWEST else range(0)
    without = np.array([float(HsicTriple(*(pair.hsic(group) for pair in sums)).debiased_cka) for group in groups])
    trace, square, fourth = (
        (float(getattr(whole.xx, name)), float(getattr(whole.yy, name))) for name in ("trace_x", "cross", "fourth")
    )
    mean, variance = gram_product(n, trace, square, fourth)
    scale = np.sqrt(square[0] * square[1])
    figure = Figure.of(debiased, without, bounds=(-np.inf, 1.0)) if np.isfinite(without).all() else Figure(debiased)
    return CodeCKA(figure, debiased_sd(n), float(whole.cka), (mean / scale, float(np.sqrt(variance)) / scale), n)


def activation_cka(delta: Any, base: Any, *, documents: Int[Tensor, " n"] | None = None) -> CodeCKA:
    """The same of raw rows, Δ (n, d) against the base activations (n, e) on the same tokens: the other reading of "CKA" for a delta.

    Raises: AlignmentError, ActivationError, Degenerate.
    """
    rows = Rows.of(delta, base, documents)
    fit, biased = Fit.of(rows), CKA()
    floor = biased.chance(rows, seed=0)
    by_chance = (floor.mean or 0.0, floor.sd or 0.0)
    return CodeCKA(Figure(fit.value, *fit.interval(rows)), debiased_sd(len(rows)), float(rows.hsic.cka), by_chance, len(rows))


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
        for block in latent_blocks(x, y):
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
        left, right = ((sums.sum(0) - (0 if group < 0 else sums[group])) / n for sums in self.sums)
        return left, right

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


def _deal(n: int, documents: Any) -> np.ndarray:
    """A group for each token, up to `GROUPS`; those of one document stay together."""
    units = np.arange(n) if documents is None else np.unique(np.asarray(documents), return_inverse=True)[1]
    count = int(units.max()) + 1
    order = np.random.default_rng(0).permutation(count)
    return (order % min(GROUPS, count))[units]
