"""How far every group of tensors moves at every step of an optimizer, relative to its size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tunescope.chance import agrees_by_chance
from tunescope.errors import FormatError, InputError
from tunescope.training.agreement import Agreement
from tunescope.training.step_groups import StepGroups, cached, group_norms, local, pieces

MOVED, UNSCALED, STILL, FROZEN = "moved", "zero norm", "no update", "frozen"
STATES = (MOVED, UNSCALED, STILL, FROZEN)
TINY = 1e-12  # keeps the ratio finite
_COLUMNS = ("ratio", "weight", "gradient", "agreement", "state")


@dataclass(frozen=True)
class Step:
    """One step, one entry a group, float64 on the CPU.

    weight: |W(t)|. update: |Δ|, what the optimizer did. gradient: |g| as the optimizer saw it, after accumulation and clipping.
    agreement: of the micro-batches' gradients, NaN where not asked for. present: whether the group has trainable tensors.
    """

    weight: Tensor
    update: Tensor
    gradient: Tensor
    agreement: Tensor
    present: list[bool]

    @property
    def ratio(self) -> Tensor:
        """r = |Δ| / (|W| + 1e-12)."""
        return self.update / (self.weight + TINY)

    @property
    def states(self) -> list[str]:
        """What became of each group: moved, zero norm (no relative step exists), no update, frozen."""
        return [
            FROZEN if not present else STILL if update == 0 else UNSCALED if weight == 0 else MOVED
            for present, update, weight in zip(self.present, self.update.tolist(), self.weight.tolist(), strict=True)
        ]


class StepLog:
    """Step sizes by step and group: r before any rescaling, |W|, gradient norm, agreement, and what became of the group."""

    def __init__(self, groups: list[str]):
        self.groups = groups
        self._steps: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: Step) -> None:
        """Append one step."""
        codes = torch.tensor([float(STATES.index(state)) for state in step.states], dtype=torch.float64)
        self._steps.append(torch.stack([step.ratio, step.weight, step.gradient, step.agreement, codes], dim=1))

    def rows(self) -> list[dict]:
        """One flat row a step (from 1) and group: ratio, weight, gradient, agreement (None where unknown), state."""
        return [
            {"step": number, "group": group} | {name: _cell(name, value) for name, value in zip(_COLUMNS, values, strict=True)}
            for number, step in enumerate(self._steps, 1)
            for group, values in zip(self.groups, step.tolist(), strict=True)
        ]

    def ratios(self) -> list[float]:
        """Every r of a group that moved from a norm above zero."""
        moved = float(STATES.index(MOVED))
        return [float(values[0]) for step in self._steps for values in step if values[4] == moved]

    def moved_by_noise(self) -> list[str]:
        """Groups whose micro-batches do not agree: the mean agreement over steps is at most two standard errors above zero.

        Equal steps move such a group as far as any other, along noise. Groups with fewer than two known agreements are left out.
        """
        noisy = []
        for index, group in enumerate(self.groups):
            known = [float(step[index, 3]) for step in self._steps if not step[index, 3].isnan()]
            if agrees_by_chance(known):
                noisy.append(group)
        return noisy

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the groups, and steps as one tensor (steps, groups, columns) in float64."""
        empty = torch.zeros(0, len(self.groups), len(_COLUMNS), dtype=torch.float64)
        return {"groups": list(self.groups), "steps": torch.stack(self._steps) if self._steps else empty}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace everything by a saved log. Raises FormatError when it is of other groups."""
        if list(state["groups"]) != self.groups or state["steps"].shape[1:] != (len(self.groups), len(_COLUMNS)):
            raise FormatError(f"the saved log of step sizes is of {', '.join(state['groups'])}; here are {', '.join(self.groups)}")
        self._steps = list(state["steps"].cpu().double().clone())


class Movement:
    """One copy of the trainable weights, taken before a step, and the sizes of the step after it."""

    def __init__(self, optimizer: Optimizer, model: Any, *, agreement: bool = False):
        self.groups = StepGroups(optimizer, model)
        self.agreement = Agreement(self.groups) if agreement else None
        self._before: list[Tensor] = []
        self._weight = torch.zeros(len(self.groups.names), dtype=torch.float64)

    def watch(self, optimizer: Optimizer) -> None:
        """Listen to the gradients of micro-batches, where asked: of all that is trainable now."""
        if self.agreement is not None:
            self.agreement.watch(*self.groups.trainable(optimizer))

    @torch.no_grad()
    def start(self, optimizer: Optimizer) -> None:
        """Copy the weights, and take their norms while they are in the cache."""
        parameters, labels = self.groups.trainable(optimizer)
        now = [local(parameter) for parameter in parameters]
        if [_kind(tensor) for tensor in self._before] != [_kind(tensor) for tensor in now]:
            self._before = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in now]
        norms: list[Tensor] = []
        flat, owners = pieces(now)
        for copies, originals in cached(pieces(self._before)[0], flat):
            torch._foreach_copy_(copies, originals)
            norms += torch._foreach_norm(copies)
        self._weight = group_norms(norms, owners, parameters, labels, len(self.groups.names))

    @torch.no_grad()
    def finish(self, optimizer: Optimizer) -> Step:
        """The sizes of what the optimizer did since `start`."""
        parameters, labels = self.groups.trainable(optimizer)
        count = len(self.groups.names)
        norms: list[Tensor] = []
        flat, owners = pieces([local(parameter) for parameter in parameters])
        for after, before in cached(flat, pieces(self._before)[0]):
            norms += torch._foreach_norm(torch._foreach_sub(after, before))
        update = group_norms(norms, owners, parameters, labels, count)
        present = self.groups.present(labels)
        agreement = self.agreement.take() if self.agreement is not None else torch.full((count,), math.nan, dtype=torch.float64)
        return Step(self._weight, update, _gradient_norms(parameters, labels, count), agreement, present)

    @torch.no_grad()
    def rescale(self, optimizer: Optimizer, factors: list[float]) -> None:
        """W ← W(t) + factor·Δ, one factor a group."""
        parameters, labels = self.groups.trainable(optimizer)
        for index, factor in enumerate(factors):
            chosen = [i for i, label in enumerate(labels) if label == index]
            if chosen and factor != 1:
                after, before = [local(parameters[i]) for i in chosen], [self._before[i] for i in chosen]
                torch._foreach_lerp_(after, before, 1 - factor)


class StepSizes:
    """Logs the relative step of every group of any optimizer, without changing it; `log` has the rows, `close()` stops.

        with StepSizes(optimizer, model) as sizes:
            train()
        tau = tau_from(sizes.log)

    Costs one copy of the trainable weights. agreement: also the agreement of the gradients of micro-batches.

    Raises: InputError as for StepGroups.
    """

    def __init__(self, optimizer: Optimizer, model: Any, *, agreement: bool = False):
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper takes no hooks
        if not isinstance(inner, Optimizer):
            raise InputError(f"StepSizes listens to a torch optimizer, got a {type(optimizer).__name__}")
        self._movement = Movement(inner, model, agreement=agreement)
        self._movement.watch(inner)
        self.log = StepLog(self._movement.groups.names)
        self._handles = [
            inner.register_step_pre_hook(lambda optimizer, args, kwargs: self._movement.start(optimizer)),
            inner.register_step_post_hook(lambda optimizer, args, kwargs: self.log.add(self._movement.finish(optimizer))),
        ]

    def close(self) -> None:
        """Take the hooks off; the log stays."""
        for handle in self._handles:
            handle.remove()
        if self._movement.agreement is not None:
            self._movement.agreement.close()

    def __enter__(self) -> StepSizes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _gradient_norms(parameters: list[Tensor], labels: list[int], count: int) -> Tensor:
    """|g| of every group; a tensor without a gradient counts as zero."""
    chosen = [i for i, parameter in enumerate(parameters) if parameter.grad is not None and not parameter.grad.is_sparse]
    gradients = [parameters[i].grad for i in chosen]
    flat, owners = pieces([local(gradient) for gradient in gradients])
    norms = [norm for (few,) in cached(flat) for norm in torch._foreach_norm(few)]
    return group_norms(norms, owners, gradients, [labels[i] for i in chosen], count)


def _kind(tensor: Tensor) -> tuple:
    return tensor.shape, tensor.dtype, tensor.device


def _cell(name: str, value: float) -> float | str | None:
    if name == "state":
        return STATES[int(value)]
    return None if math.isnan(value) else value
