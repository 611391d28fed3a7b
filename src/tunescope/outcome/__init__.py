"""GOOD OR BAD: the same items through base and tuned, the difference of every item, and what the differences show."""

from __future__ import annotations

from tunescope.outcome.outcome import Outcome
from tunescope.outcome.power import Plan, Plans, TextsPlan, plan, plans_from_result

__all__ = ["Outcome", "Plan", "Plans", "TextsPlan", "plan", "plans_from_result"]
