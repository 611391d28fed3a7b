"""A ruler people know: how far the tuned model moved, beside known disturbances of the same base on the same texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tunescope.activations import Activations
from tunescope.comparison.layers import value_and_change
from tunescope.comparison.side import Pairing
from tunescope.errors import InputError
from tunescope.geometry.measures import Measure
from tunescope.models import Model
from tunescope.training import perturb

SIGMAS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
BITS = (8, 4)
TEXTS = 256  # that are read again, once for every disturbance
READ = "procrustes"  # a distance, of which multiples mean something


@dataclass(frozen=True)
class Mark:
    """One disturbance: what `perturb` is asked for, and its size on the axis of its kind."""

    kind: str
    label: str
    arguments: Mapping[str, Any]


MARKS = (
    *(Mark("gaussian", f"gaussian noise, σ = {sigma:g}", {"sigma": sigma}) for sigma in SIGMAS),
    *(Mark("rounding", f"rounding to {bits} bits", {"bits": bits}) for bits in BITS),
    Mark("dropout", "dropout on", {}),
)


Read = Callable[[Model, str, list[int]], Activations]  # (model, label, which texts)


Judged = Callable[[Model, str], list[dict[str, Any]]]  # (model, label)


def ruler(
    base: Model, pairings: Sequence[Pairing], n: int, *, measures: Mapping[str, Measure], read: Read, judged: Judged | None = None
) -> dict[str, Any]:
    """The payload's `ruler`: every disturbance and the tuned model itself, measured against the base on the same few texts.

    pairings: the places of the comparison, one row for each of n texts. read: how any model's rows of some texts are got. judged: what a
    disturbance does to the outcomes that were asked for, as rows of `outcomes`.
    """
    measures = {name: measure for name, measure in measures.items() if not measure.one_sided}
    count = min(n, TEXTS)
    texts = [at * n // count for at in range(count)]  # evenly, to the last
    marks, left_out, outcomes = [], [], []
    for mark in MARKS:
        try:
            moved = perturb(base, kind=mark.kind, **mark.arguments)
        except InputError as error:  # a model without dropout has no such mark
            left_out.append(str(error))
            continue
        acts = read(moved, mark.label, texts)
        rows = ((pairing, _at(acts, pairing.where)) for pairing in pairings)
        outcomes += judged(moved, mark.label) if judged is not None else []
        marks.append({"kind": mark.kind, "label": mark.label, **mark.arguments} | _places(rows, texts, measures))
    tuned = _places(((pairing, pairing.y[texts]) for pairing in pairings), texts, measures)
    found = {"texts": len(texts), "marks": marks, "tuned": tuned, "left_out": left_out, "outcomes": outcomes or None}
    return found | {"readings": [reading for name in measures if (reading := _reading(name, found)) is not None], "said": _said(found)}


def _at(acts: Activations, where: int | str) -> Tensor:
    return acts.layers[where] if isinstance(where, int) else acts.sites[where]


def _places(rows: Iterator[tuple[Pairing, Tensor]], texts: list[int], measures: Mapping[str, Measure]) -> dict[str, Any]:
    layers, sites = [], {}
    for pairing, moved in rows:
        cells = value_and_change(pairing.x[texts], moved, measures)
        if pairing.place.index is None:
            sites[pairing.place.name] = cells
        else:
            layers.append({"index": pairing.place.index, "name": pairing.place.name, "depth": pairing.place.depth, "measures": cells})
    return {"layers": layers, "sites": sites}


def _change(found: Mapping[str, Any], measure: str) -> float | None:
    """The change of the deployed embedding."""
    return found["sites"].get("output", {}).get(measure, {}).get("change")


def _reading(measure: str, found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where the tuned model falls on the ruler of one measure, at the output: the σ of gaussian noise that moves as far (between marks
    on a log-log line; beyond the marks `bound` says on which side), and how many times as far as every other mark."""
    own = _change(found["tuned"], measure)
    if own is None or own <= 0:
        return None
    noise = [(mark["sigma"], _change(mark, measure)) for mark in found["marks"] if mark["kind"] == "gaussian"]
    curve = [(sigma, change) for sigma, change in noise if change is not None and change > 0]
    others = [(mark["label"], _change(mark, measure)) for mark in found["marks"] if mark["kind"] != "gaussian"]
    times = {label: own / change for label, change in others if change}
    return {"measure": measure, "change": own, **_sigma(own, curve), "times": times}


def _sigma(own: float, curve: Sequence[tuple[float, float]]) -> dict[str, Any]:
    for (low, near), (high, far) in zip(curve, curve[1:], strict=False):
        if near <= own <= far:
            share = math.log(own / near) / math.log(far / near) if far > near else 0.0
            return {"sigma": low * (high / low) ** share, "bound": None}
    if curve and own < curve[0][1]:
        return {"sigma": curve[0][0], "bound": "below"}
    return {"sigma": curve[-1][0], "bound": "above"} if curve else {"sigma": None, "bound": None}


def _said(found: Mapping[str, Any]) -> str:
    """The reading in a sentence, by the measure of which multiples mean something."""
    reading = _reading(READ, found) or _reading("cka", found)
    if reading is None:
        return "The deployed embeddings did not move."
    parts = []
    if reading["sigma"] is not None:
        degree = {"below": "less far than", "above": "further than", None: "as far as"}[reading["bound"]]
        parts.append(f"{degree} gaussian weight noise of σ = {reading['sigma']:.2g}")
    rounding = reading["times"].get("rounding to 4 bits")
    if reading["measure"] == READ and rounding is not None:
        parts.append(f"{rounding:.{1 if rounding < 10 else 0}f} times as far as rounding the weights to 4 bits")
    title = {"procrustes": "Procrustes distance", "cka": "1 − CKA"}[reading["measure"]]
    return f"The deployed embeddings moved {', '.join(parts)} ({title}, {found['texts']:,} texts)."
