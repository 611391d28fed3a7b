"""Orthogonal Procrustes distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from scipy.linalg import svdvals
from torch import Tensor

from tunescope.geometry.measures.base import Measure, from_each
from tunescope.geometry.moments import BLOCK, Moments, centred_blocks, column_means, resolution, unit_blocks
from tunescope.geometry.null import DRAWS, Null, from_draws, from_values
from tunescope.geometry.rows import Rows
from tunescope.geometry.stream import gaussian_crosses
from tunescope.geometry.threads import threads_for
from tunescope.stats import Spread

FAR = 0.01  # distances that Gram matrices give to 1e-6 of themselves


@dataclass(frozen=True)
class Procrustes(Measure):
    """min over orthogonal Q of |X − YQ|_F for centred X, Y scaled to norm 1: √(2 − 2|XᵀY|_*), widths made equal by zeros.

    In float64 throughout: in float32 the difference under the root turns a true distance of 9e-3 into 0. On unrelated data it is far
    below √2 unless n is large against the features (.435 at n=290, d=768 with a flat spectrum): read it against its null.
    """

    name: ClassVar[str] = "procrustes"
    title: ClassVar[str] = "Procrustes distance"
    reads: ClassVar[str] = "moments"
    bounds: ClassVar[tuple[float, float]] = (0.0, 2**0.5)
    identity: ClassVar[float] = 0.0
    higher_is_closer: ClassVar[bool] = False
    change_formula: ClassVar[str] = "value"
    invariances: ClassVar[frozenset[str]] = frozenset({"rotation", "isotropic scale", "translation", "feature permutation"})
    streams: ClassVar[bool] = True
    ideal_floor: ClassVar[float] = 2**0.5
    interval: ClassVar[str] = "infinitesimal jackknife over rows, 95%"
    chance_method: ClassVar[str] = "ten row permutations"
    reference: ClassVar[str] = "Schönemann 1966, https://doi.org/10.1007/BF02289451; Williams et al. 2021, https://arxiv.org/abs/2110.14739"

    def __call__(self, x: Any, y: Any) -> float:
        """The distance alone. With fewer rows than features it needs one product in row space and no other moment."""
        rows = Rows.of(x, y)
        if len(rows) >= min(rows.x.shape[1], rows.y.shape[1]):
            return super().__call__(rows.x, rows.y)
        self.check(len(rows))
        with threads_for(len(rows) ** 3):
            quick = _from_grams(rows)
            if quick is not None:
                return quick
            left, right = rows.coordinates  # centred
            traces = left.square().sum(), right.square().sum()
            if any(trace <= resolution(side, column_means(side)) for trace, side in zip(traces, (rows.x, rows.y), strict=True)):
                rows.require_spread()
            return _distance(torch.linalg.svdvals(left.T @ right).sum(), traces[0] * traces[1])

    def value(self, view: Moments) -> float:
        return _distance(torch.linalg.svdvals(view.xy).sum(), view.xx.trace() * view.yy.trace())

    def spread(self, rows: Rows) -> Spread:
        return from_each(rows, self.of_rows(rows), self.without_each(rows))

    def without_each(self, rows: Rows) -> Tensor:
        """(n,) the distance with each row left out. First order: d|M|_* = tr(QᵀdM) with the Q of the one SVD; rows that carry
        half a side's spread are really left out."""
        m = rows.moments
        u, s, vt = rows.decomposition
        q = u @ vt
        scale = (m.xx.trace() * m.yy.trace()).sqrt()
        distance = _distance(s.sum(), m.xx.trace() * m.yy.trace())
        parts = []
        x, y = rows.coordinates
        for xb, yb in zip(centred_blocks(x, m.mean_x), centred_blocks(y, m.mean_y), strict=True):
            share = (xb.square().sum(1) / m.xx.trace() + yb.square().sum(1) / m.yy.trace()) / 2
            parts.append(((xb @ q) * yb).sum(1) / scale - s.sum() / scale * share)
        slope = torch.cat(parts)  # of |XᵀY|_* in the weight of each row
        each = distance + slope / distance if distance > 0 else torch.zeros_like(slope)
        for row in rows.heavy:
            each[row] = self.of_rows(rows.without(row))
        return each

    def of_rows(self, rows: Rows) -> float:
        return _distance(rows.decomposition[1].sum(), rows.moments.xx.trace() * rows.moments.yy.trace())

    def chance(self, rows: Rows, *, seed: int) -> Null:
        m = rows.moments
        if rows.passed:
            return from_values(self.value(m.with_cross(xy)) for xy in gaussian_crosses(m, seed=seed, draws=DRAWS))
        # float32 products and singular values are good to 1e-6 of their sum, far inside the spread of ten draws
        x, y = (
            torch.cat([*unit_blocks(side, mean, float(trace) ** -0.5)])
            for side, mean, trace in zip(rows.coordinates, (m.mean_x, m.mean_y), m.traces, strict=True)
        )

        def shuffled(order: Tensor) -> float:
            xy = sum(xb.T @ y[at] for xb, at in zip(x.split(BLOCK), order.to(y.device).split(BLOCK), strict=True))
            return _distance(_nuclear(xy), torch.ones_like(m.aa))

        return from_draws(shuffled, len(rows), seed=seed)


def _nuclear(matrix: Float[Tensor, "d e"]) -> Float[Tensor, ""]:
    """The sum of its singular values, float64; on a CPU by scipy's LAPACK, which takes two thirds of torch's time."""
    if matrix.device.type != "cpu":
        return torch.linalg.svdvals(matrix).sum(dtype=torch.float64)
    return torch.tensor(svdvals(matrix.numpy(), check_finite=False).sum(dtype="float64"))


def _from_grams(rows: Rows) -> float | None:
    """The distance from Cholesky factors of both Grams, a third cheaper than from QR; None where that has too few digits.

    XᵀY and LₓᵀL_y share their singular values. A centred Gram is singular along 1, so its trace t is put there: that adds exactly one
    singular value, √(tₓt_y), taken off again. Rounding of the Grams moves the squared distance d² by at most about 1e-8·d, so only
    distances above `FAR` are read here.
    """
    factors, traces = [], []
    for side in (rows.x, rows.y):
        mean = column_means(side)
        centred = side.double() - mean
        gram = centred @ centred.T
        traces.append(gram.trace())
        if traces[-1] <= resolution(side, mean):
            return None
        factor, failed = torch.linalg.cholesky_ex(gram + traces[-1] / len(gram))
        if failed:
            return None
        factors.append(factor)
    squares = traces[0] * traces[1]
    distance = _distance(torch.linalg.svdvals(factors[0].T @ factors[1]).sum() - squares.sqrt(), squares)
    return distance if distance > FAR else None


def _distance(nuclear: Tensor, squares: Tensor) -> float:
    """From |xᵀy|_* and |x|²|y|²."""
    return float((2 - 2 * nuclear / squares.sqrt()).clamp_min(0).sqrt())


def aligned_residuals(rows: Rows) -> Float[Tensor, " n"]:
    """How far each row is from its counterpart after the best rotation, relative to the row's own size: |x̃ − ỹQ| / |x̃|, both sides at
    norm 1. Which texts moved, when turning the whole space does not count."""
    m = rows.moments
    u, _, vt = rows.decomposition
    turn = vt.T @ u.T / m.yy.trace().sqrt()
    parts = []
    x, y = rows.coordinates
    for xb, yb in zip(centred_blocks(x, m.mean_x), centred_blocks(y, m.mean_y), strict=True):
        unit = xb / m.xx.trace().sqrt()
        parts.append((unit - yb @ turn).norm(dim=1) / unit.norm(dim=1).clamp_min(1e-300))
    return torch.cat(parts)
