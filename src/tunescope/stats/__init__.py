"""Intervals, paired tests and exact tests on plain arrays: whether a difference is there, and how large it may be.

Axis legend of the package: n rows (texts or tokens), d / e features of base / tuned, g groups, k neighbours.
"""

from __future__ import annotations

from tunescope.stats.intervals import Spread, jackknife, t_interval
from tunescope.stats.paired import Paired, paired

__all__ = ["Paired", "Spread", "jackknife", "paired", "t_interval"]
