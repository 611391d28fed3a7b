"""Intervals, paired tests and exact tests on plain arrays: whether a difference is there, and how large it may be.

Axis legend of the package: n rows (texts or tokens), d / e features of base / tuned, g groups, k neighbours.
"""

from __future__ import annotations

from tunescope.stats.bootstrap import mean_intervals
from tunescope.stats.correlation import Association, Correlation, association, partial_pearson, partial_spearman, pearson, spearman
from tunescope.stats.detectable import detectable_effect, discordant_power, discordant_sample_size, paired_power, paired_sample_size
from tunescope.stats.exact import paired_permutation, sign_test, two_sample_permutation
from tunescope.stats.intervals import Spread, jackknife, t_interval
from tunescope.stats.multiplicity import holm
from tunescope.stats.paired import McNemar, Paired, mcnemar, paired
from tunescope.stats.seeds import SeedSummary, Welch, seed_summary, welch

__all__ = [
    "Association",
    "Correlation",
    "McNemar",
    "Paired",
    "SeedSummary",
    "Spread",
    "Welch",
    "association",
    "detectable_effect",
    "discordant_power",
    "discordant_sample_size",
    "holm",
    "jackknife",
    "mcnemar",
    "mean_intervals",
    "paired",
    "paired_permutation",
    "paired_power",
    "paired_sample_size",
    "partial_pearson",
    "partial_spearman",
    "pearson",
    "seed_summary",
    "sign_test",
    "spearman",
    "t_interval",
    "two_sample_permutation",
    "welch",
]
