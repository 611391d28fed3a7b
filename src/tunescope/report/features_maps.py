"""Heat maps: how large deltas are by layer and model, and dictionary against dictionary with the floor in every cell."""

from __future__ import annotations

from typing import Any

from tunescope.report import features_reading as found
from tunescope.report import features_words as words
from tunescope.report.chart_parts import DROP_ZERO, Tables
from tunescope.report.features_tables import group as of_group
from tunescope.report.numbers import three, two_digits
from tunescope.report.reading import Payload
from tunescope.report.theme import LIGHT, RAMP

CELL_PX, FITS_PX = 40, 38


def norm_map(payload: Payload, tables: Tables) -> Any | None:
    """|Δ| / |x| of every delta, layer across, tuned models by growing rank, then controls."""
    rows = payload.get("norms") or []
    if not rows:
        return None
    seen = list(dict.fromkeys(row["name"] for row in rows))
    order = [*found.names(payload), *(name for name in seen if name not in found.names(payload))]
    ranks = found.ranks(payload)
    ranked = {name: f", rank {rank}" for name, rank in ranks.items() if rank and str(rank) not in name}
    told = {name: words.norm_name(name) + ranked.get(name, "") for name in order}
    cells = [
        {"row": told[row["name"]], "column": str(row["layer"]), "v": row["relative"], "said": two_digits(row["relative"]),
         "norm": three(row["norm"]), "constant": three(row["constant"])}
        for row in rows
    ]  # fmt: skip
    more = {"norm": "mean |Δ|", "constant": "|EΔ|² / E|Δ|²"}
    columns = [str(layer) for layer in sorted({row["layer"] for row in rows})]
    return _map(cells, [told[name] for name in order], columns, tables, title="|Δ| / |x|", across="layer", more=more)


def groups(payload: Payload) -> list[str]:
    """The tables that are there: of a layer's models, of a model's layers."""
    return list(dict.fromkeys(of_group(row) for row in payload.get("tables") or []))


def labels(payload: Payload, group: str) -> list[str]:
    """What a table is of: tuned models at a layer, layers of a tuned model."""
    rows = [row for row in payload["tables"] if of_group(row) == group]
    return found.names(payload) if rows[0].get("layer") is not None else [str(layer) for layer in found.layers(payload)]


def table_map(payload: Payload, group: str, tables: Tables) -> Any | None:
    """One table: mean one-to-one cosines, seed with seed on the diagonal, the floor under each value."""
    rows = [row for row in payload["tables"] if of_group(row) == group and row["value"] is not None]
    names = labels(payload, group)
    kind = "adapter" if rows and rows[0].get("layer") is not None else "layer"
    known = {f"{kind} {a} with {b}": (a, b) for a in names for b in names} | {f"{kind} {a}, seed with seed": (a, a) for a in names}
    cells = []
    for row in rows:
        a, b = known.get(row["sides"], (None, None))
        for one, other in dict.fromkeys([(a, b), (b, a)]) if a is not None else ():
            texts = {"said": three(row["value"]), "floor": three(row["floor"]), "under": f"floor {three(row['floor'])}"}
            cells.append({"row": one, "column": other, "v": row["value"], **texts, "top": three(row["ceiling"]), "own": a == b or None})
    if not cells:
        return None
    return _map(cells, names, names, tables, title="cosine", across="", more={"floor": "floor", "top": "ceiling"}, most=1.0, second=True)


def _map(
    cells: list[dict[str, Any]], rows: list[str], columns: list[str], tables: Tables, *, title: str, across: str, more: dict[str, str],
    most: float | None = None, second: bool = False,
) -> Any:  # fmt: skip
    """Cells by row and column, shaded by value, with the value in them where it fits; `second`: a smaller text under it."""
    import altair as alt

    top = max(most or 0.0, *(cell["v"] for cell in cells)) or 1.0
    plain: dict[str, Any] = {"ticks": False, "domain": False, "grid": False, "labelLimit": 150}
    x = alt.X("column:O", sort=columns, axis=alt.Axis(title=across or None, labelAngle=0, orient="bottom", titlePadding=6, **plain),
              scale=alt.Scale(paddingInner=0.03))  # fmt: skip
    y = alt.Y("row:O", sort=rows, axis=alt.Axis(title=None, labelPadding=6, **plain), scale=alt.Scale(paddingInner=0.05))
    legend = alt.Legend(title=title, orient="top", direction="horizontal", gradientLength=110, gradientThickness=9, tickCount=2,
                        titlePadding=6, labelExpr=DROP_ZERO.replace("~g", ".2~g"), gradientStrokeColor=LIGHT["rule"])  # fmt: skip
    shade = alt.Color("v:Q", scale=alt.Scale(domain=[0, top], range=RAMP), legend=legend)
    told = [alt.Tooltip("row:N", title="of"), alt.Tooltip("column:N", title=across or "with"), alt.Tooltip("said:N", title=title)]
    told += [alt.Tooltip(f"{key}:N", title=said) for key, said in more.items()]
    grid = tables(cells)
    ink = alt.condition(f"datum.v > {0.62 * top}", alt.value(LIGHT["on_high"]), alt.value(LIGHT["on_low"]))
    fits = {"expr": f"width / {len(columns)} > {FITS_PX} ? 1 : 0"}
    text = {"fontSize": 11.5, "baseline": "middle", "opacity": fits}
    parts = [
        grid.mark_rect().encode(x=x, y=y, color=shade, tooltip=told),
        grid.mark_text(dy=-7 if second else 0, **text).encode(x=x, y=y, text="said:N", color=ink, tooltip=told),
    ]
    if second:
        wide = {"expr": f"width / {len(columns)} > 52 ? 1 : 0"}
        small = {"fontSize": 10, "dy": 8, "baseline": "middle", "opacity": wide}
        parts.append(grid.mark_text(**small).encode(x=x, y=y, text="under:N", color=ink, tooltip=told))
    return alt.layer(*parts).properties(height=CELL_PX * len(rows) if second else 34 * len(rows))
