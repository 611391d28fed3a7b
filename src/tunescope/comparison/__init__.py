"""Base + tuned + texts → Comparison."""

from tunescope.comparison.diff import diff
from tunescope.comparison.result import Comparison, load

__all__ = ["Comparison", "diff", "load"]
