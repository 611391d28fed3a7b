"""Slopes over depth: of every model a row an objective, a dot a run, the mean of its seeds where there are several."""

from __future__ import annotations

from typing import Any

from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import signed, three
from tunescope.report.study_axes import amounts, domain, rows_axis
from tunescope.report.study_series import Series, shades
from tunescope.report.theme import LIGHT

SLOPE_PX = 34
SPAN = 0.66  # of a row's height, over which its rules are spread


def slope_panel(entry: dict[str, Any], model: str, colours: dict[str, Series], tables: Tables) -> Any | None:
    """One model: its objectives as rows on the axis that all models share."""
    import altair as alt

    lines = [line for line in entry["lines"] if line["model"] == model and line["mean"] is not None]
    if not lines:
        return None
    names = sorted({line["objective"] for line in lines})
    dots, means = [], []
    for line in lines:
        at = names.index(line["objective"]) + 0.5 + _offset(line["update"], list(colours))
        about = _about(line, colours[line["update"]]) | {"row": at}
        dots += [about | {"slope": seed["slope"], "seed": _seed(seed["seed"]), "said": signed(seed["slope"])} for seed in line["seeds"]]
        means.append(about | {"slope": line["mean"], "low": _less(line, -1), "high": _less(line, 1), "many": line["n"] > 1})
    every = [seed["slope"] for line in entry["lines"] for seed in line["seeds"]]
    x = alt.X("slope:Q", axis=amounts(ticks=5), scale=alt.Scale(domain=list(domain(every)), nice=False, zero=False))
    y, colour = rows_axis(names, limit=110, width=14), shades()
    told = [
        alt.Tooltip("of:N", title="run"),
        alt.Tooltip("seed:N"),
        alt.Tooltip("said:N", title="slope"),
        alt.Tooltip("mean:N", title="mean"),
    ]
    bounds = tables([{"row": row} for row in range(len(names) + 1)])
    several = [mean for mean in means if mean["many"]]
    size = 20 if several else 40
    parts = [
        bounds.mark_rule(color=LIGHT["rule"], strokeWidth=1).encode(y=y),
        tables([{"slope": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1).encode(x=x),
        tables(several).mark_rule(strokeWidth=1.6).encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=colour),
        tables(several).mark_tick(thickness=2, size=11, orient="vertical").encode(x=x, y=y, color=colour, tooltip=told),
        tables(dots).mark_point(filled=True, size=size, opacity=1).encode(x=x, y=y, color=colour, tooltip=told),
    ]
    return alt.layer(*parts).properties(height=SLOPE_PX * len(names))


def _offset(update: str, rules: list[str]) -> float:
    return 0.0 if len(rules) < 2 else SPAN * (rules.index(update) / (len(rules) - 1) - 0.5)


def _about(line: dict[str, Any], series: Series) -> dict[str, Any]:
    mean = signed(line["mean"]) + (f" ± {three(line['sd'])}, {line['n']} seeds" if line["sd"] is not None else "")
    return {"of": f"{line['objective']}, {line['update']}".strip(", "), "colour": series.role, "mean": mean}


def _seed(seed: int | None) -> str:
    return "not told" if seed is None else str(seed)


def _less(line: dict[str, Any], sign: int) -> float:
    return line["mean"] + sign * (line["sd"] or 0.0)
