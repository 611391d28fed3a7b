"""Conditions that moved alike and did not fare alike: a ratio against a ratio, as the drift study has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunescope.errors import Degenerate, InputError, NotEnoughRows
from tunescope.study.analyses.points import of_conditions, over_runs

if TYPE_CHECKING:
    import pandas as pd

RULE = 3.0  # the study's: damage must differ at least three times as much as drift does


@dataclass(frozen=True)
class RatioTest:
    """drift: largest over smallest change; damage: largest over smallest loss; margin: damage over drift; holds: margin ≥ rule.

    table: model, condition, drift, gain, damage and runs, sorted by drift.
    """

    drift: float
    damage: float
    margin: float
    rule: float
    holds: bool
    table: pd.DataFrame


def drift_ratio(found: pd.DataFrame) -> float:
    """max(drift)/min(drift) over conditions, each the mean over its runs.

    Raises: NotEnoughRows below two conditions, Degenerate where one has not moved.
    """
    means = over_runs(found)
    if len(means) < 2:
        raise NotEnoughRows(f"a ratio of drifts needs at least 2 conditions, got {len(means)}")
    still = means.loc[means["drift"] <= 0, "condition"]
    if len(still):
        raise Degenerate(f"{', '.join(still)} has not moved, so a ratio of drifts has no value; leave it out of conditions")
    return float(means["drift"].max() / means["drift"].min())


def ratio_test(found: pd.DataFrame, *, conditions: Sequence[str] | None = None, rule: float = RULE) -> RatioTest:
    """Over these conditions of one model, the drift ratio max(1−NPS)/min(1−NPS) and the damage ratio max/min (Tonmoy 2026, appendix A.4).

    A ratio of losses says little when the smallest is within its noise: it then is as large as the noise is small.

    Raises: as `drift_ratio`; InputError for a condition that lost nothing, whose ratio has no meaning, or for several models.
    """
    chosen = found if conditions is None else of_conditions(found, conditions)
    drift, means = drift_ratio(chosen), over_runs(chosen)
    if means["model"].nunique() > 1:
        raise InputError(f"a ratio test over {', '.join(sorted(means['model'].unique()))} asked for; choose one model")
    gained = means.loc[means["damage"] <= 0, "condition"]
    if len(gained):
        raise InputError(f"{', '.join(gained)} lost nothing, so a ratio of losses has no value; compare differences (`at_one_drift`)")
    damage = float(means["damage"].max() / means["damage"].min())
    return RatioTest(drift, damage, damage / drift, rule, damage / drift >= rule, means.sort_values("drift", ignore_index=True))
