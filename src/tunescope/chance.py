"""Whether repeated readings of an agreement say more than that it is zero."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def agrees_by_chance(values: Sequence[float]) -> bool:
    """Whether the mean is at most two standard errors above zero; of fewer than two values nothing is said (False)."""
    return len(values) >= 2 and statistics.fmean(values) <= 2 * statistics.stdev(values) / math.sqrt(len(values))
