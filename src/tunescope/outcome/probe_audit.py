"""How much of a probe's accuracy is its configuration: the same rows under every number of rows × C × scaling."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.errors import InputError, UnknownName
from tunescope.outcome.logistic import Problem, solve
from tunescope.outcome.probe_protocols import SCALINGS, scaled
from tunescope.outcome.probe_scores import Task
from tunescope.outcome.probes import as_rows, make_task

CS = (0.01, 0.1, 1.0, 10.0, 100.0)
FACTORS = ("rows", "C", "scaling")
Key = tuple[int, float, str]  # rows, C, scaling
WEAK: Key = (2000, 1.0, "unit")


@dataclass(frozen=True)
class ProbeAudit:
    """surface: (rows, C, scaling) -> accuracy on the same held-out rows. weak: the paper's weak configuration; best: the most accurate
    one with all rows. swing: best − weak; range: the largest less the smallest of the surface. share: factor -> its part of the swing,
    averaged over the orders in which the three can be changed (Shapley); the three add up to the swing. alone: factor -> what changing
    it alone from weak to best gives."""

    surface: dict[Key, float]
    weak: Key
    best: Key
    swing: float
    range: float
    share: dict[str, float]
    alone: dict[str, float]
    train: int
    test: int
    classes: int
    majority: float
    unconverged: tuple[Key, ...]

    def flag(self, effect: float) -> str | None:
        """What must be said of an effect in accuracy that is smaller than the swing, or None."""
        if abs(effect) >= abs(self.swing):
            return None
        return (
            f"an effect of {effect:+.3f} is smaller than what the probe's configuration alone moves ({self.swing:.3f}): "
            "trust it only from a strongly configured probe"
        )

    @property
    def detail(self) -> dict[str, Any]:
        """JSON-able."""

        def key(of: Key) -> dict[str, Any]:
            return dict(zip(FACTORS, of, strict=True))

        return {
            "kind": "probe-audit",
            "train": self.train,
            "test": self.test,
            "classes": self.classes,
            "majority": self.majority,
            "surface": [
                {**key(of), "accuracy": accuracy, "converged": of not in self.unconverged} for of, accuracy in self.surface.items()
            ],
            "weak": {**key(self.weak), "accuracy": self.surface[self.weak]},
            "best": {**key(self.best), "accuracy": self.surface[self.best]},
            "swing": self.swing,
            "range": self.range,
            "share": self.share,
            "alone": self.alone,
        }


def probe_audit(
    rows: Any,
    labels: Sequence[Any],
    *,
    test: Any = 0.25,
    sizes: Sequence[int] | None = None,
    Cs: Sequence[float] = CS,
    scalings: Sequence[str] = SCALINGS,
    seed: int = 0,
) -> ProbeAudit:
    """Accuracy of a linear probe on one model's rows (n, d) under every number of training rows, C and scaling.

    sizes: numbers of training rows, nested (each draw is part of the larger ones); all rows are always among them; default 500, 2,000 and
    all. The weak corner is 2,000 rows (or the largest size below all), C = 1, unit-norm rows. test: as `probe` takes it.

    Raises InputError (a C or a size that is not positive, sizes that leave nothing but all rows), UnknownName (scaling), and what `probe`
    raises.
    """
    values = as_rows(rows, "rows")
    if len(values) != len(labels):
        raise InputError(f"there are {len(values):,} rows and {len(labels):,} labels; give one label a row")
    task, _ = make_task(labels, test, seed=seed)
    sizes = _sizes(sizes, len(task.train))
    Cs = sorted({float(C) for C in Cs} | {WEAK[1]})
    if min(Cs) <= 0:
        raise InputError(f"C={min(Cs):g} asked for; it must be positive")
    for scaling in scalings:
        if scaling not in SCALINGS:
            raise UnknownName("scaling", scaling, SCALINGS)
    scalings = [scaling for scaling in SCALINGS if scaling in scalings or scaling == WEAK[2]]
    surface, unconverged = _surface(values, task, sizes, Cs, scalings, seed)
    weak: Key = (max(size for size in sizes[:-1] if size <= max(WEAK[0], sizes[0])), *WEAK[1:])
    best = max((key for key in surface if key[0] == len(task.train)), key=lambda key: (surface[key], -key[1]))
    share, alone = decomposed(surface, weak, best)
    return ProbeAudit(
        surface=surface,
        weak=weak,
        best=best,
        swing=surface[best] - surface[weak],
        range=max(surface.values()) - min(surface.values()),
        share=share,
        alone=alone,
        train=len(task.train),
        test=len(task.test),
        classes=task.classes,
        majority=task.majority,
        unconverged=tuple(unconverged),
    )


def decomposed(surface: dict[Key, float], weak: Key, best: Key) -> tuple[dict[str, float], dict[str, float]]:
    """(Shapley shares, effects alone) of the three factors between two corners: φᵢ = Σ_S |S|!(2−|S|)!/3! · (a(S ∪ i) − a(S)), where S is
    set as in best and the rest as in weak. Reference: Shapley 1953, https://doi.org/10.1515/9781400881970-018"""

    def at(changed: frozenset[int]) -> float:
        return surface[tuple(best[i] if i in changed else weak[i] for i in range(3))]  # type: ignore[index]

    share, alone = {}, {}
    for i, factor in enumerate(FACTORS):
        others = [j for j in range(3) if j != i]
        subsets = [frozenset(s) for size in range(3) for s in itertools.combinations(others, size)]
        share[factor] = sum(factorial(len(s)) * factorial(2 - len(s)) / 6 * (at(s | {i}) - at(s)) for s in subsets)
        alone[factor] = at(frozenset({i})) - at(frozenset())
    return share, alone


def _sizes(sizes: Sequence[int] | None, train: int) -> list[int]:
    if sizes is None:
        sizes = (500, 2000) if train > 2000 else (max(2, train // 4), max(3, train // 2))
    if any(isinstance(size, bool) or size < 2 for size in sizes):
        raise InputError(f"sizes {list(sizes)} asked for; a probe needs 2 training rows or more")
    kept = sorted({size for size in sizes if size < train})
    if not kept:
        raise InputError(f"sizes {list(sizes)} asked for and there are {train:,} training rows; give a size below that")
    return [*kept, train]


def _surface(
    rows: Tensor, task: Task, sizes: Sequence[int], Cs: Sequence[float], scalings: Sequence[str], seed: int
) -> tuple[dict[Key, float], list[Key]]:
    order = np.random.default_rng(seed).permutation(len(task.train))
    test, truth = rows[torch.from_numpy(task.test)], torch.from_numpy(task.labels[task.test])
    found: dict[Key, float] = {}
    unconverged: list[Key] = []
    for size, scaling in itertools.product(sizes, scalings):
        kept = task.train[np.sort(order[:size])]
        train, held, _ = scaled(rows[torch.from_numpy(kept)], test, scaling)
        for fit in solve([Problem(train, torch.from_numpy(task.labels[kept]), task.classes)], Cs)[0]:
            found[size, fit.C, scaling] = float((fit.predict(held) == truth).double().mean())
            unconverged += [] if fit.converged else [(size, fit.C, scaling)]
    return found, unconverged
