"""Multinomial logistic regression with an L2 penalty, many problems at a time along a path of C.

Axis legend: b problems, n rows, d features, k classes, m directions. Every product with the rows is a batched matrix product; a search
along directions whose products are known costs no further one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCE = 5e-6  # of `Fit.gap`
MAX_ITERATIONS = 400
ABSENT = -1e4  # the logit of a class that a problem has no row of: its probability is 0 in every dtype
CURVED_ROWS = 256  # rows of largest curvature that a class's block is made of; the others enter as their mean
BLOCK_NUMBERS = 5_000_000  # numbers in the blocks of one problem, 20 MB: 254 axes for 77 classes
REFRESH = (0, 5, 20, 60, 150)  # iterations at which the blocks are made anew
TOGETHER = 4_000_000  # logits of the problems that are solved at once
RENEW = 20  # iterations after which the logits are computed from the weights again, lest rounding adds up
ROUNDING = 1e-8  # of a value: less is no rise
SMALL = 20_000_000  # multiply-adds of a product, below which a problem is solved in float64


@dataclass(frozen=True)
class Problem:
    """Rows (n, d) and labels (n,) in 0 … classes−1."""

    rows: Tensor
    labels: Tensor
    classes: int


@dataclass(frozen=True)
class Fit:
    """A solved problem: weights (d, k) and intercept (k,) for rows as given.

    objective: C·Σ loss + ½‖W‖². gap: estimate of its distance from the optimum, ½ gᵀM⁻¹g with M near the Hessian, as a share of the
    objective (or of how far it is below that of the class frequencies, if this is less). gradient: largest component over C·n, which
    scikit-learn's `tol` bounds. converged: whether gap reached the tolerance; the objective is then within 1e-4 of the optimum, since M
    is up to ten times too stiff (measured on Banking77, C of .001 to 100).
    """

    weights: Tensor
    intercept: Tensor
    C: float
    objective: float
    gap: float
    gradient: float
    iterations: int
    converged: bool

    def logits(self, rows: Tensor) -> Tensor:
        return rows.to(self.weights.dtype) @ self.weights + self.intercept

    def predict(self, rows: Tensor) -> Tensor:
        """Classes (n,) of rows (n, d)."""
        return self.logits(rows).argmax(1)


def solve(
    problems: Sequence[Problem], Cs: Sequence[float], *, tolerance: float = TOLERANCE, max_iterations: int = MAX_ITERATIONS
) -> list[list[Fit]]:
    """The optimum of C·Σᵢ −log softmax(xᵢW + b)[yᵢ] + ½‖W‖² for every problem and every C, each C warm-started from the one below it.

    The objective is scikit-learn's: the intercept is not penalised, and with two classes ‖W‖² is that of the one difference vector.
    Locally optimal preconditioned gradients: each step minimises over the span of the preconditioned gradient, the step before and, first,
    the weights themselves, by Newton's method on precomputed logits. The preconditioner is the Hessian's block of each class in the
    principal axes of the rows. Float32
    is enough for the tolerance on large problems; small ones are solved in float64. Rows stay on their device.

    Returns fits[problem][C], in the order given. Reference: Knyazev 2001 (the three-term idea), https://doi.org/10.1137/S1064827500366124
    """
    fits: list[list[Fit]] = [[] for _ in problems]
    for chunk in _chunks(problems):
        for place, path in zip(chunk, _path([problems[i] for i in chunk], Cs, tolerance, max_iterations), strict=True):
            fits[place] = path
    return fits


def _chunks(problems: Sequence[Problem]) -> list[list[int]]:
    """Problems of one width and class count that fit together, by their places."""
    chunks: list[list[int]] = []
    sizes: dict[tuple, tuple[list[int], int]] = {}
    for place, problem in enumerate(problems):
        shape = (problem.rows.shape[1], problem.classes)
        logits = len(problem.rows) * problem.classes
        chunk, size = sizes.get(shape, ([], 0))
        if chunk and size + logits > TOGETHER:
            chunk, size = [], 0
        if not chunk:
            chunks.append(chunk)
        chunk.append(place)
        sizes[shape] = (chunk, size + logits)
    return chunks


class _Batch:
    """Problems padded to one number of rows, centred and turned to their principal axes; the intercept is the last feature."""

    def __init__(self, problems: Sequence[Problem]):
        self.k, self.sizes = problems[0].classes, [len(p.rows) for p in problems]
        n, first = max(self.sizes), problems[0].rows
        self.small = n * first.shape[1] * self.k < SMALL
        if self.small:
            problems = [Problem(p.rows.double(), p.labels, p.classes) for p in problems]
            first = problems[0].rows
        self.means, self.axes = zip(*[_axes(p.rows) for p in problems], strict=True)
        self.x = first.new_zeros(len(problems), n, first.shape[1] + 1)
        self.y = torch.zeros(len(problems), n, dtype=torch.long, device=first.device)
        self.offset = first.new_full((len(problems), 1, self.k), ABSENT)
        for b, p in enumerate(problems):
            size = len(p.rows)
            self.x[b, :size, :-1] = (p.rows - self.means[b]) @ self.axes[b]
            self.x[b, :size, -1] = 1
            self.y[b, :size] = p.labels
            self.offset[b, 0, p.labels.unique()] = 0
        self.weight = self.x[:, :, -1:].clone()  # 1 for rows, 0 for padding
        self.squares = self.x**2
        # with two classes the penalty of one difference vector w, as W = (−w/2, w/2): ½‖w‖² is ‖W‖²
        self.penalty = first.new_full((1, self.x.shape[2], 1), 2.0 if self.k == 2 else 1.0)
        self.penalty[:, -1] = 0

    def gradient(self, at: _Point, w: Tensor, C: float) -> Tensor:
        rest = at.p.scatter(2, self.y[:, :, None], -at.wrong)  # p − 1 of a row that is nearly certain would be all rounding
        return C * torch.bmm(self.x.transpose(1, 2), rest) + self.penalty * w

    def at(self, z: Tensor, w: Tensor, C: float) -> _Point:
        z = z + self.offset
        top = z.amax(2, keepdim=True)
        e = torch.exp(z - top)
        own = e.gather(2, self.y[:, :, None])
        others = e.scatter(2, self.y[:, :, None], 0).sum(2, keepdim=True)
        total = own + others
        far = total.log() + top - z.gather(2, self.y[:, :, None])
        loss = torch.where(own > others, torch.log1p(others / own), far) * self.weight
        value = C * loss.double().sum((1, 2)) + 0.5 * (self.penalty * w * w).double().sum((1, 2))
        share = self.weight / total
        return _Point(value, e * share, others * share)

    def scale(self, value: Tensor, C: float) -> Tensor:
        """(b,) what a gap is a share of: the objective, or how far it is below that of the class frequencies if this is less; with a
        hundredth of the objective as the least, where nothing can be learnt."""
        null = torch.stack([C * _entropy(y[:size]) for y, size in zip(self.y, self.sizes, strict=True)])
        return torch.minimum(value, torch.maximum(null - value, 0.01 * value)).clamp(min=torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class _Point:
    """value: (b,) objectives in float64. p: (b, n, k) probabilities, 0 for padding. wrong: (b, n, 1) that of all but a row's own class."""

    value: Tensor
    p: Tensor
    wrong: Tensor

    def where(self, other: Tensor, point: _Point) -> _Point:
        """This point, and `point` for the problems of `other` (b,)."""
        deep = other[:, None, None]
        return _Point(
            torch.where(other, point.value, self.value), torch.where(deep, point.p, self.p), torch.where(deep, point.wrong, self.wrong)
        )


def _entropy(labels: Tensor) -> Tensor:
    """Σᵢ −log of the frequency of label i."""
    counts = labels.bincount().double()
    counts = counts[counts > 0]
    return -(counts * (counts / counts.sum()).log()).sum()


def _axes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the principal axes (d, d) of rows, largest first."""
    mean = rows.mean(0)
    centred = rows - mean
    _, axes = torch.linalg.eigh((centred.T @ centred).double())
    return mean, axes.flip(1).to(rows.dtype)


class _Preconditioner:
    """The inverse of every class's own block of the Hessian in the leading axes, of its diagonal in the others."""

    def __init__(self, batch: _Batch, p: Tensor, C: float):
        curvature = C * p * (1 - p)  # (b, n, k)
        features = batch.x.shape[2]
        self.q = min(features - 1, max(1, int((BLOCK_NUMBERS / batch.k) ** 0.5)))
        if batch.small:
            self.q = min(self.q, int((3 * batch.x.shape[1] * features) ** (1 / 3)))  # few iterations do not repay larger blocks
        # an intercept's curvature vanishes where nothing is in doubt: a floor keeps its step finite
        floor = 1e-6 * C * batch.weight.sum((1, 2))[:, None, None] * (batch.penalty[:, self.q :] == 0)
        self.rest = torch.bmm(batch.squares[:, :, self.q :].transpose(1, 2), curvature) + batch.penalty[:, self.q :] + floor
        self.inverse = torch.stack([self._blocks(batch, b, curvature[b]) for b in range(len(p))])

    def _blocks(self, batch: _Batch, b: int, curvature: Tensor) -> Tensor:
        x = batch.x[b, :, : self.q]
        top, place = curvature.topk(min(CURVED_ROWS, len(x)), dim=0)  # (r, k)
        others = (curvature.sum(0) - top.sum(0)).clamp(min=0) / batch.sizes[b]
        rows = x[place.T] * top.T.sqrt()[:, :, None]  # (k, r, q)
        blocks = torch.bmm(rows.transpose(1, 2), rows)
        blocks += torch.diag_embed(others[:, None] * batch.squares[b, :, : self.q].sum(0) + batch.penalty[0, 0, 0])
        return torch.cholesky_inverse(torch.linalg.cholesky(blocks))

    def __call__(self, g: Tensor) -> Tensor:
        lead = torch.einsum("bkij,bjk->bik", self.inverse, g[:, : self.q])
        return torch.cat([lead, g[:, self.q :] / self.rest], 1)


def _path(problems: Sequence[Problem], Cs: Sequence[float], tolerance: float, max_iterations: int) -> list[list[Fit]]:
    batch = _Batch(problems)
    if batch.small:
        tolerance = tolerance / 30  # float64 and a few more cheap steps
    w = batch.x.new_zeros(len(problems), batch.x.shape[2], batch.k)
    z = torch.bmm(batch.x, w)
    found: dict[int, list[Fit]] = {}
    for place in sorted(range(len(Cs)), key=lambda place: Cs[place]):
        w, z, fits = _minimise(batch, problems, w, z, float(Cs[place]), tolerance, max_iterations)
        found[place] = fits
    return [[found[place][b] for place in range(len(Cs))] for b in range(len(problems))]


def _minimise(
    batch: _Batch, problems: Sequence[Problem], w: Tensor, z: Tensor, C: float, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, list[Fit]]:
    at = batch.at(z, w, C)
    known = [(w, z)] if bool(w.any()) else []  # shorter or longer weights cost no product to try
    done, iterations = torch.zeros_like(at.value, dtype=torch.bool), torch.zeros_like(at.value, dtype=torch.long)
    iteration = 0
    while True:
        g = batch.gradient(at, w, C)
        if iteration in REFRESH:
            precondition = _Preconditioner(batch, at.p, C)
        d = -precondition(g)
        gap = -0.5 * (g * d).double().sum((1, 2)) / batch.scale(at.value, C)
        done = done | (gap <= tolerance) | (at.value <= torch.finfo(torch.float32).tiny)
        if bool(done.all()) or iteration == max_iterations:
            break
        step, z_step, at = _search(batch, w, z, at, C, [(d, torch.bmm(batch.x, d)), *known], done)
        w, z = w + step, z + z_step
        if iteration % RENEW == 0:
            z = torch.bmm(batch.x, w)
        known, iteration, iterations = [(step, z_step)], iteration + 1, iterations + ~done
    largest = g.abs().amax((1, 2)) / C
    fits = [
        _fit(batch, b, w[b], C, (float(at.value[b]), float(gap[b]), float(largest[b]) / batch.sizes[b], int(iterations[b]), bool(done[b])))
        for b in range(len(problems))
    ]
    return w, z, fits


def _search(
    batch: _Batch, w: Tensor, z: Tensor, at: _Point, C: float, directions: list[tuple[Tensor, Tensor]], done: Tensor
) -> tuple[Tensor, Tensor, _Point]:
    """The step, its logits and where it leads: the minimum over the span of (direction, its logits), by damped Newton in m unknowns, at
    most three times; the value does not rise, and a problem that is done stays where it is."""
    d, zd = (torch.stack(side, 1) for side in zip(*directions, strict=True))  # (b, m, d, k), (b, m, n, k)
    flat, zflat = d.flatten(2), zd.flatten(2)
    gram = torch.bmm(flat, (batch.penalty[:, None] * d).flatten(2).transpose(1, 2)).double()
    labelled = (zd.gather(3, batch.y[:, None, :, None].expand(-1, zd.shape[1], -1, 1)) * batch.weight[:, None]).double().sum((2, 3))
    linear = torch.bmm(flat, (batch.penalty * w).flatten(1)[:, :, None])[:, :, 0].double()
    a = torch.zeros(len(z), zd.shape[1], dtype=torch.float64, device=z.device)
    for _ in range(3):
        pz = at.p[:, None] * zd
        mean = pz.sum(3)  # (b, m, n)
        slope = C * (mean.double().sum(2) - labelled) + linear + (gram @ a[:, :, None])[:, :, 0]
        curve = C * (torch.bmm(pz.flatten(2), zflat.transpose(1, 2)) - torch.bmm(mean, mean.transpose(1, 2))).double() + gram
        newton = torch.linalg.solve(curve + torch.diag_embed(1e-7 * curve.diagonal(dim1=1, dim2=2) + 1e-30), -slope)
        expected = -0.5 * (slope * newton).sum(1)
        if bool(((expected <= 0.1 * TOLERANCE * at.value) | done).all()) and bool(a.any()):
            break
        a, at = _damped(batch, w, z, at, C, (a, newton, d, zd), done)
    return _combined(a, d), _combined(a, zd), at


def _damped(
    batch: _Batch, w: Tensor, z: Tensor, at: _Point, C: float, move: tuple[Tensor, Tensor, Tensor, Tensor], done: Tensor
) -> tuple[Tensor, _Point]:
    """(a, newton, d, zd): the coefficients a + Newton's step, shortened until the value does not rise, or a itself."""
    a, newton, d, zd = move
    length = (~done).double()
    for _ in range(8):
        tried = a + length[:, None] * newton
        # steps are made of coefficients, never a difference of weights: a small one must agree with its logits in all its digits
        there = batch.at(z + _combined(tried, zd), w + _combined(tried, d), C)
        worse = ~(there.value <= at.value * (1 + ROUNDING))
        if not bool((worse & ~done).any()):
            break
        length = torch.where(worse, length / 4, length)
    worse = worse | done
    return torch.where(worse[:, None], a, tried), there.where(worse, at)


def _combined(coefficients: Tensor, of: Tensor) -> Tensor:
    """Σ coefficient (b, m) × direction (b, m, …)."""
    return torch.einsum("bm,bmij->bij", coefficients.to(of.dtype), of)


def _fit(batch: _Batch, b: int, w: Tensor, C: float, numbers: tuple[float, float, float, int, bool]) -> Fit:
    """The solution in the features the rows came in."""
    weights = batch.axes[b] @ w[:-1]
    intercept = w[-1] + batch.offset[b, 0] - batch.means[b] @ weights
    return Fit(weights, intercept, C, *numbers)
