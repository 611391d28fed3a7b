"""Linear probes of many sets of rows at once: the chosen C, and how every held-out row was answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.errors import NotEnoughRows
from tunescope.outcome.logistic import Fit, Problem, solve
from tunescope.outcome.probe_protocols import Protocol, scaled, training_draws


@dataclass(frozen=True)
class Task:
    """labels (n,) in 0 … classes−1, and which rows train and test, as positions."""

    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray
    classes: int

    @property
    def majority(self) -> float:
        """Accuracy of the answer that is most frequent in training."""
        most = np.bincount(self.labels[self.train], minlength=self.classes).argmax()
        return float((self.labels[self.test] == most).mean())


@dataclass(frozen=True)
class Scores:
    """correct: (t,) per held-out row, the share of draws that answered it rightly. C: the first draw's. cv: accuracy of each C over the
    folds. gap, gradient: the worst of all fits, see `logistic.Fit`. dead: columns without variance. control: accuracy of the same probe
    on permuted labels."""

    correct: np.ndarray
    macro_f1: float
    C: float
    rows: int
    converged: bool
    gap: float
    gradient: float
    dead: int
    cv: dict[float, float]
    at_edge: bool
    control: float | None

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        selectivity = None if self.control is None else self.accuracy - self.control
        told = {"C": self.C, "rows": self.rows, "converged": self.converged, "gap": self.gap, "gradient": self.gradient, "dead": self.dead}
        cv = {f"{C:g}": accuracy for C, accuracy in self.cv.items()}
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1, "selectivity": selectivity, **told, "cv": cv, "at_edge": self.at_edge}


def probe_scores(
    sets: Sequence[Tensor], task: Task, protocol: Protocol, *, seed: int = 0, control: bool = False, device: str = "cpu"
) -> list[Scores]:
    """Probe every set of rows (n, d) by one protocol; all fits of one width are solved together.

    Raises NotEnoughRows when there are fewer training rows than folds.
    """
    labels = task.labels[task.train]
    if len(labels) < protocol.folds:
        raise NotEnoughRows(f"{len(labels):,} training rows for {protocol.folds} folds; give more rows, or a protocol with fewer folds")
    draws = training_draws(protocol, labels, seed)
    parts = [[_draw(rows, task, draw, protocol, device) for draw in draws] for rows in sets]
    flat = [part for several in parts for part in several]
    y = [torch.from_numpy(labels[draw]).to(device) for _ in sets for draw in draws]
    cvs = _cross_validate([train for train, _, _ in flat], y, task.classes, protocol, seed)
    Cs = [_best(cv) if cv else protocol.Cs[0] for cv, _ in cvs]
    fits = _solve_each([Problem(train, own, task.classes) for (train, _, _), own in zip(flat, y, strict=True)], Cs)
    controls = _control(flat, y, Cs, task, seed) if control else [None] * len(flat)
    scores = []
    for place in range(len(sets)):
        own = slice(place * len(draws), (place + 1) * len(draws))
        scores.append(_scores(flat[own], fits[own], cvs[own], controls[own], task, protocol))
    return scores


def _draw(rows: Tensor, task: Task, draw: np.ndarray, protocol: Protocol, device: str) -> tuple[Tensor, Tensor, int]:
    train, test = rows[torch.from_numpy(task.train[draw])].to(device), rows[torch.from_numpy(task.test)].to(device)
    return scaled(train, test, protocol.scaling)


def _cross_validate(
    trains: Sequence[Tensor], y: Sequence[Tensor], classes: int, protocol: Protocol, seed: int
) -> list[tuple[dict[float, float], list[Fit]]]:
    """For each problem the mean held-out accuracy of every C over stratified folds, and the fits; nothing where one C is given."""
    if len(protocol.Cs) < 2:
        return [({}, [])] * len(trains)
    masks = [fold_of(own.cpu().numpy(), protocol.folds, seed) for own in y]
    places = [(i, fold) for i in range(len(trains)) for fold in range(protocol.folds)]
    kept = {(i, fold): torch.from_numpy(masks[i] != fold).to(trains[i].device) for i, fold in places}
    problems = [Problem(trains[i][kept[i, fold]], y[i][kept[i, fold]], classes) for i, fold in places]
    paths = dict(zip(places, solve(problems, protocol.Cs), strict=True))
    found = []
    for i in range(len(trains)):
        accuracy = np.zeros(len(protocol.Cs))
        for fold in range(protocol.folds):
            held = ~kept[i, fold]
            accuracy += [float((fit.predict(trains[i][held]) == y[i][held]).double().mean()) for fit in paths[i, fold]]
        fits = [fit for fold in range(protocol.folds) for fit in paths[i, fold]]
        found.append((dict(zip(protocol.Cs, (accuracy / protocol.folds).tolist(), strict=True)), fits))
    return found


def fold_of(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(n,) the fold of each row: class after class is dealt out in turn, each in an order drawn by seed."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = np.arange(len(labels)) % folds
    return fold


def _best(cv: dict[float, float]) -> float:
    """The smallest C of the best accuracy."""
    top = max(cv.values())
    return min(C for C, accuracy in cv.items() if accuracy >= top - 1e-12)


def _solve_each(problems: Sequence[Problem], Cs: Sequence[float]) -> list[Fit]:
    """Every problem at its own C; those of one C together."""
    fits: dict[int, Fit] = {}
    for C in sorted(set(Cs)):
        places = [place for place, own in enumerate(Cs) if own == C]
        for place, path in zip(places, solve([problems[place] for place in places], (C,)), strict=True):
            fits[place] = path[0]
    return [fits[place] for place in range(len(problems))]


def _control(
    parts: Sequence[tuple[Tensor, Tensor, int]], y: Sequence[Tensor], Cs: Sequence[float], task: Task, seed: int
) -> list[float]:
    """Accuracy with training and held-out labels permuted among themselves: the marginals stay and the information goes."""
    draw = np.random.default_rng(seed)
    permuted = [own[torch.from_numpy(draw.permutation(len(own))).to(own.device)] for own in y]
    answers = torch.from_numpy(task.labels[task.test][draw.permutation(len(task.test))])
    fits = _solve_each([Problem(train, own, task.classes) for (train, _, _), own in zip(parts, permuted, strict=True)], Cs)
    return [float((fit.predict(test).cpu() == answers).double().mean()) for fit, (_, test, _) in zip(fits, parts, strict=True)]


def _scores(
    parts: Sequence[tuple[Tensor, Tensor, int]],
    fits: Sequence[Fit],
    cvs: Sequence[tuple[dict[float, float], list[Fit]]],
    controls: Sequence[float | None],
    task: Task,
    protocol: Protocol,
) -> Scores:
    from sklearn.metrics import f1_score

    truth = task.labels[task.test]
    answers = [fit.predict(test).cpu().numpy() for fit, (_, test, _) in zip(fits, parts, strict=True)]
    present = np.unique(truth)
    cv, tried = cvs[0]
    every = [*fits, *(fit for _, several in cvs for fit in several)]
    known = [control for control in controls if control is not None]
    return Scores(
        correct=np.mean([answer == truth for answer in answers], axis=0),
        macro_f1=float(np.mean([f1_score(truth, answer, labels=present, average="macro", zero_division=0) for answer in answers])),
        C=fits[0].C,
        rows=len(parts[0][0]),
        converged=all(fit.converged for fit in every),
        gap=max(fit.gap for fit in every),
        gradient=max(fit.gradient for fit in every),
        dead=parts[0][2],
        cv=cv,
        at_edge=bool(tried) and fits[0].C in (min(protocol.Cs), max(protocol.Cs)),
        control=float(np.mean(known)) if known else None,
    )
