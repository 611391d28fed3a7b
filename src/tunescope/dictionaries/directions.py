"""The directions that a dictionary writes, and their cosines with those of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.errors import AlignmentError, InputError
from tunescope.geometry.rows import as_array

_CELLS = 32_000_000  # cosines held at a time


def directions(dictionary: Any, name: str = "dictionary") -> Float[Tensor, "n d"]:
    """Unit decoder rows, float32, on the CPU, of a `Dictionary` or a decoder array (n, d); a row of zeros stays one, at cosine 0 from all.

    Raises: AlignmentError (not a matrix), InputError (no latents), ActivationError (NaN or Inf; names the row).
    """
    decoder = dictionary.decoder if isinstance(dictionary, Dictionary) else dictionary
    rows = as_array(decoder, f"the decoder of {name}")
    if not len(rows):
        raise InputError(f"the decoder of {name} has no latents; give one with features")
    return normalize(rows.float().cpu(), dim=1)


def same_width(a: Tensor, b: Tensor) -> None:
    """Raises AlignmentError where directions of one width are compared with those of another."""
    if a.shape[1] != b.shape[1]:
        raise AlignmentError(
            f"a dictionary of width {a.shape[1]} compared with one of width {b.shape[1]}; both must write into the same activations "
            "(a decoder array is (latents, features))"
        )


def cosine_blocks(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Iterator[tuple[int, Float[Tensor, "r m"]]]:
    """Blocks of rows of the cosines a bᵀ, each with the number of its first row."""
    size = max(1, _CELLS // max(1, len(b)))
    for start in range(0, len(a), size):
        yield start, (a[start : start + size] @ b.T).clamp_(-1, 1)


@dataclass(frozen=True, eq=False)
class Nearest:
    """Of every feature of a the k nearest in b, and the other way round, best first; cosines keep their sign."""

    of_a: Float[Tensor, "n k"]
    at_b: Int[Tensor, "n k"]
    of_b: Float[Tensor, "m k"]
    at_a: Int[Tensor, "m k"]


def nearest_features(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], *, k: int = 1) -> Nearest:
    """From one pass over the cosines, a block of them at a time. k is cut to what the other side has."""
    same_width(a, b)
    found, where = [], []
    best, best_at = a.new_empty(0, len(b)), torch.empty(0, len(b), dtype=torch.long)
    for start, block in cosine_blocks(a, b):
        values, indices = block.topk(min(k, len(b)), dim=1)
        found.append(values)
        where.append(indices)
        values, indices = block.topk(min(k, len(block)), dim=0)
        best, best_at = torch.cat([best, values]), torch.cat([best_at, indices + start])
        best, kept = best.topk(min(k, len(best)), dim=0)
        best_at = best_at.gather(0, kept)
    return Nearest(torch.cat(found), torch.cat(where), best.T.contiguous(), best_at.T.contiguous())
