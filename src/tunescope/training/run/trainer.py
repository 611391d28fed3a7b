"""transformers' Trainer with our learner, optimizer and order of items, and what a run needs to go on exactly where it stopped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from tunescope.errors import ActivationError, FormatError, InputError
from tunescope.models import Model
from tunescope.training.objectives import Learner
from tunescope.training.run.data import RunCollator, RunData, RunOrder
from tunescope.training.run.fsdp import choice_forgotten
from tunescope.training.run.setup import RunSetup
from tunescope.training.run.spec import RunSpec, Schedule
from tunescope.training.run.surroundings import Surroundings
from tunescope.training.run.trainer_options import check_trainer_options
from tunescope.training.shards import Shards, are_cut, cut_like, cut_state, whole, whole_state
from tunescope.training.step_sizes import StepLog, StepSizes

WEIGHTS, PROGRESS = "trainable.safetensors", "progress.pt"  # what a snapshot holds beside the Trainer's own files
OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"  # as the Trainer names them


class RunTrainer(Trainer):
    """Trains a Learner as an update rule says; `losses` and `step_log` grow by a row a step.

    A snapshot holds what trains and nothing else, since the rest is the base's. Of weights in shards it is the one that a single process
    would keep: every process takes part in putting it together, and the main one writes it.
    """

    def __init__(self, setup: RunSetup, data: RunData, order: RunOrder, arguments: TrainingArguments, *, tau: float | None):
        self.learner, self.update, self.tuned, self.order, self.tau = setup.learner, setup.update, setup.tuned, order, tau
        self.losses: list[dict[str, float]] = []
        self._pending: list[dict[str, Tensor]] = []  # of micro-batches since the last step
        self._unread: list[dict[str, Any]] = []  # rows whose tensors were not yet asked for, which would make the device wait
        self._sizes: StepSizes | None = None
        self._norm: Any = None
        self.rate = math.nan  # of the step that is being made, the largest of all groups
        collate = RunCollator(setup.learner, seed=arguments.seed)
        with choice_forgotten():
            super().__init__(model=setup.learner, args=arguments, train_dataset=data, data_collator=collate)
        if self.is_fsdp_enabled:
            self.learner.shards = Shards(self.learner, self.tuned)
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = None  # autocast instead, as where nothing is cut
        self.remove_callback(PrinterCallback)

    @property
    def step_log(self) -> StepLog | None:
        """The sizes of all steps, by group."""
        if self._sizes is not None:
            return self._sizes.log
        return getattr(getattr(self.optimizer, "optimizer", self.optimizer), "log", None)

    def create_optimizer(self, model: Any = None) -> Optimizer:
        """The update rule's, with a record of its steps."""
        if self.optimizer is None:
            several = self.args.gradient_accumulation_steps > 1 and not self.is_fsdp_enabled  # whose gradients can be heard to agree
            self.optimizer = self.update.optimizer(tau=self.tau, agreement=several and self.update.equal)
            self._sizes = None if self.update.equal else StepSizes(self.optimizer, self.learner.body, agreement=several)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        return self.order

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The learner's, whose other scalars are kept for the loss curve."""
        with self.accelerator.autocast() if self.is_fsdp_enabled else nullcontext():
            outputs = model(**inputs)
        self._pending.append({name: value.detach() for name, value in outputs.items()})
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        self._norm = super()._clip_grad_norm(model)
        return self._norm

    def end_of_step(self) -> None:
        """Take down the step that was just made: means over its micro-batches."""
        names = self._pending[0]
        means = {name: torch.stack([each[name].float() for each in self._pending]).mean() for name in names}
        norm = {} if self._norm is None else {"gradient_norm": whole(torch.as_tensor(self._norm)).clone()}
        place = {"step": self.state.global_step, "epoch": self.state.epoch, "learning_rate": self.rate}
        self._unread.append(place | means | norm)
        self._pending = []

    def read_losses(self) -> list[dict[str, float]]:
        """All rows so far; under torchrun the loss is the mean over processes. Raises ActivationError for a loss that is no number."""
        for row in self._unread:
            tensors = {name: value for name, value in row.items() if isinstance(value, Tensor)}
            read = self.accelerator.reduce(torch.stack([value.to(self.args.device) for value in tensors.values()]), "mean").tolist()
            self.losses.append(row | dict(zip(tensors, read, strict=True)))
            if not math.isfinite(self.losses[-1]["loss"]):
                raise ActivationError(f"the loss at step {row['step']} is {self.losses[-1]['loss']}; {self._cause(row)}")
        self._unread = []
        return self.losses

    def _cause(self, row: Mapping[str, Any]) -> str:
        """What makes a loss no number: of the first step, which nothing was learnt before, it is not the learning rate."""
        if row["step"] > 1:
            return f"lower the learning rate ({row['learning_rate']:g} here)"
        name = self.learner.objective.name
        return f"nothing was learnt before it, so the model, the settings of {name} (such as a temperature) or the precision make it so"

    @contextmanager
    def whole(self) -> Iterator[tuple[Model, Learner]]:
        """The tuned model and its learner to be written, by the main process alone; every process must enter it."""
        shards = self.learner.shards
        if shards is None or not are_cut(self.learner):
            yield self.tuned, self.learner
            return
        with shards.together(on="cpu"):
            yield shards.tuned, shards.learner

    def as_left(self) -> tuple[Model, Learner]:
        """The tuned model and its learner when all is done, on every process."""
        shards = self.learner.shards
        if shards is None or not are_cut(self.learner):
            return self.tuned, self.learner
        shards.fill()
        return shards.tuned, shards.learner

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the Trainer does; of weights in shards only what trains is put together."""
        if self.is_fsdp_enabled:
            self._save(output_dir)
        else:
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        own = {name: whole(value).contiguous().cpu() for name, value in kept(self.learner).items()}
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(own, folder / WEIGHTS)
        log = None if self._sizes is None else self._sizes.log.state_dict()
        torch.save({"losses": self.losses, "steps": log, "fitted": self.learner.fitted}, folder / PROGRESS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        stored, own = load_file(folder / WEIGHTS), kept(self.learner)
        if stored.keys() != own.keys():
            raise FormatError(f"'{folder}' holds {len(stored)} trained tensors and this run trains {len(own)}; it is of another run")
        with torch.no_grad():
            for name, value in stored.items():
                own[name].copy_(cut_like(value, own[name]))
        progress = torch.load(folder / PROGRESS, weights_only=True)
        self.losses, self.learner.fitted, self._stored_steps = progress["losses"], progress["fitted"], progress["steps"]

    def load_trained(self, snapshot: Path) -> None:
        """What a snapshot holds of the model, without going on from it."""
        self._load_from_checkpoint(str(snapshot))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = whole_state(self.optimizer.state_dict())
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.is_fsdp_enabled:
            read: dict[str, Any] = {"weights_only": True, "map_location": "cpu"}
            self.optimizer.load_state_dict(cut_state(torch.load(Path(checkpoint) / OPTIMIZER, mmap=True, **read), self.optimizer))
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER, **read))
        else:
            super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self._sizes is not None:
            self._sizes.log.load_state_dict(self._stored_steps)


def kept(learner: Learner) -> dict[str, nn.Parameter]:
    """What trains or was drawn, by name; a tensor that several modules share is there once."""
    drawn = {id(parameter) for parameter in learner.drawn}
    return {name: p for name, p in learner.named_parameters() if p.requires_grad or id(p) in drawn}


def trainer_arguments(
    folder: Path, schedule: Schedule, spec: RunSpec, *, device: torch.device, around: Surroundings
) -> TrainingArguments:
    """The run as the Trainer is told of it, with further TrainingArguments by name.

    Raises InputError for what the Trainer does not know, or the run sets itself.
    """
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": spec.steps,
        "per_device_train_batch_size": schedule.batch_size,
        "gradient_accumulation_steps": schedule.accumulate,
        "max_grad_norm": schedule.clip,
        "lr_scheduler_type": "constant_with_warmup" if schedule.warmup and schedule.schedule == "constant" else schedule.schedule,
        "warmup_steps": schedule.warmup,
        "bf16": schedule.precision == "bfloat16",
        "fp16": schedule.precision == "float16",
        "seed": spec.seed,
        "use_cpu": device.type == "cpu",
        "dataloader_drop_last": True,
        "dataloader_pin_memory": device.type == "cuda",
        "remove_unused_columns": False,
        "save_strategy": "no",  # our callback says when
        "save_total_limit": 1,
        "logging_steps": 10,
        "logging_nan_inf_filter": False,
        "report_to": list(around.log_to) or "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": True,  # a pooler that no loss reads has no gradient
    }
    more = dict(around.trainer or {})
    if more.get("deepspeed"):
        raise InputError("trainer={'deepspeed': …} was given; a run cannot keep what DeepSpeed cuts: use torchrun, alone or with fsdp")
    check_trainer_options(more)
    try:
        arguments = TrainingArguments(**settings, **more)
        for logger in get_reporting_integration_callbacks(arguments.report_to):
            logger()  # which fails where what it logs to is not installed
    except (TypeError, ValueError, ImportError, RuntimeError) as error:
        raise InputError(f"the Trainer does not take this: {' '.join(str(error).split())}; see transformers.TrainingArguments") from error
    arguments._n_gpu = min(1, arguments.n_gpu)  # DataParallel would copy the learner at every step; torchrun is the way to more cards
    return arguments
