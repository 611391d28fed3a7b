"""How a probe is trained, by name: which rows, which scaling, which C. The protocol decides more of the accuracy than most tunings do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.errors import UnknownName

SCALINGS = ("raw", "unit", "standardised")
ROUNDING = 1e-12  # of the largest deviation: columns below are left out of the median
DEAD = 1e-6  # a column whose deviation is below this share of the median one is constant: its digits are rounding


@dataclass(frozen=True)
class Protocol:
    """rows: how many training rows, None for all. per_class: that many of every class instead. resamples: independent draws of these.
    scaling: raw, unit (rows of length 1) or standardised (by the training rows). Cs: with more than one, chosen by `folds`-fold
    cross-validated accuracy, the smallest of equals. draws_seed: a seed of the draws that the protocol fixes."""

    name: str
    scaling: str
    Cs: tuple[float, ...]
    rows: int | None = None
    per_class: int | None = None
    resamples: int = 1
    folds: int = 1
    draws_seed: int | None = None

    def as_dict(self, seed: int) -> dict[str, Any]:
        """JSON-able."""
        rows = f"{self.per_class} a class, {self.resamples} draws" if self.per_class else self.rows
        seed = seed if self.draws_seed is None else self.draws_seed
        return {"name": self.name, "rows": rows, "scaling": self.scaling, "Cs": list(self.Cs), "folds": self.folds, "seed": seed}


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("strong", "standardised", (0.001, 0.01, 0.1, 1.0, 10.0), folds=3),
        Protocol("weak", "unit", (1.0,), rows=2000),
        Protocol("mteb", "raw", (1.0,), per_class=8, resamples=10, draws_seed=42),
        Protocol("paper-strong", "raw", tuple(float(C) for C in np.logspace(-4, 4, 10)), folds=5),
        Protocol("paper-weak", "raw", (1.0,), rows=2000),
    )
}


def protocol_of(given: str | Protocol) -> Protocol:
    """A protocol by its name. Raises UnknownName."""
    if isinstance(given, Protocol):
        return given
    if given not in PROTOCOLS:
        raise UnknownName("probe protocol", given, PROTOCOLS)
    return PROTOCOLS[given]


def training_draws(protocol: Protocol, labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """The training rows of each draw, as positions in labels (n,).

    Rows a class are drawn as MTEB draws them: one list of rows, shuffled again for every draw by RandomState(42), and the first eight of
    every class (https://github.com/embeddings-benchmark/mteb, abstasks/classification.py).
    """
    n = len(labels)
    if protocol.per_class is None:
        if protocol.rows is None or protocol.rows >= n:
            return [np.arange(n)]
        return [np.sort(np.random.default_rng(seed).permutation(n)[: protocol.rows])]
    order, draws = list(range(n)), []
    for _ in range(protocol.resamples):
        np.random.RandomState(protocol.draws_seed).shuffle(order)
        shuffled = np.array(order)
        ranks = np.zeros(n, dtype=np.int64)
        for label in np.unique(labels):
            of_class = shuffled[labels[shuffled] == label]
            ranks[of_class] = np.arange(len(of_class))
        draws.append(shuffled[ranks[shuffled] < protocol.per_class])
    return draws


def scaled(train: Tensor, test: Tensor, scaling: str) -> tuple[Tensor, Tensor, int]:
    """Both sides in float32, scaled by the training rows alone, and how many dead columns were set to zero.

    A column is dead where its deviation over the training rows is below 10⁻⁶ of the median one; to standardise it would blow rounding up.
    Raises UnknownName for another scaling.
    """
    if scaling not in SCALINGS:
        raise UnknownName("scaling", scaling, SCALINGS)
    if scaling == "raw":
        return train.float(), test.float(), 0
    train, test = train.double(), test.double()
    if scaling == "unit":
        sides = [rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-300) for rows in (train, test)]
        return sides[0].float(), sides[1].float(), 0
    mean, deviation = train.mean(0), train.std(0, correction=0)
    alive = deviation[deviation > ROUNDING * deviation.max()]
    dead = deviation <= DEAD * (alive.median() if len(alive) else 0.0)
    factor = torch.where(dead, 0.0, 1 / torch.where(dead, 1.0, deviation))
    return ((train - mean) * factor).float(), ((test - mean) * factor).float(), int(dead.sum())
