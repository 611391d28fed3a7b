"""The cross-layer section in words: which layers kept their place, which moved, which are new."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tunescope.report import reading
from tunescope.report.numbers import MISSING, count, interval, signed, three

NAMED = 3  # layers that a sentence names before it counts the rest


def section(payload: reading.Payload) -> dict[str, Any]:
    """What stands around the map: a lead, a caption, how large to draw, and the layers that do not plainly match their own."""
    cross = payload["cross"]
    about = reading.about(payload, cross["measure"])
    size = max(len(cross["base_names"]), len(cross["tuned_names"]))
    lead = f"{about['title']} between each base layer (rows) and each tuned layer (columns). "
    caption = "Layers of the same name are outlined."
    nulls = [value for line in cross.get("null") or [] for value in line if value is not None]
    if nulls:
        least, most = three(min(nulls)), three(max(nulls))
        caption += f" By chance a cell would read {least}." if least == most else f" By chance a cell would read {least} to {most}."
    known = layers(payload)
    return {
        "lead": lead + (_verdicts(known) if known else _closest(cross, about)),
        "caption": caption,
        "side": min(max(size * 66 + 60, 300), 600),
        "rows": [_row(row) for row in known if not _plain(row)],
        "rule": _rule(cross) if known else "",
    }


def layers(payload: reading.Payload) -> list[dict]:
    """The tuned layers with a verdict."""
    return [row for row in (payload.get("cross") or {}).get("layers") or [] if row.get("verdict")]


def line(payload: reading.Payload) -> str | None:
    """One line for the terminal, when any layer moved or is new."""
    away = [_said(row) for row in layers(payload) if row["verdict"] != "kept"]
    return f"not in its place: {_some(away)}" if away else None


def _plain(row: dict) -> bool:
    return row["verdict"] == "kept" and not row["displacement"]


def _said(row: dict) -> str:
    if row["verdict"] == "new":
        return f"{row['name']} is new, like no base layer"
    return f"{row['name']} moved, it matches base {row['best_name']} ({_steps(row)})"


def _steps(row: dict) -> str:
    return f"{signed(row['displacement'])} layer{'s' if abs(row['displacement']) != 1 else ''}"


def _some(said: list[str]) -> str:
    return "; ".join(said[:NAMED]) + (f"; and {count(len(said) - NAMED)} more" if len(said) > NAMED else "")


def _verdicts(known: list[dict]) -> str:
    """All layers, in one to three sentences."""
    found = Counter(row["verdict"] for row in known)
    close = [row["name"] for row in known if row["verdict"] == "kept" and row["displacement"]]
    if found["kept"] == len(known):
        said = f"Every tuned layer kept its place: none of the {count(len(known))} is clearly closer to another base layer than to its own."
    else:
        said = f"{count(found['kept'])} of {count(len(known))} tuned layers kept their place; "
        said += _some([_said(row) for row in known if row["verdict"] != "kept"]) + "."
    return said + (f" Closer to another, but not clearly or no more than layers are alike by nature: {', '.join(close)}." if close else "")


def _row(row: dict) -> dict[str, str]:
    new = row["verdict"] == "new"
    return {
        "name": row["name"], "verdict": row["verdict"],
        "best": MISSING if new else row["best_name"], "steps": "" if new else _steps(row),
        "value": three(row["value"]), "interval": interval(row["low"], row["high"]), "own": three(row["own_value"]),
        "difference": signed(row["difference"]), "difference_interval": interval(row["difference_low"], row["difference_high"]),
    }  # fmt: skip


def _rule(cross: dict) -> str:
    """How it was decided, and the floor, which is the same for all layers."""
    matching = cross.get("matching") or {}
    rule = str(matching.get("rule") or "")
    return rule[:1].upper() + rule[1:] + (f" The floor is {three(matching['floor'])}." if matching.get("floor") is not None else "")


def _closest(cross: dict, about: dict) -> str:
    """Results saved without verdicts: the closest base layer of each column."""
    best, pick = [], min if str(about.get("direction", "")).startswith("lower") else max
    for column, name in enumerate(cross["tuned_names"]):
        cells = [(values[column], cross["base_names"][row]) for row, values in enumerate(cross["values"]) if values[column] is not None]
        if cells:
            best.append((name, pick(cells, key=lambda pair: pair[0])[1]))
    away = [f"{name} ({match})" for name, match in best if name != match]
    if not away:
        return "Every tuned layer is closest to the base layer of the same name."
    more = f" and {count(len(away) - NAMED)} more" if len(away) > NAMED else ""
    own = f"{count(len(best) - len(away))} of {count(len(best))} tuned layers are closest to the base layer of the same name"
    return f"{own}; closer to another: {', '.join(away[:NAMED])}{more}."
