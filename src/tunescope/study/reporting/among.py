"""A study's own runs among the published ones, all read at the depth study's seven depths."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tunescope.reference import DEPTH_STUDY
from tunescope.study import analyses
from tunescope.study.published import DEPTH, published_rows
from tunescope.study.reporting.choices import curve_measures, leading, named, usual
from tunescope.study.reporting.plain import plain, tried

if TYPE_CHECKING:
    import pandas as pd

SHORTEST = 6  # letters of a name that can be taken for a longer one
CELL = ["model", "objective", "update"]


def among_published(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """An entry a measure that the depth study published: its slopes and profiles by model, and the study's own, on one axis.

    Empty where the rows are the published ones, or hold no depth curve under such a measure.
    """
    theirs = analyses.choose(published_rows(), study=DEPTH)
    if rows["run"].isin(theirs["run"].unique()).any():
        return []
    return [found for measure in ("procrustes", "cka") if (found := _measure(rows, theirs, measure)) is not None]


def _measure(rows: pd.DataFrame, theirs: pd.DataFrame, measure: str) -> dict[str, Any] | None:
    part = rows[(rows["subject"] == "geometry") & (rows["measure"] == measure) & rows["depth"].notna()]
    if measure not in curve_measures(rows):
        return None
    texts, _ = leading(part, "texts")
    part = named(part if texts is None else part[part["texts"] == texts])
    about = {"measure": measure, "texts": texts, "source": DEPTH_STUDY}
    own, reason = tried(analyses.profiles, usual(part), measure=measure, axis="published")
    if own is None or own["slope"].isna().all():
        return about | {"own": [], "reason": reason or next(iter(own["reason"].dropna()), None)}
    published = usual(analyses.profiles(analyses.choose(theirs, measure=measure)))
    mean = own.groupby(CELL, as_index=False)["slope"].agg(["mean", "std", "count"]).dropna(subset=["mean"])
    slopes = published["slope"].to_numpy()
    lines = [
        dict(zip(CELL, (line.model, line.objective, line.update), strict=True))
        | {
            "slope": line.mean,
            "sd": line.std,
            "seeds": line.count,
            "steeper": int((slopes > line.mean).sum()),
            "of": len(slopes),
            "like": like(line.model, list(published["model"].unique())),
        }
        for line in mean.itertuples()
    ]
    ticks = [
        {"model": line.model, "objective": line.objective, "update": line.update, "slope": line.slope} for line in published.itertuples()
    ]
    return plain(
        about
        | {"own": lines, "reason": reason, "published": ticks, "profiles": _profiles(usual(part), measure), "band": _band(theirs, measure)}
    )


def _profiles(part: pd.DataFrame, measure: str) -> list[dict[str, Any]]:
    table = analyses.profile_table(part, measure=measure, by=CELL, axis="published")
    return [
        dict(zip(CELL, key, strict=True)) | {"depths": list(group["depth"]), "changes": list(group["change"])}
        for key, group in table.groupby(CELL, sort=True)
    ]


def _band(theirs: pd.DataFrame, measure: str) -> list[dict[str, Any]]:
    """At every depth the middle of the published runs and the range of the middle 80% of them; of all, and of each model."""
    lines = usual(analyses.choose(theirs, measure=measure))
    found = []
    for model, part in [(None, lines), *lines.groupby("model", sort=True)]:
        spread = part.groupby("depth")["change"].quantile([0.1, 0.5, 0.9]).unstack()
        found.append(
            {
                "model": model,
                "depths": list(spread.index),
                "low": list(spread[0.1]),
                "middle": list(spread[0.5]),
                "high": list(spread[0.9]),
                "runs": int(part.groupby("depth").size().max()),
            }
        )
    return found


def like(model: str, published: list[str]) -> str | None:
    """The published model of the same name, whatever the signs between its letters: "EleutherAI/pythia-160m" is "Pythia-160m"."""
    own = _bare(model.rpartition("/")[2])
    return next((name for name in published if len(own) >= SHORTEST and (own.startswith(_bare(name)) or _bare(name).startswith(own))), None)


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
