"""The objective of a run in words, from what run.json says of it: one, a sum of several, either held to the start."""

from __future__ import annotations

from typing import Any

from tunescope.report.numbers import stated

Described = dict[str, Any]  # an objective's name and settings, its parts described in the same way
PRESERVE = "preserve"
_FROM_START = {"kl": "KL from the start in nats, on the texts to keep",
               "features": "relative squared distance from the start, on the texts to keep"}  # fmt: skip
_WHOLES = ("name", "parts", "weights", "objective")  # of a preserve or a mixture: what its words say


def named(described: Described) -> str:
    """What was asked for: "contrastive", "mlm ×.5 + contrastive", "mlm ×.5 + contrastive, held to the start"."""
    if held := _held(described):
        weight = described.get("weight", 1)
        return f"{named(held)}, held to the start{f' ×{stated(weight)}' if weight != 1 else ''}"
    parts = _parts(described)
    weights = described.get("weights") or [1] * len(parts)
    if parts:
        return " + ".join(_weighted(part, weight) for part, weight in zip(parts, weights, strict=False))
    return str(described.get("name") or "an unnamed objective")


def beside(name: str, described: Described) -> str:
    """A number beside the loss: "loss of mlm" for "0.mlm" of a mixture, and what a preserve calls "objective"."""
    if held := _held(described):
        if name == "objective":
            return f"loss of {named(held)}, without what holds it to the start"
        from_start = name == "distance_from_start"
        return _FROM_START.get(str(described.get("kind")), "distance from the start") if from_start else beside(name, held)
    number, _, rest = name.partition(".")
    parts = _parts(described)
    if rest and number.isdecimal() and int(number) < len(parts):
        place, part = _placed(described)[int(number)]
        return f"loss of {place}" if rest == part.get("name") else f"{beside(rest, part)}, of {place}"
    return name.replace("_", " ")


def settings(described: Described) -> Described:
    """Its settings as the page lists them: what it was in words first, then what every part was set to and what was settled for it."""
    if not described:
        return {}
    found: Described = {"name": named(described)}
    for place, part in _leaves(described, ""):
        own = {key: value for key, value in part.items() if key not in _WHOLES}
        found |= {place: own} if place and own else own
    return found | ({"resolved": _settled(described, described["resolved"])} if described.get("resolved") else {})


def _leaves(described: Described, place: str) -> list[tuple[str, Described]]:
    """Every objective in it with its place, itself first."""
    held = _held(described)
    inside = [(str(held.get("name")), held)] if held else _placed(described)
    return [(place, described), *(found for name, part in inside for found in _leaves(part, name))]


def _settled(described: Described, resolved: Described) -> Described:
    """What was settled for it, by place."""
    if held := _held(described):
        return _settled(held, resolved.get(str(held.get("name"))) or {})
    if not _parts(described):
        return resolved
    each = [(place, part, resolved.get(f"{number}.{part.get('name')}")) for number, (place, part) in enumerate(_placed(described))]
    return {place: _settled(part, own) for place, part, own in each if own}


def _placed(described: Described) -> list[tuple[str, Described]]:
    """The parts of a sum by name; of several of one name, with their number."""
    parts = _parts(described)
    names = [str(part.get("name")) for part in parts]
    places = [f"{name} {number}" if names.count(name) > 1 else name for number, name in enumerate(names, 1)]
    return list(zip(places, parts, strict=True))


def _held(described: Described) -> Described | None:
    inside = described.get("objective")
    return inside if described.get("name") == PRESERVE and isinstance(inside, dict) else None


def _parts(described: Described) -> list[Described]:
    return [part for part in described.get("parts") or [] if isinstance(part, dict)]


def _weighted(part: Described, weight: float) -> str:
    name = f"({named(part)})" if _held(part) or _parts(part) else named(part)
    return name if weight == 1 else f"{name} ×{stated(weight)}"
