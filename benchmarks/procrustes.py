"""The Procrustes distance of 13 layers, against scipy's orthogonal_procrustes; few rows, as in a study with 290 probe texts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.linalg import orthogonal_procrustes

import tunescope as ts
from pairing import Line, Pairs, within

THREADS = 1
LAYERS, N, D = 13, 290, 768
DISTANCE = 1e-4


def lines(repeats: int) -> Iterator[Line]:
    generator = np.random.default_rng(0)
    base = [generator.standard_normal((N, D), dtype=np.float32) for _ in range(LAYERS)]
    tuned = [x + 0.1 * layer * generator.standard_normal((N, D), dtype=np.float32) for layer, x in enumerate(base, start=1)]

    def ours() -> list[float]:
        return [ts.procrustes(x, y) for x, y in zip(base, tuned, strict=True)]

    def scipy_in(dtype: type) -> list[float]:
        return [scipy_distance(x.astype(dtype), y.astype(dtype)) for x, y in zip(base, tuned, strict=True)]

    within(float(np.abs(np.subtract(ours(), scipy_in(np.float64))).max()), 1e-9, "procrustes against scipy in float64")
    what = f"(c) procrustes, {LAYERS} layers, N={N}, D={D}"
    yield Pairs.time(ours, lambda: scipy_in(np.float64), repeats).faster(what, "scipy, float64", target=10.0)
    yield Pairs.time(ours, lambda: scipy_in(np.float32), repeats).faster(what, "scipy, float32", target=5.0)
    yield small_distance(base[0], generator)


def small_distance(x: np.ndarray, generator: np.random.Generator) -> Line:
    """Rotated float32 rows, moved until the distance is 1e-4; the truth is scipy's residual |X − YQ| in float64, which cancels nothing."""
    x = centred_unit(x.astype(np.float64))
    rotation = np.linalg.qr(generator.standard_normal((D, D)))[0]
    moved = x + 2.3 * DISTANCE * centred_unit(generator.standard_normal((N, D)))  # a rotation takes back more than half of the noise
    x, y = x.astype(np.float32), (moved @ rotation).astype(np.float32)
    wide = [centred_unit(side.astype(np.float64)) for side in (x, y)]
    true = float(np.linalg.norm(wide[1] @ orthogonal_procrustes(wide[1], wide[0])[0] - wide[0]))
    own, theirs = ts.procrustes(x, y) / true - 1, scipy_distance(x, y) / true - 1
    within(abs(own), 0.01, f"procrustes at a true distance of {true:.2e}")
    item = f"(c) procrustes at a distance of {true:.2e}, float32"
    return Line(item, "relative error; scipy's", f"{own:+.3%}", f"{theirs:+.0%}", "", "≤ 1%", abs(own) <= 0.01)


def scipy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """√(2 − 2|XᵀY|_*) in the dtype of the arrays; scipy calls the nuclear norm `scale`."""
    _, scale = orthogonal_procrustes(centred_unit(y), centred_unit(x))
    return float(np.sqrt(max(0.0, 2 - 2 * scale)))


def centred_unit(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(0)
    return x / np.linalg.norm(x)
