"""The finding in words: where and how far, never good or bad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunescope.report.numbers import three

VERB = {"rewritten": "rewrote", "refined": "refined"}
NO_OUTCOME = "Nothing was measured about what the model can do."


def headline(layers: Sequence[dict[str, Any]], n: int) -> str:
    """One to three sentences from the rows of the profile."""
    blocks = [row for row in layers if row["index"] > 0] or list(layers)
    if all(row["identical"] for row in layers):
        return f"Nothing changed: all {len(layers)} layers give bit-identical representations of these {n:,} texts. {NO_OUTCOME}"
    known = [row for row in blocks if row["measures"]["cka"]["value"] is not None]
    if not known:
        return f"No layer has any spread over these {n:,} texts, so there is nothing to compare. {NO_OUTCOME}"
    most = max(known, key=lambda row: row["measures"]["cka"]["change"])
    return " ".join([_finding(blocks, most), _start(layers), NO_OUTCOME]).replace("  ", " ")


def _finding(blocks: Sequence[dict[str, Any]], most: dict[str, Any]) -> str:
    cka = most["measures"]["cka"]
    scale = f"similarity to the base {three(cka['value'])}, where 1 is unchanged and {three(cka['null'])} is chance"
    counts = {word: sum(row["status"] == word for row in blocks) for word in ("rewritten", "refined")}
    if not any(counts.values()):
        return f"Almost nothing moved: every block is untouched; {most['name']} moved most ({scale})."
    said = " and ".join(f"{VERB[word]} {count}" for word, count in counts.items() if count)
    return f"Fine-tuning {said} of {len(blocks)} blocks; {most['name']} moved most ({scale})."


def _start(layers: Sequence[dict[str, Any]]) -> str:
    """Where the change begins, when something below it is exactly as it was."""
    first = next(i for i, row in enumerate(layers) if not row["identical"])
    if first == 0:
        return ""
    if layers[first]["index"] == 1:
        return "The embeddings are exactly unchanged."
    return f"The change starts at {layers[first]['name']}: everything before it is exactly unchanged."
