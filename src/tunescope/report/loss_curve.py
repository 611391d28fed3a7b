"""The loss of a run, step by step, with its running mean and the points at which a model was kept."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading
from tunescope.report.chart_parts import Tables, amount_axis
from tunescope.report.numbers import count, three, two_digits
from tunescope.report.theme import LIGHT
from tunescope.report.thinning import running_mean, thinned, window

HEIGHT = 240
MOST = 600  # points of each line


def loss_rows(payload: reading.Payload) -> list[dict[str, Any]]:
    """Every step with its loss, the mean running along, and the words of its tooltip."""
    rows = sorted((row for row in payload.get("losses") or [] if row.get("loss") is not None), key=lambda row: row["step"])
    means = running_mean([row["loss"] for row in rows], window(len(rows)))
    return [
        {
            "step": row["step"], "loss": row["loss"], "mean": mean, "at": count(row["step"]), "said": three(row["loss"]),
            "smooth": three(mean), "rate": two_digits(row.get("learning_rate")), "norm": three(row.get("gradient_norm")),
        }
        for row, mean in zip(rows, means, strict=True)
    ]  # fmt: skip


def step_axis(first: int, last: int) -> tuple[Any, Any]:
    """The x axis of steps and its scale."""
    import altair as alt

    axis = alt.Axis(title="step", format=",d", tickMinStep=1, tickCount=6, grid=False, ticks=False, domain=False, labelPadding=4,
                    labelOverlap="greedy", labelFlush=True, titlePadding=6)  # fmt: skip
    return axis, alt.Scale(domain=[first, max(last, first + 1)], nice=False, zero=False)


def loss_curve(payload: reading.Payload, tables: Tables) -> Any | None:
    """The loss as a thin line, its running mean as a thick one, checkpoints as ticks below."""
    import altair as alt

    rows = loss_rows(payload)
    if not rows:
        return None
    axis, scale = step_axis(0, rows[-1]["step"])
    x = alt.X("step:Q", axis=axis, scale=scale)
    low, high = (found(row["loss"] for row in rows) for found in (min, max))
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    domain = alt.Scale(domain=[low - room, high + room], nice=False, zero=False)

    def up(key: str) -> Any:
        return alt.Y(f"{key}:Q", axis=amount_axis("loss of the batch"), scale=domain)

    told = [alt.Tooltip("at:N", title="step"), alt.Tooltip("said:N", title="loss"), alt.Tooltip("smooth:N", title="running mean")]
    told += [alt.Tooltip("rate:N", title="learning rate"), alt.Tooltip("norm:N", title="gradient norm")]
    hover = alt.selection_point(name="loss_hover", on="pointerover", clear="pointerout", nearest=True, empty=False, encodings=["x"])
    raw = tables(thinned(rows, "loss", MOST))
    smooth = tables([{"step": row["step"], "mean": row["mean"]} for row in thinned(rows, "mean", MOST)])
    smoothed = window(len(rows)) > 1
    thin = {"strokeWidth": 1, "color": LIGHT["quiet_bar"]} if smoothed else {"strokeWidth": 1.8, "color": LIGHT["main"]}
    dot = {"color": LIGHT["main"], "filled": True, "size": 40}
    parts = _kept(payload, tables, x)
    parts.append(raw.mark_line(**thin).encode(x=x, y=up("loss")))
    parts += [smooth.mark_line(strokeWidth=2.2, color=LIGHT["main"]).encode(x=x, y=up("mean"))] if smoothed else []
    shown = alt.condition(hover, alt.value(1), alt.value(0 if len(rows) > 1 else 1))
    parts.append(raw.mark_point(**dot).encode(x=x, y=up("loss"), opacity=shown, tooltip=told).add_params(hover))
    end = tables([rows[-1]]).mark_text(align="left", dx=7, fontWeight="bold", color=LIGHT["main"])
    parts.append(end.encode(x=x, y=up("mean"), text="smooth:N"))
    said = f"Loss over {count(len(rows))} steps, from {three(rows[0]['loss'])} to a running mean of {three(rows[-1]['mean'])}"
    return alt.layer(*parts).properties(height=HEIGHT, description=said)


def _kept(payload: reading.Payload, tables: Tables, x: Any) -> list:
    """A faint line at each checkpoint."""
    kept = [{"step": each["step"], "at": count(each["step"])} for each in payload["record"].get("checkpoints") or []]
    return [tables(kept).mark_rule(color=LIGHT["floor"], strokeDash=[2, 4], strokeWidth=1, opacity=0.7).encode(x=x)] if kept else []
