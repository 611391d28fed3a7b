"""Correlations of few points, with p-values that are counted, and with a third variable held fixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy import stats

from tunescope.errors import AlignmentError, InputError, NotEnoughRows

ENUMERATED = 8  # points whose 8! = 40,320 orders are all tried
DRAWS = 10_000
_TIE = 1e-9  # two orders with one correlation may differ by rounding
_ALIKE = 1e-10  # of the variance: what is left of a variable by the covariate is rounding


@dataclass(frozen=True)
class Correlation:
    """A correlation of n points, its two-sided p and how that was got ("enumerated", "drawn"); value and p None with the reason."""

    value: float | None
    p: float | None
    n: int
    method: str
    reason: str | None = None


@dataclass(frozen=True)
class Association:
    """How change goes with gain over layers: as they are, and with the covariate partialled out, by values and by ranks."""

    pearson: Correlation
    spearman: Correlation
    partial: Correlation
    rank_partial: Correlation


def pearson(x: np.ndarray, y: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Correlation:
    """Pearson correlation of x and y (n,), with a two-sided permutation p.

    p: the share of orders of y with |r| at least as large; all n! up to 8 points, beyond (1 + k)/(1 + draws).

    Raises: AlignmentError when the lengths differ, NotEnoughRows below 3 points, InputError for a value that is not finite.
    """
    x, y = _points(x=x, y=y)
    return _permuted(x, y, np.zeros(len(x)), draws=draws, seed=seed, reason="one variable is constant")


def spearman(x: np.ndarray, y: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Correlation:
    """Spearman correlation of x and y (n,): Pearson's of the ranks, tied values sharing their mean rank; p and errors as `pearson`.

    The t approximation is not used: at seven points it makes p = .003 of an exact .007.
    """
    x, y = _points(x=x, y=y)
    return pearson(stats.rankdata(x), stats.rankdata(y), draws=draws, seed=seed)


def partial_pearson(
    x: np.ndarray, y: np.ndarray, covariate: np.ndarray, *, covariate_name: str = "covariate", draws: int = DRAWS, seed: int = 0
) -> Correlation:
    """Pearson correlation of what a line on the covariate leaves of x and of y.

    p: the residuals of y permuted and regressed on the covariate again (Freedman and Lane), which is exact up to the estimate of that
    line. Where the covariate leaves nothing of x or y there is no value; the reason is "collinear with" its name.

    Raises: AlignmentError when the lengths differ, NotEnoughRows below 4 points, InputError for a value that is not finite.

    Reference: Freedman and Lane 1983 (https://doi.org/10.1080/07350015.1983.10509354).
    """
    x, y, covariate = _points(x=x, y=y, **{covariate_name: covariate}, least=4)
    return _permuted(x, y, covariate - covariate.mean(), draws=draws, seed=seed, reason=f"collinear with {covariate_name}")


def partial_spearman(
    x: np.ndarray, y: np.ndarray, covariate: np.ndarray, *, covariate_name: str = "covariate", draws: int = DRAWS, seed: int = 0
) -> Correlation:
    """`partial_pearson` of the ranks of x, y and the covariate; "collinear with" it when the covariate ranks x or y perfectly."""
    x, y, covariate = _points(x=x, y=y, **{covariate_name: covariate}, least=4)
    ranks = (stats.rankdata(values) for values in (x, y, covariate))
    return partial_pearson(*ranks, covariate_name=covariate_name, draws=draws, seed=seed)


def association(
    change: np.ndarray, gain: np.ndarray, layer: np.ndarray, *, covariate_name: str = "depth", draws: int = DRAWS, seed: int = 0
) -> Association:
    """How the change of the layers goes with their gain (n,), and whether more than their common trend over `layer` is behind it.

    Change and gain both grow with depth in most fine-tuned models, so the plain correlations alone say little.

    Raises: as `partial_pearson`.
    """
    options = {"draws": draws, "seed": seed}
    return Association(
        pearson=pearson(change, gain, **options),
        spearman=spearman(change, gain, **options),
        partial=partial_pearson(change, gain, layer, covariate_name=covariate_name, **options),
        rank_partial=partial_spearman(change, gain, layer, covariate_name=covariate_name, **options),
    )


def _permuted(x: np.ndarray, y: np.ndarray, covariate: np.ndarray, *, draws: int, seed: int, reason: str) -> Correlation:
    """Correlation of what a line on the centred covariate leaves of x and y, and its permutation p; a covariate of zeros leaves all."""
    n, method = len(x), "enumerated" if len(x) <= ENUMERATED else "drawn"
    if not (np.ptp(x) and np.ptp(y)):
        return Correlation(None, None, n, method, "one variable is constant")
    left, right = _residuals(x, covariate), _residuals(y, covariate)
    if any(rest.var() <= _ALIKE * of.var() for rest, of in ((left, x), (right, y))):
        return Correlation(None, None, n, method, reason)
    left = left / np.linalg.norm(left)
    value = float(left @ right / np.linalg.norm(right))
    hits = total = 0
    for orders in _orders(n, draws, seed):
        again = _residuals(right[orders], covariate)
        norms = np.linalg.norm(again, axis=1)
        found = np.divide(again @ left, norms, out=np.zeros(len(again)), where=norms > _TIE * np.linalg.norm(right))
        hits, total = hits + int(np.sum(np.abs(found) >= abs(value) - _TIE)), total + len(orders)
    p = hits / total if method == "enumerated" else (1 + hits) / (1 + total)
    return Correlation(max(-1.0, min(1.0, value)), p, n, method)


def _residuals(values: np.ndarray, covariate: np.ndarray) -> np.ndarray:
    """Values (…, n) less their mean and their slope on the centred covariate (n,)."""
    centred, size = values - values.mean(-1, keepdims=True), covariate @ covariate
    return centred - np.multiply.outer(centred @ covariate / size, covariate) if size else centred


def _orders(n: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Orders of n points as rows of indices: all of them, or `draws` at random in blocks."""
    if n <= ENUMERATED:
        yield np.array(list(permutations(range(n))))
        return
    rng, block = np.random.default_rng(seed), max(1, 1_000_000 // n)
    for start in range(0, draws, block):
        yield rng.permuted(np.tile(np.arange(n), (min(block, draws - start), 1)), axis=1)


def _points(*, least: int = 3, **columns: np.ndarray) -> list[np.ndarray]:
    found = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    shapes = {values.shape for values in found.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise AlignmentError(f"{', '.join(f'{name} has shape {values.shape}' for name, values in found.items())}; give one value a point")
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise InputError(f"{name} has {int((~np.isfinite(values)).sum())} values that are not finite; leave those points out")
    n = next(iter(shapes))[0]
    if n < least:
        raise NotEnoughRows(f"this correlation needs at least {least} points, got {n}")
    return list(found.values())
