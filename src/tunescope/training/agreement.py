"""Whether the micro-batches of one step pull a group of tensors the same way."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.hooks import RemovableHandle

from tunescope.errors import InputError
from tunescope.training.step_groups import StepGroups, group_norms, pieces


class Agreement:
    """The mean inner product of the gradients g₁ … g_k of one step's micro-batches, over their mean square, by group of tensors.

    (|Σ g_i|² − Σ |g_i|²) / ((k − 1) Σ |g_i|²): 1 when they are equal, 0 on average when they are independent noise, and their mean cosine
    when they are of one length. Gradients are heard as they are added up, before clipping; of one process, where there are several.
    """

    def __init__(self, groups: StepGroups):
        self._groups = groups
        self._handles: list[RemovableHandle] = []
        self._clear()

    def _clear(self) -> None:
        count = len(self._groups.names)
        self._single = torch.zeros(count, dtype=torch.float64)
        self._pending: dict[int, float] = {}
        self._latest: dict[int, float] = {}
        self._heard: dict[int, int] = {}

    def watch(self, parameters: list[Tensor], labels: list[int]) -> None:
        """Listen to these. Raises InputError for sharded ones, whose gradients are added up elsewhere."""
        for index, (parameter, label) in enumerate(zip(parameters, labels, strict=True)):
            if isinstance(parameter, DTensor):
                raise InputError("the agreement of micro-batches is not known for sharded tensors; leave agreement out")
            self._handles.append(parameter.register_hook(self._alone(index)))
            self._handles.append(parameter.register_post_accumulate_grad_hook(self._added(index, label)))
        self._labels = labels

    def _alone(self, index: int) -> Callable[[Tensor], None]:
        def hear(gradient: Tensor) -> None:
            self._pending[index] = _square(gradient)

        return hear

    def _added(self, index: int, label: int) -> Callable[[Tensor], None]:
        """Only what is added to .grad counts: torch.autograd.grad is heard too, and adds nothing."""

        def hear(parameter: Tensor) -> None:
            self._single[label] += self._pending[index]
            self._heard[index] = self._heard.get(index, 0) + 1
            self._latest[index] = _square(parameter.grad)

        return hear

    def take(self) -> Tensor:
        """Agreement of each group (g,) since the last call; NaN for groups with fewer than two micro-batches or no gradient."""
        total, batches = torch.zeros_like(self._single), [0] * len(self._single)
        for index, square in self._latest.items():
            total[self._labels[index]] += square
            batches[self._labels[index]] = max(batches[self._labels[index]], self._heard[index])
        found = [
            (both - single) / ((k - 1) * single) if k > 1 and single > 0 else math.nan
            for both, single, k in zip(total.tolist(), self._single.tolist(), batches, strict=True)
        ]
        self._clear()
        return torch.tensor(found, dtype=torch.float64)

    def close(self) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


@torch.no_grad()
def _square(tensor: Tensor) -> float:
    flat, owners = pieces([tensor])
    return float(group_norms(list(torch._foreach_norm(flat)), owners, [tensor], [0], 1)) ** 2
