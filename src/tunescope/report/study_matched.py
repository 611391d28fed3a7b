"""Change against damage: a point a condition, so that conditions moved alike that did not fare alike stand above one another."""

from __future__ import annotations

from typing import Any

from tunescope.report.chart_parts import Tables, spread
from tunescope.report.numbers import signed, three
from tunescope.report.study_axes import amounts, domain
from tunescope.report.study_series import Series, shades
from tunescope.report.theme import LIGHT

HEIGHT = 280


def matched_scatter(entry: dict[str, Any], colours: dict[str | None, Series], tables: Tables) -> Any | None:
    """Drift across, gain up, named points with their spread over seeds."""
    import altair as alt

    points = [point for point in entry["points"] if point["drift"] > 0]
    if not points:
        return None
    xs = [point["drift"] for point in points]
    low, high = domain([end for point in points for end in (point["gain"], _less(point, -1), _less(point, 1))], room=0.08)
    left, right = domain(xs, room=0.04)
    half = (left + right) / 2
    wanted = [(high - point["gain"]) / (high - low) * HEIGHT for point in points]
    placed = _apart(points, wanted, half)
    rows = [
        point
        | {
            "colour": colours[point["regime"]].role,
            "d": three(point["drift"]),
            "g": signed(point["gain"]),
            "low": _less(point, -1),
            "high": _less(point, 1),
            "at": at,
            "right": point["drift"] > half,
            "regime_said": point["regime"] or "not told",
        }
        for point, at in zip(points, placed, strict=True)
    ]
    x = alt.X(
        "drift:Q",
        axis=amounts(f"change of the whole model, {entry['said']}"),
        scale=alt.Scale(domain=[left, right], nice=False, zero=False),
    )
    y = alt.Y(
        "gain:Q",
        axis=amounts(f"gain: {entry['gain_said']}", ticks=5, grid=True, signed=True),
        scale=alt.Scale(domain=[low, high], nice=False, zero=False),
    )
    colour = shades()
    told = [
        alt.Tooltip("condition:N"),
        alt.Tooltip("regime_said:N", title="regime"),
        alt.Tooltip("d:N", title="moved"),
        alt.Tooltip("g:N", title="gain"),
        alt.Tooltip("runs:N", title="runs"),
    ]
    base = tables(rows)
    parts = [
        tables([{"gain": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1).encode(y=y),
        tables([row for row in rows if row["low"] is not None])
        .mark_rule(strokeWidth=1.4)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=colour, tooltip=told),
    ]
    for row in rows:
        mark = {"align": "right" if row["right"] else "left", "dx": -9 if row["right"] else 9, "baseline": "middle", "color": LIGHT["ink"]}
        label = tables([row])
        halo = mark | {"stroke": LIGHT["paper"], "strokeWidth": 4, "color": LIGHT["paper"]}
        parts += [label.mark_text(y=row["at"], **how).encode(x=x, text="condition:N") for how in (halo, mark)]
    return alt.layer(*parts).properties(height=HEIGHT)


def _less(point: dict[str, Any], sign: int) -> float | None:
    return None if point["gain_sd"] is None else point["gain"] + sign * point["gain_sd"]


def _apart(points: list[dict[str, Any]], wanted: list[float], half: float) -> list[float]:
    """Labels of either side kept apart by themselves."""
    placed = list(wanted)
    for side in (True, False):
        own = [i for i, point in enumerate(points) if (point["drift"] > half) == side]
        for i, at in zip(own, spread([wanted[i] for i in own], [15.0] * len(own), 0, HEIGHT), strict=True):
            placed[i] = at
    return placed
