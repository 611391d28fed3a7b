"""Is the information linearly there, layer by layer: the same probe on base and tuned, judged on the same held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.errors import ActivationError, AlignmentError, InputError, TextsError
from tunescope.outcome.outcome import Outcome
from tunescope.outcome.probe_protocols import Protocol, protocol_of
from tunescope.outcome.probe_scores import Scores, Task, probe_scores
from tunescope.stats import Paired, paired

OUTPUT = "output"
TEST_SHARE = 0.25

Place = int | str


@dataclass(frozen=True)
class ProbeResult:
    """Base and tuned under one protocol at every place, and under others beside it.

    outcomes: one row a place and metric accuracy, the main place first. scores: protocol -> place -> (base, tuned). main: the place that
    the task is judged by. per_row: place -> (base, tuned), each (t,), what every held-out row got. detail: JSON-able.
    """

    outcomes: tuple[Outcome, ...]
    detail: dict[str, Any]
    scores: dict[str, dict[Place, tuple[Scores, Scores]]]
    task: Task
    main: Place
    warnings: tuple[str, ...] = field(default=())

    @property
    def per_row(self) -> dict[Place, tuple[np.ndarray, np.ndarray]]:
        return {place: (base.correct, tuned.correct) for place, (base, tuned) in self.scores[self.detail["protocol"]["name"]].items()}


def probe(
    base_rows: Any,
    tuned_rows: Any,
    labels: Sequence[Any],
    *,
    test: Any = TEST_SHARE,
    protocol: str | Protocol = "strong",
    beside: Sequence[str | Protocol] = ("weak", "mteb"),
    margin: float = 0.01,
    control: bool = True,
    seed: int = 0,
    name: str = "probe",
    device: str = "cpu",
) -> ProbeResult:
    """Accuracy of a linear probe on base and on tuned rows, and the paired difference over held-out rows.

    base_rows, tuned_rows: (n, d) and (n, e), or {layer or site: such rows} with the same keys on both sides; row i is text i. The place
    "output" is the one the task is judged by, else the last. labels: (n,) classes, anything that can be compared. test: which rows are
    held out, as (n,) booleans or as positions; or a share, of every class, drawn by seed. protocol: strong (all training rows,
    standardised, C by cross-validation), weak, mteb, paper-strong, paper-weak, or a `Protocol`. beside: protocols that are shown beside
    it. margin: the difference in accuracy that would not matter. control: also probe permuted labels; accuracy less theirs is selectivity.

    p is exact McNemar's, or of random signs where a protocol draws its training rows several times.

    Raises AlignmentError (rows and labels of different number, places that differ), TextsError (one class only, a label that only test
    rows have), InputError (test, shapes), ActivationError (NaN or Inf), NotEnoughRows, UnknownName (protocol).
    """
    chosen = protocol_of(protocol)
    others = [protocol_of(one) for one in dict.fromkeys(beside) if protocol_of(one).name != chosen.name]
    base, tuned = _places(base_rows, "base_rows"), _places(tuned_rows, "tuned_rows")
    if list(base) != list(tuned):
        raise AlignmentError(f"base_rows has {_listed(base)} and tuned_rows {_listed(tuned)}; give both the same layers and sites")
    task, classes = _task(labels, test, {**_named(base, "base_rows"), **_named(tuned, "tuned_rows")}, seed)
    scores = {
        one.name: _both(base, tuned, task, one, seed, control=control and one is chosen, device=device) for one in (chosen, *others)
    }
    main: Place = OUTPUT if OUTPUT in base else list(base)[-1]
    comparisons = {place: compare(*pair, margin=margin, seed=seed) for place, pair in scores[chosen.name].items()}
    order = [main, *(place for place in base if place != main)]
    outcomes = tuple(
        Outcome.of(comparisons[place], kind="probe", name=name, metric="accuracy", items="held-out texts", layer=_layer(place),
                   main=place == main)
        for place in order
    )  # fmt: skip
    detail = _detail(name, classes, task, chosen, scores, comparisons, seed)
    return ProbeResult(outcomes, detail, scores, task, main, tuple(_warnings(detail, scores[chosen.name], task, main)))


def compare(base: Scores, tuned: Scores, *, margin: float, seed: int) -> Paired:
    """Paired over held-out rows; p of exact McNemar where each row is right or wrong."""
    found = paired(base.correct, tuned.correct, margin=margin, seed=seed)
    if base is not tuned or found.low is None:
        return found
    found = replace(found, low=0.0, high=0.0)  # the very same rows: nothing is left to chance
    return replace(found, equivalence_p=0.0, verdict="equivalent") if margin > 0 else found


def make_task(labels: Sequence[Any], test: Any, *, seed: int = 0) -> tuple[Task, tuple[str, ...]]:
    """Labels and held-out rows, checked, and the classes' names.

    Raises TextsError (a missing label, one class only, a label that only test rows have), InputError (test).
    """
    names = np.asarray(["" if _missing(label) else str(label) for label in labels])
    if (names == "").any():
        missing = np.flatnonzero(names == "")
        raise TextsError(f"{len(missing):,} of {len(names):,} labels are missing (row {missing[0]} first); leave these rows out")
    held = _held_out(names, test, seed)
    train, tested = np.flatnonzero(~held), np.flatnonzero(held)
    if not len(train) or not len(tested):
        raise InputError(f"test leaves {len(train):,} rows to train and {len(tested):,} to test; both need some")
    classes = np.unique(names[train])
    if len(classes) < 2:
        raise TextsError(f"all training rows have one class, '{classes[0]}'; a probe needs two or more")
    new = ~np.isin(names[tested], classes)
    if new.any():
        first = names[tested][new][0]
        raise TextsError(f"{int(new.sum()):,} test rows have a label that no training row has ('{first}' first); remove them")
    return Task(np.searchsorted(classes, names), train, tested, len(classes)), tuple(map(str, classes))


def _missing(label: Any) -> bool:
    return label is None or (isinstance(label, float) and label != label) or not str(label).strip()


def _held_out(names: np.ndarray, test: Any, seed: int) -> np.ndarray:
    """(n,) booleans."""
    n = len(names)
    held = np.zeros(n, dtype=bool)
    if isinstance(test, float):
        if not 0 < test < 1:
            raise InputError(f"test={test} asked for; as a share it must be between 0 and 1")
        order = np.random.default_rng(seed).permutation(n)
        for label in np.unique(names):
            rows = order[names[order] == label]
            held[rows[: min(len(rows) - 1, max(1, round(test * len(rows))))]] = True
        return held
    given = np.asarray(test)
    if given.dtype == bool and given.shape == (n,):
        return given
    if given.ndim != 1 or given.dtype.kind not in "iu" or not len(given) or given.min() < 0 or given.max() >= n:
        raise InputError(f"test is {given.dtype} of shape {given.shape}; give {n:,} booleans, positions below that, or a share such as .25")
    held[given] = True
    return held


def as_rows(given: Any, said: str) -> Tensor:
    """Rows (n, d), finite. Raises InputError, ActivationError."""
    rows = given.detach().cpu() if isinstance(given, Tensor) else _from_numpy(np.asarray(given), said)
    if rows.ndim != 2 or 0 in rows.shape:
        raise InputError(f"{said} has shape {tuple(rows.shape)}; give (rows, features)")
    bad = ~torch.isfinite(rows).all(dim=1)
    if bad.any():
        raise ActivationError(f"{said} has NaN or Inf in row {int(bad.nonzero()[0])}, counted from 0; a probe of it would mean nothing")
    return rows


def _from_numpy(array: np.ndarray, said: str) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise InputError(f"{said} holds {array.dtype}, not real numbers; give rows of floats")
    return torch.from_numpy(array.astype(np.float64 if array.dtype == np.float64 else np.float32))


def _places(given: Any, said: str) -> dict[Place, Tensor]:
    if not isinstance(given, Mapping):
        return {OUTPUT: as_rows(given, said)}
    if not given:
        raise InputError(f"{said} is empty; give rows by layer")
    return {place: as_rows(rows, f"{said}[{place!r}]") for place, rows in given.items()}


def _named(places: dict[Place, Tensor], said: str) -> dict[str, int]:
    return {f"{said}[{place!r}]": len(rows) for place, rows in places.items()}


def _listed(places: dict[Place, Tensor]) -> str:
    return ", ".join(map(str, places))


def _task(labels: Sequence[Any], test: Any, lengths: dict[str, int], seed: int) -> tuple[Task, tuple[str, ...]]:
    for said, length in lengths.items():
        if length != len(labels):
            raise AlignmentError(f"{said} has {length:,} rows and there are {len(labels):,} labels; row i of all must be the same text")
    return make_task(labels, test, seed=seed)


def _both(
    base: dict[Place, Tensor], tuned: dict[Place, Tensor], task: Task, protocol: Protocol, seed: int, *, control: bool, device: str
) -> dict[Place, tuple[Scores, Scores]]:
    """Every place of both sides; rows that are the very same on both are probed once."""
    same = {place: base[place].shape == tuned[place].shape and bool(torch.equal(base[place], tuned[place])) for place in base}
    sets = [*base.values(), *(rows for place, rows in tuned.items() if not same[place])]
    found = probe_scores(sets, task, protocol, seed=seed, control=control, device=device)
    of_base = dict(zip(base, found[: len(base)], strict=True))
    of_tuned = dict(zip([place for place in tuned if not same[place]], found[len(base) :], strict=True))
    return {place: (of_base[place], of_tuned.get(place, of_base[place])) for place in base}


def _layer(place: Place) -> Place | None:
    return None if place == OUTPUT else place


def _detail(
    name: str,
    classes: tuple[str, ...],
    task: Task,
    protocol: Protocol,
    scores: dict[str, dict[Place, tuple[Scores, Scores]]],
    comparisons: dict[Place, Paired],
    seed: int,
) -> dict[str, Any]:
    def rows(of: dict[Place, tuple[Scores, Scores]], tests: dict[Place, Paired] | None) -> list[dict[str, Any]]:
        listed = []
        for place, (base, tuned) in of.items():
            sides = {"base": base.as_dict(), "tuned": tuned.as_dict(), "delta": tuned.accuracy - base.accuracy}
            test = {key: getattr(tests[place], key) if tests else None for key in ("low", "high", "p")}
            index = place if isinstance(place, int) else None
            listed.append({"index": index, "name": str(place), "depth": None, **sides, **test})
        return listed

    strong = scores[protocol.name]
    weak = scores.get("weak")
    swing = None
    if weak and protocol.name != "weak":
        swing = max(abs(a.accuracy - b.accuracy) for place in strong for a, b in zip(strong[place], weak[place], strict=True))
    return {
        "kind": "probe",
        "name": name,
        "classes": list(classes),
        "train": len(task.train),
        "test": len(task.test),
        "majority": task.majority,
        "protocol": protocol.as_dict(seed),
        "layers": rows(strong, comparisons),
        **{key: rows(scores[key], None) if key in scores and key != protocol.name else None for key in ("weak", "mteb")},
        "swing": swing,
    }


def _warnings(detail: dict[str, Any], scores: dict[Place, tuple[Scores, Scores]], task: Task, main: Place) -> list[str]:
    notes = []
    both = [(place, side, one) for place, pair in scores.items() for side, one in zip(("base", "tuned"), pair, strict=True)]
    loose = [f"{side} at {_said(place)}" for place, side, one in both if not one.converged]
    if loose:
        worst = max(one.gap for _, _, one in both)
        notes.append(f"the probe did not converge for {', '.join(loose[:3])}: its objective may be {worst:.1e} of itself above the optimum")
    edge = [f"{side} at {_said(place)} (C={one.C:g})" for place, side, one in both if one.at_edge]
    if edge:
        notes.append(f"C was chosen at the edge of its grid for {', '.join(edge[:3])}: a wider grid may do better")
    delta = next(abs(row["delta"]) for row in detail["layers"] if row["name"] == str(main))
    if detail["swing"] is not None and 0 < delta < detail["swing"]:
        notes.append(
            f"the difference of {delta:.3f} is smaller than what the probe's protocol alone moves on these rows ({detail['swing']:.3f}): "
            "a weakly configured probe would not have shown it"
        )
    return notes


def _said(place: Place) -> str:
    return f"layer {place}" if isinstance(place, int) else place
