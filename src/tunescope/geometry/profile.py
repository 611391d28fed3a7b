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


def locality(depths: Sequence[float], changes: Sequence[float]) -> Locality:
    """Read a depth curve. Args: relative depths in (0, 1] ascending, and the change at each; equal lengths."""
    x, y = np.asarray(depths, float), np.asarray(changes, float)
    monotone = bool(np.all(np.diff(y) >= 0))
    if len(x) < 2:
        return Locality(None, None, float(x[0]) if len(x) else None, monotone)
    if np.ptp(y) == 0:
        return Locality(0.0, None, None, monotone)
    slope, _ = _line(x, y)
    _, rank_slope = _line(_ranks(x), _ranks(y))
    return Locality(slope, rank_slope, float(x[int(np.argmax(y))]), monotone)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, tied values sharing their mean rank; curves are short, so every pair is compared."""
    below, level = values[None, :] < values[:, None], values[None, :] == values[:, None]
    return below.sum(1) + (level.sum(1) + 1) / 2


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of y on x by least squares, and their correlation; a tenth of the time of scipy's, and hundreds of curves are read."""
    dx, dy = x - x.mean(), y - y.mean()
    return float(dx @ dy / (dx @ dx)), float(dx @ dy / np.sqrt((dx @ dx) * (dy @ dy)))


def width(changes: Sequence[float]) -> tuple[list[float] | None, str | None]:
    """Each block's share of the total change, from 1 − CKA; None with the reason where nothing changed."""
    total = float(np.sum(changes))
    if total <= 0:
        return None, "no block changed, so there are no shares"
    return [float(change) / total for change in changes], None


def status(cka: float, *, noise: float | None, saturated: bool) -> str:
    """untouched, refined or rewritten; see STATUS_RULE."""
    if saturated or cka < REWRITTEN:
        return "rewritten" if noise is None or 1 - cka > noise else "untouched"
    return "untouched" if cka >= UNTOUCHED or (noise is not None and 1 - cka <= noise) else "refined"
