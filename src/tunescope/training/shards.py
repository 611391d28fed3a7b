"""Weights that lie in shards over processes (FSDP2): put together to be read and written, and cut again."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from tunescope.models import Model

if TYPE_CHECKING:
    from tunescope.training.objectives.learner import Learner


class Shards:
    """A learner and the model around it, which can be put together again after their weights were cut.

    Made before they are cut: a second set of their modules without weights, `learner` and `tuned`. Inside `together()` it has them all, so
    that whatever reads or writes a model takes it for one that was never cut. What the modules share they share there too.
    """

    def __init__(self, learner: Learner, tuned: Model):
        self._cut = learner
        memo = _shared(learner, tuned)
        self._absent = {name: _absent(parameter) for name, parameter in learner.named_parameters()}
        memo |= {id(parameter): self._absent[name] for name, parameter in learner.named_parameters()}
        copies: tuple[Learner, Model] = copy.deepcopy((learner, tuned), memo)
        self.learner, self.tuned = copies
        self.learner.eval()
        names = {id(parameter): name for name, parameter in self._absent.items()}
        self._places = [
            (owner, own, names[id(parameter)])
            for owner in _modules(self.learner, self.tuned)
            for own, parameter in owner._parameters.items()
            if id(parameter) in names
        ]

    @contextmanager
    def together(self, *, on: torch.device | str | None = None) -> Iterator[None]:
        """All weights in place inside the block, on the main process. Every process must enter it, since each has a part of them.

        on: the device they are put on, by default their own.
        """
        self.fill(on=on, everywhere=False)
        try:
            yield
        finally:
            self._put(self._absent)

    def fill(self, *, on: torch.device | str | None = None, everywhere: bool = True) -> None:
        """All weights in place for good, on every process or on the main one. Every process must ask for it."""
        keeps = everywhere or distributed.get_rank() == 0
        found: dict[str, nn.Parameter] = {}
        for name, parameter in self._cut.named_parameters():
            tensor = whole(parameter)
            if keeps:
                found[name] = nn.Parameter(tensor if on is None else tensor.to(on), requires_grad=parameter.requires_grad)
        if keeps:
            self._put(found)
            own = dict(self.learner.named_buffers())
            for name, buffer in self._cut.named_buffers():
                own[name].copy_(buffer)

    def _put(self, parameters: Mapping[str, nn.Parameter]) -> None:
        for owner, own, name in self._places:
            owner._parameters[own] = parameters[name]


def are_cut(module: nn.Module) -> bool:
    """Whether some of the weights lie in shards."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, which every process that has a part of it must ask for; one that is not cut as it is."""
    return tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def cut_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor that every process has, cut as `like` is."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def whole_state(state: Any) -> Any:
    """The state of an optimizer with its tensors whole and on the CPU: what one process alone would keep. Every process must ask."""
    if isinstance(state, Tensor):
        return whole(state).cpu()
    if isinstance(state, Mapping):
        return {key: whole_state(value) for key, value in state.items()}
    return [whole_state(value) for value in state] if isinstance(state, list) else state


def cut_state(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """A state that `whole_state` made, with tensors of a parameter's shape cut as the optimizer's parameters are."""
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    own = {
        index: {name: cut_like(value, held[index]) if _fits(value, held[index]) else value for name, value in each.items()}
        for index, each in state["state"].items()
    }
    return {**state, "state": own}


def _fits(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape == parameter.shape


def _absent(parameter: nn.Parameter) -> nn.Parameter:
    """Its shape and type without its numbers."""
    return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)


def _shared(learner: Learner, tuned: Model) -> dict[int, Any]:
    """What the second set has in common with the first, as deepcopy is told: weights that do not train, the tokenizer, the start."""
    beside = [parameter for owner in _modules(learner, tuned) for parameter in owner._parameters.values() if parameter is not None]
    return {id(each): each for each in (*beside, learner._start, learner.model.tokenizer, tuned.tokenizer)}


def _modules(learner: Learner, tuned: Model) -> list[nn.Module]:
    """Every module that a learner or the model around it is made of, heads of the loaded model included that no objective reads."""
    roots = (learner, tuned.module, tuned.origin, tuned.peft)
    return list({id(part): part for root in roots if isinstance(root, nn.Module) for part in root.modules()}.values())
