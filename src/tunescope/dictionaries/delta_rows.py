"""Rows that an autoencoder is trained on: what it asks of them, and rows that lie in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tunescope.errors import ActivationError, InputError


class DeltaRows(Protocol):
    """Rows (rows, d) that are read in full batches, in an order that is a pure function of seed and epoch."""

    @property
    def rows(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def mean(self) -> Tensor:
        """(d,) float64, of all rows."""

    @property
    def rms(self) -> float:
        """sqrt(E|Δ − mean|² / d)."""

    def batches(self, batch_size: int, *, seed: int, epoch: int, skip: int = 0) -> Iterator[Tensor]:
        """Batches (batch_size, d) float32, from batch `skip` on; rows that fill no whole batch are left out of this epoch."""


class ArrayRows:
    """An array (rows, d) as `DeltaRows`.

    Raises: InputError (not a matrix of numbers), ActivationError (NaN or Inf: names the row).
    """

    def __init__(self, array: Any):
        self.array = torch.as_tensor(np.asarray(array) if not isinstance(array, Tensor) else array.detach().cpu()).float()
        if self.array.dim() != 2 or not self.array.numel():
            raise InputError(f"rows of shape {tuple(self.array.shape)} given; (rows, features), with at least one of each, is needed")
        if not self.array.isfinite().all():
            row = int((~self.array.isfinite()).any(1).nonzero()[0])
            raise ActivationError(f"row {row} of {len(self.array):,} has NaN or Inf; leave such rows out, or find what made them")
        self.rows, self.width = self.array.shape
        self.mean = self.array.mean(0, dtype=torch.float64)
        self.rms = float(((self.array - self.mean.float()).double().square().sum(1).mean() / self.width).sqrt())

    def batches(self, batch_size: int, *, seed: int, epoch: int, skip: int = 0) -> Iterator[Tensor]:
        """Batches of a permutation of all rows."""
        order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(self.rows))
        for start in range(skip * batch_size, self.rows - batch_size + 1, batch_size):
            yield self.array[order[start : start + batch_size]]
