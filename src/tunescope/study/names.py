"""Rows under the names that their runs have now: a run goes by its hash, and what a plan calls it may have changed since it ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_NAMES = ("model", "condition", "objective", "update", "data", "regime")


def renamed(rows: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of these runs, named as their specs say. runs: by hash, as `RunSpec.describe` gives them. Rows are not changed in place."""
    kept = rows[rows["run"].isin(list(runs))].copy()
    told = {run: _names(spec) for run, spec in runs.items()}
    for name in _NAMES:
        kept[name] = kept["run"].map({run: names[name] for run, names in told.items()}).astype(rows[name].dtype)
    return kept


def _names(spec: Mapping[str, Any]) -> dict[str, str | None]:
    objective, rule = spec["objective"], spec["update"] or spec["change"]
    sources = () if objective is None else (objective["texts"], objective["pairs"])
    return {
        "model": spec["model"]["name"], "condition": spec["condition"], "regime": spec["regime"],
        "objective": None if objective is None else objective["name"], "update": None if rule is None else rule["name"],
        "data": ", ".join(source["name"] for source in sources if source is not None) or None,
    }  # fmt: skip
