"""How far against how good: the change of the whole model and the change of an outcome, a point a run and checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunescope.errors import InputError, NotEnoughRows, UnknownName
from tunescope.stats import Correlation, spearman
from tunescope.study.analyses.rows import choose, each_once, finite, last_checkpoints, needs, one, sorted_values

if TYPE_CHECKING:
    import pandas as pd

BETTER = ("higher", "lower")
DEPLOYED = "output"
RUN = ("model", "condition", "seed", "epoch", "step")
DIGITS = 12  # means of the same numbers in another order differ by rounding, and would break ties of ranks


def drifts(
    rows: pd.DataFrame, *, measure: str = "nps", texts: str | None = None, where: str | None = None, checkpoint: str = "last"
) -> pd.DataFrame:
    """Change of the whole model under a measure: model, condition, regime, seed, epoch, step, texts, drift.

    Args: texts: the anchor set, where there are several. where: the site; the deployed embedding ("output") by default.

    Raises: NotEnoughRows when no such row is there, InputError when several texts or sites are and none was chosen, or for a number
    that is there twice.
    """
    needs(rows, *RUN, "subject", "depth", "change")
    geometry = choose(last_checkpoints(rows, checkpoint), subject="geometry", measure=measure)
    geometry = geometry[geometry["depth"].isna()]
    if geometry.empty:
        raise NotEnoughRows(f"{measure} was measured at blocks only; this analysis reads it of the whole model, such as where='output'")
    geometry = one(one(geometry, "where", where, prefer=DEPLOYED), "texts", texts)
    known, _ = finite(geometry, "change")
    each_once(known, RUN, f"values of {measure}")
    return sorted_values(known.rename(columns={"change": "drift"}), RUN)[[*RUN, "regime", "texts", "drift"]]


def outcomes(
    rows: pd.DataFrame, *, task: str | None = None, outcome: str | None = None, better: str = "higher", checkpoint: str = "last"
) -> pd.DataFrame:
    """Change of an outcome of the whole model: model, condition, seed, epoch, step, gain (tuned − base) and damage.

    damage is −gain; where lower is better (a loss), gain is turned about first. Args: task, outcome (its measure): where there are
    several. Raises: as `drifts`.
    """
    if better not in BETTER:
        raise UnknownName("direction", better, BETTER)
    needs(rows, *RUN, "subject", "layer", "change")
    found = one(one(choose(last_checkpoints(rows, checkpoint), subject="outcome"), "task", task), "measure", outcome)
    found = found[found["change"].notna() & found["layer"].isna()]
    if found.empty:
        raise NotEnoughRows(f"no outcome of the whole model has a change{f' at {task}' if task else ''}")
    each_once(found, RUN, "outcomes")
    gain = found["change"] * (1 if better == "higher" else -1)
    return sorted_values(found.assign(gain=gain, damage=0.0 - gain), RUN)[[*RUN, "gain", "damage"]]


def points(
    rows: pd.DataFrame,
    *,
    measure: str = "nps",
    task: str | None = None,
    outcome: str | None = None,
    texts: str | None = None,
    where: str | None = None,
    better: str = "higher",
    conditions: Sequence[str] | None = None,
    checkpoint: str = "last",
) -> pd.DataFrame:
    """`drifts` beside `outcomes`, joined by model, condition, seed and checkpoint; what is in one of them only is left out.

    Args: conditions: these only, all of which must be there. The others as `drifts` and `outcomes`.

    Raises: as these; NotEnoughRows when nothing has both, or a condition asked for has not.
    """
    moved = drifts(rows, measure=measure, texts=texts, where=where, checkpoint=checkpoint)
    both = moved.merge(outcomes(rows, task=task, outcome=outcome, better=better, checkpoint=checkpoint), on=list(RUN))
    if both.empty:
        raise NotEnoughRows(f"no run has both {measure} and an outcome at the same checkpoint")
    return sorted_values(both if conditions is None else of_conditions(both, conditions), RUN)


def of_conditions(found: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """The points of these conditions. Raises NotEnoughRows when one has none."""
    missing = [condition for condition in conditions if condition not in set(found["condition"])]
    if missing:
        raise NotEnoughRows(f"{', '.join(missing)} has not both numbers; there is {', '.join(sorted(set(found['condition'])))}")
    return found[found["condition"].isin(conditions)]


def over_runs(found: pd.DataFrame, *, by: Sequence[str] = ("model", "condition")) -> pd.DataFrame:
    """Mean drift, gain and damage over the runs (seeds) of every group, and how many runs."""
    values = [name for name in ("drift", "gain", "damage") if name in found]
    groups = found.groupby(list(by), dropna=False, sort=True)
    return groups[values].mean().round(DIGITS).assign(runs=groups.size()).reset_index()


def drift_against_damage(found: pd.DataFrame) -> Correlation:
    """Spearman's ρ of drift and damage over the conditions of one model that moved at all, with p of all orders (up to 8 of them).

    Within E5 under NPS this is .943, p .017, over six conditions. Raises: InputError for several models: drift does not compare between
    them; NotEnoughRows below 3 conditions.
    """
    means = over_runs(found)
    moved = means[means["drift"] > 0]
    if moved["model"].nunique() > 1:
        raise InputError(f"drift and damage of several models asked for ({', '.join(sorted(moved['model'].unique()))}); choose one")
    if len(moved) < 3:
        raise NotEnoughRows(f"a rank correlation needs at least 3 conditions that moved, got {len(moved)}")
    return spearman(moved["drift"].to_numpy(), moved["damage"].to_numpy())
