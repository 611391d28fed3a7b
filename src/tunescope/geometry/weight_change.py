"""How far tuning moved one tensor of weights, and along how many directions. Knows tensors, never models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.errors import InputError
from tunescope.geometry.spectrum import effective_rank, singular_of_gram, stable_rank
from tunescope.geometry.threads import threads_for

PIECE = 2**22  # elements in float64 at a time: 32 MiB a side
SMALL = 256  # up to this many rows or columns an SVD is as fast as a Gram matrix, and keeps twice its digits


@dataclass(frozen=True)
class WeightChange:
    """W → W + ΔW. Norms are Frobenius norms.

    weight: |W|. update: |ΔW|. frozen: every element is the same. stable_rank, effective_rank: of ΔW; None for vectors, where frozen
    and where left out. rank_reason: why a matrix that changed has no ranks. within_rounding: the share of |ΔW|² in singular values that
    rounding alone could have made, of which the ranks know nothing.
    """

    weight: float
    update: float
    frozen: bool
    stable_rank: float | None = None
    effective_rank: float | None = None
    rank_reason: str | None = None
    within_rounding: float | None = None

    @property
    def relative(self) -> float | None:
        """|ΔW| / |W|; None where W is zero."""
        return self.update / self.weight if self.weight > 0 else None


def weight_change(before: Float[Tensor, "*old"], after: Float[Tensor, "*new"], *, ranks: bool = True) -> WeightChange:
    """The change of one tensor held whole on both sides, read in pieces, summed in float64.

    Tensors of more than two dimensions are read as (first, all others). Singular values that the rounding of `after` to its number
    format would make by itself are taken as zero, so that a merged adapter has the rank of the adapter. Matrices of more than 256 rows
    and columns go through their smaller Gram matrix in float64, which resolves singular values down to 1e-8 √d of the largest.

    Raises: InputError when the shapes differ.
    """
    if before.shape != after.shape:
        raise InputError(f"a tensor of shape {tuple(after.shape)} cannot be the tuned form of one of shape {tuple(before.shape)}")
    w, v = _matrix(before), _matrix(after)
    if not before.is_meta and before.data_ptr() == after.data_ptr() and before.stride() == after.stride():  # one tensor on both sides
        return WeightChange(float(torch.linalg.vector_norm(w, dtype=torch.float64)), 0.0, frozen=True)
    sums = torch.zeros(3, dtype=torch.float64)
    for old, new in _pieces(w, v):
        sums += torch.stack([old.square().sum(), new.square().sum(), (new - old).square().sum()]).cpu()
    weight, tuned, update = sums.sqrt().tolist()
    if update == 0:
        return WeightChange(weight, 0.0, frozen=True)
    change = WeightChange(weight, update, frozen=False)
    if not ranks or before.ndim < 2:
        return change
    with threads_for(rank_work(w.shape)):
        return _ranked(change, _singular_values(w, v), floor=_rounding(v, tuned))


def low_rank_change(
    before: Float[Tensor, "*old"], left: Float[Tensor, "m r"], right: Float[Tensor, "r n"], *, ranks: bool = True
) -> WeightChange:
    """The change ΔW = left·right (a LoRA's scale·B·A), from r×r matrices: ΔW itself is never formed.

    QR of both factors, left = Q₁R₁ and rightᵀ = Q₂R₂, leaves the singular values of ΔW to R₁R₂ᵀ. `before` is W or Wᵀ.

    Raises: InputError when the shapes do not fit.
    """
    if before.numel() != len(left) * right.shape[1]:
        raise InputError(f"factors of shapes {tuple(left.shape)} and {tuple(right.shape)} do not fit a tensor of {tuple(before.shape)}")
    weight = float(sum(piece.square().sum() for piece, _ in _pieces(_matrix(before), _matrix(before)))) ** 0.5
    with threads_for(before.numel()):
        upper = [torch.linalg.qr(_double(factor), mode="r").R for factor in (left, right.mT)]
        singular = torch.linalg.svdvals(upper[0] @ upper[1].mT)
    update = float(singular.norm())
    if update == 0:
        return WeightChange(weight, 0.0, frozen=True)
    change = WeightChange(weight, update, frozen=False)
    return _ranked(change, singular, floor=0.0) if ranks else change


def rank_work(shape: torch.Size | tuple[int, ...]) -> float:
    """Multiply-adds that the singular values of a full tensor of this shape cost."""
    if len(shape) < 2:
        return 0.0
    rows, columns = shape[0], torch.Size(shape[1:]).numel()
    side = min(rows, columns)
    return float(rows * columns * side + 3 * side**3)


def _ranked(change: WeightChange, singular: Tensor, *, floor: float) -> WeightChange:
    kept = singular[singular > floor]
    lost = float(1 - kept.square().sum() / singular.square().sum())
    if not len(kept):
        reason = "no direction of the change stands out from the rounding of the number format"
        return WeightChange(change.weight, change.update, frozen=False, rank_reason=reason, within_rounding=lost)
    return WeightChange(change.weight, change.update, False, stable_rank(kept), effective_rank(kept), within_rounding=lost)


def _singular_values(before: Tensor, after: Tensor) -> Tensor:
    """Of after − before, largest first, in float64."""
    if min(before.shape) <= SMALL and before.numel() <= PIECE:
        return torch.linalg.svdvals(_double(after, like=before) - _double(before))
    if before.shape[0] < before.shape[1]:
        before, after = before.mT, after.mT
    deltas = (new - old for old, new in _pieces(before, after))
    return singular_of_gram(sum((delta.mT @ delta for delta in deltas), start=torch.zeros(())))


def _pieces(before: Tensor, after: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The same rows of both in float64, a few at a time."""
    step = max(1, PIECE // max(1, before.shape[1]))
    for start in range(0, len(before), step):
        rows = slice(start, start + step)
        yield _double(before[rows]), _double(after[rows], like=before)


def _double(tensor: Tensor, *, like: Tensor | None = None) -> Tensor:
    """In float64, on the device of `like`; on the CPU where the device has no float64 (Apple's)."""
    device = (tensor if like is None else like).device
    return tensor.detach().to("cpu" if device.type == "mps" else device).double()


def _matrix(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(len(tensor), -1) if tensor.ndim >= 2 else tensor.detach().reshape(1, -1)


def _rounding(after: Tensor, norm: float) -> float:
    """The largest singular value of rounding alone, errors of eps·|w|/√12 (Marchenko and Pastur's edge), doubled for uneven rows."""
    rows, columns = after.shape
    return 2 * _eps(after) * norm / (12 * rows * columns) ** 0.5 * (rows**0.5 + columns**0.5)


def _eps(tensor: Tensor) -> float:
    """The spacing of the coarsest number format that holds these values: a bfloat16 checkpoint stays one when read as float32."""
    formats = [torch.bfloat16, torch.float16] if tensor.dtype == torch.float32 else []
    for narrow in formats:
        if all(torch.equal(piece.to(narrow).to(piece.dtype), piece) for piece in (tensor[:1], tensor)):
            return torch.finfo(narrow).eps
    return torch.finfo(tensor.dtype).eps
