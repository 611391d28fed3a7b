"""trajectory.jsonl: one flat row a number, beside the rows of the start that they were measured against."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tunescope.errors import AlignmentError, FormatError, InputError, UnknownName
from tunescope.folders import write_whole
from tunescope.geometry import MEASURES
from tunescope.training.number_ranges import Number, check_numbers

if TYPE_CHECKING:
    import pandas as pd

FILE = "trajectory.jsonl"
START = "trajectory-start.safetensors"
SCHEMA = "tunescope.trajectory-start/2"
GEOMETRY = "geometry"
TOLERANCE = 0.05

Row = dict[str, Any]


def write_rows(rows: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """The whole file, put in place at once: whoever reads it, or dies while it is written, finds the old one or the new one."""
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_whole(folder / FILE, text)


def read_rows(folder: str | Path) -> list[Row]:
    """The rows of a run folder, or of the file itself.

    Raises: InputError where there is none, FormatError for one that is damaged.
    """
    path = Path(folder)
    path = path if path.is_file() else path / FILE
    if not path.is_file():
        raise InputError(
            f"'{folder}' holds no {FILE}: nothing was measured on the way; name the folder of a run with a trajectory "
            "(ts.finetune(trajectory=…), on unless it is None, or a TrajectoryCallback in your own Trainer)"
        )
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise FormatError(f"{path} is damaged: {error}") from None
    if not all(isinstance(row, dict) and {"kind", "step"} <= row.keys() for row in rows):
        raise FormatError(f"{path} holds lines that are no rows of a trajectory (kind, step, …)")
    return rows


def read_trajectory(folder: str | Path) -> pd.DataFrame:
    """Everything a run's callback measured, one row a number, in the order of its steps.

    folder: the run's folder, or its trajectory.jsonl. Rows of kind "geometry" have step, epoch, where, layer, depth, measure, value,
    change (how far from the start), null and n; rows of outcomes have kind, step, epoch and the fields of an outcome.

    Raises: InputError, FormatError.
    """
    import pandas as pd

    return pd.DataFrame(read_rows(folder))


def plateau(
    rows: Iterable[Mapping[str, Any]] | pd.DataFrame | str | Path,
    *,
    measure: str = "nps",
    where: str = "output",
    tolerance: float = TOLERANCE,
) -> int | None:
    """The first step from which the distance to the start grows no further; None while it still does.

    That step's `change` is exceeded later by no more than `tolerance` of the largest change, over two later points or more. Steps that
    are merely like each other are no plateau: a model that moves slowly and steadily has none. rows: of a trajectory, in any order;
    the table that `ts.read_trajectory` gives; or the folder of a run.

    Raises: InputError for a property of one side, which is no distance, and for what is no trajectory; UnknownName for a measure or a
    place that was not measured.
    """
    if measure in MEASURES and MEASURES[measure].one_sided:
        raise InputError(f"a plateau of {measure} was asked for; it is a property of one model and no distance from the start")
    check_numbers("", {"tolerance": tolerance}, {"tolerance": Number(least=0)})
    held = [row for row in _rows_of(rows) if row["kind"] == GEOMETRY]
    for column, asked in (("measure", measure), ("where", where)):
        measured = {row[column] for row in held}
        if asked not in measured:
            raise UnknownName("measure of this trajectory" if column == "measure" else "place of this trajectory", asked, measured)
    wanted = (row for row in held if row["measure"] == measure and row["where"] == where)
    known = sorted((row["step"], row["change"]) for row in wanted if number(row["change"]) is not None)
    most = max((change for _, change in known), default=0.0)
    if most <= 0:
        return None
    for place, (step, change) in enumerate(known[:-2]):
        if max(later for _, later in known[place + 1 :]) - change <= tolerance * most:
            return int(step)
    return None


def _rows_of(given: Any) -> list[Mapping[str, Any]]:
    if isinstance(given, str | Path):
        return list(read_rows(given))
    rows = given.to_dict("records") if hasattr(given, "to_dict") else list(given) if isinstance(given, Iterable) else []
    if not rows or not all(isinstance(row, Mapping) and {"kind", "step"} <= row.keys() for row in rows):
        raise InputError(f"a plateau is read off a run's folder, its table (ts.read_trajectory) or its rows; got {type(given).__name__}")
    return rows


@dataclass(frozen=True, eq=False)
class Start:
    """What a run is measured against: rows of the start by place, scores of its outcomes by task and metric, and of what they are.

    identity: what must be the same for rows to be comparable. weights_sha256: of the model they were read from.
    """

    identity: Mapping[str, Any]
    weights_sha256: str
    rows: Mapping[str, Tensor] = field(default_factory=dict)  # place -> (n, d)
    scores: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)  # task -> metric -> (items,)

    def save(self, folder: Path) -> None:
        """Beside the trajectory, whole or not at all."""
        told = {"schema": SCHEMA, "identity": self.identity, "weights_sha256": self.weights_sha256, "scores": _keys(self.scores)}
        tensors = {f"rows/{place}": rows.contiguous() for place, rows in self.rows.items()}
        tensors |= {f"scores/{i}/{j}": self.scores[task][metric] for i, (task, metrics) in enumerate(_keys(self.scores).items())
                    for j, metric in enumerate(metrics)}  # fmt: skip
        draft = folder / f".{START}.draft"
        save_file(tensors, draft, metadata={"tunescope": json.dumps(told, sort_keys=True)})
        os.replace(draft, folder / START)

    @classmethod
    def load(cls, folder: Path) -> Start:
        """Raises: FileNotFoundError, FormatError."""
        path = folder / START
        if not path.is_file():
            raise FileNotFoundError(path)
        try:
            with safe_open(path, framework="pt") as file:
                told = json.loads((file.metadata() or {}).get("tunescope", "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
        except (SafetensorError, ValueError) as error:
            raise FormatError(f"{path} is damaged: {error}") from None
        if told.get("schema") != SCHEMA:
            raise FormatError(f"{path}: schema {told.get('schema')!r} found, this version reads {SCHEMA!r}")
        rows = {key.removeprefix("rows/"): value for key, value in tensors.items() if key.startswith("rows/")}
        scores = {task: {metric: tensors[f"scores/{i}/{j}"] for j, metric in enumerate(metrics)}
                  for i, (task, metrics) in enumerate(told["scores"].items())}  # fmt: skip
        return cls(told["identity"], told["weights_sha256"], rows, scores)

    def check(self, identity: Mapping[str, Any], folder: Path) -> None:
        """Raise AlignmentError when a run that goes on would be read otherwise than its start was, or at other points."""
        other = [key for key in dict.fromkeys([*identity, *self.identity]) if identity.get(key) != self.identity.get(key)]
        if other:
            found = "; ".join(f"{key} {_short(self.identity.get(key))} at the start and {_short(identity.get(key))} now" for key in other)
            raise AlignmentError(f"the trajectory in '{folder}' cannot go on: {found}; give the callback what it had, or another out")


def _keys(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Sequence[str]]:
    return {task: sorted(scores[task]) for task in sorted(scores)}


def _short(value: Any) -> str:
    text = "nothing" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:28]}…{text[-28:]}"


def number(value: float | None) -> float | None:
    """None for what JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(value)
