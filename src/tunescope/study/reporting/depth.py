"""Along depth: profiles, slopes with their seeds, standard beside equal-step, widths, signs and variance shares."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunescope.study import analyses
from tunescope.study.published import FAMILIES
from tunescope.study.reporting.choices import block_of, compared_with, curve_measures, is_equal_step, leading, named, usual
from tunescope.study.reporting.plain import plain, tried

if TYPE_CHECKING:
    import pandas as pd

CELL = ["model", "objective", "update"]
SATURATED = 0.9  # mean Procrustes change over the depths, where no floor was measured; unrelated representations are at about 1.2
FEW = 3  # curves below which signs are not counted
NEAR = 2.0  # sd of chance within which a block's change is at its floor


def depth_sections(rows: pd.DataFrame, *, blocks: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """The sections of one study's rows: profiles, slopes, steps, widths, signs, shares; each a list, an entry a measure."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("profiles", "slopes", "steps", "widths", "signs", "shares")}
    measures = curve_measures(rows)
    tables = {}
    for measure in measures:
        part = rows[(rows["subject"] == "geometry") & (rows["measure"] == measure) & (rows["depth"] > 0)]
        texts, others = leading(part, "texts")
        part = named(part if texts is None else part[part["texts"] == texts])
        about = {"measure": measure, "texts": texts, "other_texts": others}
        table, reason = tried(analyses.profiles, part, measure=measure)
        if table is None:
            found["slopes"].append(about | {"lines": [], "reason": reason})
            continue
        tables[measure] = table
        saturated, rule = _saturated(part, table)
        found["profiles"].append(about | _profiles(part, measure))
        found["slopes"].append(about | _slopes(table, saturated) | {"saturation": rule})
        if (steps := _steps(table, saturated, blocks)) is not None:
            found["steps"].append(about | steps | {"saturation": rule})
        found["shares"] += [about | shares for shares in _shares(table, measure)]
        if measure == "cka" or (measure == measures[-1] and not found["widths"] and "cka" not in measures):
            found["widths"].append(about | _widths(part, measure))
    if any(len(table) >= FEW for table in tables.values()):
        found["signs"].append(_signs(tables))
    return found


def _profiles(part: pd.DataFrame, measure: str) -> dict[str, Any]:
    table, reason = tried(analyses.profile_table, part, measure=measure, by=CELL)
    lines = []
    if table is not None:
        for key, group in table.groupby(CELL, sort=True):
            numbers = {"depths": group["depth"], "changes": group["change"], "sd": group["sd"]}
            lines.append(
                dict(zip(CELL, key, strict=True))
                | {name: list(each) for name, each in numbers.items()}
                | {"curves": int(group["curves"].max())}
            )
    return plain({"lines": lines, "reason": reason})


def _slopes(table: pd.DataFrame, saturated: pd.Series) -> dict[str, Any]:
    """A line a cell: the slope of every seed, their mean and sd, and what else was read off the curves."""
    lines = []
    cells: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for line in plain(table.assign(saturated=saturated).sort_values([*CELL, "seed"])):
        cells.setdefault(tuple(line[name] for name in CELL), []).append(line)
    for key, group in cells.items():
        known = [line for line in group if line["slope"] is not None]
        slopes = [line["slope"] for line in known]
        lines.append(
            dict(zip(CELL, key, strict=True))
            | {
                "seeds": [{"seed": line["seed"], "slope": line["slope"]} for line in known],
                "mean": _mean(slopes),
                "n": len(known),
                "sd": statistics.stdev(slopes) if len(slopes) > 1 else None,
                "monotone": sum(line["monotone"] for line in known),
                "saturated": bool(known) and all(line["saturated"] for line in known),
                "reason": next((line["reason"] for line in group if line["reason"]), None),
            }
            | {name: _mean([line[name] for line in known]) for name in ("rank_slope", "peak_depth", "final_share", "mean_change")}
        )
    known = table[table["slope"].notna()]
    shape = {name: int(known[name].sum()) for name in ("monotone", "strictly_monotone", "peaks_last")} | {"n": len(known)}
    return plain({"lines": lines, "reason": None, "shape": shape})


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _saturated(part: pd.DataFrame, table: pd.DataFrame) -> tuple[pd.Series, str | None]:
    """Which curves lie at their floor: most blocks within NEAR sd of chance, or, without a floor, a mean Procrustes change of
    SATURATED; and by which rule: "floor", "mean", or None where there is none."""
    floors = part[part["null"].notna() & part["change"].notna()]
    if len(floors):
        similar = (floors["change"] - (1 - floors["value"])).abs() < 1e-6  # a similarity: its change is 1 − value
        floor = floors["null"].where(~similar, 1 - floors["null"])
        at = floors["change"] >= floor - NEAR * floors["null_sd"].fillna(0.0)
        share = at.groupby(floors["run"]).mean()
        return table["run"].map(share).fillna(0.0) > 0.5, "floor"
    if (table["measure"] == "procrustes").all():
        return table["mean_change"] >= SATURATED, "mean"
    return table["mean_change"].isna() & False, None


def _steps(table: pd.DataFrame, saturated: pd.Series, blocks: Mapping[str, str]) -> dict[str, Any] | None:
    """Each cell under the standard rule and under equal-step; signs of the latter by block type, family and saturation."""
    marked = table.assign(saturated=saturated)
    equal = marked[marked["update"].map(is_equal_step)]
    if equal.empty:
        return None
    cells = []
    for (model, objective), group in equal.groupby(["model", "objective"], sort=True):
        same = marked[(marked["model"] == model) & (marked["objective"] == objective)]
        other = compared_with([name for name in same["update"].unique() if not is_equal_step(name)])
        before = same[same["update"] == other]["slope"]
        cells.append(
            {
                "model": model,
                "objective": objective,
                "block": block_of(model, blocks),
                "family": FAMILIES.get(objective),
                "from": other,
                "to": group["update"].iloc[0],
                "standard": before.mean(),
                "equal": group["slope"].mean(),
                "equal_sd": group["slope"].std(),
                "seeds": len(group),
                "saturated": bool(group["saturated"].all()),
                "slope": group["slope"].mean(),
            }
        )
    return plain({"cells": cells, "groups": _step_groups(cells), **_ratio(marked)})


def _step_groups(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import pandas as pd

    told = pd.DataFrame(cells).assign(saturation=["saturated" if cell["saturated"] else "not saturated" for cell in cells])
    groups = []
    for column in ("block", "saturation", "family"):
        table, _ = tried(analyses.sign_counts, told[told[column].notna()], by=[column])
        if table is not None:
            groups += [{"by": column, "group": line[column], **{k: v for k, v in line.items() if k != column}} for line in plain(table)]
    return groups


def _ratio(table: pd.DataFrame) -> dict[str, Any]:
    """How many times as much changed under equal-step."""
    names = list(table["update"].unique())
    equal, other = next(name for name in sorted(names) if is_equal_step(name)), compared_with(names)
    if other is None:
        return {"ratio": None, "ratio_reason": "no standard or uniform rule to set it against"}
    found, reason = tried(analyses.ratios, table, of=equal, to=other)
    ratio = None if found is None else {name: getattr(found, name) for name in ("geometric_mean", "low", "high", "n")} | {"to": other}
    return {"ratio": ratio, "ratio_reason": reason}


def _widths(part: pd.DataFrame, measure: str) -> dict[str, Any]:
    """Each model's mean shares over its usual runs."""
    lines, reasons = [], []
    for model, group in usual(part).groupby("model", sort=True):
        table, reason = tried(analyses.widths, group, measure=measure)
        if table is None:
            reasons.append(f"{model}: {reason}")
            continue
        shares = {"depths": list(table["depth"]), "shares": list(table["share"]), "sd": list(table["sd"])}
        lines.append({"model": model, **shares, "runs": int(table["runs"].max())})
    return plain({"lines": lines, "reason": "; ".join(reasons) or None})


def _signs(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Signs of the slopes under each measure, usual runs and equal-step apart, and where two measures agree."""
    import pandas as pd

    groups, every = [], pd.concat(tables.values(), ignore_index=True)
    for measure, table in tables.items():
        for group, lines in (
            ("training as usual", usual(table)),
            ("equal-step", table[table["update"].map(is_equal_step)]),
            ("controls", table[table["kind"] == "perturb"]),
        ):
            if len(lines):
                mean = lines.groupby(CELL, as_index=False)["slope"].mean()  # seeds of one cell are no independent trials
                counts, reason = tried(analyses.signs, mean)
                groups.append({"measure": measure, "group": group, "runs": len(lines), "reason": reason, **(plain(counts) or {})})
    measures = list(tables)
    agreement, reason = (None, None)
    if len(measures) > 1:
        two = (measures[0], measures[1])
        agreement, reason = tried(analyses.sign_agreement, every, measures=two)
    return plain({"groups": groups, "agreement": agreement, "agreement_measures": measures[:2], "reason": reason})


def _shares(table: pd.DataFrame, measure: str) -> list[dict[str, Any]]:
    """η² of the choices that vary, of the slope and of the last block's share."""
    lines, found = usual(table), []
    factors = [name for name in CELL if lines[name].nunique() > 1]
    values = ("slope", "final_share") if measure == "cka" else ("slope",)
    for value in values if len(lines) > 3 and factors else ():
        rows, reason = tried(analyses.variance_shares, lines, value, factors=factors)
        found.append(plain({"value": value, "rows": rows if rows is not None else [], "reason": reason}))
    return found
