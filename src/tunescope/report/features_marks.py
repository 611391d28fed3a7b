"""Values between what chance gives and what a second seed gives: one panel a comparison, a line a place."""

from __future__ import annotations

from typing import Any

from tunescope.report import features_reading as found
from tunescope.report import features_words as words
from tunescope.report.chart_parts import DROP_ZERO, Tables
from tunescope.report.features_reading import Row
from tunescope.report.numbers import interval, percent, three, two_digits
from tunescope.report.reading import Payload
from tunescope.report.theme import CONTROLS, LIGHT

ROW_PX, DENSE_PX, FEW = 34, 20, 8
SPREADS = 3  # standard deviations of chance that the band shows, as the verdict asks
CEILING = CONTROLS[1]
ABOVE = "above its floor"
_UNDRAWN = ("feature_cka_biased", "raw_cka_biased")


def comparisons(payload: Payload) -> list[tuple[str, int]]:
    """Which comparisons have a panel: those with a floor, in the order of the table."""
    seen = [
        key
        for place in found.places(payload)
        for key, row in words.numbered(found.alignment(payload, place))
        if row["value"] is not None and row["floor"] is not None and key[0] not in _UNDRAWN
    ]
    order = list(words.COMPARISONS)
    return sorted(dict.fromkeys(seen), key=lambda key: order.index(key) if key in order else len(order))


def alignment_panel(payload: Payload, key: tuple[str, int], tables: Tables) -> Any | None:
    """One comparison at every place: floor with its spread, ceiling, the value with its interval."""
    rows = [
        mark
        for place in found.places(payload)
        for order, mark in enumerate(_marks(payload, place, key))
        if mark["v"] is not None or not order
    ]
    return _panel(rows, tables, said="value") if rows else None


def _marks(payload: Payload, place: found.Place, key: tuple[str, int]) -> list[Row]:
    name = found.label(payload, place)
    rows = [row for seen, row in words.numbered(found.alignment(payload, place)) if seen == key and row["value"] is not None]
    return [
        _mark(name, row, floor=row["floor"], sd=row["floor_sd"], ceiling=row["ceiling"], above=row["verdict"] == ABOVE)
        for row in rows
    ]  # fmt: skip


def _mark(name: str, row: Row, *, floor: float | None, sd: float | None, ceiling: float | None, above: bool) -> Row:
    reach = SPREADS * (sd or 0.0)
    return {
        "name": name, "v": row["value"], "low": row.get("low"), "high": row.get("high"), "floor": floor, "ceiling": ceiling,
        "from": None if floor is None or not reach else floor - reach, "to": None if floor is None or not reach else floor + reach,
        "above": above, "short": three(row["value"]), "verdict": row.get("verdict") or "",
        "said": f"{three(row['value'])} {interval(row['low'], row['high']) if row.get('low') is not None else ''}".strip(),
        "chance": f"{three(floor)}{f' ± {two_digits(sd)}' if sd else ''}", "top": three(ceiling),
    }  # fmt: skip


def recovered_panel(payload: Payload, place: found.Place, tables: Tables) -> Any | None:
    """What each splice closes of the gap, between the mean of Δ and Δ itself."""
    rows = [row for row in found.behaviour(payload, place) if row.get("closed") is not None]
    ends = {row["spliced"]: row["closed"] for row in rows if row["reference"]}
    floor, top = ends.get("mean delta"), ends.get("true delta")
    marks = []
    for row in rows:
        if row["reference"]:
            continue
        flat = {"value": row["closed"], "low": row.get("closed_low"), "high": row.get("closed_high")}
        mark = _mark(row["spliced"], flat, floor=floor, sd=None, ceiling=top, above=floor is None or row["closed"] > floor)
        within = "" if flat["low"] is None else f" [{percent(flat['low'])}, {percent(flat['high'])}]"
        texts = {"short": percent(flat["value"]), "chance": percent(floor), "top": percent(top)}
        marks.append(mark | texts | {"said": f"{texts['short']}{within}"})
    return _panel(marks, tables, said="closed", share=True) if marks else None


def _domain(rows: list[Row]) -> list[float]:
    seen = [row[key] for row in rows for key in ("v", "low", "high", "floor", "from", "to", "ceiling") if row[key] is not None]
    low, high = min([0.0, *seen]), max([1.0, *seen])
    return [low - 0.06, high + 0.02]


def _panel(rows: list[Row], tables: Tables, *, said: str, share: bool = False) -> Any:
    """A line a name, with the floor (grey), the ceiling (green) and the value (blue; hollow where it is not above)."""
    import altair as alt

    names = list(dict.fromkeys(row["name"] for row in rows))
    roomy = len(names) <= FEW
    label = "format(datum.value, '.0%')" if share else DROP_ZERO
    axis = alt.Axis(title=None, labelExpr=label, ticks=False, domain=False, values=[0, 0.25, 0.5, 0.75, 1], grid=False, labelPadding=4)
    scale = alt.Scale(domain=_domain(rows), nice=False, zero=False)
    side = alt.Axis(title=None, ticks=False, domain=False, labelPadding=6, labelLimit=110, grid=False)
    y = alt.Y("name:N", sort=names, axis=side)

    def across(key: str) -> Any:
        return alt.X(f"{key}:Q", axis=axis, scale=scale)

    told = [alt.Tooltip("name:N", title="at"), alt.Tooltip("said:N", title=said), alt.Tooltip("chance:N", title="floor"),
            alt.Tooltip("top:N", title="ceiling"), alt.Tooltip("verdict:N")]  # fmt: skip
    once = list({row["name"]: row for row in sorted(rows, key=lambda row: row["floor"] or 0)}.values())  # beside its highest floor
    tick = {"thickness": 2, "size": 16 if roomy else 12, "opacity": 1}
    band = tables([row for row in rows if row["from"] is not None]).mark_rule(color=LIGHT["floor"], strokeWidth=9, opacity=0.28)
    reach = tables([row for row in once if row["low"] is not None]).mark_rule(color=LIGHT["main"], strokeWidth=2)
    dot = {"size": 70 if roomy else 46, "opacity": 1, "strokeWidth": 2, "stroke": LIGHT["main"]}
    fill = alt.condition("datum.above", alt.value(LIGHT["main"]), alt.value(LIGHT["paper"]))
    floors = [row for row in rows if row["floor"] is not None]
    tops = [row for row in once if row["ceiling"] is not None]
    parts = [
        tables([{"name": name, "a": 0, "b": 1} for name in names]).mark_rule(color=LIGHT["rule"]).encode(x=across("a"), x2="b:Q", y=y),
        band.encode(x=across("from"), x2="to:Q", y=y),
        tables(floors).mark_tick(color=LIGHT["floor"], **tick).encode(x=across("floor"), y=y, tooltip=told),
        tables(tops).mark_tick(color=CEILING, **tick).encode(x=across("ceiling"), y=y, tooltip=told),
        reach.encode(x=across("low"), x2="high:Q", y=y),
        tables(once).mark_point(**dot).encode(x=across("v"), y=y, fill=fill, tooltip=told),
    ]
    if roomy:
        parts.append(tables(once).mark_text(dy=-11, baseline="middle", color=LIGHT["ink"]).encode(x=across("v"), y=y, text="short:N"))
    return alt.layer(*parts).properties(height=(ROW_PX if roomy else DENSE_PX) * len(names) + 4)
