"""Two conditions at one and the same drift: each one's outcome read off its own path, and the differences paired by seed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from tunescope.errors import InputError, NotEnoughRows
from tunescope.stats import Spread, paired_permutation, t_interval
from tunescope.study.analyses.points import of_conditions

Path = tuple[np.ndarray, np.ndarray]  # drift and gain, the untuned model first
Run = tuple[str, int | None]  # model and seed


@dataclass(frozen=True)
class AtOneDrift:
    """The gain of b less that of a where both have moved by `drift`.

    difference: mean over n pairs; low, high: its 95% t interval over pairs; p: of random signs; these three None for one pair.
    checkpoints: of the shorter path; with one, the path is the straight line from the untuned model, and nothing more is known of it.
    left_out: pairs of which one never reaches that drift, or has not moved at all. table: model, seed, gain_a, gain_b, difference.
    """

    a: str
    b: str
    drift: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    n: int
    checkpoints: int
    left_out: int
    table: pd.DataFrame


def at_one_drift(found: pd.DataFrame, a: str, b: str, *, drift: float | None = None) -> AtOneDrift:
    """Compare two conditions at matched drift, instead of dividing their ratios.

    Every run is a path from the untuned model (drift 0, gain 0) through its checkpoints (`points` with checkpoint="all"), linear
    between them; its gain is read where it first reaches `drift`. Runs of one model and seed are a pair.

    Args: drift: where to compare; by default the largest that every pair that moved reaches. No path goes beyond its end.

    Raises: NotEnoughRows when a condition is not there, no two runs share model and seed, or no pair reaches the drift; InputError for a
    drift that is not above 0.
    """
    if drift is not None and not drift > 0:
        raise InputError(f"a comparison at drift {drift:g} asked for; at 0 every path is the untuned model")
    return _compared(_paths(of_conditions(found, [a, b])), a, b, drift)


def _compared(paths: dict[str, dict[Run, Path]], a: str, b: str, drift: float | None = None) -> AtOneDrift:
    both = {run: (path, paths[b][run]) for run, path in paths[a].items() if run in paths[b]}
    if not both:
        raise NotEnoughRows(f"no run of {a} has the model and seed of one of {b}, so there is no pair")
    ends = [min(path[0].max() for path in two) for two in both.values()]
    if not any(end > 0 for end in ends):
        raise NotEnoughRows(f"of every pair of {a} and {b} one has not moved")
    at = min(end for end in ends if end > 0) if drift is None else drift
    reached = {pair: two for pair, two in both.items() if all(path[0].max() >= at for path in two)}
    if not reached:
        raise NotEnoughRows(f"no pair of {a} and {b} reaches a drift of {at:g}")
    gains = np.array([[_first(path, at) for path in two] for two in reached.values()])
    table = pd.DataFrame(list(reached), columns=["model", "seed"])
    table = table.assign(gain_a=gains[:, 0], gain_b=gains[:, 1], difference=gains[:, 1] - gains[:, 0])
    checkpoints = min(len(path[0]) - 1 for two in reached.values() for path in two)
    return AtOneDrift(a, b, float(at), **_summary(gains[:, 1] - gains[:, 0]), checkpoints=checkpoints,
                      left_out=len(both) - len(reached), table=table)  # fmt: skip


def every_pair(found: pd.DataFrame) -> pd.DataFrame:
    """`at_one_drift` of every two conditions that moved and share a model and seed, each at the largest drift that both reach: a line each.

    Raises: NotEnoughRows when there is no pair.
    """
    moved = found.groupby("condition")["drift"].max()
    lines: list[dict[str, Any]] = []
    paths = _paths(found)
    for a, b in combinations(sorted(moved.index[moved > 0]), 2):
        try:
            one = _compared(paths, a, b)
        except NotEnoughRows:  # no model in common, or none that moved under both: no pair of them, others may be
            continue
        lines.append({name: value for name, value in vars(one).items() if name != "table"})
    if not lines:
        raise NotEnoughRows("no two conditions that moved share a model and seed")
    return pd.DataFrame(lines)


def _paths(found: pd.DataFrame) -> dict[str, dict[Run, Path]]:
    """Of every condition the path of each model and seed; of numbers printed as a mean, the seed is None."""
    paths: dict[str, dict[Run, Path]] = {}
    for (model, seed, condition), group in found.groupby(["model", "seed", "condition"], dropna=False, sort=True):
        paths.setdefault(condition, {})[model, None if pd.isna(seed) else int(seed)] = _path(group)
    return paths


def _path(group: pd.DataFrame) -> Path:
    ordered = group.sort_values(["step", "epoch"], kind="stable")
    x, y = ordered["drift"].to_numpy(dtype="float64"), ordered["gain"].to_numpy(dtype="float64")
    return np.concatenate([[0.0], x[x > 0]]), np.concatenate([[0.0], y[x > 0]])


def _first(path: Path, at: float) -> float:
    """The gain where the path first reaches the drift."""
    x, y = path
    end = int(np.argmax(x >= at))
    share = (at - x[end - 1]) / (x[end] - x[end - 1])
    return float(y[end - 1] + share * (y[end] - y[end - 1]))


def _summary(difference: np.ndarray) -> dict[str, Any]:
    n, mean = len(difference), float(difference.mean())
    if n < 2:
        return {"difference": mean, "low": None, "high": None, "p": None, "n": n}
    low, high = t_interval(mean, Spread(float(difference.std(ddof=1) / np.sqrt(n)), n - 1))
    return {"difference": mean, "low": float(low), "high": float(high), "p": paired_permutation(difference), "n": n}
