"""Dictionary against dictionary: rank × rank, layer × layer and seed × seed, each cell with its floor and its ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement, product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.dictionaries.alignment_row import AlignmentRow, above, mean_and_sd
from tunescope.dictionaries.assignment import one_to_one
from tunescope.dictionaries.chance_dictionaries import chance_directions, said
from tunescope.dictionaries.directions import directions, same_width
from tunescope.dictionaries.spectrum import Spectrum
from tunescope.errors import InputError

DRAWS = 3
_DRAWN = "random directions with the covariance of what a side was trained on"
OVER = "above the ceiling: they are closer than two seeds of either"


@dataclass(frozen=True, eq=False)
class AlignmentTable:
    """Mean one-to-one cosines (l, l) of labelled groups of dictionaries, every group being the seeds of one training.

    On the diagonal: seed against seed, NaN where a group has one. floor, floor_sd: a random dictionary in the place of whichever of both
    gives more; drawn: what it is drawn like.
    ceiling: the smaller of the two groups' own diagonals, NaN where either has none. pairs: one to one, of the smallest dictionaries.
    """

    labels: tuple[str, ...]
    values: np.ndarray
    floor: np.ndarray
    floor_sd: np.ndarray
    ceiling: np.ndarray
    drawn: str
    pairs: int

    def rows(self, kind: str = "rank") -> tuple[AlignmentRow, ...]:
        """One for each pair of labels, and for each label with two seeds or more; `kind` says what a label is."""
        cells = combinations_with_replacement(range(len(self.labels)), 2)
        return tuple(self._row(kind, i, j) for i, j in cells if np.isfinite(self.values[i, j]))

    def _row(self, kind: str, i: int, j: int) -> AlignmentRow:
        value, floor, sd = float(self.values[i, j]), float(self.floor[i, j]), float(self.floor_sd[i, j])
        top = float(self.ceiling[i, j]) if i != j and np.isfinite(self.ceiling[i, j]) else None
        sides = f"{kind} {self.labels[i]} with {self.labels[j]}" if i != j else f"{kind} {self.labels[i]}, seed with seed"
        return AlignmentRow(
            f"{kind}_by_{kind}" if i != j else "seed_by_seed", sides, value, floor, sd, self.drawn, top,
            None if top is None else "the smaller of both sides' seed with seed", n=self.pairs, unit="pairs",
            verdict=above(value, floor, sd=sd, ceiling=top), note=None if top is None or value <= top else OVER,
        )


def alignment_table(
    groups: Mapping[str, Sequence[Any]],
    *,
    activations: Spectrum | Mapping[str, Spectrum] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> AlignmentTable:
    """The table of groups of dictionaries, or decoder arrays, by label (a rank, a layer, a seed), in their order.

    A cell is the mean over all pairs of one dictionary from either group. Assignments: one a pair, and `draws` a cell for its floor.

    Args: activations: the spectrum that the random dictionaries are drawn like, one for all or one a label; isotropic without it.

    Raises: InputError (fewer than two dictionaries, an empty group, a label without activations), AlignmentError (widths differ).
    """
    held = {label: [directions(one, f"{label}, {number}") for number, one in enumerate(group)] for label, group in groups.items()}
    if sum(map(len, held.values())) < 2 or not all(held.values()):
        counts = ", ".join(f"{label}: {len(group)}" for label, group in held.items())
        raise InputError(f"dictionaries by group {counts or 'none'}; a table needs two in all, and one in each group")
    labels, size = tuple(held), len(held)
    if isinstance(activations, Mapping) and (missing := [label for label in labels if label not in activations]):
        raise InputError(f"activations of {', '.join(activations) or 'nothing'} given, and none of {', '.join(missing)}; give one a label")
    likes = [activations[label] if isinstance(activations, Mapping) else activations for label in labels]
    values, floor, spread = (np.full((size, size), np.nan) for _ in range(3))
    for i, j in combinations_with_replacement(range(size), 2):
        first, second = held[labels[i]], held[labels[j]]
        both = list(combinations(first, 2) if i == j else product(first, second))
        same_width(first[0], second[0])
        if both:
            values[i, j] = values[j, i] = np.mean([_mean(a, b) for a, b in both])
        floor[i, j], spread[i, j] = _floor(first[0], second[0], likes[i], likes[j], range(seed, seed + draws))
        floor[j, i], spread[j, i] = floor[i, j], spread[i, j]
    drawn = _DRAWN if isinstance(activations, Mapping) else said(activations)
    own, pairs = values.diagonal(), min(len(one) for group in held.values() for one in group)
    return AlignmentTable(labels, values, floor, spread, np.minimum(own[:, None], own[None, :]), drawn, pairs)


def _floor(a: Tensor, b: Tensor, like_a: Spectrum | None, like_b: Spectrum | None, seeds: range) -> tuple[float, float]:
    """Mean and spread with a random dictionary in the place of b, or of a: whichever gives more."""
    for_b = mean_and_sd([_mean(a, chance_directions(*b.shape, like=like_b, seed=seed)) for seed in seeds])
    return for_b if a is b else max(for_b, mean_and_sd([_mean(chance_directions(*a.shape, like=like_a, seed=seed), b) for seed in seeds]))


def _mean(a: Tensor, b: Tensor) -> float:
    return float(one_to_one(a, b)[1][1].mean(dtype=torch.float64))
