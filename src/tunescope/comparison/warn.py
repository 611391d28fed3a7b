"""What a reader must know before leaning on a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tunescope.comparison.side import Side
from tunescope.geometry.measures import Measure
from tunescope.geometry.profile import REWRITTEN, UNTOUCHED
from tunescope.geometry.rows import ROW_CAP
from tunescope.report.numbers import three
from tunescope.texts import Corpus

FAR = 0.15  # share of a measure's range by which its chance floor may miss the ideal before that is said


def about_texts(corpus: Corpus, *sides: Side) -> list[str]:
    cut, length = max(side.acts.truncated for side in sides), sides[0].acts.max_length
    said = list(corpus.warnings)
    if cut:
        said.append(f"{cut:,} of {len(corpus.texts):,} texts were cut at {length} tokens; what follows the cut was not read")
    return said


def about_models(base: Side, tuned: Side) -> list[str]:
    said = [*dict.fromkeys([*base.warnings, *tuned.warnings]), *_unchanged(base, tuned)]
    one, two = base.identity, tuned.identity
    if one.get("tokenizer_sha256") != two.get("tokenizer_sha256"):
        said.append("the tokenizers differ: each model read its own tokens, so part of the change at every layer is the tokenizer's")
    if one.get("vocabulary") != two.get("vocabulary"):
        said.append(f"the vocabulary was resized, {one['vocabulary']:,} → {two['vocabulary']:,} embedding rows")
    if one["layers"] != two["layers"]:
        said.append(f"base has {one['layers']} blocks and tuned {two['layers']}: layers are paired by relative depth")
    if one["width"] != two["width"]:
        said.append(f"base has {one['width']} features and tuned {two['width']}: measures that need the same features are left out")
    return said


def _unchanged(base: Side, tuned: Side) -> list[str]:
    """Why nothing can have changed: the same weights on both sides, or an adapter without effect."""
    one, two = base.identity, tuned.identity
    adapter = two.get("adapter")
    if adapter is not None and one.get("adapter") is None and _same_rows(base, tuned):
        return ["the adapter changes nothing: was it trained? A fresh LoRA adds zero until its first step"]
    if one.get("weights_sha256") is None or adapter is not None:
        return []
    same = all(one.get(key) == two.get(key) for key in ("weights_sha256", "output", "adapter"))
    return ["both sides have the same weights: is the tuned model the one you meant, and was it saved after training?"] if same else []


def _same_rows(base: Side, tuned: Side) -> bool:
    """Whether every row is bit-identical; the last layers are asked first, since change carries forward.

    False where rows went by and none are left to compare.
    """
    one, two = ({**side.acts.layers, **side.acts.sites} for side in (base, tuned))
    return bool(one) and one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in reversed(one))


def about_numbers(
    layers: Sequence[dict[str, Any]],
    sites: Mapping[str, dict[str, Any]],
    measures: Mapping[str, Measure],
    localities: Mapping[str, dict[str, Any]],
    n: int,
    texts: int,
) -> list[str]:
    still = all(row["identical"] for row in [*layers, *sites.values()])  # then no number is judged against its floor
    said = [*([] if still else _biased(layers, sites, measures, n)), *_uncertain(layers)]
    if n > texts:
        said.append("rows are tokens: intervals take texts as their units, while chance floors shuffle tokens as if each stood alone")
    if n > ROW_CAP and "rsa" in measures:
        said.append(f"rsa is measured on a seeded choice of {ROW_CAP:,} of the {n:,} rows, the same at every layer")
    for name, found in localities.items():
        if found["saturated_layers"]:
            where = ", ".join(f"block {index}" for index in found["saturated_layers"])
            said.append(f"{name} is no closer to the base than chance at {where}: there its curve and slope say no more")
    empty = [row["name"] for row in layers if row["measures"]["cka"]["value"] is None]
    if empty:
        reason = next(row["measures"]["cka"]["reason"] for row in layers if row["name"] == empty[0])
        said.append(f"{', '.join(empty)}: {reason}; with cls pooling of a causal model, or constant inputs, use another pooling")
    return said


def _biased(layers: Sequence[dict[str, Any]], sites: Mapping[str, dict[str, Any]], measures: Mapping[str, Measure], n: int) -> list[str]:
    """One line for all measures whose chance floor at this number of rows is far from where it belongs."""
    found = []
    for name, measure in measures.items():
        floors = sorted(row["measures"][name]["null"] for row in [*layers, *sites.values()] if row["measures"][name]["null"] is not None)
        if measure.ideal_floor is None or not floors:
            continue
        floor, span = floors[len(floors) // 2], measure.bounds[1] - measure.bounds[0]
        if abs(floor - measure.ideal_floor) > FAR * span:
            found.append(f"{name} {three(floor)} (not {three(measure.ideal_floor)})")
    if not found:
        return []
    return [f"at {n:,} rows chance alone reads {', '.join(found)}: judge these against their chance floor, or give more texts"]


def _uncertain(layers: Sequence[dict[str, Any]]) -> list[str]:
    """Layers whose interval reaches across a cut-off, so that another sample of texts could give another word."""
    names = []
    for row in layers:
        cka = row["measures"]["cka"]
        if cka["low"] is not None and any(cka["low"] < cut <= cka["high"] for cut in (UNTOUCHED, REWRITTEN)):
            names.append(f"{row['name']} ({row['status']})")
    return [f"the interval crosses a cut-off, so the word is not certain: {', '.join(names)}"] if names else []
