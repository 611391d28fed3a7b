"""A study's own slopes among the published ones: grey ticks a model, its own runs as dots on rows of their own above."""

from __future__ import annotations

from typing import Any

from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import signed, three
from tunescope.report.study_axes import amounts, domain, rows_axis
from tunescope.report.study_series import Series, shades
from tunescope.report.theme import LIGHT

AMONG_PX = 28


def among_slopes(entry: dict[str, Any], colours: dict[str, Series], tables: Tables) -> Any | None:
    """Own models on top, published ones below, from the flattest to the steepest by their median run."""
    import altair as alt

    if not entry["own"]:
        return None
    own = sorted({line["model"] for line in entry["own"]})
    theirs: dict[str, list[float]] = {}
    for tick in entry["published"]:
        theirs.setdefault(tick["model"], []).append(tick["slope"])
    order = sorted(theirs, key=lambda model: sorted(theirs[model])[len(theirs[model]) // 2])
    names = [*own, *order]
    dots = [
        {
            "row": own.index(line["model"]) + 0.5,
            "slope": line["slope"],
            "low": _less(line, -1),
            "high": _less(line, 1),
            "colour": colours[line["update"]].role,
            "of": f"{line['model']}, {line['objective']}, {line['update']}",
            "said": signed(line["slope"]) + (f" ± {three(line['sd'])}, {line['seeds']} seeds" if line["sd"] is not None else ""),
            "steeper": f"{line['steeper']} of {line['of']}",
        }
        for line in entry["own"]
    ]
    ticks = [
        {
            "row": len(own) + order.index(tick["model"]) + 0.5,
            "slope": tick["slope"],
            "said": signed(tick["slope"]),
            "of": f"{tick['model']}, {tick['objective']}, {tick['update']}",
        }
        for tick in entry["published"]
    ]
    every = [row[name] for row in [*dots, *ticks] for name in ("slope",)] + [row["low"] for row in dots] + [row["high"] for row in dots]
    x = alt.X("slope:Q", axis=amounts("slope over depth"), scale=alt.Scale(domain=list(domain(every)), nice=False, zero=False))
    y = rows_axis(names, limit=150, width=20)
    told = [alt.Tooltip("of:N"), alt.Tooltip("said:N", title="slope")]
    more = [*told, alt.Tooltip("steeper:N", title="published, steeper")]
    parts = [
        tables([{"row": len(own)}]).mark_rule(color=LIGHT["rule"]).encode(y=y),
        tables([{"slope": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1).encode(x=x),
        tables(ticks)
        .mark_tick(color=LIGHT["floor"], opacity=0.55, size=13, thickness=1.6, orient="vertical")
        .encode(x=x, y=y, tooltip=told),
        tables([dot for dot in dots if dot["low"] is not None])
        .mark_rule(strokeWidth=1.4)
        .encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=shades()),
        tables(dots).mark_point(filled=True, size=54, opacity=0.95).encode(x=x, y=y, color=shades(), tooltip=more),
    ]
    return alt.layer(*parts).properties(height=AMONG_PX * len(names))


def band_of(entry: dict[str, Any], model: str) -> dict[str, Any]:
    """The published band that stands behind a model's profiles: of the model of its name, else of all."""
    same = next((line["like"] for line in entry["own"] if line["model"] == model and line["like"]), None)
    return next(band for band in entry["band"] if band["model"] == same)


def _less(line: dict[str, Any], sign: int) -> float | None:
    return None if line["sd"] is None else line["slope"] + sign * line["sd"]
