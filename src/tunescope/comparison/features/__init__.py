"""Which features did fine-tuning write: deltas, dictionaries and their comparison with the base's and with chance, as one folder."""

from __future__ import annotations

from tunescope.comparison.features.compare import features
from tunescope.comparison.features.result import FeatureComparison

__all__ = ["FeatureComparison", "features"]
