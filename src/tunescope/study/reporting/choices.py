"""Which of a study's text sets, measures and tasks lead, what its runs are called, and which of its update rules is which."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tunescope.study.published import BLOCKS

if TYPE_CHECKING:
    import pandas as pd

MEASURES = ("procrustes", "cka", "nps")  # in this order, then the others by name
DRIFTS = ("nps", "cka", "procrustes")
METRICS = ("ndcg@10", "accuracy", "loss", "mrr@10", "map")  # one of a task's measures leads
LOWER_IS_BETTER = frozenset({"loss", "perplexity", "bits_per_byte"})
CONTROLS = "controls"
PRINTED = "share"  # of the published widths: no measure of a run


def curve_measures(rows: pd.DataFrame) -> list[str]:
    """Measures of geometry that have a change at two blocks or more of a run."""
    blocks = rows[(rows["subject"] == "geometry") & (rows["depth"] > 0) & rows["change"].notna() & (rows["measure"] != PRINTED)]
    depths = blocks.groupby(["measure", "run"])["depth"].nunique().groupby("measure").max()  # one block has no profile
    return ordered(depths.index[depths > 1], MEASURES)


def leading(rows: pd.DataFrame, column: str, first: tuple[str, ...] = ()) -> tuple[str | None, list[str]]:
    """The value that most rows have, ties by name, and the others; a value of `first` goes before all."""
    counts = rows[column].dropna().astype(str).value_counts()
    names = sorted(counts.index, key=lambda name: (first.index(name) if name in first else len(first), -int(counts[name]), name))
    return (names[0], names[1:]) if names else (None, [])


def ordered(names, first: tuple[str, ...]) -> list[str]:
    """Known names in their order, then the others by name."""
    return sorted(map(str, names), key=lambda name: (first.index(name) if name in first else len(first), name))


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """With an objective and an update rule for every run: controls are "controls" under their change's name.

    Compared models, which have neither, go by their condition.

    Where one model has several conditions under the same two names, the condition stands for the rule.
    """
    objective = rows["objective"].astype(object).where(rows["objective"].notna(), None)
    update = rows["update"].astype(object).where(rows["update"].notna(), None)
    control = rows["kind"] == "perturb"
    objective = objective.mask(objective.isna() & control, CONTROLS)
    objective = objective.where(objective.notna(), rows["condition"])
    update = update.where(update.notna(), rows["condition"].where(control, ""))
    found = rows.assign(objective=objective.astype(str), update=update.astype(str))
    several = found.groupby(["model", "objective", "update"])["condition"].transform("nunique") > 1
    return found.assign(update=found["update"].mask(several, found["condition"]))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", str(name).lower())


def is_equal_step(update: str) -> bool:
    """By the plan's name of the rule: EqStep, equal-step, lora+equal-step."""
    return "eqstep" in _letters(update) or "equalstep" in _letters(update)


def compared_with(updates: list[str]) -> str | None:
    """The rule that equal-step is set against: the standard one, else that of a uniform rate."""
    for wanted in (("std", "standard"), ("unif", "uniform")):
        for update in sorted(updates):
            if _letters(update) in wanted:
                return update
    return None


def usual(rows: pd.DataFrame) -> pd.DataFrame:
    """Tuned runs without the equal-step control, which the depth study counts apart."""
    return rows[(rows["kind"] != "perturb") & ~rows["update"].fillna("").map(is_equal_step)]


def block_of(model: str, told: Mapping[str, str]) -> str:
    """How a model's attention and MLP stand: from what the plan says, from the depth study's table; else unknown."""
    return told.get(model) or BLOCKS.get(model) or "unknown"
