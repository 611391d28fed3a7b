"""Two runs brought to the same geometric distance from their start, so that their outcomes can be compared."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tunescope.activations.taps import layer_name
from tunescope.errors import AlignmentError, InputError
from tunescope.models import Model, load_model
from tunescope.training.distance_read import DistanceReader, Place, directed
from tunescope.training.interpolate import interpolate
from tunescope.training.search import search
from tunescope.training.trajectory_alignment import check_alike, start_reader
from tunescope.training.trajectory_file import GEOMETRY, START, Row, Start, read_rows

Which = Literal["first", "last"] | int


@dataclass(frozen=True, eq=False)
class Point:
    """One checkpoint of a run: the step (or α) it stands at, the measured value, and the model or its folder, where there is one."""

    at: float
    value: float
    model: Model | str | Path | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """A run as a sequence of checkpoints, in the order of their steps; `measure` is what their values are of.

    start: what they were measured against and how, where the run's folder holds it.
    """

    name: str
    points: tuple[Point, ...]
    measure: str | None = None
    start: Start | None = None

    @classmethod
    def of(cls, points: Iterable[Any], *, name: str, measure: str | None = None) -> Trajectory:
        """points: Points, or (step, value) or (step, value, model). Raises InputError: fewer than two, not finite, steps out of order."""
        kept = tuple(point if isinstance(point, Point) else Point(*point) for point in points)
        if len(kept) < 2:
            raise InputError(f"run '{name}' has {len(kept)} points; a trajectory needs two or more")
        for point in kept:
            if not (math.isfinite(point.at) and math.isfinite(point.value)):
                raise InputError(f"run '{name}' has the value {point.value} at step {point.at}; every point must be finite")
        if any(two.at <= one.at for one, two in zip(kept, kept[1:], strict=False)):
            raise InputError(f"run '{name}' has steps that do not rise: {', '.join(f'{point.at:g}' for point in kept)}")
        return cls(name, kept, measure)

    @classmethod
    def load(cls, folder: str | Path, *, measure: str = "nps", where: str = "output") -> Trajectory:
        """A run's trajectory.jsonl as its callback wrote it, by one measure at one place.

        where: as its rows call it: output, final, embeddings, "block 3". A point's model is checkpoints/step-N of the run's folder, or the
        Trainer's own checkpoint-N, where there is one that can be loaded.

        Raises: InputError (no trajectory, nothing of that measure and place, and as `of`), FormatError.
        """
        path, rows = Path(folder), [row for row in read_rows(folder) if row["kind"] == GEOMETRY]
        wanted = [row for row in rows if (row["measure"], row["where"]) == (measure, where) and row["value"] is not None]
        if not wanted:
            raise InputError(f"run '{path.name}' has no value of {measure} at {where}; its trajectory holds {_held(rows)}")
        root = path.parent if path.is_file() else path
        points = (Point(row["step"], row["value"], _checkpoint(root, row["step"])) for row in wanted)
        return replace(cls.of(points, name=root.name, measure=measure), start=_start(root, where))

    def __repr__(self) -> str:
        ends = f"{self.points[0].at:g} to {self.points[-1].at:g}"
        return f"<Trajectory of {self.name}{f' by {self.measure}' if self.measure else ''}, {len(self.points)} points from {ends}>"

    @property
    def reached(self) -> tuple[float, float]:
        """The smallest and the largest value of its checkpoints."""
        values = [point.value for point in self.points]
        return min(values), max(values)

    def crossings(self, level: float) -> list[tuple[Point, Point, float]]:
        """Where the line through the checkpoints meets the level: (checkpoint before, checkpoint after, share of the way between them).

        A stretch that lies on the level counts once, at its beginning.
        """
        found, on = [], False
        for before, after in zip(self.points, self.points[1:], strict=False):
            one, two = before.value - level, after.value - level
            if one == 0 and not on:
                found.append((before, after, 0.0))
            elif one * two < 0:
                found.append((before, after, one / (one - two)))
            on = one == 0 == two
        if two == 0 != one:
            found.append((before, after, 1.0))
        return found


@dataclass(frozen=True, eq=False, repr=False)
class Crossing:
    """Where one run meets the level.

    at: the step there, on the line between the checkpoints `before` and `after`, `share` of the way. every: the steps of all crossings,
    of which number `taken` (from 0) is this one. value: what the interpolated model measures, `model`; without texts, the value of the
    nearer checkpoint. mismatch: value − level.
    """

    run: str
    at: float
    before: Point
    after: Point
    share: float
    every: tuple[float, ...]
    taken: int
    value: float
    mismatch: float
    model: Model | None = None

    def __repr__(self) -> str:
        return f"<Crossing of {self.run} at {self.at:.4g}, {self.value:.4g}>"

    def __str__(self) -> str:
        every = ", ".join(f"{at:.4g}" for at in self.every)
        of = "" if len(self.every) == 1 else f", crossing {self.taken + 1} of {len(self.every)} ({every})"
        what = "the interpolated model" if self.model is not None else "its nearer checkpoint"
        between = f"between its checkpoints at {self.before.at:g} and {self.after.at:g}"
        off = f"{abs(self.mismatch):.2g} {'above' if self.mismatch > 0 else 'below'} the level" if self.mismatch else "on the level"
        return f"{self.run}: step {self.at:.4g}, {between}{of}; {what} is at {self.value:.4g}, {off}"


@dataclass(frozen=True, eq=False, repr=False)
class Match:
    """Two runs at one level of a measure."""

    measure: str
    level: float
    a: Crossing
    b: Crossing

    @property
    def mismatch(self) -> float:
        """What remains between the two: the value of a − that of b."""
        return self.a.value - self.b.value

    def row(self) -> dict[str, Any]:
        """JSON-able."""
        sides = {side: _row(crossing) for side, crossing in (("a", self.a), ("b", self.b))}
        return {"measure": self.measure, "level": self.level, "mismatch": self.mismatch, **sides}

    def __repr__(self) -> str:
        return f"<Match of {self.a.run} at {self.a.at:.4g} and {self.b.run} at {self.b.at:.4g}, {self.measure} = {self.level:g}>"

    def __str__(self) -> str:
        whose = "models" if self.a.model is not None else "nearer checkpoints (give base for models on the level)"
        apart = f"the two {whose} are {abs(self.mismatch):.2g} apart"
        return f"two runs at {self.measure} = {self.level:g}; {apart}\n  {self.a}\n  {self.b}"


def match(
    trajectory_a: Trajectory | str | Path,
    trajectory_b: Trajectory | str | Path,
    *,
    measure: str,
    at: float,
    crossing: Which = "first",
    base: Any = None,
    texts: Any = None,
    place: Place = "output",
    tolerance: float = 0.005,
) -> Match:
    """Where two runs stand at the same value `at` of a measure, between their checkpoints; with base and texts, the models there.

    Without `base` the crossing is read off the straight line between checkpoints. With it the weights of the two checkpoints around each
    crossing are interpolated until the measure, read between `base` and that model on `texts` at `place`, is within `tolerance` of the
    level; every checkpoint then needs its model or folder, the first one's being `base` where it has none. A run that kept how it was
    measured is read in the same way: with its pooling, its prompt and its length.

    Args:
        trajectory_a, trajectory_b: trajectories, or the folders of two runs that had a `ts.TrajectoryCallback`, read at `place`.
        crossing: which one of a run that meets the level several times: first, last, or a number from 0. All are kept and printed.
        base: what both runs began from: a Model, a hub id or a folder.
        texts: those of the trajectories; None for the ones that a trajectory has by default.

    Raises: InputError (a level that a run never reaches, naming the range; no such crossing; checkpoints without models; other texts or
        another base than the runs had), AlignmentError (a trajectory of another measure; runs that were measured on other texts, read in
        another way or begun from other weights), UnknownName.
    """
    directed(measure)
    where = layer_name(place) if isinstance(place, int) else place
    given = (trajectory_a, trajectory_b)
    runs = tuple(run if isinstance(run, Trajectory) else Trajectory.load(run, measure=measure, where=where) for run in given)
    for run in runs:
        if run.measure not in (None, measure):
            raise AlignmentError(f"run '{run.name}' was measured by {run.measure}, and {measure} is to be matched; measure it again")
    known = [(run.name, run.start) for run in runs if run.start is not None]
    if len(known) == len(runs):
        check_alike(known[0], known[1], where)
    _check_reached(runs, measure, at)
    one, two = (_take(run, at, crossing, measure) for run in runs)
    if base is None:
        return Match(measure, at, one, two)
    start = base if isinstance(base, Model) else load_model(base)
    reader = start_reader(start, texts, known=known[0] if known else None, measure=measure, at=place, where=where)
    return Match(measure, at, *(_between(found, at, start, reader, tolerance) for found in (one, two)))


def _check_reached(runs: tuple[Trajectory, ...], measure: str, level: float) -> None:
    both = max(run.reached[0] for run in runs), min(run.reached[1] for run in runs)
    common = f"both reach {both[0]:.4g} to {both[1]:.4g}" if both[0] <= both[1] else "no level is reached by both"
    for run in runs:
        low, high = run.reached
        if not low <= level <= high:
            raise InputError(
                f"run '{run.name}' never reaches {measure} = {level:g}: its {len(run.points)} checkpoints lie between {low:.4g} and "
                f"{high:.4g}; {common}"
            )


def _take(run: Trajectory, level: float, which: Which, measure: str) -> Crossing:
    found = run.crossings(level)
    every = tuple(before.at + share * (after.at - before.at) for before, after, share in found)
    taken = {"first": 0, "last": len(found) - 1}.get(which, which)
    if not isinstance(taken, int) or not 0 <= taken < len(found):
        raise InputError(
            f"crossing {which!r} of run '{run.name}' asked for, which meets {measure} = {level:g} {len(found)} times (at "
            f"{', '.join(f'{at:.4g}' for at in every)}); take first, last, or a number from 0"
        )
    before, after, share = found[taken]
    value = (before if share < 0.5 else after).value
    return Crossing(run.name, every[taken], before, after, share, every, taken, value, value - level)


def _between(found: Crossing, level: float, base: Model, reader: DistanceReader, tolerance: float) -> Crossing:
    """The crossing with the model there: between the weights of the checkpoints around it."""
    before, after = (_model(point, found.run, base, first=point is found.before) for point in (found.before, found.after))
    models: dict[float, Model] = {}
    values: dict[float, float] = {}

    def read(share: float) -> float:
        models.clear()
        models[share] = interpolate(before, after, alpha=share, name=f"{found.run} at {reader.measure.name} = {level:g}")
        values[share] = reader.value(models[share])
        return values[share]

    start = read(0.0)
    sign = 1.0 if found.after.value >= found.before.value else -1.0
    if abs(start - level) > tolerance:
        found_by = search(
            lambda share: sign * read(share), sign * level, start=max(found.share, 0.01), most=1.0, tolerance=tolerance, origin=sign * start
        )
        if not found_by.found:
            raise InputError(
                f"run '{found.run}' does not come to {reader.measure.name} = {level:g} within {tolerance:g} between its checkpoints "
                f"{found.before.at:g} and {found.after.at:g} on these texts (read there: {min(values.values()):.4g} to "
                f"{max(values.values()):.4g}); give the texts and the base its trajectory was measured with"
            )
    ((share, model),) = models.items()
    at = found.before.at + share * (found.after.at - found.before.at)
    return replace(found, at=at, share=share, value=values[share], mismatch=values[share] - level, model=model)


def _model(point: Point, run: str, base: Model, *, first: bool) -> Model:
    if point.model is None and first and point.at == 0:
        return base
    if point.model is None:
        raise InputError(f"run '{run}' has no model at step {point.at:g}; give (step, value, model or folder), or leave base out")
    return point.model if isinstance(point.model, Model) else load_model(point.model)


def _held(rows: list[Row]) -> str:
    places = list(dict.fromkeys(row["where"] for row in rows))
    return f"{', '.join(dict.fromkeys(row['measure'] for row in rows))} at {', '.join(places)}" if rows else "no geometry"


def _checkpoint(run: Path, step: int) -> Path | None:
    folders = (run / "checkpoints" / f"step-{step}", run / f"checkpoint-{step}")
    loadable = ("config.json", "adapter_config.json", "modules.json")
    return next((folder for folder in folders if any((folder / name).is_file() for name in loadable)), None)


def _start(run: Path, where: str) -> Start | None:
    """What a run's folder keeps of its start, with the rows of one place; None of a run whose rows are not there."""
    found = Start.load(run) if (run / START).is_file() else None
    return None if found is None or where not in found.rows else replace(found, rows={where: found.rows[where]}, scores={})


def _row(crossing: Crossing) -> dict[str, Any]:
    plain = ("run", "at", "share", "taken", "value", "mismatch")
    ends = {"before": crossing.before.at, "after": crossing.after.at}
    own = {name: getattr(crossing, name) for name in plain}
    return {**own, **ends, "every": list(crossing.every), "interpolated": crossing.model is not None}
