"""One row of a ledger: a number, the run it is of, where it was measured, and what it takes to read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

SCHEMA = "tunescope.ledger/1"


@dataclass(frozen=True)
class Row:
    """Flat, so that pandas and DuckDB read it as it is. What a row has no use for is None.

    study: the plan's name. run: the hash of the run's spec, the same on every machine. kind: of run, see `RunSpec`.
    model, objective, update, seed, data, condition: the plan's names of its choices; condition is the run's name without model and seed.
    regime: how the objective relates to the model's pretraining ("aligned", "misaligned", "control"), where the plan says so.
    epoch, step: of the checkpoint; None for what was not trained.
    subject: geometry, outcome, distance (of objectives), features or cost. texts: the text set (anchor) read. task: of an outcome.
    measure, side: what was measured, and of which side ("base", "tuned"; None where it is of both).
    where, layer, depth: "block 3", 3, .25; None for what is of the whole model.
    value: as the measure has it (CKA 1 for no change). change: how far from no change, 0 for none; of an outcome tuned − base.
    low, high: 95% interval of value; of an outcome of its change. null, null_sd: what chance gives. n: rows, queries or items.
    sd: over seeds, of numbers that were printed as a mean. identity: hash of what exactly was measured. versions: "torch 2.13.0, …".
    wall_s, peak_mb: of the run that the row is of.
    """

    study: str
    run: str
    kind: str
    model: str
    subject: str
    measure: str
    value: float | None
    condition: str = ""
    objective: str | None = None
    update: str | None = None
    seed: int | None = None
    data: str | None = None
    regime: str | None = None
    epoch: float | None = None
    step: int | None = None
    texts: str | None = None
    task: str | None = None
    side: str | None = None
    where: str | None = None
    layer: int | None = None
    depth: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    null: float | None = None
    null_sd: float | None = None
    sd: float | None = None
    n: int | None = None
    identity: str | None = None
    versions: str | None = None
    wall_s: float | None = None
    peak_mb: float | None = None
    schema: str = SCHEMA

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


COLUMNS = tuple(each.name for each in fields(Row))
# What names a number: two rows alike in all of these are the same number, measured twice.
KEY = ("run", "subject", "measure", "side", "texts", "task", "epoch", "step", "where", "layer")
