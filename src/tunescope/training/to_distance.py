"""Controls matched in distance: noise, a random update or an interpolation, as large as it takes to move a model to a stated value."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunescope.errors import ActivationError, Degenerate, InputError
from tunescope.models import Model
from tunescope.training.distance_read import DistanceReader, Place, parse_target
from tunescope.training.number_ranges import SEED, check_numbers
from tunescope.training.perturb import AMOUNTS, perturb
from tunescope.training.search import Search, search

START = {"sigma": 0.04, "scale": 1.0, "alpha": 1.0}
MOST = {"sigma": 2.56, "scale": 1024.0, "alpha": 8.0}
TOLERANCE = 0.005
DRAWS = 3


@dataclass(frozen=True, eq=False)
class Draw:
    """One perturbed model: its seed, the parameter found, and the value of the measure there; `notes` say what to know of the search."""

    model: Model = field(repr=False)
    seed: int
    parameter: float
    value: float
    readings: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class AtDistance:
    """Models at one distance from their base: every draw is within `tolerance` of `target` by `measure` at the place `at`."""

    kind: str
    parameter: str
    measure: str
    target: float
    tolerance: float
    at: Place
    texts: int
    texts_sha256: str
    draws: tuple[Draw, ...]

    @property
    def models(self) -> list[Model]:
        """The perturbed models, one a draw."""
        return [draw.model for draw in self.draws]

    def row(self) -> dict[str, Any]:
        """JSON-able: what was asked, and what was found, mean and standard deviation over draws (None of a single one)."""
        found = {name: _mean_sd([getattr(draw, name) for draw in self.draws]) for name in ("parameter", "value")}
        plain = ("seed", "parameter", "value", "readings", "notes")
        draws = [{name: getattr(draw, name) for name in plain} for draw in self.draws]
        asked = {"measure": self.measure, "target": self.target, "tolerance": self.tolerance, "at": self.at}
        texts = {"texts": self.texts, "texts_sha256": self.texts_sha256}
        return {"kind": self.kind, "parameter": self.parameter, **asked, **texts, "found": found, "draws": draws}

    def __repr__(self) -> str:
        return f"<AtDistance: {self}>"

    def __str__(self) -> str:
        row = self.row()["found"]
        draws = f"{len(self.draws)} draws, mean ± sd" if len(self.draws) > 1 else "nothing is drawn"
        return (
            f"{self.measure} {_shown(row['value'])} at {_where(self.at)} for {self.target:g} ± {self.tolerance:g}, "
            f"with {self.parameter} {_shown(row['parameter'])} ({draws}; {self.texts:,} texts)"
        )


def perturb_to(
    model: Model,
    texts: Any,
    *,
    to: str | Mapping[str, float],
    kind: str,
    like: Model | None = None,
    layers: Iterable[int | str] | None = None,
    at: Place = "output",
    tolerance: float = TOLERANCE,
    draws: int | None = None,
    seed: int = 0,
    pooling: str = "mean",
    batch_size: int = 32,
    announce: Callable[[str], None] | None = None,
) -> AtDistance:
    """Copies of `model` moved by `ts.perturb` until a measure reaches a value: σ of gaussian noise, the scale of a random update, or α.

    Args:
        texts: what the distance is read on: a path, a list of strings, or None for Python's own documentation.
        to: measure and value, {"nps": .48} or "nps=.48"; any measure of two sides but change_rank.
        kind, like, layers: as in `ts.perturb`; gaussian, random-rank, random-direction or interpolate.
        at: where it is read: the site output (the deployed embedding) or final, or the index of a layer.
        tolerance: how near, in units of the measure; NPS of n texts moves in steps of 1/(10n).
        draws: seeds seed, seed + 1, …; 3 or more, since one draw says nothing of the spread (interpolation draws nothing, and makes 1).
        announce: is told a line a draw.

    Raises: InputError (a kind without a size, a target out of reach, which names the range, or passed over in one step), UnknownName,
        NotEnoughRows, and what `ts.perturb` and `ts.capture` raise.
    """
    check_numbers("", {"seed": seed}, {"seed": SEED})
    parameter, count = _checked(kind, draws, tolerance)
    name, target = parse_target(to)
    chosen = None if layers is None else tuple(layers)
    reader = DistanceReader.of(model, texts, measure=name, at=at, pooling=pooling, batch_size=batch_size)
    _check_target(reader, target)
    found: list[Draw] = []
    for number in range(seed, seed + count):
        attempt = _Attempt(reader, kind, parameter, like, chosen, number)
        # every search starts afresh: from the last draw's size it would often stop at once, and the spread of sizes would read too small
        draw = attempt.draw(target, start=START[parameter], tolerance=tolerance)
        found.append(draw)
        if announce is not None:
            announce(f"seed {number}: {name} {draw.value:.4g} with {parameter} {draw.parameter:.4g}, {draw.readings} readings")
    return AtDistance(kind, parameter, name, target, tolerance, at, len(reader.corpus), reader.corpus.sha256, tuple(found))


def moved_to(
    model: Model,
    texts: Any,
    *,
    to: str | Mapping[str, float],
    kind: str,
    like: Model | None = None,
    seed: int = 0,
    prompt: str | None = None,
    max_length: int | None = None,
    pooling: str = "mean",
    batch_size: int = 32,
) -> Draw:
    """One draw of `perturb_to`, at the output: for studies, whose seeds are runs of their own.

    prompt, max_length: None as the model declares. Raises as `perturb_to`.
    """
    parameter, _ = _checked(kind, None, TOLERANCE)
    name, target = parse_target(to)
    reading: dict[str, Any] = {"prompt": prompt, "max_length": max_length, "pooling": pooling, "batch_size": batch_size}
    reader = DistanceReader.of(model, texts, measure=name, at="output", **reading)
    _check_target(reader, target)
    return _Attempt(reader, kind, parameter, like, None, seed).draw(target, start=START[parameter], tolerance=TOLERANCE)


@dataclass(frozen=True, eq=False)
class _Attempt:
    """The disturbance of one seed, of any size."""

    reader: DistanceReader
    kind: str
    parameter: str
    like: Model | None
    layers: tuple[int | str, ...] | None
    seed: int

    def model(self, size: float) -> Model:
        amount: dict[str, Any] = {self.parameter: size}
        return perturb(self.reader.base, kind=self.kind, like=self.like, layers=self.layers, seed=self.seed, **amount)

    def draw(self, target: float, *, start: float, tolerance: float) -> Draw:
        reader, measure, values = self.reader, self.reader.measure, {}
        models: dict[float, Model] = {}

        def change(size: float) -> float:
            models.clear()  # one copy at a time
            models[size] = self.model(size)
            try:
                values[size] = reader.value(models[size])
            except (ActivationError, Degenerate) as error:
                raise InputError(f"{self._asked(target)} cannot be reached: at {self.parameter} {size:g} {error}") from error
            return measure.change(values[size])

        found = search(change, measure.change(target), start=start, most=MOST[self.parameter], tolerance=tolerance)
        if not found.found:
            raise InputError(self._missed(target, found, values, tolerance))
        size = found.tried[-1][0]
        return Draw(models[size], self.seed, size, values[size], len(found.tried), self._notes(found, tolerance))

    def _asked(self, target: float) -> str:
        return f"{self.reader.measure.name} = {target:g} at {self.reader.where} by {self.kind}"

    def _missed(self, target: float, found: Search, values: dict[float, float], tolerance: float) -> str:
        shown = self.parameter
        if max(change for _, change in found.tried) < self.reader.measure.change(target):
            low, high = min(values.values()), max(values.values())
            most = max(values)
            return (
                f"{self._asked(target)} cannot be reached: {shown} up to {most:g} gives {low:.4g} to {high:.4g} (seed {self.seed}); "
                "name a target in that range"
            )
        near, value = min(values.items(), key=lambda item: abs(item[1] - target))
        return (
            f"{self._asked(target)} is passed over in one step: the nearest to it within {tolerance:g} asked for is {value:.4g} at {shown} "
            f"{near:.6g} (seed {self.seed}); take more texts or a larger tolerance"
        )

    def _notes(self, found: Search, tolerance: float) -> tuple[str, ...]:
        falls = found.falls(tolerance)
        if falls is None:
            return ()
        low, high = falls
        name = self.reader.measure.name
        return (
            f"{name} is not monotone in {self.parameter}: between {low:.4g} and {high:.4g} the model comes nearer again, so other "
            f"sizes may reach the target too; taken: {found.tried[-1][0]:.4g}",
        )


def _checked(kind: str, draws: int | None, tolerance: float) -> tuple[str, int]:
    if kind not in AMOUNTS:
        raise InputError(f"a target needs a kind whose size can be chosen ({', '.join(AMOUNTS)}), and '{kind}' has none")
    if not 0 < tolerance < float("inf"):
        raise InputError(f"tolerance {tolerance} asked for; it must be above 0, in units of the measure")
    if kind == "interpolate":
        if draws not in (None, 1):
            raise InputError(f"{draws} draws of an interpolation asked for, which draws nothing; leave draws out")
        return AMOUNTS[kind], 1
    count = DRAWS if draws is None else draws
    if count < DRAWS:
        raise InputError(f"{count} draws asked for; a target takes {DRAWS} or more, since one draw says nothing of the spread")
    return AMOUNTS[kind], count


def _check_target(reader: DistanceReader, target: float) -> None:
    measure = reader.measure
    low, high = measure.bounds
    if not (low <= target <= high and measure.change(target) > 0):
        side = "below" if measure.higher_is_closer else "above"
        raise InputError(
            f"{measure.name} = {target:g} asked for; an unmoved model has {measure.identity:g} and the measure stays between {low:g} and "
            f"{high:g}, so name a target {side} {measure.identity:g}"
        )


def _mean_sd(values: list[float]) -> dict[str, float | None]:
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}


def _shown(found: dict[str, float | None]) -> str:
    return f"{found['mean']:.4g}" + ("" if found["sd"] is None else f" ± {found['sd']:.2g}")


def _where(at: Place) -> str:
    return f"layer {at}" if isinstance(at, int) else at
