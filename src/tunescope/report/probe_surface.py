"""The probe audit: accuracy over rows and C, a heat map for each scaling, and how far these settings alone move it."""

from __future__ import annotations

import json
from typing import Any

from tunescope.report import reading
from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import count, stated, three
from tunescope.report.theme import LIGHT, RAMP

ROW_PX = 34
FEW = 4  # values of C up to which three maps fit side by side
_PARTS = {"rows": "the number of rows", "C": "C", "scaling": "the scaling"}


def audits(payload: reading.Payload) -> list[tuple[str, dict[str, Any]]]:
    """Every audit kept, with the name of its data."""
    found = payload.get("outcome_details") or []
    return [(str(each.get("name") or "probe"), each["audit"]) for each in found if (each.get("audit") or {}).get("accuracy")]


def surface(audit: dict[str, Any], scaling: int, tables: Tables) -> Any | None:
    """Rows (down) against C (across) for one scaling; all scalings of an audit share their colours."""
    import altair as alt

    rows, cs = audit["rows"], audit["Cs"]
    cells = [
        {"r": r, "c": c, "v": value, "said": three(value), "rows": count(rows[r]), "C": stated(cs[c])}
        for r, line in enumerate(audit["accuracy"][scaling]) for c, value in enumerate(line) if value is not None
    ]  # fmt: skip
    if not cells:
        return None
    low, high = _domain(audit)
    dark = f"datum.v > {low + 0.7 * (high - low)}"
    x = alt.X("c:O", axis=_axis([stated(c) for c in cs], "C"), scale=alt.Scale(domain=list(range(len(cs))), paddingInner=0.03))
    y = alt.Y(
        "r:O", axis=_axis([count(n) for n in rows], "training rows"), scale=alt.Scale(domain=list(range(len(rows))), paddingInner=0.03)
    )
    ramp = alt.Color("v:Q", scale=alt.Scale(domain=[low, high], range=RAMP), legend=None)
    told = [alt.Tooltip("rows:N", title="training rows"), alt.Tooltip("C:N"), alt.Tooltip("said:N", title="accuracy")]
    grid = tables(cells)
    ink = alt.condition(dark, alt.value(LIGHT["on_high"]), alt.value(LIGHT["on_low"]))
    fits = {"expr": f"width / {len(cs)} > 31 ? 1 : 0"}
    return alt.layer(
        grid.mark_rect().encode(x=x, y=y, color=ramp, tooltip=told),
        grid.mark_text(fontSize=11.5, opacity=fits).encode(x=x, y=y, text="said:N", color=ink, tooltip=told),
    ).properties(height=ROW_PX * len(rows))


def _axis(names: list[str], title: str) -> Any:
    import altair as alt

    words = json.dumps({str(i): name for i, name in enumerate(names)})
    return alt.Axis(title=title, labelExpr=f"{words}[datum.value]", labelAngle=0, ticks=False, domain=False, grid=False, titlePadding=6)


def _domain(audit: dict[str, Any]) -> tuple[float, float]:
    seen = [value for table in audit["accuracy"] for line in table for value in line if value is not None]
    low, high = min(seen, default=0.0), max(seen, default=1.0)
    return (low, high) if high > low else (low - 0.01, high + 0.01)


def view(payload: reading.Payload, drawn: dict[str, dict]) -> list[dict[str, Any]]:
    """What the page prints of each audit."""
    made = []
    for order, (name, audit) in enumerate(audits(payload)):
        charts = [{"title": scaling, "chart": f"probe_surface_{order}_{s}"} for s, scaling in enumerate(audit.get("scalings") or [])]
        made.append(
            {
                "name": name,
                "lead": _lead(audit),
                "parts": _parts(audit),
                "narrow": len(audit["Cs"]) <= FEW,
                "charts": [c for c in charts if c["chart"] in drawn],
            }
        )
    return made


def _lead(audit: dict[str, Any]) -> str:
    low, high = _domain(audit)
    swing = audit.get("swing") if audit.get("swing") is not None else high - low
    return (
        f"On the very same features, the probe’s settings alone move its accuracy by {three(swing)} (from {three(low)} to {three(high)}). "
        "A smaller effect, read with a probe that was not set up with care, may be the probe’s and not the model’s."
    )


def _parts(audit: dict[str, Any]) -> str:
    parts = audit.get("parts") or {}
    said = [f"{word} {three(parts[key])}" for key, word in _PARTS.items() if parts.get(key) is not None]
    return f"Of this, one setting at a time: {', '.join(said)}." if said else ""
