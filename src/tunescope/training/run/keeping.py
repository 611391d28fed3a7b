"""What a run keeps while it goes: models at its checkpoints, snapshots to go on from, the loss curve."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunescope.models import Model
from tunescope.training.model_folder import write_model
from tunescope.training.objectives import Learner
from tunescope.training.run.folder import CHECKPOINT, LOSSES, STEPS, RunFolder
from tunescope.training.run.surroundings import Progress
from tunescope.training.run.trainer import RunTrainer

HEADS = "heads.safetensors"


class RunKeeping(TrainerCallback):
    """Takes down every step, writes the model at its checkpoints, and asks for a snapshot there and at every `every` steps."""

    def __init__(
        self, trainer: RunTrainer, folder: RunFolder, *, checkpoints: Sequence[int], every: int, progress: Progress | None = None
    ):
        self.trainer, self.folder, self.checkpoints, self.every, self.progress = trainer, folder, checkpoints, every, progress

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The start is a checkpoint too."""
        if state.global_step == 0:
            self._write(0, state)

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Say which epoch's order is read: after a resume under torchrun nobody else does."""
        self.trainer.order.set_epoch(int(state.epoch or 0))

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The learning rate of the step, before the schedule moves on."""
        self.trainer.rate = max(group["lr"] for group in self.trainer.optimizer.param_groups)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        """A row of the loss curve; a model or a snapshot where one is due."""
        step = state.global_step
        self.trainer.end_of_step()
        if step in self.checkpoints:
            self._write(step, state)
        control.should_save = step in self.checkpoints or step % self.every == 0
        if control.should_save:
            self.write_curves()  # before the snapshot, so that a run of which all is kept can be ended without a step
        if self.progress is not None and state.is_world_process_zero:
            self.progress("training", step, state.max_steps)
        return control

    def write_curves(self) -> None:
        """Losses and step sizes so far; called by every process, since the loss is the mean over them."""
        rows, log = self.trainer.read_losses(), self.trainer.step_log
        if self.trainer.is_world_process_zero():
            self.folder.write_rows(LOSSES, rows)
            self.folder.write_rows(STEPS, [] if log is None else log.rows())

    def _write(self, step: int, state: TrainerState) -> None:
        if step not in self.checkpoints:
            return
        with self.trainer.whole() as (model, learner):
            if state.is_world_process_zero:
                said = {"step": step, "epoch": state.epoch or 0.0, "weights_sha256": model.identity()["weights_sha256"]}
                write_trained(model, learner, self.folder.checkpoint(step), said=said)


def write_trained(model: Model, learner: Learner, into: Path, *, said: Mapping[str, Any] | None = None) -> None:
    """The model as it is now as a folder, whole or not at all, with the heads it was trained through in heads.safetensors.

    A head that the checkpoint of the base holds goes into the model's own file too, as it was trained. said: for checkpoint.json.
    """
    draft = into.with_name(f".{into.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    write_model(model, draft, head=_own(learner))
    if heads := _trained(learner):
        save_file(heads, draft / HEADS, metadata={"format": "pt"})
    if said is not None:
        (draft / CHECKPOINT).write_text(json.dumps(said), encoding="utf-8")
    shutil.rmtree(into, ignore_errors=True)
    os.replace(draft, into)


def _own(learner: Learner) -> dict[str, Any]:
    """Tensors of heads that belong to the base's checkpoint, by their names there."""
    heads = [head for head in learner.heads.values() if hasattr(head, "in_checkpoint")]
    return {name: value.detach() for head in heads for name, value in head.in_checkpoint().items()}


def _trained(learner: Learner) -> dict[str, Any]:
    """Tensors of all heads that trained or were drawn, without what they share with the body."""
    body = {id(parameter) for parameter in learner.body.parameters()}
    drawn = {id(parameter) for parameter in learner.drawn}
    kept = ((name, p) for name, p in _named(learner.heads) if id(p) not in body and (p.requires_grad or id(p) in drawn))
    return {name: parameter.detach().cpu().contiguous().clone() for name, parameter in kept}


def _named(heads: nn.ModuleDict) -> list[tuple[str, nn.Parameter]]:
    return [(name.replace(".shell.", "."), parameter) for name, parameter in heads.named_parameters()]
