"""Tests whose p-values are counted, not approximated; enumerated where few arrangements exist, drawn at random where there are many."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from scipy import stats

from tunescope.errors import InputError, NotEnoughRows

DRAWS = 10_000
FLIPS = 16  # differences whose signs are enumerated: 2¹⁵ patterns up to a common sign
SPLITS = 200_000  # ways to split two samples that are enumerated
_CELLS = 2_000_000  # drawn numbers in memory at a time
_TIE = 1e-9  # of the largest possible statistic: two arrangements with one sum may differ by rounding


def sign_test(differences: np.ndarray) -> float:
    """Two-sided p of the hypothesis that a difference is as often above 0 as below: exact binomial, zeros left out; 1 where all are 0.

    Raises: InputError for a value that is not finite.
    """
    d = _finite("differences", differences)
    up, changed = int((d > 0).sum()), int((d != 0).sum())
    return float(stats.binomtest(up, changed).pvalue) if changed else 1.0


def paired_permutation(differences: np.ndarray, *, clusters: np.ndarray | None = None, draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided p of the mean of paired differences: how often random signs make its size at least as large.

    Zeros change nothing and are set aside; up to 16 others are enumerated, p = k/2ᵐ; more are drawn, p = (1 + k)/(1 + draws). Differences
    of one size are counted at any number, which is McNemar's exact test.

    Args:
        differences: (n,) tuned − base of the same items. clusters: (n,); the items of a cluster keep their signs to each other.

    Raises: InputError for a value that is not finite.

    Reference: Phipson and Smyth 2010, Permutation p-values should never be zero (https://doi.org/10.2202/1544-6115.1585).
    """
    d = _finite("differences", differences)
    if clusters is not None:
        _, labels = np.unique(clusters, return_inverse=True)
        d = np.bincount(labels, weights=d)
    d = d[d != 0]
    count, seen = len(d), abs(d.sum()) - _TIE * np.abs(d).sum()
    if count == 0:
        return 1.0
    if np.ptp(np.abs(d)) <= _TIE * np.abs(d).max():  # all of one size, as right and wrong are: McNemar's exact test
        return float(stats.binomtest(int((d > 0).sum()), count).pvalue)
    if count <= FLIPS:
        patterns = np.arange(2 ** (count - 1))[:, None] >> np.arange(count) & 1  # the last sign stays: the mirror half has the same sizes
        return float(np.mean(np.abs((1 - 2 * patterns) @ d) >= seen))
    rng, block, hits = np.random.default_rng(seed), max(1, _CELLS // count), 0
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        bits = np.frombuffer(rng.bytes(rows * math.ceil(count / 8)), dtype=np.uint8).reshape(rows, -1)
        flipped = np.unpackbits(bits, axis=1, count=count).astype(np.float64) @ d
        hits += int(np.sum(np.abs(d.sum() - 2 * flipped) >= seen))
    return (1 + hits) / (1 + draws)


def two_sample_permutation(a: np.ndarray, b: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided p of a difference between two means: how often a random split of all values makes it at least as large.

    All splits are enumerated up to 200,000 of them; beyond, p = (1 + k)/(1 + draws).

    Raises: NotEnoughRows for an empty sample, InputError for a value that is not finite.
    """
    a, b = _finite("a", a), _finite("b", b)
    if not len(a) or not len(b):
        raise NotEnoughRows(f"a two-sample test needs values on both sides, got {len(a)} and {len(b)}")
    pooled = np.concatenate([a, b]) - np.concatenate([a, b]).mean()  # centred, Σ of one side tells the difference of the means
    seen = abs(pooled[: len(a)].sum()) - _TIE * np.abs(pooled).sum()
    if math.comb(len(pooled), len(a)) <= SPLITS:
        splits = np.fromiter((i for split in combinations(range(len(pooled)), len(a)) for i in split), dtype=np.int64)
        return float(np.mean(np.abs(pooled[splits.reshape(-1, len(a))].sum(1)) >= seen))
    rng, block, hits = np.random.default_rng(seed), max(1, _CELLS // len(pooled)), 0
    for start in range(0, draws, block):
        shuffled = rng.permuted(np.tile(pooled, (min(block, draws - start), 1)), axis=1)
        hits += int(np.sum(np.abs(shuffled[:, : len(a)].sum(1)) >= seen))
    return (1 + hits) / (1 + draws)


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        odd = int((~np.isfinite(values)).sum())
        raise InputError(f"{name} must be one row of finite numbers; got shape {values.shape}, {odd} of them not finite")
    return values
