"""How much of a gap is closed: ratios of sums over documents, each with its interval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tunescope.stats import jackknife, t_interval

NOTHING = "there is no gap on these documents, so no share of it can be closed"
UNSURE = "the gap is not told from 0 on these documents, so no share of it is given"


@dataclass(frozen=True)
class Share:
    """A share with its 95% interval over documents (none from fewer than two); `note` says why there is no value."""

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """All fields, for a payload."""
        return asdict(self)


def closed_share(left: np.ndarray, gap: np.ndarray, *, signed: bool = False) -> Share:
    """1 − Σ left / Σ gap over documents (g,), with the delete-one jackknife of the ratio; both are of the same documents.

    signed: gaps may have either sign; then there is no share where the 95% interval of their mean holds 0.
    """
    left, gap = np.asarray(left, dtype=np.float64), np.asarray(gap, dtype=np.float64)
    if not gap.any():
        return Share(None, note=NOTHING)
    if signed and not _told_from_zero(gap):
        return Share(None, note=UNSURE)
    value = 1 - float(left.sum() / gap.sum())
    rest = gap.sum() - gap
    if len(gap) < 2 or not rest.all():
        return Share(value)
    return Share(value, *t_interval(value, jackknife(1 - (left.sum() - left) / rest, value)))


def _told_from_zero(gap: np.ndarray) -> bool:
    if len(gap) < 2:
        return True
    mean = float(gap.mean())
    low, high = t_interval(mean, jackknife((gap.sum() - gap) / (len(gap) - 1), mean))
    return low > 0 or high < 0
