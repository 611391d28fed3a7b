"""The finding in words: where and how far, never good or bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunescope.report.numbers import percent, three

VERB = {"rewritten": "rewrote", "refined": "refined"}
DEGREE = ("untouched", "refined", "rewritten")
MOVED = {"rewritten": "moved far", "refined": "moved", "untouched": "hardly moved"}
NO_OUTCOME = "Nothing was measured about what the model can do."
NO_FUNCTION = "Nothing was measured about function."


def headline(layers: Sequence[dict[str, Any]], n: int, *, depth: int, sites: Mapping[str, dict[str, Any]] | None = None) -> str:
    """Two to five sentences from the rows of the profile, of a model with `depth` blocks; sites: `output`, told where it moved further."""
    output = (sites or {}).get("output")
    if all(row["identical"] for row in layers):
        what = f"all {len(layers)} layers" if len(layers) == depth + 1 else f"the {_count(len(layers), 'layer')} measured"
        same = f"{what} {'give' if len(layers) > 1 else 'gives'} bit-identical representations of these {n:,} texts."
        if output is None or output["identical"]:
            return f"Nothing changed: {same} {NO_OUTCOME}"
        return " ".join(filter(None, [f"{same[0].upper()}{same[1:]}", _deployed(output), NO_OUTCOME]))
    known = [row for row in layers if row["index"] > 0 and row["measures"]["cka"]["value"] is not None]
    beyond = _deployed(output) if output is not None and _further(output, known) else ""
    return " ".join(filter(None, [_finding(known, depth), beyond, _unknown(layers), _start(layers, depth), NO_OUTCOME]))


def of_rows(places: Sequence[dict[str, Any]], n: int) -> str:
    """The same for rows that belong to no block: the place called `output`, else the first."""
    row = next((place for place in places if place["name"] == "output"), places[0])
    what = "The embeddings" if row["name"] == "output" else f"The rows of {row['name']}"
    if row["identical"]:
        return f"Nothing changed: {what[0].lower()}{what[1:]} of these {n:,} rows are bit-identical. {NO_FUNCTION}"
    cka, nps = row["measures"]["cka"], row["measures"].get("nps") or {}
    if cka["value"] is None:
        return f"{what} could not be compared: see the warnings. {NO_FUNCTION}"
    moved = "are no closer to the base than chance" if row["saturated"] else MOVED[row["status"]]
    chance = f" and {three(cka['null'])} is chance" if cka["null"] is not None else ""
    kept = f"; rows keep {percent(nps['value'])} of their ten nearest neighbours" if nps.get("value") is not None else ""
    return f"{what} {moved}: similarity to the base {three(cka['value'])}, where 1 is unchanged{chance}{kept}. {NO_FUNCTION}"


def _finding(known: Sequence[dict[str, Any]], depth: int) -> str:
    if not known:
        return ""
    most = max(known, key=lambda row: row["measures"]["cka"]["change"])
    cka = most["measures"]["cka"]
    chance = f" and {three(cka['null'])} is chance" if cka["null"] is not None else ""
    scale = f"similarity to the base {three(cka['value'])}, where 1 is unchanged{chance}"
    counts = {word: sum(row["status"] == word for row in known) for word in ("rewritten", "refined")}
    if not any(counts.values()):
        start = "Almost nothing moved: after" if len(known) == depth else "After"
        return f"{start} {_of(len(known), len(known), depth)} the representations are untouched; {most['name']}'s moved most ({scale})."
    told = [(VERB[word], count) for word, count in counts.items() if count]
    parts = [f"{verb} the representations after {_count(count, 'block')}" for verb, count in told[:-1]]
    verb, count = told[-1]
    parts.append(f"{verb} {'those' if parts else 'the representations'} after {_of(count, len(known), depth)}")
    return f"Fine-tuning {' and '.join(parts)}; {most['name']}'s moved most ({scale})."


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _of(count: int, measured: int, depth: int) -> str:
    """So many of a model's blocks, worded so that the count cannot be taken for a block's number."""
    if count == depth:
        return f"all {depth} blocks" if depth > 1 else "its only block"
    return f"{count} of {depth} blocks" if measured == depth else f"{count} of the {depth} blocks ({measured} measured)"


def _further(output: dict[str, Any], known: Sequence[dict[str, Any]]) -> bool:
    """Whether the deployed embedding's word is stronger than that of every block measured."""
    if output["status"] is None:
        return False
    return DEGREE.index(output["status"]) > max((DEGREE.index(row["status"]) for row in known), default=-1)


def _deployed(output: dict[str, Any]) -> str:
    cka = output["measures"]["cka"]
    if cka["value"] is None:
        return ""
    chance = f", chance {three(cka['null'])}" if cka["null"] is not None else ""
    return f"The deployed embedding (output) is {output['status']}: similarity to the base {three(cka['value'])}{chance}."


def _unknown(layers: Sequence[dict[str, Any]]) -> str:
    unknown = [row["name"] for row in layers if row["measures"]["cka"]["value"] is None]
    if not unknown:
        return ""
    where = unknown[0] if len(unknown) == 1 else f"{len(unknown)} of {len(layers)} layers"
    return f"{where[0].upper()}{where[1:]} could not be measured: see the warnings."


def _start(layers: Sequence[dict[str, Any]], depth: int) -> str:
    """Where the change begins, when everything below it was measured and is exactly as it was."""
    first = next(i for i, row in enumerate(layers) if not row["identical"])
    if first == 0 or len(layers) != depth + 1:
        return ""
    if layers[first]["index"] == 1:
        return "The embeddings are exactly unchanged."
    return f"The change starts at {layers[first]['name']}, whose effect carries forward: everything before it is exactly unchanged."
