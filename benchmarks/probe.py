"""Probes: the batched path of C against scikit-learn's warm-started one at the same optimum, and against its default, which stops early.

Planted classes in the shape of Banking77 through MiniLM (10,003 × 384, 77 classes, standardised); a fold of three is timed, since
LogisticRegressionCV repeats it. Two thirds of the rows train; the path is the strong protocol's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from pairing import Line, Pairs, within
from tunescope.outcome.logistic import Problem, solve

THREADS = 1
CS = (0.001, 0.01, 0.1, 1.0, 10.0)
SAME = 1e-6  # scikit-learn's tol that brings it within 1e-4 of the optimum at every C but the largest
LAYERS = 14


def planted(n: int, d: int, k: int, *, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Standardised rows around k means, with a decaying spectrum as embeddings have."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    scale = np.linspace(1, 0.1, d)
    x = (rng.normal(size=(k, d))[y] + spread * rng.normal(size=(n, d))) * scale @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (x - x.mean(0)) / x.std(0), y


def theirs(x: np.ndarray, y: np.ndarray, **options: float) -> float:
    """The path as LogisticRegressionCV goes along it: each C from the solution of the one before."""
    model = LogisticRegression(warm_start=True, **options)
    for C in CS:
        model.set_params(C=C).fit(x, y)
    z = model.decision_function(x)
    return float(CS[-1] * (np.logaddexp.reduce(z, axis=1) - z[np.arange(len(y)), y]).sum() + 0.5 * (model.coef_**2).sum())


def lines(repeats: int) -> Iterator[Line]:
    x, y = planted(10_003 * 2 // 3, 384, 77, spread=1.6)
    problem = Problem(torch.from_numpy(x).float(), torch.from_numpy(y), 77)
    best = solve([problem], CS)[0][-1].objective
    with_care, default = theirs(x, y, tol=SAME, max_iter=3000), theirs(x, y)
    within(best / with_care - 1, 1e-4, "the objective against scikit-learn's at C = 10")
    note = f"at C = 10 scikit-learn ends {with_care / best - 1:+.1e} of the objective from ours, by default {default / best - 1:+.1e}"
    pairs = Pairs.time(lambda: solve([problem], CS), lambda: theirs(x, y, tol=SAME, max_iter=3000), min(repeats, 2))
    line = pairs.faster("probe: one fold, 5 Cs, 6,668×384×77", f"LogisticRegression, tol {SAME:g}", target=10)
    yield Line(**{**line.__dict__, "note": note})
    pairs = Pairs.time(lambda: solve([problem], CS), lambda: theirs(x, y), min(repeats, 3))
    yield pairs.faster("probe: the same", "LogisticRegression, default", target=1)
    x, y = planted(1_000, 128, 8, spread=2.5)
    several = [Problem(torch.from_numpy(x).float() + 0.1 * torch.randn(x.shape), torch.from_numpy(y), 8) for _ in range(LAYERS)]
    pairs = Pairs.time(lambda: solve(several, CS), lambda: [solve([one], CS) for one in several], repeats)
    yield pairs.costs("probe: 14 layer-models together, 1,000×128×8", "one by one", target=1)
