"""Carrying a run out: the model is set up, trained by transformers' Trainer, and what came of it is written."""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn

from tunescope.errors import ActivationError, InputError
from tunescope.identity import versions
from tunescope.models.anatomy import text_body
from tunescope.models.quiet import quietly
from tunescope.training.model_folder import write_model
from tunescope.training.objectives import Learner
from tunescope.training.run.asked import in_words
from tunescope.training.run.data import RunCollator, RunData, RunOrder
from tunescope.training.run.differing import differing
from tunescope.training.run.folder import BASE, LOSSES, STEPS, TRAJECTORY, RunFolder, has_ended
from tunescope.training.run.fsdp import check_fsdp
from tunescope.training.run.keeping import RunKeeping, write_trained
from tunescope.training.run.request import Request
from tunescope.training.run.result import Run, load_run
from tunescope.training.run.setup import RunSetup, fit_drawn_head, mark, own_model, set_up
from tunescope.training.run.spec import RunSpec
from tunescope.training.run.surroundings import Surroundings
from tunescope.training.run.trainer import RunTrainer, trainer_arguments
from tunescope.training.step_groups import StepGroups
from tunescope.training.trajectory_callback import TrajectoryCallback
from tunescope.training.updates.equal import EqualStepped

MODEL_DRAFT = ".model"  # where the final model is written before it is moved up
SNAPSHOTS = 20  # of a run, at least, so that little is lost when it is stopped


def execute(base: Any, request: Request, folder: RunFolder, around: Surroundings, *, resume: bool) -> Run:
    """Make the run in `folder`, or go on with it. Raises what `ts.finetune` does."""
    with _seeded(request.seed):
        model = own_model(base, **dict(around.loading or {}))
    data, ranks = request.data(), PartialState(cpu=model.device.type == "cpu")
    order = request.order(data, ranks.num_processes)
    spec = request.spec(model, data, ranks.num_processes, around.trainer or {})
    arguments = trainer_arguments(folder.snapshots, request.schedule, spec, device=model.device, around=around)
    check_fsdp(arguments, model)
    learner = set_up(model, request.objective, request.schedule, seed=request.seed, max_length=request.max_length)
    _try_reading(learner, data, order, request)
    watching = _watching(request, spec, folder)
    if resume and _same(folder, spec)["finished"]:
        return load_run(folder.path)
    snapshot = folder.last_snapshot() if resume else None
    fitted = folder.record()["head_fit"] if snapshot else None
    setup = mark(learner, request, name=folder.path.name, base_folder=folder.path / BASE)
    StepGroups(setup.update.optimizer(tau=request.tau), learner.body)  # what they refuse is refused before anything is written
    record = _record(spec, setup, request)
    ranks.wait_for_everyone()  # before anybody writes what others look for
    if ranks.is_main_process:
        folder.write_record(record)
        if setup.keeps_base and not around.in_memory:
            _keep_base(setup, folder.path / BASE)
    for line in (*record["warnings"], _said(spec, setup, request, snapshot)):
        around.announce(line)
    record["head_fit"] = _fitted(learner, data, request, around) if fitted is None else fitted
    trainer = RunTrainer(setup, data, order, arguments, tau=request.tau)
    keeping = RunKeeping(trainer, folder, checkpoints=spec.checkpoints, every=_every(spec), progress=around.progress)
    for callback in (keeping, *watching, *around.callbacks):
        trainer.add_callback(callback)
    if ranks.is_main_process:
        folder.write_record(record)
    if snapshot is not None and has_ended(snapshot):
        trainer.load_trained(snapshot)
        for each in watching:
            each.stopped = each.ends_at(len(trainer.losses), folder.rows(TRAJECTORY))
    else:
        with quietly(), _as_it_was(model.module), _diverging(folder, around):
            trainer.train(resume_from_checkpoint=None if snapshot is None else str(snapshot))
            keeping.write_curves()
    record["ended"] = {"step": len(trainer.losses), "stopped": next((each.stopped for each in watching if each.stopped), None)}
    return _finish(trainer, folder, record)


def _fitted(learner: Learner, data: RunData, request: Request, around: Surroundings) -> list[float]:
    """The losses of a head that is fitted first, and that it was."""
    if request.objective.head != "fitted":
        return fit_drawn_head(learner, data, request)
    around.announce(f"the head is fitted on {request.fit_batches:,} batches first, the body as it is")
    losses = fit_drawn_head(learner, data, request)
    around.announce(f"the head is fitted: its loss went from {losses[0]:.3f} to {losses[-1]:.3f}")
    return losses


def _keep_base(setup: RunSetup, place: Path) -> None:
    """The base of an adapter, which was given as an object and which no name leads to, without the adapter and with its head."""
    if place.exists():
        return
    model = setup.learner.model
    origin, peft = copy.deepcopy((model.origin, setup.update.adapter))
    peft.unload()
    draft = place.with_name(f".{place.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    write_model(replace(model, origin=origin, module=text_body(origin)), draft)
    os.replace(draft, place)


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


def _same(folder: RunFolder, spec: RunSpec) -> dict[str, Any]:
    """The record of the run in the folder. Raises InputError when it is another one, saying in what."""
    found = folder.record()
    if found["spec_hash"] == spec.hash:
        return found
    differ = differing(found["spec"], spec.describe()) or "another version of tunescope"
    raise InputError(f"the run in '{folder.path}' was started with {differ}: give what it was started with, or name another folder")


def _record(spec: RunSpec, setup: RunSetup, request: Request) -> dict[str, Any]:
    described, model = setup.learner.record(), setup.learner.model
    notes = [*request.sources.warnings, *model.warnings, *_resolved_warnings(described["resolved"]), *_without_effect(request)]
    return {
        "spec_hash": spec.hash,
        "spec": spec.describe(),
        "base": spec.base,
        "objective": described,
        "update": setup.update.description | {"tau": request.tau},
        "head_fit": [],
        "warnings": notes,
        "checkpoints": [],
        "ended": None,
        "finished": False,
        "versions": versions(),
    }


def _without_effect(request: Request) -> list[str]:
    """What was asked for and changes nothing."""
    times = request.schedule
    if not isinstance(request.rule, EqualStepped) or (times.lr is None and times.schedule == "constant" and not times.warmup):
        return []
    return ["learning rate and schedule do not decide how long equal steps are: τ does"]


def _resolved_warnings(resolved: Mapping[str, Any]) -> list[str]:
    own = [resolved["warning"]] if "warning" in resolved else []
    return own + [note for value in resolved.values() if isinstance(value, Mapping) for note in _resolved_warnings(value)]


def _every(spec: RunSpec) -> int:
    return max(1, spec.steps // SNAPSHOTS)


def _said(spec: RunSpec, setup: RunSetup, request: Request, snapshot: Path | None) -> str:
    """The run in one line."""
    described = setup.update.description
    moving, all_ = (sum(p.numel() for p in setup.learner.parameters() if p.requires_grad or every) for every in (False, True))
    moves = f"{moving:,} of {all_:,} parameters"
    size = request.schedule.batch_size * request.schedule.accumulate * spec.processes
    begun = "" if snapshot is None else f", from step {snapshot.name.rpartition('-')[2]} on"
    length = f"learning rate {described['lr']:g}" if request.tau is None else f"equal steps of τ = {request.tau:.4g}"
    read = ", ".join(f"{key}: {value}" for key, value in spec.data.get("pairs", {}).get("columns", {}).items())
    return (
        f"{in_words(request.objective)} by {described['rule']}: {spec.steps:,} steps of {size} of {spec.data['items']['count']:,} items"
        f"{f' ({read})' if read else ''}{begun}; {moves} move, {length}"
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Weights that a checkpoint lacks are drawn when it is loaded: by the seed, as everything else."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


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


@contextmanager
def _diverging(folder: RunFolder, around: Surroundings) -> Iterator[None]:
    """What a run that diverged leaves behind goes on with its own learning rate alone."""
    try:
        yield
    except ActivationError as error:
        if around.in_memory:
            raise
        raise ActivationError(f"{error}; remove '{folder.path}', where it began, or name another folder") from error


def _finish(trainer: RunTrainer, folder: RunFolder, record: dict[str, Any]) -> Run:
    """The final model into the folder itself, and run.json last of all."""
    draft = folder.path / MODEL_DRAFT
    with trainer.whole() as (model, learner):
        if trainer.is_world_process_zero():
            write_trained(model, learner, draft)
    if trainer.is_world_process_zero():
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
    model, learner = trainer.as_left()
    learner.requires_grad_(False)
    return Run(model, record, folder.rows(LOSSES), folder.rows(STEPS), folder.rows(TRAJECTORY), folder.path)
