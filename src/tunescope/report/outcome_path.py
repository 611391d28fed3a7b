"""One task on the way: its difference from the start at every point where it was judged, with its interval."""

from __future__ import annotations

from typing import Any

from tunescope.report import outcome_words
from tunescope.report.chart_parts import Tables, amount_axis
from tunescope.report.loss_curve import step_axis
from tunescope.report.numbers import amount, count, signed, stated
from tunescope.report.outcome_whiskers import SIGNED, colour, span
from tunescope.report.run_reading import Row
from tunescope.report.theme import LIGHT

HEIGHT = 180


def path_rows(rows: list[Row]) -> list[Row]:
    """What the chart draws of one task, and the words of its tooltip."""
    return [
        {
            "step": row["step"], "delta": row["delta"], "low": row.get("low"), "high": row.get("high"), "at": count(row["step"]),
            "said": signed(row["delta"]), "interval": outcome_words.reach(row), "score": amount(row.get("tuned")),
            "verdict": row["verdict"],
        }
        for row in rows if row.get("delta") is not None
    ]  # fmt: skip


def outcome_path(rows: list[Row], tables: Tables) -> Any | None:
    """Dots joined in order, their intervals, the margin that would not matter, and zero: the start."""
    import altair as alt

    points = path_rows(rows)
    if not points:
        return None
    axis, scale = step_axis(0, points[-1]["step"])
    scale = alt.Scale(domain=[-0.03 * scale["domain"][1], 1.03 * scale["domain"][1]], nice=False, zero=False)
    x = alt.X("step:Q", axis=axis, scale=scale)
    way = "↑ better" if rows[0]["higher_is_better"] else "↓ better"
    side = amount_axis(f"{outcome_words.metric(rows[0]['metric'])}, now − start · {way}")
    side["labelExpr"] = SIGNED
    low, high = span(rows)

    def up(key: str) -> Any:
        return alt.Y(f"{key}:Q", axis=side, scale=alt.Scale(domain=[low, high], nice=False, zero=False))

    told = [alt.Tooltip("at:N", title="step"), alt.Tooltip("said:N", title="difference"), alt.Tooltip("interval:N", title="95%")]
    told += [alt.Tooltip("score:N", title="score"), alt.Tooltip("verdict:N")]
    base, sure = tables(points), tables([point for point in points if point["low"] is not None])
    inks = [colour(word) for word in outcome_words.VERDICTS]
    ink = alt.Color("verdict:N", scale=alt.Scale(domain=list(outcome_words.VERDICTS), range=inks), legend=None)
    margin = rows[0].get("margin") or 0.0
    band = tables([{"delta": -margin, "to": margin, "said": f"±{stated(margin)}"}]).mark_rect(color=LIGHT["untouched"], opacity=1)
    parts = [band.encode(y=up("delta"), y2="to:Q", tooltip="said:N")] if margin > 0 else []
    parts += [
        tables([{"delta": 0}]).mark_rule(color=LIGHT["floor"], strokeWidth=1.2).encode(y=up("delta")),
        base.mark_line(color=LIGHT["quiet_bar"], strokeWidth=1.6).encode(x=x, y=up("delta")),
        sure.mark_rule(strokeWidth=2).encode(x=x, y=up("low"), y2="high:Q", color=ink, tooltip=told),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=x, y=up("delta"), color=ink, tooltip=told),
        tables(points[-1:]).mark_text(align="left", dx=8, fontWeight="bold").encode(x=x, y=up("delta"), text="said:N", color=ink),
    ]
    said = f"{rows[0]['name']}: difference from the start at {count(len(points))} points of the run"
    return alt.layer(*parts).properties(height=HEIGHT, description=said)
