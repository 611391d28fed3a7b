"""Feature activations of many tokens, sparse: n tokens with k active features are compared in n · k² steps, not n · latents²."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse, vstack
from torch import Tensor

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.errors import AlignmentError

SHUFFLED = "tokens of one side shuffled"
_PRODUCTS = 50_000_000  # products of active features held at a time


def codes_of(dictionary: Dictionary, batches: Iterable[Tensor]) -> csr_array:
    """The feature activations (n, latents) of all batches of rows, sparse, float32: 8 bytes an active feature."""
    return vstack([csr_array(dictionary.encode(x).cpu().numpy()) for x in batches], format="csr")


def latent_blocks(x: csr_array, y: csr_array) -> list[slice]:
    """Runs of x's latents whose products with y's are few enough to hold: each place of x meets the active ones of y in its row."""
    meets = np.bincount(x.indices, weights=np.repeat(np.diff(y.indptr), np.diff(x.indptr)), minlength=x.shape[1])
    cuts = np.flatnonzero(np.diff(meets.cumsum() // _PRODUCTS)) + 1
    edges = [0, *cuts.tolist(), x.shape[1]]
    return [slice(low, high) for low, high in zip(edges, edges[1:], strict=False) if high > low]


def paired(a: Any, b: Any) -> tuple[csr_array, csr_array]:
    """Both sides sparse, float64; scipy's sparse arrays, numpy or torch. Raises AlignmentError for other numbers of rows."""
    x, y = (_sparse(side) for side in (a, b))
    if x.shape[0] != y.shape[0]:
        raise AlignmentError(f"a has activations on {x.shape[0]:,} tokens and b on {y.shape[0]:,}; row i of both must be the same token")
    return x, y


def _sparse(side: Any) -> csr_array:
    return csr_array(side if issparse(side) else np.asarray(side.cpu() if isinstance(side, Tensor) else side), dtype=np.float64)


def binary(side: csr_array) -> csr_array:
    """1 where a feature is active."""
    kept = side.copy()
    kept.eliminate_zeros()
    kept.data = np.ones_like(kept.data)
    return kept
