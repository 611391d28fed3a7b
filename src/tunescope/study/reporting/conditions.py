"""Conditions: how far each moved the whole model beside what came of it; matched pairs, anchors, trajectories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tunescope.study import analyses
from tunescope.study.reporting.choices import DRIFTS, LOWER_IS_BETTER, METRICS, leading, ordered
from tunescope.study.reporting.plain import plain, tried

if TYPE_CHECKING:
    import pandas as pd

PAIRED = ["model", "condition"]


def whole(rows: pd.DataFrame) -> pd.DataFrame:
    """Geometry of the whole model, its deployed embedding where that was read, and outcomes of the whole model that have a change."""
    geometry = rows[(rows["subject"] == "geometry") & rows["depth"].isna() & rows["layer"].isna() & rows["change"].notna()]
    place, _ = leading(geometry, "where", ("output",))
    geometry = geometry if place is None else geometry[geometry["where"] == place]
    outcome = rows[(rows["subject"] == "outcome") & rows["layer"].isna() & rows["change"].notna()]
    place, _ = leading(outcome, "where", ("output",))
    outcome = outcome if place is None else outcome[outcome["where"].isna() | (outcome["where"] == place)]
    return rows.loc[geometry.index.union(outcome.index)]


def condition_sections(rows: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """The sections of one study's rows: conditions, matched, anchors, trajectories."""
    read = whole(rows)
    found: dict[str, list[dict[str, Any]]] = {"conditions": [], "matched": [], "anchors": [], "trajectories": []}
    for model, part in read.groupby("model", sort=True):
        geometry, outcome = (part[part["subject"] == name] for name in ("geometry", "outcome"))
        columns = _columns(geometry, outcome)
        if len(outcome) or geometry["condition"].nunique() > 1:
            last = analyses.last_checkpoints(part)
            found["conditions"].append({"model": model, **_conditions(last, columns)})
        found["matched"] += [{"model": model, **each} for each in _matched(part, columns)]
        found["anchors"] += [{"model": model, **each} for each in _anchors(geometry)]
        found["trajectories"] += [{"model": model, **each} for each in _trajectories(part, columns)]
    return plain(found)


def _columns(geometry: pd.DataFrame, outcome: pd.DataFrame) -> list[dict[str, Any]]:
    """What is shown of a condition: the leading measures on the leading texts, and of every task its leading metric."""
    columns = []
    for measure in [name for name in ordered(geometry["measure"].unique(), DRIFTS) if name in DRIFTS][:2]:
        texts, _ = leading(geometry[geometry["measure"] == measure], "texts")
        columns.append({"subject": "geometry", "measure": measure, "texts": texts, "task": None, "better": "lower"})
    for task in sorted(outcome["task"].dropna().unique()):
        metric = ordered(outcome.loc[outcome["task"] == task, "measure"].unique(), METRICS)[0]
        better = "lower" if metric in LOWER_IS_BETTER else "higher"
        columns.append({"subject": "outcome", "measure": metric, "texts": None, "task": task, "better": better})
    return columns


def _of(rows: pd.DataFrame, column: dict[str, Any]) -> pd.DataFrame:
    chosen = rows[(rows["subject"] == column["subject"]) & (rows["measure"] == column["measure"])]
    for name in ("texts", "task"):
        chosen = chosen if column[name] is None else chosen[chosen[name] == column[name]]
    return chosen


def _conditions(rows: pd.DataFrame, columns: list[dict[str, Any]]) -> dict[str, Any]:
    """A line a condition: regime and, of every column, mean and sd over seeds, n of them, and the interval where there is one seed."""
    lines = []
    for condition, group in rows.groupby("condition", sort=True):
        regime = next(iter(group["regime"].dropna()), None)
        lines.append(
            {"condition": condition, "regime": regime, "kind": group["kind"].iloc[0], "cells": [_cell(_of(group, c)) for c in columns]}
        )
    moved = [line["cells"][0]["mean"] if line["cells"] and line["cells"][0] else None for line in lines]
    order = sorted(range(len(lines)), key=lambda i: (moved[i] is None, moved[i] or 0.0, lines[i]["condition"]))
    return {"columns": columns, "lines": [lines[i] for i in order]}


def _cell(rows: pd.DataFrame) -> dict[str, Any] | None:
    if rows.empty:
        return None
    change = rows["change"].to_numpy(dtype="float64")
    sd = float(np.std(change, ddof=1)) if len(change) > 1 else rows["sd"].iloc[0]
    one = rows.iloc[0] if len(rows) == 1 and rows["subject"].iloc[0] == "outcome" else None
    items = rows["n"].dropna()
    return {
        "mean": float(change.mean()),
        "sd": sd,
        "printed_sd": len(change) == 1 and sd == sd,
        "seeds": len(change),
        "low": None if one is None else one["low"],
        "high": None if one is None else one["high"],
        "n": int(items.iloc[0]) if len(items) else None,
    }


def _asked(measure: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """A measure against an outcome, as the analyses ask for them."""
    geometry = {"measure": measure["measure"], "texts": measure["texts"]}
    return geometry | {"task": task["task"], "outcome": task["measure"], "better": task["better"]}


def _matched(rows: pd.DataFrame, columns: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Change against damage for every task under the leading measure."""
    measures = [column for column in columns if column["subject"] == "geometry"][:1]
    for measure in measures:
        for task in [column for column in columns if column["subject"] == "outcome"]:
            asked = _asked(measure, task)
            ends, _ = tried(analyses.points, rows, **asked)
            if ends is None or ends["condition"].nunique() < 2:
                continue
            paths, _ = tried(analyses.points, rows, **asked, checkpoint="all")
            yield asked | _pairs(ends, ends if paths is None else paths, _printed_sd(_of(rows, task)))


def _printed_sd(rows: pd.DataFrame) -> dict[str, float]:
    """The sd of conditions whose outcome was printed as a mean."""
    known = rows[rows["sd"].notna() & rows["seed"].isna()]
    return dict(zip(known["condition"], known["sd"], strict=True))


def _pairs(ends: pd.DataFrame, paths: pd.DataFrame, printed: dict[str, float]) -> dict[str, Any]:
    means = analyses.over_runs(ends)
    sds = ends.groupby(PAIRED, dropna=False)[["drift", "gain"]].std().add_suffix("_sd").reset_index()
    regimes = ends.groupby("condition")["regime"].first()
    points = means.merge(sds, on=PAIRED)
    points = points.assign(regime=points["condition"].map(regimes), gain_sd=points["gain_sd"].fillna(points["condition"].map(printed)))
    lost = [line.condition for line in means.itertuples() if line.damage > 0 and line.drift > 0]
    found: dict[str, Any] = {"points": points}
    for name, make in (
        ("correlation", lambda: analyses.drift_against_damage(ends)),
        ("ratio", lambda: analyses.ratio_test(ends, conditions=lost) if len(lost) > 1 else _too_few(lost)),
        ("pairs", lambda: analyses.every_pair(paths)),
    ):
        found[name], found[f"{name}_reason"] = tried(make)
    if found["ratio"] is not None:
        found["ratio"] = {name: getattr(found["ratio"], name) for name in ("drift", "damage", "margin", "rule", "holds")} | {
            "conditions": lost
        }
    return found


def _too_few(lost: list[str]) -> Any:
    from tunescope.errors import NotEnoughRows

    raise NotEnoughRows(f"a ratio of losses needs at least 2 conditions that moved and lost, got {len(lost)}")


def _anchors(geometry: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Ranks of the conditions on every text set, where there are several."""
    for measure in [name for name in ordered(geometry["measure"].unique(), DRIFTS) if name in DRIFTS]:
        part = geometry[geometry["measure"] == measure]
        if part["texts"].nunique() < 2:
            continue
        found, reason = tried(analyses.anchor_robustness, part, measure=measure)
        if found is None:
            yield {"measure": measure, "reason": reason, "lines": []}
            continue
        ranks = found.table.rank(ascending=False)
        lines = [
            {"condition": condition, "changes": dict(found.table.loc[condition]), "ranks": dict(ranks.loc[condition])}
            for condition in found.table.index
        ]
        yield {
            "measure": measure,
            "reason": None,
            "texts": list(found.table.columns),
            "lines": lines,
            "pairs": found.pairs,
            "left_out": list(found.left_out),
        }


def _trajectories(rows: pd.DataFrame, columns: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Measure and outcome over checkpoints, an entry a task; each condition a path."""
    measure = next((column for column in columns if column["subject"] == "geometry"), None)
    if measure is None:
        return
    for task in [column for column in columns if column["subject"] == "outcome"]:
        asked = _asked(measure, task)
        found, _ = tried(analyses.trajectories, rows, **asked, by=("condition",))
        if found is not None:
            paths = [
                {
                    "condition": each.about["condition"],
                    "clock": each.clock,
                    "points": _points(each, rows, asked),
                    "reason": each.reason,
                    "association": each.association,
                }
                for each in found
            ]
            yield asked | {"paths": paths}


def _points(path: Any, rows: pd.DataFrame, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The table of a path; where a number was printed as a mean, its printed sd stands in for that over seeds."""
    table = path.table.rename(columns={path.clock: "at"})
    own = rows[rows["condition"] == path.about["condition"]]
    for name, subject, measure in (("drift", "geometry", asked["measure"]), ("gain", "outcome", asked["outcome"])):
        printed = own[(own["subject"] == subject) & (own["measure"] == measure) & own["sd"].notna()]
        sds = dict(zip(printed[path.clock].astype("float64"), printed["sd"], strict=True))
        table[f"{name}_sd"] = table[f"{name}_sd"].fillna(table["at"].map(sds))
    return plain(table)
