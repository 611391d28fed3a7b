"""The cross-layer part of a comparison: the map of every layer against every layer, and which base layer each tuned layer carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tunescope.comparison.side import Pairing, Side
from tunescope.errors import Degenerate
from tunescope.geometry.cross import cross_hsic
from tunescope.geometry.matching import RULE, Fit, Match, Matching, match_layers
from tunescope.geometry.rows import Rows
from tunescope.ranks import ALONE, Ranks


def fit_of(rows: Rows) -> Fit | None:
    """What the matching needs of a layer against its own, kept when the layer is measured; None where it has no geometry."""
    try:
        return Fit.of(rows)
    except Degenerate:
        return None


def cross_layers(
    base: Side, tuned: Side, pairs: Sequence[Pairing], fits: Sequence[Fit | None], ranks: Ranks = ALONE
) -> dict[str, Any]:
    """{measure, values, base_names, tuned_names, null, layers, matching}: the map in CKA, the matches in debiased CKA.

    Args: the pairings of the layers, without those of sites, and the fit of each.
    """
    xs, ys = (list(side.acts.layers.values()) for side in (base, tuned))
    at = {index: row for row, index in enumerate(base.acts.layers)}
    own = [at[int(pair.where)] for pair in pairs]
    sums = cross_hsic(xs, ys, ranks=ranks)
    values = sums.cka
    for column, (pair, row) in enumerate(zip(pairs, own, strict=True)):
        if Rows(pair.x, pair.y).same:
            values[row, column] = 1.0
    found = match_layers(xs, ys, own, groups=_groups(base, xs), fits=fits, similarity=sums.debiased_cka)
    cells = [[None if cell != cell else cell for cell in row] for row in values.tolist()]
    names = [[side.acts.names[i] for i in side.acts.layers] for side in (base, tuned)]
    return {
        "measure": "cka",
        "values": cells,
        "base_names": names[0],
        "tuned_names": names[1],
        "null": None,
        "layers": [_layer(base, tuned, pair, match, found) for pair, match in zip(pairs, found.matches, strict=True)],
        "matching": {"measure": "debiased_cka", "floor": found.floor, "tested": found.tested, "rule": RULE},
    }


def _groups(side: Side, layers: Sequence[Any]) -> Any:
    groups = side.acts.groups
    return groups if groups is not None and len(groups) == len(layers[0]) else None


def _layer(base: Side, tuned: Side, pair: Pairing, match: Match, found: Matching) -> dict[str, Any]:
    """One row of `cross.layers`; displacement in base layers, and in relative depth, which depths of both sides share."""
    index, indices = pair.place.index or 0, [*base.acts.layers]
    best = None if match.best is None else indices[match.best]
    numbers = {key: value for key, value in asdict(match).items() if key not in ("best", "own")}
    return {
        "index": index,
        "name": tuned.acts.names[index],
        "own_index": indices[match.own],
        "own_name": base.acts.names[indices[match.own]],
        "best_index": best,
        "best_name": None if best is None else base.acts.names[best],
        "displacement": None if best is None else best - indices[match.own],
        "displacement_depth": None if best is None else best / base.depth - index / tuned.depth,
        "null": found.null,
        "null_sd": found.null_sd,
    } | numbers
