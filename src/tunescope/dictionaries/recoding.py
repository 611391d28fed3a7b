"""Rows coded anew with a frozen decoder: the best a dictionary's features can do at a number of active ones, whatever its encoder does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import embedding_bag

from tunescope.dictionaries.directions import directions, same_width
from tunescope.errors import InputError
from tunescope.geometry.rows import as_array

_CELLS = 4_000_000  # of chosen directions, and of cosines, held at a time: what a processor's cache holds
_LEAST = 128  # rows a time, at least: below, the products are not worth starting
_FOUND = 1e-5  # correlation with what is left, against the row's norm, below which no feature has more to say


@dataclass(frozen=True, eq=False)
class Recoding:
    """Codes of rows in unit directions: x̂ = offset + Σ value · direction. Places that hold no feature have value 0."""

    latent: Int[Tensor, "rows k"]
    value: Float[Tensor, "rows k"]
    reconstruction: Float[Tensor, "rows d"]

    @property
    def l0(self) -> float:
        """Mean number of active features in a row."""
        return float((self.value != 0).sum(1).double().mean())


def recode(x: Any, decoder: Any, *, active: int | None, nonnegative: bool = True, offset: Float[Tensor, " d"] | None = None) -> Recoding:
    """Matching pursuit, orthogonal: feature after feature, the one most correlated with what is left, all values solved anew each time.

    nonnegative: values stay at or above 0, as a sparse autoencoder's are, by Lawson and Hanson's active set, in which a feature that
    turned negative is given up; it is stopped once `active` features are in. With active=None it runs to the end, the non-negative
    least squares over the whole dictionary (as many features at a time as the width, at most). Otherwise values have either sign
    (sklearn's `orthogonal_mp`). Costs rows · n · d multiply-adds for each active feature, on the device of x: give a
    sample of rows where n is large.

    Args:
        x: (rows, d). decoder: a `Dictionary` or an array (n, d), scaled to unit rows. active: features a row, at most.
        offset: (d,) what is taken off each row before and put back after: the mean of the rows the dictionaries were trained on.

    Raises: InputError (active outside 1–n; active=None for values of either sign), AlignmentError, ActivationError.

    Reference: Pati et al. 1993, https://doi.org/10.1109/ACSSC.1993.342465; Bruckstein et al. 2008, https://doi.org/10.1109/TIT.2008.929920
    """
    rows = as_array(x, "rows").float()
    atoms = directions(decoder).to(rows.device)
    same_width(rows, atoms)
    if active is None and not nonnegative:
        raise InputError("active=None with values of either sign would be least squares; name a number of active features")
    if active is not None and not 1 <= active <= len(atoms):
        raise InputError(f"{active} active features asked of a dictionary of {len(atoms):,}; it must be 1 to {len(atoms):,}")
    most = min(rows.shape[1], len(atoms)) if active is None else active
    centre = rows.new_zeros(rows.shape[1]) if offset is None else offset.to(rows)
    size = max(_LEAST, min(_CELLS // (most * atoms.shape[1]), _CELLS // len(atoms)))
    parts = [_Pursuit(block - centre, atoms, most, nonnegative).run() for block in rows.split(size)]
    latent, value = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    return Recoding(latent, value, centre + embedding_bag(latent, atoms, per_sample_weights=value, mode="sum"))


class _Pursuit:
    """The pursuit of one block of b rows, k places each. Small systems are solved in float64."""

    def __init__(self, x: Shaped[Tensor, "b d"], atoms: Float[Tensor, "n d"], k: int, nonnegative: bool):
        self.x, self.atoms, self.nonnegative = x, atoms, nonnegative
        b = len(x)
        self.scale = x.norm(dim=1)
        self.latent = torch.zeros(b, k, dtype=torch.long, device=x.device)
        self.chosen = x.new_zeros(b, k, x.shape[1])
        self.gram = x.new_zeros(b, k, k, dtype=torch.float64)
        self.target = x.new_zeros(b, k, dtype=torch.float64)
        self.value = x.new_zeros(b, k, dtype=torch.float64)
        self.taken = x.new_zeros(b, k, dtype=torch.bool)
        self.open = x.new_ones(b, dtype=torch.bool)
        self.used = 0  # places beyond are free in every row

    def run(self) -> tuple[Int[Tensor, "b k"], Float[Tensor, "b k"]]:
        """As many steps as places, and as many again for rows that gave features up."""
        left = self.x
        for _ in range((3 if self.nonnegative else 1) * self.latent.shape[1]):
            self.open &= ~self.taken.all(1)
            at, latent = self._next(left)
            if not len(at):
                break
            slots = (~self.taken[at]).int().argmax(1)
            self.used = max(self.used, int(slots.max()) + 1)
            self._take(at, slots, latent)
            self._solve(at)
            # a feature that leaves at once had nothing to give but rounding
            self.open[at] &= self.taken[at, slots]
            left = self.x - torch.bmm(self.value[:, None, : self.used].float(), self.chosen[:, : self.used])[:, 0]
        return self.latent, self.value.float()

    def _next(self, left: Float[Tensor, "b d"]) -> tuple[Int[Tensor, " r"], Int[Tensor, " r"]]:
        """The rows for which a feature is found, and that feature."""
        at = self.open.nonzero()[:, 0]
        whole = len(at) == len(left)
        correlation = (left if whole else left[at]) @ self.atoms.T
        if not self.nonnegative:
            correlation.abs_()
        row, place = self.taken[at].nonzero(as_tuple=True)
        correlation[row, self.latent[at][row, place]] = -1.0
        best, latent = correlation.max(dim=1) if len(at) else (correlation.new_empty(0), at)
        found = best > _FOUND * self.scale[at]
        self.open[at] = found
        return at[found], latent[found]

    def _take(self, at: Int[Tensor, " r"], slots: Int[Tensor, " r"], latent: Int[Tensor, " r"]) -> None:
        direction = self.atoms[latent]
        self.chosen[at, slots] = direction
        # all rows at once: without indices the chosen directions, the largest array there is, are not copied
        wanted = self.x.new_zeros(len(self.x), self.x.shape[1])
        wanted[at] = direction
        products = torch.bmm(self.chosen[:, : self.used], wanted[:, :, None])[at, :, 0].double()
        self.gram[at, slots, : self.used] = products
        self.gram[at, : self.used, slots] = products
        self.target[at, slots] = (self.x[at] * direction).sum(1).double()
        self.latent[at, slots] = latent
        self.taken[at, slots] = True
        self.value[at, slots] = 0.0

    def _solve(self, at: Int[Tensor, " r"]) -> None:
        used = self.used
        gram, target, value, taken = self.gram[at, :used, :used], self.target[at, :used], self.value[at, :used], self.taken[at, :used]
        solution = _least_squares(gram, target, taken)
        while self.nonnegative and bool((negative := taken & (solution <= 0)).any()):
            rows = negative.any(1)
            # as far towards the solution as no value turns negative; what stops it is given up
            way = torch.where(negative, value / (value - solution).clamp_min(1e-300), torch.inf)
            step, first = way.min(dim=1)
            value[rows] += step[rows, None] * (solution - value)[rows]
            value[rows, first[rows]] = 0.0
            taken[rows] &= value[rows] > 0
            value = torch.where(taken, value, 0.0)
            solution[rows] = _least_squares(gram[rows], target[rows], taken[rows])
        self.value[at, :used], self.taken[at, :used] = torch.where(taken, solution, 0.0), taken


def _least_squares(gram: Float[Tensor, "b k k"], target: Float[Tensor, "b k"], taken: Bool[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """The values of the taken places, 0 elsewhere; the ridge, 1e-9 of a unit direction, keeps features that are all but the same apart."""
    both = taken[:, :, None] & taken[:, None]
    system = torch.where(both, gram, 0.0)
    system.diagonal(dim1=1, dim2=2).add_(torch.where(taken, 1e-9, 1.0))
    factor, _ = torch.linalg.cholesky_ex(system)
    return torch.cholesky_solve(torch.where(taken, target, 0.0)[:, :, None], factor)[:, :, 0]
