"""How far each group of tensors was moved at each step, relative to its size, on a logarithmic axis."""

from __future__ import annotations

import math
from typing import Any

from tunescope.report import reading, run_reading
from tunescope.report.chart_parts import LINE_PX, Tables, amount_axis, spread
from tunescope.report.loss_curve import step_axis
from tunescope.report.numbers import count, stated, two_digits
from tunescope.report.run_reading import Row
from tunescope.report.theme import LIGHT, RAMP
from tunescope.report.thinning import stretches

HEIGHT = 300
EACH, MOST = 120, 2400  # points of one line, and of all together
_NAMED = 12  # groups that are all named
_LABELLED = 3  # labels that an axis has at least


def size_rows(payload: reading.Payload) -> list[Row]:
    """What the chart draws: |Δ|/|W| by group and step, where the step has one; of long runs the median and extremes of every stretch."""
    groups = run_reading.groups(payload)
    each = min(EACH, max(40, MOST // max(1, len(groups))))
    found = []
    for name, steps in groups.items():
        rows = [{"step": row["step"], "ratio": row["ratio"]} for row in steps if row["state"] == run_reading.MOVED and row.get("ratio")]
        for part in stretches(rows, "ratio", each):
            alone = part["first"] == part["last"]
            at = count(part["first"]) if alone else f"{count(part['first'])} to {count(part['last'])}"
            reach = "" if alone else f"{two_digits(part['low'])} to {two_digits(part['high'])}"
            told = {"group": name, "block": run_reading.block_number(name), "at": at, "said": two_digits(part["ratio"]), "reach": reach}
            found.append(part | told)
    return found


def step_sizes(payload: reading.Payload, tables: Tables) -> Any | None:
    """A line a group, blocks light to dark with depth, the rest in a colour of its own; τ where steps were made equal."""
    import altair as alt

    rows, tau = size_rows(payload), run_reading.tau(payload)
    if not rows:
        return None
    axis, scale = step_axis(1, max(row["step"] for row in rows))
    x = alt.X("step:Q", axis=axis, scale=scale)
    low, high = _domain(rows, tau)
    title = "|Δ| / |W| of a step" + (", before rescaling" if tau else "")
    amounts = amount_axis(title)
    amounts["values"] = _ticks(low, high)
    y = alt.Y("ratio:Q", axis=amounts, scale=alt.Scale(type="log", domain=[low, high], nice=False))
    blocks, rest = ([row for row in rows if (row["block"] is None) == outside] for outside in (False, True))
    deepest = max((row["block"] for row in blocks), default=1)
    depth = alt.Color("block:Q", scale=alt.Scale(domain=[1 - 0.8 * deepest, max(deepest, 1)], range=RAMP), legend=None)
    told = [alt.Tooltip("group:N"), alt.Tooltip("at:N", title="step"), alt.Tooltip("said:N", title="|Δ|/|W|")]
    told += [alt.Tooltip("reach:N", title="between")] if any(row["reach"] for row in rows) else []
    parts = _tau(tables, tau, y)
    for lines, ink in ((blocks, {"color": depth}), (rest, {"color": alt.value(LIGHT["control_0"])})):
        if lines:
            base = tables(lines)
            if any(row["reach"] for row in lines):
                band = {"y": alt.Y("low:Q", axis=y["axis"], scale=y["scale"]), "y2": "high:Q", "detail": "group:N"}
                parts.append(base.mark_area(opacity=0.1).encode(x=x, **band, **ink))
            parts.append(base.mark_line(strokeWidth=1.6).encode(x=x, y=y, detail="group:N", **ink))
            parts.append(base.mark_point(filled=True, size=60, opacity=0).encode(x=x, y=y, tooltip=told))
    parts += _names(tables, rows, tau, low, high, x, depth)
    said = f"Relative step size of {count(len(run_reading.groups(payload)))} groups of tensors over {rows[-1]['at']} steps"
    return alt.layer(*parts).properties(height=HEIGHT, description=said)


def _domain(rows: list[Row], tau: float | None) -> tuple[float, float]:
    seen = [row[key] for row in rows for key in ("low", "high")] + ([tau] if tau else [])
    return min(seen) / 1.2, max(seen) * 1.2


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and as much of what lies between them as makes three labels; within a very short range, whole steps of one size."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in (("1",), ("1", "3"), ("1", "2", "5"), ("1", "1.5", "2", "3", "5", "7")):
        found = [value for power in powers for digit in digits if low <= (value := float(f"{digit}e{power}")) <= high]
        if len(found) >= _LABELLED:
            return found
    power = math.floor(math.log10(high - low)) - 1
    step = next(step for step in (50, 25, 20, 10, 5, 2, 1) if high // (step * 10.0**power) - low // (step * 10.0**power) >= _LABELLED)
    return [float(f"{step * number}e{power}") for number in range(math.ceil(low / step / 10.0**power), int(high / step / 10.0**power) + 1)]


def _tau(tables: Tables, tau: float | None, y: Any) -> list:
    if not tau:
        return []
    return [tables([{"ratio": tau}]).mark_rule(color=LIGHT["ink"], strokeWidth=1.4, strokeDash=[6, 3]).encode(y=y)]


def _names(tables: Tables, rows: list[Row], tau: float | None, low: float, high: float, x: Any, depth: Any) -> list:
    """Groups by name at the right ends of their lines; of many, the first and last block and what is in none. And τ."""
    ends = list({row["group"]: row for row in rows}.values())
    numbered = [end["block"] for end in ends if end["block"] is not None]
    if len(ends) > _NAMED:
        ends = [end for end in ends if end["block"] in (None, min(numbered, default=0), max(numbered, default=0))]
    words = [(end["group"][:14], end["ratio"], end["block"], LIGHT["control_0"]) for end in ends]
    words += [(f"τ {stated(tau)}", tau, None, LIGHT["ink"])] if tau else []
    pixel = [math.log(high / ratio) / math.log(high / low) * HEIGHT for _, ratio, _, _ in words]
    labels = []
    for (said, _, block, ink), centre in zip(words, spread(pixel, [LINE_PX] * len(words), 0, HEIGHT - LINE_PX), strict=True):
        named = tables([{"step": max(row["step"] for row in rows), "said": said, "block": block}])
        shade = block is not None  # a pale line has a pale mark before its name, since pale words could not be read
        if shade:
            labels.append(named.mark_square(size=36, opacity=1, xOffset=10, y=centre).encode(x=x, color=depth))
        text = {"align": "left", "baseline": "middle", "dx": 17 if shade else 7, "y": centre, "color": LIGHT["muted"] if shade else ink}
        labels.append(named.mark_text(**text).encode(x=x, text="said:N"))
    return labels
