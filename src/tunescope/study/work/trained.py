"""A run that trains: finetune, then measure at the end or at every checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import InputError
from tunescope.study.row import Row
from tunescope.study.run_spec import RunSpec
from tunescope.study.work.base_model import load_base
from tunescope.study.work.measured import Subject, distance_rows, kept, measure
from tunescope.study.work.sources import pairs_of, texts_of

if TYPE_CHECKING:
    from tunescope.study.work import Tell

OF_RUN = ("epochs", "steps", "checkpoints", "max_length")  # of a plan's schedule; the rest is of `training.run.spec.Schedule`


def trained(spec: RunSpec, folder: Path, tell: Tell) -> Iterator[Row]:
    """Train by the spec, or go on, and measure what came of it. Raises as `ts.finetune` and `ts.diff`."""
    base = load_base(spec.model, folder.parent)
    subject = Subject.of(spec)
    distances = list(distance_rows(subject, spec, base))  # before the training, which is in vain where it is refused
    run = run_of(spec, base, folder, tell)
    steps, an_epoch = run.record["spec"]["steps"], run.record["spec"]["epoch_steps"]
    yield from distances
    points = run.checkpoints if spec.measurement.at == "checkpoints" else []
    for done, step in enumerate(step for step in points if 0 < step < steps):
        tell(done, len(points), "measuring checkpoints")
        yield from measure(subject.at(epoch=step / an_epoch, step=step), spec, base, run.checkpoint(step))
    tell(steps, steps, "measuring")
    yield from measure(subject.at(epoch=steps / an_epoch, step=steps), spec, base, run.model)


def run_of(spec: RunSpec, base: Any, folder: Path, tell: Tell) -> Any:
    """The run itself, trained or gone on with; one that is finished is only read. Raises InputError for a spec that says not how."""
    from tunescope.training import finetune, load_run
    from tunescope.training.run.folder import RunFolder

    place, objective, update = kept(folder), spec.objective, spec.update
    if RunFolder(place).begun and RunFolder(place).record()["finished"]:
        return load_run(place)
    if objective is None or update is None:
        raise InputError(f"the run '{spec.condition}' is to be trained, and needs an objective and an update rule")
    resume = _goes_on(place)
    schedule = spec.schedule | update.schedule
    lasting = {name: schedule[name] for name in OF_RUN if name in schedule}
    chats = objective.objective == "sft"
    finetune(
        base, objective=objective.objective, settings=objective.settings or None, update=update.update, options=update.options or None,
        tau=update.tau, texts=objective.texts and texts_of(objective.texts, chats=chats),
        pairs=objective.pairs and pairs_of(objective.pairs),
        labels=objective.texts.labels if objective.texts else None, out=place, resume=resume, seed=spec.seed,
        schedule={name: value for name, value in schedule.items() if name not in OF_RUN}, trajectory=None,
        progress=lambda stage, done, total: tell(done, total, stage), **lasting,
    )  # fmt: skip
    return load_run(place)  # as a run that went on after a kill reads it


def _goes_on(place: Path) -> bool:
    """Whether there is something to go on with. What was killed before it had begun is taken away."""
    from tunescope.training.run.folder import PAIRED, RunFolder

    if RunFolder(place).begun or (place / PAIRED).exists():
        return True
    shutil.rmtree(place, ignore_errors=True)
    return False
