"""How the report reads features.json: its places, what stands at each, and by which names they are called."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from tunescope.report.reading import Payload

Row = dict[str, Any]
Place = tuple[int, str]  # a layer and a tuned model
PAGE = "report.html"
CONTROL = "control-"  # how the names of controls' deltas begin
NOISE = "noise"
UNEXPLAINED, REUSED_SHARE = "unexplained_share", "reused_share"
RECODED = {"random": "a random dictionary as wide as the pretrained one", "adapter": "the adapter's decoder, re-coded"}
CONTROLS = {
    "zero": "base against base",
    "noise": "base against base, other batches",
    "random": "random update, weights as large",
    "shuffled": "shuffled pairs",
}
_LONGEST = 60


def places(payload: Payload) -> list[Place]:
    """Every place that has a verdict: tuned models by growing rank, each by growing layer."""
    found = list(dict.fromkeys((row["layer"], row["name"]) for row in payload["verdicts"]))
    order = {name: number for number, name in enumerate(names(payload))}
    return sorted(found, key=lambda place: (order[place[1]], place[0]))


def names(payload: Payload) -> list[str]:
    """The tuned models, by growing rank, those without one as they were given."""
    seen = list(dict.fromkeys(row["name"] for row in payload["verdicts"]))
    known = ranks(payload)
    return sorted(seen, key=lambda name: (known.get(name) is None, known.get(name) or 0, seen.index(name)))


def layers(payload: Payload) -> list[int]:
    """The layers with a verdict, growing."""
    return sorted({row["layer"] for row in payload["verdicts"]})


def ranks(payload: Payload) -> dict[str, int | None]:
    """The rank of each adapter, None for a model that has none."""
    return {row["name"]: row.get("rank") for row in payload.get("norms") or []}


def at(payload: Payload, section: str, place: Place) -> list[Row]:
    """The rows of a section that are of one place."""
    return [row for row in payload.get(section) or [] if (row["layer"], row["name"]) == place]


def verdict(payload: Payload, place: Place) -> Row:
    return at(payload, "verdicts", place)[0]


def alignment(payload: Payload, place: Place) -> list[Row]:
    """The comparisons of a place, without those that are ways of reconstructing Δ."""
    other = (UNEXPLAINED, REUSED_SHARE)
    return [row for row in at(payload, "alignment", place) if row["comparison"] not in other and not _improves(row)]


def reconstruction(payload: Payload, place: Place) -> list[Row]:
    """The unexplained share of each way to reconstruct Δ."""
    return [row for row in at(payload, "alignment", place) if row["comparison"] == UNEXPLAINED]


def improvements(payload: Payload, place: Place) -> dict[str, Row]:
    """ "applied" and "recoded": by how many percent the adapter's error is smaller."""
    rows = [row for row in at(payload, "alignment", place) if _improves(row)]
    return {row["comparison"].removeprefix("improvement_"): row for row in rows}


def reused(payload: Payload, place: Place) -> Row | None:
    """The share of the gap that the base's features close."""
    return next((row for row in at(payload, "alignment", place) if row["comparison"] == REUSED_SHARE), None)


def _improves(row: Row) -> bool:
    return row["comparison"].startswith("improvement_")


def one_to_one(payload: Payload, place: Place) -> Row | None:
    return next((row for row in at(payload, "alignment", place) if row["comparison"] == "one_to_one_cosine"), None)


def norm(payload: Payload, place: Place) -> Row:
    return next(iter(at(payload, "norms", place)), {})


def controls(payload: Payload, layer: int) -> list[Row]:
    """The controls of a layer: those of the reading first."""
    rows = [row for row in payload.get("controls") or [] if row["layer"] == layer]
    return sorted(rows, key=lambda row: row["name"] is not None)


def label(payload: Payload, place: Place) -> str:
    """What a chart calls a place: its layer, with the tuned model where there are several."""
    layer, name = place
    return f"{name}, {layer}" if len(names(payload)) > 1 else f"layer {layer}"


def behaviour(payload: Payload, place: Place) -> list[Row]:
    """What each splice closes at a place."""
    rows = (payload.get("recovered") or {}).get("rows") or []
    return [row for row in rows if (row["layer"], row["adapter"]) == place]


def page_name(place: Place) -> str:
    """The file of a place's features, `features-NAME-layer-L.html`; a name that no file may have is written without what is odd in it,
    and told from others of the sort by a few letters of its hash."""
    layer, name = place
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:_LONGEST]
    if plain != name:
        plain = f"{plain or 'model'}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:6]}"
    return f"features-{plain}-layer-{layer}.html"


def page_of(payload: Payload, place: Place) -> str:
    """The file of a place's features where there is one: `pages` lists (layer, name) of those that were written."""
    return page_name(place) if any((row["layer"], row["name"]) == place for row in payload.get("pages") or []) else ""
