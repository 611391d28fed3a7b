"""The tables of a comparison of features: quality with the controls, alignment, reconstruction, spectrum, behaviour recovered."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tunescope.report import features_reading as found
from tunescope.report.features_reading import Place, Row
from tunescope.report.features_words import COMPARISONS, WAYS, asks, numbered, share, title
from tunescope.report.numbers import MISSING, count, interval, percent, three, two_digits
from tunescope.report.reading import Payload


def _figure(row: Row, key: str) -> Row:
    return row.get(key) or {}


def quality(payload: Payload) -> list[dict[str, Any]]:
    """A group a layer: its dictionaries by model and seed, the base's own, the controls in the same columns."""
    parts = (_trained, _base, _controls)
    return [{"layer": layer, "rows": [row for part in parts for row in part(payload, layer)]} for layer in found.layers(payload)]


def _trained(payload: Payload, layer: int) -> list[dict[str, Any]]:
    out = []
    for place in (place for place in found.places(payload) if place[0] == layer):
        near, moved = found.one_to_one(payload, place), found.norm(payload, place).get("relative")
        noise = found.verdict(payload, place).get("noise_r2")
        for order, row in enumerate(found.at(payload, "quality", place)):
            cells = _cells(row) | {"name": place[1], "aside": f"seed {row['seed']}", "control": False, "noise": three(noise)}
            first = order == 0 and near is not None
            cosine = {"cosine": three(near["value"]), "floor": three(near["floor"])} if first and near else {}
            out.append(cells | {"moved": two_digits(moved)} | ({"cosine": MISSING, "floor": ""} | cosine))
    return out


def _base(payload: Payload, layer: int) -> list[dict[str, Any]]:
    """The base's own dictionary on the base's own activations."""
    rows = [row for row in payload.get("base_quality") or [] if row["layer"] == layer]
    said = {"name": "the base’s own", "aside": "on the base’s activations", "control": True}
    return [_cells(row) | said | dict.fromkeys(("cosine", "noise", "moved"), MISSING) | {"floor": ""} for row in rows]


def _controls(payload: Payload, layer: int) -> list[dict[str, Any]]:
    out = []
    for row in found.controls(payload, layer):
        aside = f"for {row['name']}" if row.get("name") else f"largest |Δ| {two_digits(row.get('largest'))}"
        cells = _cells(row) | {"name": found.CONTROLS.get(row["control"], row["control"]), "aside": aside, "control": True}
        cosine = {"cosine": three(row.get("one_to_one_cosine")), "floor": three(row.get("floor")) if row.get("floor") is not None else ""}
        out.append(cells | cosine | {"noise": MISSING, "moved": two_digits(row.get("relative"))})
    return out


def _cells(row: Row) -> dict[str, str]:
    r2, unexplained, l0 = _figure(row, "r2"), _figure(row, "fvu"), _figure(row, "l0")
    if not unexplained and r2:
        unexplained = {"value": 1 - r2["value"]}
    return {
        "r2": three(r2.get("value")), "interval": interval(r2.get("low"), r2.get("high")) if r2.get("low") is not None else "",
        "fvu": share(unexplained.get("value")), "l0": _active(l0.get("value")), "dead": percent(row.get("dead_share")),
        "density": two_digits(row.get("median_density")), "constant": percent(_figure(row, "constant_share").get("value")),
    }  # fmt: skip


def _active(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.1f}".removesuffix(".0")


def alignment(payload: Payload, place: Place) -> list[dict[str, str]]:
    """The table of a place: each comparison with its floor and its ceiling."""
    order = {key: number for number, key in enumerate(COMPARISONS)}
    rows = numbered(found.alignment(payload, place))
    rows.sort(key=lambda pair: order.get(pair[0], len(order)))
    often = Counter(key for key, _ in rows)
    return [{"title": title(key), "aside": _aside(key, row, often[key] > 1)} | beside(row) for key, row in rows]


def _aside(key: tuple[str, int], row: Row, again: bool) -> str:
    """What a title leaves open: the sides where it is no known one, the note, and of two floors which."""
    parts = [] if key in COMPARISONS else [row["sides"]]
    parts += [row["note"]] if row.get("note") else [asks(key)] if asks(key) else []
    parts += [f"floor: {row['floor_of']}"] if again and row.get("floor_of") else []
    return "; ".join(parts)


def beside(row: Row) -> dict[str, str]:
    """The cells of an alignment row."""
    sd = row.get("floor_sd")
    return {
        "value": share(row["value"]), "interval": interval(row["low"], row["high"]) if row.get("low") is not None else "",
        "floor": share(row.get("floor")), "sd": f"± {two_digits(sd)}" if sd is not None else "",
        "ceiling": share(row.get("ceiling")), "floor_of": row.get("floor_of") or "", "ceiling_of": row.get("ceiling_of") or "",
        "n": f"{count(row.get('n'))} {row.get('unit') or ''}".strip(), "verdict": row.get("verdict") or MISSING,
        "note": row.get("note") or "", "sides": row["sides"],
    }  # fmt: skip


def origins(payload: Payload, place: Place) -> list[str]:
    """What the floors and ceilings of a place are of, each said once."""
    rows, said = found.alignment(payload, place), []
    for end, named in (("floor", "Floors"), ("ceiling", "Ceiling")):
        of = list(dict.fromkeys(row[f"{end}_of"] for row in rows if row.get(f"{end}_of")))
        said += [f"{named}: {'; '.join(of)}."] if of else []
    return said


def reconstruction(payload: Payload, place: Place) -> list[dict[str, str]]:
    """Each way to reconstruct Δ, said in full beside its short name."""
    out = []
    for row in found.reconstruction(payload, place):
        sides = str(row["sides"])
        aside = f"{sides}; {row['note']}" if row.get("note") else sides
        out.append({"title": WAYS.get(sides, sides), "aside": aside} | beside(row))
    return out


def improvement(payload: Payload, place: Place) -> str:
    """By how much the adapter's error is smaller, as its encoder stands and fairly."""
    rows = found.improvements(payload, place)
    said = {"applied": "than the base’s dictionary applied to Δ", "recoded": "than the base’s features, both re-coded"}
    parts = [f"{_percent(rows[key])} {words}" for key, words in said.items() if key in rows and rows[key]["value"] is not None]
    return f"Error of the tuned model’s dictionary, smaller by {'; by '.join(parts)}." if parts else ""


def _percent(row: Row) -> str:
    within = "" if row.get("low") is None else f" [{_one(row['low'])}, {_one(row['high'])}]"
    return f"{_one(row['value'])}%{within}"


def _one(value: float) -> str:
    return f"{value:.1f}".replace("-", "−")


def spectrum(payload: Payload) -> list[dict[str, Any]]:
    """A line a layer and stream, the base's own rows first."""
    rows = sorted(payload.get("spectrum") or [], key=lambda row: row["layer"])
    return [
        {
            "layer": row["layer"], "name": row["name"], "rank": count(row.get("rank")), "pr": _ratio(row["participation_ratio"]),
            "d90": count(row["dimensions_90"]), "d99": count(row["dimensions_99"]), "width": count(row["width"]),
            "against": f"× {_ratio(row['against_rank'])}" if row.get("against_rank") is not None else MISSING, "rows": count(row["rows"]),
        }
        for row in rows
    ]  # fmt: skip


def _ratio(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"


def recovered(payload: Payload, place: Place) -> list[dict[str, str]]:
    """The table of behaviour recovered at a place."""
    return [
        {
            "name": row["spliced"], "reference": "reference" if row["reference"] else "",
            **{key: _closed(row, key) for key in ("closed", "of_true", "loss_closed")},
            **{f"{key}_interval": interval(row.get(f"{key}_low"), row.get(f"{key}_high")) if row.get(f"{key}_low") is not None else ""
               for key in ("closed", "of_true", "loss_closed")},
            "distance": three(row["distance"]), "loss": three(row.get("loss")),
            "note": row.get("closed_note") or row.get("of_true_note") or row.get("loss_closed_note") or "",
        }
        for row in found.behaviour(payload, place)
    ]  # fmt: skip


def _closed(row: Row, key: str) -> str:
    return percent(row.get(key))


def table_rows(payload: Payload) -> list[dict[str, str]]:
    """Dictionary against dictionary, in figures."""
    return [{"group": group(row)} | beside(row) for row in payload.get("tables") or []]


def group(row: Row) -> str:
    return f"layer {row['layer']}" if row.get("layer") is not None else str(row["name"])
