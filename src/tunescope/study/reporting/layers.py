"""Where it changed beside where it got better, and which features were written: numbers of single layers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tunescope.study import analyses
from tunescope.study.reporting.choices import leading, ordered
from tunescope.study.reporting.plain import plain, tried

if TYPE_CHECKING:
    import pandas as pd

OWN = "tuned"  # what a run calls the model that it tuned itself
CEILING = "_ceiling"
RECOVERED = "behaviour_recovered"
SPLICES, NOTHING = {"floor": "mean delta", "ceiling": "true delta"}, "zero"


def layer_sections(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """CKA, or else the leading measure, beside the change of every outcome that was read at layers."""
    probes = rows[(rows["subject"] == "outcome") & rows["layer"].notna() & rows["change"].notna()]
    geometry = rows[(rows["subject"] == "geometry") & rows["layer"].notna()]
    if probes.empty or geometry.empty:
        return []
    measure, _ = leading(geometry, "measure", ("cka",))
    texts, _ = leading(geometry[geometry["measure"] == measure], "texts")
    sections = []
    for task in sorted(probes["task"].dropna().unique()):
        metric = ordered(probes.loc[probes["task"] == task, "measure"].unique(), ("accuracy",))[0]
        asked = {"measure": measure, "task": task, "outcome": metric, "texts": texts}
        found, reason = tried(analyses.layer_tables, rows, **asked)
        if found is None:
            sections.append(asked | {"groups": [], "reason": reason})
        else:
            groups = [each.about | {"rows": each.table, "association": each.association, "reason": each.reason} for each in found]
            sections.append(asked | {"groups": groups, "reason": None})
    return plain(sections)


def feature_sections(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of subject "features", an entry a measure: the model tuned, the layer, the value with interval, floor and ceiling."""
    known = rows[(rows["subject"] == "features") & rows["value"].notna()]
    if known.empty:
        return []
    ceilings = known[known["measure"].str.endswith(CEILING)]
    ceiling = {(line.run, line.measure.removesuffix(CEILING), line.task, line.layer): line.value for line in ceilings.itertuples()}
    sections = []
    for measure, group in known[~known["measure"].str.endswith(CEILING)].groupby("measure", sort=True):
        lines = [
            _named(line)
            | {
                "layer": line.layer,
                "model": line.model,
                "value": line.value,
                "low": line.low,
                "high": line.high,
                "floor": line.null,
                "floor_sd": line.null_sd,
                "n": line.n,
                "seed": line.seed,
                "ceiling": ceiling.get((line.run, measure, line.task, line.layer)),
            }
            for line in group.itertuples()
        ]
        lines.sort(key=lambda line: (_control(line["name"]), natural(line["name"]), line["detail"], line["layer"] is None, line["layer"]))
        sections.append({"measure": measure, "lines": _between(lines) if measure == RECOVERED else lines})
    return plain(sections)


def _between(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Behaviour recovered by each splice, between that of the mean of Δ, its floor, and that of Δ itself, its ceiling."""
    ends = {(line["name"], line["model"], line["seed"], line["layer"], line["detail"]): line["value"] for line in lines}
    return [
        line | {side: ends.get((line["name"], line["model"], line["seed"], line["layer"], detail)) for side, detail in SPLICES.items()}
        for line in lines
        if line["detail"] not in (*SPLICES.values(), NOTHING)
    ]


def _named(line: Any) -> dict[str, str]:
    """The tuned model's name and what the task says besides (a seed, a pair); one that the run tuned goes by its objective and rule."""
    task = str(line.task) if isinstance(line.task, str) else ""
    name, _, detail = task.partition(", ")
    own = " ".join(part for part in (line.objective, line.update) if isinstance(part, str)) or str(line.condition)
    return {"name": own if name in ("", OWN) else re.sub(rf"\b{OWN}$", lambda _: own, name), "detail": detail}


def _control(name: str) -> bool:
    return name == "noise" or name.startswith("control")


def natural(name: str) -> tuple[Any, ...]:
    """Sorts "r4" before "r16"."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name))
