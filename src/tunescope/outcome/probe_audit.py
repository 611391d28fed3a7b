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
SUBSETS = [frozenset(changed) for size in range(4) for changed in itertools.combinations(FACTORS, size)]
Key = tuple[int, float, str]  # rows, C, scaling
WEAK: Key = (2000, 1.0, "unit")
STRONG = "standardised"
UNIT = 1e-5  # how near 1 a length is 1 in float32


@dataclass(frozen=True)
class ProbeAudit:
    """surface: (rows, C, scaling) -> accuracy on the same held-out rows. weak: 2,000 rows, C = 1, unit norm; strong: all rows, the best C
    of the grid, standardised; best: the most accurate of all. swing: strong − weak; range: the largest less the smallest of the surface.
    share: factor -> its part of the swing, averaged over the orders in which the three can be changed (Shapley); they add up to the
    swing. alone: factor -> what changing it alone gives. What C means depends on the scaling, so the factor C is fixed at 1 or chosen
    for the rows and scaling at hand. C is chosen on the held-out rows: an upper end, where the strong probe cross-validates."""

    surface: dict[Key, float]
    weak: Key
    strong: Key
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
            "strong": {**key(self.strong), "accuracy": self.surface[self.strong]},
            "best": {**key(self.best), "accuracy": self.surface[self.best]},
            "swing": self.swing,
            "range": self.range,
            "share": self.share,
            "alone": self.alone,
        }

    @property
    def table(self) -> dict[str, Any]:
        """JSON-able, as the report draws it: accuracy[scaling][rows][C], and `parts`, the shares of the swing."""
        rows, Cs, scalings = (list(dict.fromkeys(axis)) for axis in zip(*self.surface, strict=True))
        accuracy = [[[self.surface[n, C, scaling] for C in Cs] for n in rows] for scaling in scalings]
        return {"rows": rows, "Cs": Cs, "scalings": scalings, "accuracy": accuracy, "swing": self.swing, "parts": self.share}


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
    all. scalings: unit and standardised are always among them. The weak corner is 2,000 rows (or the largest size below all), C = 1,
    unit-norm rows. test: as `probe` takes it.

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
    scalings = [scaling for scaling in SCALINGS if scaling in scalings or scaling in (WEAK[2], STRONG)]
    surface, unconverged = _surface(values, task, sizes, Cs, scalings, seed)
    weak: Key = (max(size for size in sizes[:-1] if size <= max(WEAK[0], sizes[0])), *WEAK[1:])
    corners = {changed: _corner(surface, weak, len(task.train), scalings[-1], changed) for changed in SUBSETS}
    strong = corners[frozenset(FACTORS)]
    share, alone = decomposed({changed: surface[corner] for changed, corner in corners.items()})
    return ProbeAudit(
        surface=surface,
        weak=weak,
        strong=strong,
        best=max(surface, key=lambda key: surface[key]),
        swing=surface[strong] - surface[weak],
        range=max(surface.values()) - min(surface.values()),
        share=share,
        alone=alone,
        train=len(task.train),
        test=len(task.test),
        classes=task.classes,
        majority=task.majority,
        unconverged=tuple(unconverged),
    )


def decomposed(values: dict[frozenset[str], float]) -> tuple[dict[str, float], dict[str, float]]:
    """(Shapley shares, effects alone) of three factors, from the value with each subset of them changed.

    φᵢ = Σ_S |S|!(2−|S|)!/3! · (v(S ∪ i) − v(S)) over the subsets S of the others; the shares add up to v(all) − v(none).
    Reference: Shapley 1953, https://doi.org/10.1515/9781400881970-018
    """
    share = {}
    for factor in FACTORS:
        without = [subset for subset in SUBSETS if factor not in subset]
        weights = [factorial(len(subset)) * factorial(2 - len(subset)) / 6 for subset in without]
        share[factor] = sum(w * (values[subset | {factor}] - values[subset]) for w, subset in zip(weights, without, strict=True))
    return share, {factor: values[frozenset({factor})] - values[frozenset()] for factor in FACTORS}


def _corner(surface: dict[Key, float], weak: Key, rows: int, scaling: str, changed: frozenset[str]) -> Key:
    """The configuration with some factors as in strong and the others as in weak."""
    rows, scaling = rows if "rows" in changed else weak[0], scaling if "scaling" in changed else weak[2]
    if "C" not in changed:
        return rows, weak[1], scaling
    return max((key for key in surface if (key[0], key[2]) == (rows, scaling)), key=lambda key: (surface[key], -key[1]))


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
    normal = bool(((rows.norm(dim=1) - 1).abs() < UNIT).all())
    for size, scaling in itertools.product(sizes, scalings):
        if normal and scaling == "unit" and "raw" in scalings:  # as the model deploys them: one and the same
            found |= {(size, C, scaling): found[size, C, "raw"] for C in Cs}
            unconverged += [(size, C, scaling) for C in Cs if (size, C, "raw") in unconverged]
            continue
        kept = task.train[np.sort(order[:size])]
        train, held, _ = scaled(rows[torch.from_numpy(kept)], test, scaling)
        for fit in solve([Problem(train, torch.from_numpy(task.labels[kept]), task.classes)], Cs)[0]:
            found[size, fit.C, scaling] = float((fit.predict(held) == truth).double().mean())
            unconverged += [] if fit.converged else [(size, fit.C, scaling)]
    return found, unconverged
