"""One training run: a model, an objective, an update rule, and everything the run leaves behind."""

from __future__ import annotations

import inspect
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn
from transformers import TrainerCallback

from tunescope.errors import InputError, UnknownName
from tunescope.training.number_ranges import SEED, Number, check_numbers
from tunescope.training.objectives import Objective
from tunescope.training.objectives.reader import LEAST_LENGTH, LENGTH
from tunescope.training.run.asked import read_objective
from tunescope.training.run.engine import execute
from tunescope.training.run.folder import PAIRED, RunFolder
from tunescope.training.run.request import Request
from tunescope.training.run.result import Run, read_tau
from tunescope.training.run.setup import FIT_BATCHES
from tunescope.training.run.sources import RunSources
from tunescope.training.run.spec import Schedule
from tunescope.training.run.surroundings import Progress, Surroundings
from tunescope.training.trajectory_callback import TrajectoryCallback
from tunescope.training.untouched import untouched
from tunescope.training.updates import UpdateRule, select
from tunescope.training.updates.equal import EqualStepped

WATCHED: Mapping[str, Any] = MappingProxyType({})  # by the callback's own defaults


def finetune(
    base: Any,
    *,
    objective: str | Objective,
    update: str | UpdateRule = "lora",
    texts: Any = None,
    pairs: Any = None,
    labels: str | None = None,
    keep: Any = None,
    out: str | Path | None = None,
    resume: bool = False,
    epochs: float | None = None,
    steps: int | None = None,
    checkpoints: Sequence[float] = (),
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    tau: float | str | Path | None = None,
    max_length: int = LENGTH,
    schedule: Mapping[str, Any] | None = None,
    train_drawn_head: bool = True,
    fit_batches: int = FIT_BATCHES,
    trajectory: Mapping[str, Any] | None = WATCHED,
    callbacks: Sequence[TrainerCallback] = (),
    log_to: Sequence[str] = (),
    trainer: Mapping[str, Any] | None = None,
    loading: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> Run:
    """Tune a model by an objective under an update rule, on transformers' Trainer, and keep what is needed to explain the result.

    Args:
        base: a hub id or folder, or something loaded, of which a copy is tuned.
        objective: a name of `training.objectives.OBJECTIVES`; several as "mlm:0.5,contrastive" (weights); or an Objective.
        update: a name of `training.updates.UPDATES`, such as "uniform", "top-2", "lora+equal-step"; or an UpdateRule.
        texts, pairs, labels, keep: what is read. labels is the column of classes in the texts; keep, general texts on which the model
            is to stay as it was (`preserve`). An objective on texts takes both sides of pairs where no texts are given.
        out: the folder of the run, see `training.run.folder`; None keeps the run in memory.
        resume: go on with the run in `out`, with the same arguments, exactly where it stopped.
        epochs, steps: how long, one of them; by default one epoch. checkpoints: in the same unit, at which models are kept and the
            trajectory is measured; start and end always are.
        settings, options: of the objective ("temperature", "mlm.share", "preserve.weight") and of the update rule ("rank").
        tau: of equal-step: a number, the folder of a paired run, or "paired", which first runs the rule without equal steps.
        max_length: tokens a text is cut at, 2 or more.
        schedule: fields of `training.run.spec.Schedule`, such as {"lr": 1e-4, "batch_size": 64, "precision": "bfloat16"}.
        train_drawn_head: whether a head of drawn weights learns along, where there is one. fit_batches: for head="fitted".
        trajectory: arguments of `ts.TrajectoryCallback`, which measures at the checkpoints, by default on 256 paragraphs of Python's
            documentation; None measures nothing.
        callbacks, log_to, trainer: of the Trainer: further callbacks, "tensorboard", "wandb", …, and TrainingArguments.
        loading: of `ts.load_model`, such as {"device": "cpu"}.

    Raises: InputError and UnknownName for what is asked, TextsError, ModelError (what objective or rule refuse), OutputError (the
        folder), ActivationError (a loss that is no number).
    """
    if resume and out is None:
        raise InputError("resume=True needs the folder of the run to go on with; give out")
    with ExitStack() as stack:
        stack.enter_context(untouched(nn.Module()))  # the caller's random numbers
        folder = RunFolder.for_new(out or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run", resume=resume)
        resume = resume and folder.begun
        sources = RunSources.of(texts=texts, pairs=pairs, labels=labels, keep=keep)
        request = Request(
            objective=read_objective(objective, settings, classes=len(sources.classes), keeps=keep is not None),
            rule=select(update, options) if isinstance(update, str) else update,
            sources=sources,
            schedule=_schedule(schedule, steps, epochs),
            seed=seed,
            max_length=max_length,
            points=_points(checkpoints),
            train_drawn_head=train_drawn_head,
            fit_batches=fit_batches,
            trajectory=trajectory,
        )
        _check(seed, fit_batches, max_length, trajectory)
        around = Surroundings(
            tuple(callbacks), tuple(log_to), dict(trainer or {}), dict(loading or {}), progress, _once(announce), in_memory=out is None
        )
        if not resume:
            stack.enter_context(folder.kept_once_begun())
        request = replace(request, tau=_tau(tau, base, request, folder, around))
        run = execute(base, request, folder, around, resume=resume)
        return run if out is not None else replace(run, folder=None)


def _schedule(given: Mapping[str, Any] | None, steps: int | None, epochs: float | None) -> Schedule:
    try:
        return Schedule(steps=steps, epochs=epochs, **dict(given or {}))
    except TypeError as error:
        known = ", ".join(each.name for each in fields(Schedule) if each.name not in ("steps", "epochs"))
        raise InputError(f"schedule={dict(given or {})} asked for; its fields are {known}") from error


def _points(given: Any) -> tuple[float, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"checkpoints={given!r} asked for; give a list of numbers, such as [1, 3, 5]")
    return tuple(given)


def _once(announce: Callable[[str], None]) -> Callable[[str], None]:
    """A run and its paired one read the same texts: what is odd about them is said once."""
    said = set[str]()

    def tell(line: str) -> None:
        if line not in said:
            said.add(line)
            announce(line)

    return tell


def _tau(asked: float | str | Path | None, base: Any, request: Request, folder: RunFolder, around: Surroundings) -> float | None:
    """τ as a number: of the rule where none is given, read from a run, or of a paired run that is made now, in the run's own folder."""
    rule = request.rule
    if not isinstance(rule, EqualStepped):
        if asked is not None:
            raise InputError(f"tau={asked} was given, and the update rule is '{rule.name}'; use '{rule.name}+equal-step'")
        return None
    if asked is None and rule.tau is None:
        raise InputError(f"'{rule.name}' needs tau, the relative step of a block: a number such as 5e-4, the folder of a run, or paired")
    if asked != PAIRED:
        return _given_tau(rule.tau if asked is None else asked, rule, around)
    around.announce(f"first the paired run, by '{rule.on.name}' without equal steps")
    place = RunFolder(folder.path / PAIRED)
    paired = replace(request, rule=rule.on, points=(), trajectory=None)
    with nullcontext() if place.begun else place.kept_once_begun():
        return execute(base, paired, place, around, resume=place.begun).tau


def _given_tau(asked: float | str | Path | None, rule: EqualStepped, around: Surroundings) -> float:
    """A number, or the median step of a run, which is of the tensors that run trained."""
    try:
        tau = float(str(asked))
    except ValueError:
        if not RunFolder(Path(str(asked))).begun:
            raise InputError(f"tau={asked} asked for; give a number such as 5e-4, the folder of a run, or paired") from None
        other = RunFolder.of(str(asked)).record()["update"]["rule"]
        if other != rule.on.name:
            around.announce(f"τ is read off a run by '{other}', whose steps are relative to other tensors than those of '{rule.on.name}'")
        return read_tau(str(asked))
    if not 0 < tau < math.inf:
        raise InputError(f"tau={asked} asked for; how far a block moves at a step, relative to its norm, is above 0, such as 5e-4")
    return tau


def _check(seed: int, fit_batches: int, max_length: int, trajectory: Any) -> None:
    given = {"seed": seed, "fit_batches": fit_batches, "max_length": max_length}
    check_numbers("", given, {"seed": SEED, "fit_batches": Number(whole=True, least=1), "max_length": LEAST_LENGTH})
    if trajectory is None:
        return
    if not isinstance(trajectory, Mapping):
        raise InputError(f"trajectory={trajectory!r} asked for; give arguments of TrajectoryCallback as a dict, or None")
    known = inspect.signature(TrajectoryCallback).parameters.keys() - {"steps", "epochs", "out"}  # the run says when and where
    for name in trajectory:
        if name not in known:
            raise UnknownName("entry of trajectory (arguments of TrajectoryCallback; points are the run's checkpoints)", str(name), known)
