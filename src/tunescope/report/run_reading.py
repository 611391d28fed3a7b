"""How the report reads a training run: its points, its places, what each measure says at them, and the groups its steps were taken in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tunescope.chance import agrees_by_chance
from tunescope.report import outcome_words, reading

Row = dict[str, Any]
MOVED, FROZEN = "moved", "frozen"  # states of a group's step: it has a relative size; it had no tensor that trains
_AGREES = 1e-6
_FIRST = "nps"  # where a run was watched by several measures, the one its headline quotes
_BLOCK = re.compile(r"block (\d+)$")


def geometry(payload: reading.Payload) -> list[Row]:
    """Rows that say how far the model was from its start."""
    return [row for row in payload.get("trajectory") or [] if row["kind"] == "geometry"]


def points(rows: Iterable[Row]) -> list[int]:
    """The steps that rows are of, in order."""
    return sorted({row["step"] for row in rows})


def places(payload: reading.Payload) -> list[Row]:
    """Where was measured: the layers in depth order, then the sites beyond them, each with the index it is drawn at."""
    seen = {row["where"]: row for row in geometry(payload)}
    layers = sorted((row for row in seen.values() if row.get("layer") is not None), key=lambda row: row["layer"])
    deepest = layers[-1]["layer"] if layers else 0
    sites = [row for row in seen.values() if row.get("layer") is None]
    found = [{"name": row["where"], "index": row["layer"], "site": False} for row in layers]
    apart = max(1, deepest / 6)  # so that their names have room under an axis
    return found + [{"name": row["where"], "index": deepest + order * apart, "site": True} for order, row in enumerate(sites, 1)]


def measures(payload: reading.Payload) -> list[str]:
    """Measures with at least one number, distances before properties of one side, the one that the headline quotes first."""
    known = dict.fromkeys(row["measure"] for row in geometry(payload) if row.get("change") is not None)
    default = payload.get("default_measure") or _FIRST
    return sorted(known, key=lambda name: (not is_distance(payload, name), name != default))


def flips(payload: reading.Payload, measure: str) -> bool | None:
    """True where change = 1 − value in every row, False where change = value, None where it is neither: a property of one side."""
    rows = [row for row in geometry(payload) if row["measure"] == measure and None not in (row.get("value"), row.get("change"))]
    for flipped in (False, True):
        if all(abs(row["change"] - (1 - row["value"] if flipped else row["value"])) <= _AGREES for row in rows):
            return flipped
    return None


def is_distance(payload: reading.Payload, measure: str) -> bool:
    """Whether a measure compares now with the start, and does not describe the model by itself."""
    said = (payload.get("measures") or {}).get(measure) or {}
    return not said.get("one_sided", flips(payload, measure) is None)


def change_name(payload: reading.Payload, measure: str) -> str:
    """What a change of this measure is called: "1 − nps", "relative_drift", "change of isotropy"."""
    flipped = flips(payload, measure)
    return f"change of {measure}" if flipped is None else f"1 − {measure}" if flipped else measure


def numbers(payload: reading.Payload, measure: str) -> dict[tuple[int, str], Row]:
    """(step, place) -> value, change, null and floor, the null read as a change; None where there is none."""
    flipped = flips(payload, measure)
    found = {}
    for row in geometry(payload):
        if row["measure"] == measure:
            null = row.get("null")
            floor = None if null is None or flipped is None else 1 - null if flipped else null
            found[row["step"], row["where"]] = row | {"floor": floor}
    return found


def tasks(payload: reading.Payload) -> dict[tuple[str, str], list[Row]]:
    """(kind, name) -> its main metric's row at every point where it was judged, in order."""
    rows = outcomes(payload)
    found: dict[tuple[str, str], list[Row]] = {}
    for step in points(rows):
        for row in outcome_words.tasks([row for row in rows if row["step"] == step]):
            found.setdefault((row["kind"], row["name"]), []).append(row)
    return found


def outcomes(payload: reading.Payload) -> list[Row]:
    """Rows that say how the model did."""
    return [row for row in payload.get("trajectory") or [] if row["kind"] != "geometry"]


def at_end(payload: reading.Payload) -> list[Row]:
    """The outcomes of the last point that has any, if that is not the start."""
    rows = outcomes(payload)
    last = max((row["step"] for row in rows), default=0)
    return [row for row in rows if row["step"] == last] if last else []


def groups(payload: reading.Payload) -> dict[str, list[Row]]:
    """Group of tensors -> its steps, in order."""
    found: dict[str, list[Row]] = {}
    for row in payload.get("steps") or []:
        found.setdefault(str(row["group"]), []).append(row)
    return {name: sorted(rows, key=lambda row: row["step"]) for name, rows in found.items()}


def ratios(rows: Sequence[Row]) -> list[float]:
    """The relative sizes of the steps that have one."""
    return [row["ratio"] for row in rows if row["state"] == MOVED and row.get("ratio")]


def block_number(group: str) -> int | None:
    """3 of "block 3"; None of what is in no block."""
    match = _BLOCK.match(group)
    return int(match[1]) if match else None


def tau(payload: reading.Payload) -> float | None:
    """The size every step was brought to; None where steps kept their own."""
    value = (payload["record"].get("update") or {}).get("tau")
    return float(value) if isinstance(value, int | float) else None


def agreements(rows: Sequence[Row]) -> list[float]:
    """The agreement of micro-batches at the steps where it is known."""
    return [row["agreement"] for row in rows if row.get("agreement") is not None]


def by_noise(rows: Sequence[Row]) -> bool:
    """Whether a group's micro-batches did not agree: their mean agreement is at most two standard errors above zero."""
    return agrees_by_chance(agreements(rows))
