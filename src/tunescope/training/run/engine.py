"""Carrying a run out: the model is set up, trained by transformers' Trainer, and what came of it is written."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch import nn
from transformers import TrainerCallback

from tunescope.errors import InputError
from tunescope.identity import versions
from tunescope.models.quiet import quietly
from tunescope.training.objectives import Learner
from tunescope.training.run.data import RunCollator, RunData, RunOrder
from tunescope.training.run.folder import LOSSES, STEPS, TRAJECTORY, RunFolder
from tunescope.training.run.keeping import Progress, RunKeeping, write_trained
from tunescope.training.run.request import Request
from tunescope.training.run.result import Run, load_run
from tunescope.training.run.setup import RunSetup, fit_drawn_head, mark, own_model, set_up
from tunescope.training.run.spec import RunSpec
from tunescope.training.run.trainer import RunTrainer, trainer_arguments
from tunescope.training.trajectory_callback import TrajectoryCallback

MODEL_DRAFT = ".model"  # where the final model is written before it is moved up
SNAPSHOTS = 20  # of a run, at least, so that little is lost when it is stopped


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What a run is made in, which does not decide its weights."""

    callbacks: tuple[TrainerCallback, ...] = ()
    log_to: tuple[str, ...] = ()
    trainer: Mapping[str, Any] | None = None
    loading: Mapping[str, Any] | None = None
    progress: Progress | None = None
    announce: Callable[[str], None] = lambda line: None


def execute(base: Any, request: Request, folder: RunFolder, around: Surroundings, *, resume: bool) -> Run:
    """Make the run in `folder`, or go on with it. Raises what `ts.finetune` does."""
    if resume and folder.record()["finished"]:
        return load_run(folder.path)
    model = own_model(base, **dict(around.loading or {}))
    data, ranks = request.data(), PartialState(cpu=model.device.type == "cpu")
    order = request.order(data, ranks.num_processes)
    spec = request.spec(model, data, ranks.num_processes)
    learner = set_up(model, request.objective, request.schedule, seed=request.seed, max_length=request.max_length)
    _try_reading(learner, data, order, request)
    watching = _watching(request, spec, folder)
    record = _record(spec, learner, request)
    snapshot = _go_on(folder, spec) if resume else None
    ranks.wait_for_everyone()  # before anybody writes what others look for
    if snapshot is None:
        record["head_fit"] = fit_drawn_head(learner, data, request.schedule, seed=request.seed, batches=request.fit_batches)
    else:
        record["head_fit"] = folder.record()["head_fit"]
    setup = mark(learner, request.rule, request.schedule, seed=request.seed, trains_drawn_head=request.train_drawn_head, name=_name(folder))
    record["update"] = setup.update.description | {"tau": request.tau}
    if ranks.is_main_process:
        folder.write_record(record)
    for line in (*record["warnings"], _said(spec, setup, request, snapshot)):
        around.announce(line)
    device, more = model.device, dict(around.trainer or {})
    arguments = trainer_arguments(folder.snapshots, request.schedule, spec, device=device, log_to=list(around.log_to), more=more)
    trainer = RunTrainer(setup, data, order, arguments, tau=request.tau)
    keeping = RunKeeping(trainer, folder, checkpoints=spec.checkpoints, every=_every(spec), progress=around.progress)
    for callback in (keeping, *watching, *around.callbacks):
        trainer.add_callback(callback)
    with quietly(), _as_it_was(model.module):
        trainer.train(resume_from_checkpoint=None if snapshot is None else str(snapshot))
    keeping.write_curves()
    return _finish(setup, folder, record, main=ranks.is_main_process)


def _try_reading(learner: Learner, data: RunData, order: RunOrder, request: Request) -> None:
    """One batch made and thrown away: what cannot be read is said before anything is written."""
    rows = [data[place] for place in islice(order, request.schedule.batch_size)]
    RunCollator(learner, seed=request.seed)(rows)


def _watching(request: Request, spec: RunSpec, folder: RunFolder) -> list[TrajectoryCallback]:
    """The callback that measures at the checkpoints, where one is asked for."""
    if request.trajectory is None:
        return []
    asked = {"budget": math.inf} | dict(request.trajectory)  # checkpoints are asked for one by one, whatever they cost
    return [TrajectoryCallback(steps=[step for step in spec.checkpoints if step], out=folder.path, **asked)]


def _go_on(folder: RunFolder, spec: RunSpec) -> Path | None:
    """The snapshot to go on from, None when there is none yet. Raises InputError when the run in the folder is another one."""
    found = folder.record()
    if found["spec_hash"] != spec.hash:
        differ = ", ".join(key for key, value in spec.describe().items() if found["spec"].get(key) != value) or "version"
        raise InputError(f"the run in '{folder.path}' was started with another {differ}; give what it was started with")
    return folder.last_snapshot()


def _record(spec: RunSpec, learner: Learner, request: Request) -> dict[str, Any]:
    described = learner.record()
    model = learner.model
    notes = [*request.sources.warnings, *model.warnings, *_resolved_warnings(described["resolved"])]
    return {
        "spec_hash": spec.hash,
        "spec": spec.describe(),
        "base": spec.base,
        "objective": described,
        "warnings": notes,
        "checkpoints": [],
        "finished": False,
        "versions": versions(),
    }


def _resolved_warnings(resolved: Mapping[str, Any]) -> list[str]:
    own = [resolved["warning"]] if "warning" in resolved else []
    return own + [note for value in resolved.values() if isinstance(value, Mapping) for note in _resolved_warnings(value)]


def _every(spec: RunSpec) -> int:
    return max(1, spec.steps // SNAPSHOTS)


def _name(folder: RunFolder) -> str:
    return folder.path.name


def _said(spec: RunSpec, setup: RunSetup, request: Request, snapshot: Path | None) -> str:
    """The run in one line."""
    described = setup.update.description
    moving, all_ = (sum(p.numel() for p in setup.learner.parameters() if p.requires_grad or every) for every in (False, True))
    moves = f"{moving:,} of {all_:,} parameters"
    size = request.schedule.batch_size * request.schedule.accumulate * spec.processes
    begun = "" if snapshot is None else f", from step {snapshot.name.rpartition('-')[2]} on"
    items = spec.data["items"]["count"]
    return (
        f"{setup.learner.objective.title} by {described['rule']}: {spec.steps:,} steps of {size} of {items:,} items{begun}; {moves} move, "
        f"learning rate {described['lr']:g}"
    )


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """The Trainer turns the cache off in the model's config, and training mode on."""
    config, cache = module.config, getattr(module.config, "use_cache", None)
    try:
        yield
    finally:
        if cache is not None:
            config.use_cache = cache
        module.eval()


def _finish(setup: RunSetup, folder: RunFolder, record: dict[str, Any], *, main: bool) -> Run:
    """The final model into the folder itself, and run.json last of all."""
    if main:
        draft = folder.path / MODEL_DRAFT
        write_trained(setup.tuned, setup.learner, draft)
        for entry in sorted(draft.iterdir()):
            place = folder.path / entry.name
            if place.is_dir():
                shutil.rmtree(place)
            os.replace(entry, place)
        draft.rmdir()
        record |= {"finished": True, "checkpoints": folder.checkpoints()}
        folder.write_record(record)
        folder.clear_snapshots()
    PartialState().wait_for_everyone()
    setup.learner.requires_grad_(False)
    return Run(setup.tuned, folder.record(), folder.rows(LOSSES), folder.rows(STEPS), folder.rows(TRAJECTORY), folder.path)
