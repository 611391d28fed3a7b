"""Does an objective that pulls further from pretraining make a steeper profile? Within each model, and over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunescope.errors import NotEnoughRows
from tunescope.stats import Correlation, pearson, sign_test, spearman
from tunescope.study.analyses.points import DIGITS
from tunescope.study.analyses.profiles import profiles
from tunescope.study.analyses.rows import choose, finite, needs, one

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Concordance:
    """Spearman's ρ of distance and slope within each model, its signs and the exact two-sided p of their sign test.

    models: a line each: model, n (objectives), rho, p (of all orders, up to 8), method, reason where there is no ρ. Pearson and Spearman
    over all points together are `pooled`; they mix what lies within models with what lies between.
    """

    models: pd.DataFrame
    positive: int
    negative: int
    zero: int
    n: int
    p: float


@dataclass(frozen=True)
class Pooled:
    """Correlations of distance and slope over the objectives of all models."""

    spearman: Correlation
    pearson: Correlation


def distances_and_slopes(
    rows: pd.DataFrame,
    *,
    measure: str = "procrustes",
    distance: str = "procrustes",
    value: str = "slope",
    axis: str = "blocks",
    texts: str | None = None,
) -> pd.DataFrame:
    """A line a model and objective for which both are there: model, objective, distance, slope and updates, how many rules it averages.

    A slope is the mean over the update rules of the rows, each rule the mean over its runs (seeds); choose the rules before: the study
    takes the five without equal-step. A distance is the mean over the rows of that subject and measure.

    Args: texts: the anchor set of the slopes, where there are several. The others as `profiles`.

    Raises: NotEnoughRows when nothing has both, InputError when several texts are there and none was chosen; as `profiles`.
    """
    needs(rows, "subject", "measure", "depth", "layer", "texts")
    geometry = choose(rows, subject="geometry", measure=measure)
    blocks = geometry["depth"].notna() | geometry["layer"].notna()
    geometry = one(geometry[blocks] if blocks.any() else geometry, "texts", texts)
    slopes, _ = finite(profiles(geometry, measure=measure, axis=axis), value)
    keys = ["model", "objective"]
    rule = slopes.groupby([*keys, "update"], dropna=False)[value].mean().reset_index()
    mean = rule.groupby(keys)[value].agg(slope="mean", updates="size").reset_index()
    known, _ = finite(choose(rows, subject="distance", measure=distance), "value")
    apart = known.groupby(keys)["value"].mean().rename("distance").reset_index()
    both = apart.merge(mean, on=keys).sort_values(keys, ignore_index=True)
    if both.empty:
        raise NotEnoughRows("no model and objective has both a slope and a distance; the names must be the same in both")
    return both.round({"distance": DIGITS, "slope": DIGITS})


def without_reference(points: pd.DataFrame) -> pd.DataFrame:
    """Without the objectives at distance 0: the pretraining objective is at 0 by definition and often has the least slope.

    Raises: NotEnoughRows when there is no other.
    """
    others = points[points["distance"] != 0]
    if others.empty:
        raise NotEnoughRows("every objective is at distance 0, so nothing is left without the reference")
    return others


def concordance(points: pd.DataFrame) -> Concordance:
    """Within each model, the rank correlation of `distances_and_slopes`; models of fewer than 3 objectives have none and are not counted.

    Raises: NotEnoughRows when no model has a correlation.
    """
    import pandas as pd

    lines = []
    for model, group in points.groupby("model", sort=True):
        found = _within(group)
        lines.append({"model": model, "n": len(group), "rho": found.value, "p": found.p, "method": found.method, "reason": found.reason})
    table = pd.DataFrame(lines).astype({"rho": "float64", "p": "float64"})
    rho = table["rho"].dropna().to_numpy()
    if not len(rho):
        raise NotEnoughRows(f"none of {len(table)} models has a rank correlation: {table['reason'].iloc[0]}")
    rho = np.where(np.abs(rho) < 1e-12, 0.0, rho)
    return Concordance(table, int((rho > 0).sum()), int((rho < 0).sum()), int((rho == 0).sum()), len(rho), sign_test(rho))


def pooled(points: pd.DataFrame, *, seed: int = 0) -> Pooled:
    """Over all models together. Raises NotEnoughRows below 3 points."""
    x, y = points["distance"].to_numpy(), points["slope"].to_numpy()
    return Pooled(spearman(x, y, seed=seed), pearson(x, y, seed=seed))


def _within(group: pd.DataFrame) -> Correlation:
    if len(group) < 3:
        return Correlation(None, None, len(group), "enumerated", "a rank correlation needs at least 3 objectives")
    return spearman(group["distance"].to_numpy(), group["slope"].to_numpy())
