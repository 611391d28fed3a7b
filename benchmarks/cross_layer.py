"""The 13×13 cross-layer CKA matrix, against pytorch-cka (all pairs at once, unbiased HSIC) and against one HSIC triple per pair."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from cka import cka_from_features
from torch import Tensor

import tunescope as ts
from pairing import Line, Pairs, within

THREADS = 1
LAYERS, N, D = 13, 2048, 768


def lines(repeats: int) -> Iterator[Line]:
    xs, ys = two_models()

    def ours() -> Tensor:
        return ts.cross_cka(xs, ys)

    def pytorch_cka() -> Tensor:
        return cka_from_features(xs, ys)

    def one_row_of_pairs() -> list[Tensor]:
        return [pairwise_cka(xs[0], y) for y in ys]

    biased, unbiased = truth(xs, ys)
    own, theirs = float((ours() - biased).abs().max()), float((pytorch_cka() - unbiased).abs().max())
    within(own, 2e-7, "cross_cka against float64")
    within(float((torch.stack(one_row_of_pairs()) - biased[0]).abs().max()), 1e-4, "pairwise CKA against float64")
    what = f"(b) cross-layer CKA {LAYERS}×{LAYERS}, N={N:,}, D={D}"
    yield Line(what, "error to float64; pytorch-cka's", f"{own:.1e}", f"{theirs:.1e}", f"{own / theirs:.3f}", "< 2e-07", own < 2e-7)
    yield Pairs.time(ours, pytorch_cka, repeats).faster(what, "pytorch-cka", target=1.0)
    pairs = Pairs.time(ours, one_row_of_pairs, repeats).scaled(LAYERS)
    yield pairs.faster(what, f"pairwise HSIC ({LAYERS} of {LAYERS**2} run)", target=4.0)


def two_models() -> tuple[list[Tensor], list[Tensor]]:
    """Base layers, each a step away from the one before, and tuned ones that leave them more the deeper they are; spectrum 1/k."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, D + 1).float().rsqrt()

    def noise() -> Tensor:
        return torch.randn(N, D, generator=generator) * scale

    xs = [noise()]
    for _ in range(LAYERS - 1):
        xs.append(0.9 * xs[-1] + 0.4 * noise())
    return xs, [x + 0.05 * layer * noise() for layer, x in enumerate(xs, start=1)]


def pairwise_cka(x: Tensor, y: Tensor) -> Tensor:
    """Linear CKA as packages that take two arrays form it: both Grams, centred, and three sums, anew for every pair."""
    left, right = (gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean() for gram in (x @ x.T, y @ y.T))
    return (left * right).sum() / ((left * left).sum() * (right * right).sum()).sqrt()


def truth(xs: list[Tensor], ys: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Biased and unbiased (Song et al. 2012, equation 5) CKA of all pairs, by numpy on float64 Grams."""
    grams = [[centred @ centred.T for x in side for centred in [x.double().numpy() - x.double().numpy().mean(0)]] for side in (xs, ys)]
    return tuple(torch.from_numpy(_cosines(*([form(gram) for gram in side] for side in grams))) for form in (np.asarray, _u_centred))


def _u_centred(gram: np.ndarray) -> np.ndarray:
    n = len(gram)
    gram = gram - np.diag(np.diag(gram))
    rows = gram.sum(1) / (n - 2)
    centred = gram - rows[:, None] - rows[None] + gram.sum() / ((n - 1) * (n - 2))
    return centred - np.diag(np.diag(centred))


def _cosines(left: list[np.ndarray], right: list[np.ndarray]) -> np.ndarray:
    norms = [[np.sqrt(np.vdot(gram, gram)) for gram in side] for side in (left, right)]
    return np.array([[np.vdot(gram, other) for other in right] for gram in left]) / np.outer(*norms)
