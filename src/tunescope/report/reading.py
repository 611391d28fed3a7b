"""How the report reads a comparison: which measures compare, what their floor means as a change, in which order things stand."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from tunescope.report.numbers import percent, three

Payload = dict[str, Any]
OWNED = 0.5  # share of a side's variance in one dimension above which that is said
_AGREES = 1e-6
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(payload: Any) -> Any:
    """The payload as it can be shown: NaN and infinities as None ("–"), characters no XML may hold as "�".

    vl-convert aborts the whole process on a label with a control character, so none reaches it.
    """
    if isinstance(payload, float):
        return payload if math.isfinite(payload) else None
    if isinstance(payload, str):
        return _UNPRINTABLE.sub("\ufffd", payload)
    if isinstance(payload, dict):
        return {key: printable(value) for key, value in payload.items()}
    return [printable(value) for value in payload] if isinstance(payload, list | tuple) else payload


def unit(payload: Payload) -> str:
    """What a row is: a text that a model has read, or, without a model, just a row."""
    return "text" if (payload.get("data") or {}).get("pooling") else "row"


def layers(payload: Payload) -> list[dict]:
    """The profile's rows, in depth order."""
    return sorted(payload.get("layers") or [], key=lambda row: row["index"])


def sites(payload: Payload) -> list[dict]:
    """The rows outside the profile (`final`, `output`), each with its name."""
    return [{"name": name, **row} for name, row in (payload.get("sites") or {}).items() if row]


def unchanged(payload: Payload) -> bool:
    """Whether every row of every place is bit-identical, so that there is no difference to tell of."""
    rows = list(_rows(payload))
    return bool(rows) and all(row.get("identical") for row in rows)


def how_read(pooling: str) -> str:
    """The pooling in words."""
    return "token rows (output: a row a text)" if pooling == "none" else f"{pooling} pooling"


def entry(row: dict, measure: str) -> dict:
    """One measure's numbers in one row; empty where it was not taken."""
    return (row.get("measures") or {}).get(measure) or {}


def one_sided(payload: Payload) -> list[str]:
    """Measures that describe each side by itself (isotropy): they carry a base value beside the tuned one."""
    return [name for name in payload.get("measures") or {} if any("base" in entry(row, name) for row in _rows(payload))]


def comparing(payload: Payload) -> list[str]:
    """Measures that compare the two sides, the default one first."""
    alone = set(one_sided(payload))
    names = [name for name in payload.get("measures") or {} if name not in alone]
    default = payload.get("default_measure")
    return sorted(names, key=lambda name: name != default)


def _rows(payload: Payload) -> Iterator[dict]:
    yield from payload.get("layers") or []
    yield from (row for row in (payload.get("sites") or {}).values() if row)


def about(payload: Payload, measure: str) -> dict:
    """What the comparison says of a measure, with a title and the name of its change filled in."""
    said = (payload.get("measures") or {}).get(measure) or {}
    title = said.get("title") or measure
    change = said.get("change") or measure
    return {**said, "title": title, "change": title if change == measure else change}


def _flips(payload: Payload, measure: str, numbers: dict) -> bool | None:
    """True when change = 1 − value, False when change = value, None when it is neither (then nothing can be carried over)."""
    value, change = numbers.get("value"), numbers.get("change")
    higher = str(about(payload, measure).get("direction", "")).startswith("higher")
    if value is None or change is None:
        return higher
    for flips, expected in ((higher, 1 - value if higher else value), (not higher, value if higher else 1 - value)):
        if abs(change - expected) <= _AGREES:
            return flips
    return None


def floor(payload: Payload, measure: str, numbers: dict) -> float | None:
    """The change that an unrelated representation would show: the null value, read as a change."""
    null, flips = numbers.get("null"), _flips(payload, measure, numbers)
    if null is None or flips is None:
        return None
    return 1 - null if flips else null


def change_interval(payload: Payload, measure: str, numbers: dict) -> tuple[float, float] | None:
    """The interval of the value, read as an interval of the change."""
    low, high, flips = numbers.get("low"), numbers.get("high"), _flips(payload, measure, numbers)
    if low is None or high is None or flips is None:
        return None
    return (1 - high, 1 - low) if flips else (low, high)


def scale(payload: Payload, measure: str) -> float:
    """What a full bar stands for: the highest chance floor, or the largest change where there is no floor."""
    rows = [entry(row, measure) for row in _rows(payload)]
    floors = [abs(value) for numbers in rows if (value := floor(payload, measure, numbers)) is not None]
    changes = [abs(numbers["change"]) for numbers in rows if numbers.get("change") is not None]
    return max(floors, default=0.0) or max(changes, default=0.0) or 1.0


def largest_difference(payload: Payload, measure: str) -> tuple[str, float, float] | None:
    """Where a one-sided measure differs most: the layer's name, its base value and its tuned value."""
    seen = [(row["name"], entry(row, measure)) for row in layers(payload) + sites(payload)]
    known = [(name, n["base"], n["value"]) for name, n in seen if n.get("base") is not None and n.get("value") is not None]
    return max(known, key=lambda found: abs(found[2] - found[1]), default=None)


def noise(payload: Payload, measure: str) -> float | None:
    """The largest change seen when the base was compared with itself."""
    seen = [entry(row, measure).get("noise") for row in _rows(payload)]
    return max((abs(value) for value in seen if value is not None), default=None)


def largest_share(payload: Payload) -> str:
    """Where most of the change lies, where that is not the last block: "most, 39%, in block 5"; else empty."""
    width = payload.get("width") or {}
    shares = [share or 0.0 for share in width.get("shares") or []]
    if not shares or max(shares) == shares[-1]:
        return ""
    return f"most, {percent(max(shares))}, in {width['layers'][shares.index(max(shares))]}"


def status(row: dict) -> str:
    """The row's status word, with what a reader must know beside it."""
    words = [str(row.get("status") or "–")]
    if row.get("identical"):
        words.append("bit-identical")
    if row.get("saturated"):
        words.append("at the chance floor")
    words += dominance(row)
    return " · ".join(words)


def dominance(row: dict) -> list[str]:
    """Said beside a row's status where one dimension holds most of the variance, or where CKA reads otherwise without such."""
    found = row.get("outliers") or {}
    said = [f"standardised CKA {three(found['robust_cka'])}"] if found.get("disagree") else []
    share = max((found.get("share") or {"": 0.0}).values())
    if share > OWNED:
        side = max(found["share"], key=found["share"].__getitem__)
        said.append(f"dimension {found['top'][side][0]} holds {percent(share)} of the variance")
    return said


def short_name(row: dict) -> str:
    """What stands under an axis: "emb" for the embeddings, else the block's number."""
    return "emb" if row["index"] == 0 else str(row["index"])
