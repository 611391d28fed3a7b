"""Whether the leading features of two dictionaries span the same subspace, against random subspaces."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.dictionaries.alignment_row import AlignmentRow, above, mean_and_sd
from tunescope.dictionaries.chance_dictionaries import chance_directions, said
from tunescope.dictionaries.directions import directions, same_width
from tunescope.dictionaries.spectrum import Spectrum
from tunescope.errors import Degenerate, InputError
from tunescope.geometry.measures.drift import angles_between

DRAWS = 10


@dataclass(frozen=True, eq=False)
class Subspaces:
    """The principal angles (m,), ascending, in radians, between the spans of m features a side in width d.

    overlap: mean cos². floor, floor_sd: of two random subspaces, m/d, in closed form. floor_of_covariance: its mean and spread for m
    random directions with the covariance of activations, where those were given.
    """

    angles: Float[Tensor, " m"]
    overlap: float
    width: int
    floor: float
    floor_sd: float
    floor_of_covariance: tuple[float, float] | None = None
    drawn: str | None = None

    def rows(self, sides: str = "a with b", *, ceiling: float | None = None) -> tuple[AlignmentRow, ...]:
        """The overlap against either floor."""
        m = len(self.angles)
        floors = [(self.floor, self.floor_sd, f"random subspaces of {m} dimensions: m/d = {m}/{self.width}")]
        if self.floor_of_covariance is not None:
            floors.append((*self.floor_of_covariance, f"spans of {m} {self.drawn}"))
        note = f"mean cos² of the principal angles between the spans of the {m} features of largest explained share"
        of = None if ceiling is None else "the same dictionary trained from another seed"
        return tuple(
            AlignmentRow(
                "span_overlap", sides, self.overlap, floor, sd, words, ceiling, of, n=m, unit="dimensions", note=note,
                verdict=above(self.overlap, floor, sd=sd, ceiling=ceiling),
            )
            for floor, sd, words in floors
        )


def compare_spans(
    a: Any,
    b: Any,
    *,
    m: int,
    shares_a: Float[Tensor, " n"] | None = None,
    shares_b: Float[Tensor, " n"] | None = None,
    activations: Spectrum | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Subspaces:
    """Principal angles between the spans of the m features with the largest shares (`explained_shares`) of either side, or the first m.

    All features of an overcomplete dictionary span everything, at angle 0; so m is stated, and m < d.

    Args: a, b: a `Dictionary` each or decoder arrays; activations: the spectrum that the second floor is drawn like.

    Raises: InputError (m not within 1 and what there is), Degenerate (the features of a side do not span m dimensions).

    Reference: Björck and Golub 1973, https://doi.org/10.2307/2005662
    """
    left, right = directions(a, "a"), directions(b, "b")
    same_width(left, right)
    width = left.shape[1]
    most = min(len(left), len(right), width - 1)
    if not 1 <= m <= most:
        raise InputError(f"the spans of {m} features asked for; m must be 1 to {most}; all {width} dimensions are one span")
    angles = angles_between(_basis(_leading(left, shares_a, m), "a"), _basis(_leading(right, shares_b, m), "b"))
    drawn = None if activations is None else _drawn(m, width, activations, draws=draws, seed=seed)
    overlap = float(angles.cos().square().mean())
    return Subspaces(angles, overlap, width, *random_overlap(m, width), drawn, None if activations is None else said(activations))


def random_overlap(m: int, d: int) -> tuple[float, float]:
    """Mean and spread of the mean cos² between an m-dimensional subspace and a random one: m/d, √(2/((d−1)(d+2))) · (d−m)/d.

    P − (m/d)I of a projection P is symmetric and traceless: rotations do not mix that space, of dimension (d−1)(d+2)/2, so
    Var tr(PQ) = (m(d−m)/d)² / dimension.
    """
    return m / d, sqrt(2 / ((d - 1) * (d + 2))) * (d - m) / d


def _leading(rows: Tensor, shares: Tensor | None, m: int) -> Tensor:
    if shares is None:
        return rows[:m]
    if len(shares) != len(rows):
        raise InputError(f"{len(shares)} shares given for {len(rows)} features; each feature has one")
    return rows[shares.topk(m).indices]


def _basis(rows: Float[Tensor, "m d"], name: str) -> Float[Tensor, "d m"]:
    left, singular, _ = torch.linalg.svd(rows.double().T, full_matrices=False)
    if singular[-1] <= 1e-6 * singular[0]:
        rank = int((singular > 1e-6 * singular[0]).sum())
        raise Degenerate(f"the {len(rows)} leading features of {name} span {rank} dimensions only; compare the spans of {rank} or fewer")
    return left


def _drawn(m: int, d: int, like: Spectrum, *, draws: int, seed: int) -> tuple[float, float] | None:
    """None where the activations do not vary in m dimensions: any m of their directions span them all."""
    if int((like.values > 0).sum()) <= m:
        return None
    bases = [_basis(chance_directions(m, d, like=like, seed=seed + i), "chance") for i in range(2 * draws)]
    return mean_and_sd([float(angles_between(p, q).cos().square().mean()) for p, q in zip(bases[::2], bases[1::2], strict=True)])
