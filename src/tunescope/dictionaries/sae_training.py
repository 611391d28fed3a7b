"""Train autoencoders side by side: one pass over the rows serves every seed, width and number of active latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from tunescope.dictionaries.architectures import ARCHITECTURES, Architecture, Weights
from tunescope.dictionaries.delta_rows import DeltaRows
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.sae_checkpoint import Checkpoint
from tunescope.geometry.threads import threads_for

_WARM, _COOL = 0.02, 0.2  # shares of the steps in which the learning rate rises, and falls
_DEAD_SHARE, _DEAD_ROWS = 0.1, 10_000_000  # a latent is dead that has not fired for so large a share of all rows, or for so many
_RATE = 5e-4  # of 2^14 latents
_FORGET, _RECENT = 0.02, 5.0  # the figures that are shown are of the last fifth of the steps so far, or of the last fifty


@dataclass(frozen=True)
class SaeSpec:
    """One autoencoder."""

    latents: int
    k: int
    architecture: str
    seed: int
    l1: float | None = None

    def begin(self) -> Architecture:
        """How it fires and learns."""
        options = {} if self.l1 is None else {"l1": self.l1}
        return ARCHITECTURES[self.architecture](self.k, **options)


@dataclass(frozen=True)
class Schedule:
    """How rows are read and steps are taken; learning_rate is the highest, for each autoencoder by its latents where None."""

    batch_size: int
    steps: int
    data_seed: int
    learning_rate: float | None

    def rate(self, step: int, latents: int) -> float:
        """The learning rate of a step, from 0; at its highest it falls with sqrt(n), as in Gao et al. 2024."""
        highest = self.learning_rate if self.learning_rate is not None else _RATE * (2**14 / latents) ** 0.5
        warm, cool = max(1, round(_WARM * self.steps)), max(1, round(_COOL * self.steps))
        return highest * min(1.0, (step + 1) / warm, (self.steps - step) / cool)

    @property
    def dead_after(self) -> int:
        """Rows without firing after which a latent is dead."""
        return min(_DEAD_ROWS, max(self.batch_size, round(_DEAD_SHARE * self.steps * self.batch_size)))


@dataclass(eq=False)
class Training:
    """One autoencoder on its way: its weights, its optimizer, and running figures of how well it does."""

    spec: SaeSpec
    weights: Weights
    architecture: Architecture
    optimizer: torch.optim.Adam
    figures: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def begin(cls, spec: SaeSpec, width: int, device: torch.device) -> Training:
        weights = Weights.drawn(spec.latents, width, seed=spec.seed)
        architecture = spec.begin()
        architecture.begin(weights)
        weights = weights.to(device)
        optimizer = torch.optim.Adam(list(weights.parameters.values()), lr=0.0, fused=device.type in ("cpu", "cuda"))
        for value in weights.parameters.values():  # made now, so that a checkpoint has a place for each
            optimizer.state[value] = {name: torch.zeros_like(value) for name in ("exp_avg", "exp_avg_sq")} | {
                "step": torch.zeros((), device=device if device.type == "cuda" else "cpu")
            }
        figures = {name: torch.zeros((), device=device) for name in ("unexplained", "l0", "steps")}
        return cls(spec, weights, architecture, optimizer, figures)

    def step(self, x: Tensor, rate: float, dead_after: int) -> None:
        """Learn from a batch (rows, d) of mean 0 and mean square 1."""
        weights = self.weights
        dead = (weights.silent >= dead_after).nonzero()[:, 0]
        step = self.architecture.step(weights, x, dead)
        _across(step.gradients["decoder"], weights.decoder)
        for name, value in weights.parameters.items():
            value.grad = step.gradients[name]
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        weights.decoder.div_(weights.decoder.norm(dim=1, keepdim=True))
        weights.silent.add_(len(x)).masked_fill_(step.fired > 0, 0)
        self.figures["steps"].add_(1)
        newest = (_RECENT / self.figures["steps"]).clamp(_FORGET, 1)
        for name, value in (("unexplained", step.unexplained), ("l0", step.l0)):
            running = self.figures[name]
            running.copy_(torch.where(newest < 1, running.lerp(value, newest), value))

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name."""
        moments = {
            f"adam.{name}.{moment}": kept
            for name, value in self.weights.parameters.items()
            for moment, kept in self.optimizer.state[value].items()
        }
        return self.weights.state() | moments | {f"figure.{name}": value for name, value in self.figures.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Become what `state` gave."""
        for name, value in self.state().items():
            value.copy_(state[name])

    def finished(self, rows: DeltaRows, schedule: Schedule) -> Dictionary:
        """The dictionary, for rows as they are: their mean and their scale are folded into its weights."""
        weights, scale = self.weights, float(rows.rms)
        mean = rows.mean.to(weights.offset)
        spec = self.spec
        dead = int((weights.silent >= schedule.dead_after).sum())
        said: dict[str, Any] = {name: float(self.figures[name]) for name in ("unexplained", "l0")}
        said |= {"dead": dead, "rms": scale, "mean": rows.mean.tolist()}
        return Dictionary(
            w_enc=weights.encoder.T.contiguous().cpu(),
            b_enc=(weights.bias * scale).cpu(),
            decoder=weights.decoder.clone().cpu(),
            b_dec=(weights.offset * scale + mean).cpu(),
            firing=self.architecture.firing(weights, scale).to("cpu"),
            name=f"{spec.architecture}-n{spec.latents}-k{spec.k}-seed{spec.seed}",
            metadata=asdict(spec) | said | {"schedule": asdict(schedule)},
        )


@torch.no_grad()
def run(
    rows: DeltaRows,
    specs: list[SaeSpec],
    schedule: Schedule,
    *,
    device: torch.device,
    checkpoint: Checkpoint | None,
    progress: Callable[[int, int, dict[str, Any]], None] | None,
) -> list[Dictionary]:
    """Take every step for every autoencoder, from the checkpoint on where it has one."""
    trainings = [Training.begin(spec, rows.width, device) for spec in specs]
    done = checkpoint.restore(trainings) if checkpoint else 0
    mean, scale = rows.mean.float().to(device), 1 / rows.rms
    with threads_for(schedule.batch_size * rows.width * max(spec.latents for spec in specs)):
        for step, batch in enumerate(_batches(rows, schedule, done), done):
            x = (batch.to(device, non_blocking=True) - mean) * scale
            for training in trainings:
                training.step(x, schedule.rate(step, training.spec.latents), schedule.dead_after)
            if checkpoint:
                checkpoint.did(step + 1, trainings, last=step + 1 == schedule.steps)
            if progress:
                progress(step + 1, schedule.steps, {"unexplained": float(trainings[0].figures["unexplained"])})
    return [training.finished(rows, schedule) for training in trainings]


def _batches(rows: DeltaRows, schedule: Schedule, done: int) -> Iterator[Tensor]:
    """The batches of the steps that are left."""
    each = rows.rows // schedule.batch_size
    while done < schedule.steps:
        for batch in rows.batches(schedule.batch_size, seed=schedule.data_seed, epoch=done // each, skip=done % each):
            yield batch
            done += 1
            if done == schedule.steps:
                return


def _across(gradient: Tensor, directions: Tensor) -> None:
    """Take from each row's gradient the part along the row, which the norm of 1 would undo."""
    gradient.sub_(directions * (gradient * directions).sum(1, keepdim=True))
