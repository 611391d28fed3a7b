"""The depth curve and what is read off it: slope, rank slope, peak, monotone or not, width, and a word per layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNTOUCHED, REWRITTEN = 0.99, 0.87
STATUS_RULE = (
    f"untouched: CKA ≥ {UNTOUCHED:.2f} or change within the measured noise; refined: CKA ≥ {REWRITTEN:.2f}; rewritten: below, or no closer "
    "than chance. The cut-offs reproduce a published DistilBERT table; they are conventions, not tests."
)


@dataclass(frozen=True)
class Locality:
    """Where along depth the change sits.

    slope: ordinary least squares of change on relative depth (the locality gradient). rank_slope: the same on ranks, Spearman's ρ.
    A slope hides humps, hence peak_depth (depth of the largest change) and monotone (never decreasing towards the output).
    None where the curve is flat or has one block.
    """

    slope: float | None
    rank_slope: float | None
    peak_depth: float | None
    monotone: bool


@dataclass(frozen=True)
class Localities:
    """`Locality` of many curves read at the same depths: an array each (r,), NaN where `Locality` has None."""

    slope: np.ndarray
    rank_slope: np.ndarray
    peak_depth: np.ndarray
    monotone: np.ndarray


def locality(depths: Sequence[float], changes: Sequence[float]) -> Locality:
    """Read a depth curve. Args: relative depths in (0, 1] ascending, and the change at each; equal lengths."""
    x, y = np.asarray(depths, float), np.asarray(changes, float)
    if not len(x):
        return Locality(None, None, None, True)
    found = localities(x, y[None])
    slope, rank_slope, peak = (None if np.isnan(of[0]) else float(of[0]) for of in (found.slope, found.rank_slope, found.peak_depth))
    return Locality(slope, rank_slope, peak, bool(found.monotone[0]))


def localities(depths: np.ndarray, changes: np.ndarray) -> Localities:
    """`locality` of r curves at once. Args: depths (l,) ascending, l ≥ 1; changes (r, l)."""
    x, y = np.asarray(depths, float), np.asarray(changes, float)
    monotone, none = np.all(np.diff(y) >= 0, axis=1), np.full(len(y), np.nan)
    if len(x) < 2:
        return Localities(none, none, np.full(len(y), x[0]), monotone)
    flat = np.ptp(y, axis=1) == 0
    with np.errstate(invalid="ignore", divide="ignore"):  # a flat curve has no correlation, and is set aside
        slope, _ = _lines(x, y)
        _, rank_slope = _lines(_ranks(x), _ranks(y))
    peak = x[np.argmax(y, axis=1)]
    return Localities(np.where(flat, 0.0, slope), np.where(flat, np.nan, rank_slope), np.where(flat, np.nan, peak), monotone)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks along the last axis from 1, tied values sharing their mean rank; curves are short, so every pair is compared."""
    below, level = values[..., None, :] < values[..., None], values[..., None, :] == values[..., None]
    return below.sum(-1) + (level.sum(-1) + 1) / 2


def _lines(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of the rows of y (r, l) on x (l,) by least squares, and their correlations; a tenth of the time of scipy's."""
    dx, dy = x - x.mean(), y - y.mean(-1, keepdims=True)
    products = dy @ dx
    return products / (dx @ dx), products / np.sqrt((dx @ dx) * np.einsum("rl,rl->r", dy, dy))


def width(changes: Sequence[float]) -> tuple[list[float] | None, str | None]:
    """Each block's share of the total change, from 1 − CKA; None with the reason where nothing changed."""
    (found,) = shares(np.asarray([changes], float))
    return (None, "no block changed, so there are no shares") if np.isnan(found).any() else (found.tolist(), None)


def shares(changes: np.ndarray) -> np.ndarray:
    """Each block's share of the total change of its curve, of r curves (r, l); a row of NaN where the total is not above 0."""
    total = changes.sum(1, keepdims=True)
    return np.divide(changes, total, out=np.full(changes.shape, np.nan), where=total > 0)


def status(cka: float, *, noise: float | None, saturated: bool) -> str:
    """untouched, refined or rewritten; see STATUS_RULE."""
    if saturated or cka < REWRITTEN:
        return "rewritten" if noise is None or 1 - cka > noise else "untouched"
    return "untouched" if cka >= UNTOUCHED or (noise is not None and 1 - cka <= noise) else "refined"
