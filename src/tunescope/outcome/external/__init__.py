"""Per-item results that another program measured, as outcomes with the same paired tests: nobody runs an evaluation again."""

from __future__ import annotations

from tunescope.outcome.external.results import ExternalResults, TaskScores, external_results
from tunescope.outcome.external.sides import READERS

__all__ = ["READERS", "ExternalResults", "TaskScores", "external_results"]
