"""From what was asked to a learner whose parameters are marked for training: nothing is written here."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunescope.errors import InputError
from tunescope.models import Model, load_model
from tunescope.models.adapters import describe
from tunescope.models.sources import Folder
from tunescope.training.objectives import Batch, Learner, Objective, fit_head
from tunescope.training.run.data import RunCollator, RunData, RunOrder
from tunescope.training.run.request import Request
from tunescope.training.run.spec import Schedule
from tunescope.training.updates import Update
from tunescope.training.updates.base import shown

ADAPTER = "default"  # what PEFT calls an adapter that was given no name
FIT_BATCHES = 100  # for a drawn head that is fitted before the body is tuned
_FIT_SEED = 1_000_003  # its batches come in another order than the run's


@dataclass(frozen=True, eq=False)
class RunSetup:
    """A learner and what trains of it. tuned: the model as it is trained.

    keeps_base: whether an adapter is to find its base in the run's own folder.
    """

    learner: Learner
    update: Update
    tuned: Model
    keeps_base: bool = False


def own_model(base: Any, **loading: Any) -> Model:
    """The model a run may move: loaded from a name; a copy of one that was given, with the heads it shares weights with."""
    if isinstance(base, str | Path):
        return load_model(base, **loading)
    given = base if isinstance(base, Model) else load_model(base)
    if given.peft is not None:
        raise InputError(f"'{given.name}' wears an adapter; merge it (merge_and_unload) and tune the merged model")
    module, origin, output = copy.deepcopy((given.module, given.origin, given.output))
    return replace(given, module=module, origin=origin, output=output)


def set_up(model: Model, objective: Objective, schedule: Schedule, *, seed: int, max_length: int) -> Learner:
    """The learner, with activation checkpointing where asked. Raises what objective and model refuse."""
    learner = Learner(model, objective, max_length=max_length, seed=seed)
    if schedule.activation_checkpointing:
        learner.body.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return learner


def fit_drawn_head(learner: Learner, data: RunData, request: Request) -> list[float]:
    """Fit a head that is asked for fitted, with the body frozen, on batches of an order of its own; its losses."""
    if learner.objective.head != "fitted":
        return []
    batches = _batches(learner, data, request.schedule, seed=request.seed + _FIT_SEED, batches=request.fit_batches)
    return fit_head(learner, batches)


def _batches(learner: Learner, data: RunData, schedule: Schedule, *, seed: int, batches: int) -> Iterator[Batch]:
    order, collate = RunOrder(len(data), seed=seed, batch=schedule.batch_size), RunCollator(learner, seed=seed)
    places = (place for epoch in range(batches) for place in _epoch(order, epoch, schedule.batch_size))
    for _ in range(batches):
        rows = [data[next(places)] for _ in range(schedule.batch_size)]
        yield _moved(collate(rows)["batch"], learner.model.device)


def _epoch(order: RunOrder, epoch: int, batch: int) -> Sequence[tuple[int, int, int]]:
    order.set_epoch(epoch)
    places = list(order)
    return places[: len(places) // batch * batch]


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Mapping):
        return {name: _moved(value, device) for name, value in batch.items()}
    return batch.to(device) if isinstance(batch, torch.Tensor) else batch


def mark(learner: Learner, request: Request, *, name: str, base_folder: Path) -> RunSetup:
    """Apply the update rule; drawn heads train under every rule unless told otherwise. The matrices of a LoRA are drawn by the seed.

    base_folder: where the base of an adapter is to be found that was given as an object.
    """
    model, schedule = learner.model, request.schedule
    if not request.train_drawn_head and not learner.drawn:
        name = learner.objective.name
        raise InputError(f"train_drawn_head=False (--frozen-head) asked for, and {name} runs through no drawn head; leave it out")
    torch.manual_seed(request.seed)
    update = request.rule.apply(learner, lr=schedule.rate(request.rule.name), body=learner.body)
    update = _with_heads(update, learner.drawn, schedule) if request.train_drawn_head else _without(update, learner.drawn)
    update = replace(update, description=update.description | _counted(learner, update))
    if update.adapter is None:
        return RunSetup(learner, update, replace(model, name=name))
    config, origin = update.adapter.peft_config[ADAPTER], model.origin
    config.base_model_name_or_path = os.path.abspath(base_folder)
    if isinstance(origin, Folder):
        config.base_model_name_or_path = origin.name if origin.revision else os.path.abspath(origin.path)
    worn = {"peft": update.adapter, "adapter_on": True, "adapters": (ADAPTER,), "adapter": describe(config, name=name), "worn": None}
    tuned = replace(model, name=name, warnings=[], **worn)
    return RunSetup(learner, update, tuned, keeps_base=not isinstance(origin, Folder))


def _counted(learner: Learner, update: Update) -> dict[str, Any]:
    """How much moves and how much does not, and by which groups, heads included."""
    every = list(learner.parameters())
    moving = [parameter for parameter in every if parameter.requires_grad]
    counts = {"tensors": len(moving), "parameters": sum(p.numel() for p in moving), "frozen_tensors": len(every) - len(moving)}
    counts["frozen_parameters"] = sum(p.numel() for p in every) - counts["parameters"]
    return counts | {"groups": [shown(group) for group in update.groups]}


def _with_heads(update: Update, drawn: list[nn.Parameter], schedule: Schedule) -> Update:
    """The update with a group for drawn heads that the rule left frozen, or at a rate of their own where one is asked for."""
    if schedule.drawn_lr is not None:
        update = _without(update, drawn)
    fresh = [parameter for parameter in drawn if not parameter.requires_grad]
    if not fresh:
        return update
    for parameter in fresh:
        parameter.requires_grad_(True)
    rate = schedule.drawn_lr or update.description["lr"]
    group = {"params": fresh, "lr": rate, "weight_decay": 0.0, "name": "drawn head"}
    return replace(update, groups=[*update.groups, group])


def _without(update: Update, frozen: list[nn.Parameter]) -> Update:
    """The update with these parameters left as they are."""
    out = {id(parameter) for parameter in frozen}
    for parameter in frozen:
        parameter.requires_grad_(False)
    groups = [group | {"params": [p for p in group["params"] if id(p) not in out]} for group in update.groups]
    return replace(update, groups=[group for group in groups if group["params"]])
