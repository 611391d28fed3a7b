"""Equal-step: an optimizer whose every step moves every block by the same relative amount."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from tunescope.errors import InputError
from tunescope.training.step_sizes import MOVED, TINY, Movement, StepLog


class EqualStep(Optimizer):
    """Wraps any torch optimizer and sets the length of its steps, group by group, in its own direction.

    Groups are one per block and one for everything else. After each step of the optimizer, per group, Δ = W(t+1) − W(t),
    r = |Δ| / (|W(t)| + 1e-12), and W ← W(t) + (τ/r) Δ, with Frobenius norms over all trainable tensors of the group; tied tensors count
    once. Groups that are frozen or did not move are left alone, a group of zero norm takes the optimizer's own step, and `log` says so.
    The learning rate has no say in the length: a schedule changes nothing but the mixture of learning rates inside one group, and a rate
    of zero stops the step.

    Args:
        optimizer: any torch optimizer over (some of) the model's parameters, in float32. Its state and parameter groups are this one's.
        model: a Model, PeftModel, SentenceTransformer, or Hugging Face model, where the blocks are looked up.
        tau: τ, the relative step of every group; the value is not published: `tau_from` a paired run, or `bisect_tau`.
        agreement: also log the agreement of micro-batches' gradients by group, which tells groups that are moved by noise.

    Keeps one copy of the trainable weights. Tensors sharded by FSDP2 have their squared norms added over their processes.

    Raises: InputError (τ; a model the optimizer does not train; bfloat16 or float16 weights; FSDP1), ModelError (no blocks found).
    Reference: the depth study's equal-step control, after LARS, https://arxiv.org/abs/1708.03888
    """

    def __init__(self, optimizer: Optimizer, model: Any, *, tau: float, agreement: bool = False):
        if not isinstance(optimizer, Optimizer) or isinstance(optimizer, EqualStep):
            raise InputError(f"EqualStep wraps a plain torch optimizer, got a {type(optimizer).__name__}")
        if not isinstance(tau, int | float) or not 0 < tau < math.inf:
            raise InputError(f"EqualStep needs a relative step tau above 0, got {tau}; take tau_from(a paired run), such as 5e-4")
        self.optimizer, self.tau = optimizer, float(tau)
        self._movement = Movement(optimizer, model, agreement=agreement)
        self._movement.watch(optimizer)
        self.log = StepLog(self._movement.groups.names)
        super().__setstate__({})  # torch's hooks; __init__ would make parameter groups of its own

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The wrapped optimizer's own, so that whoever schedules or swaps them reaches it."""
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    @property
    def state(self) -> Any:
        """The wrapped optimizer's own."""
        return self.optimizer.state

    @state.setter
    def state(self, state: Any) -> None:
        self.optimizer.state = state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The wrapped optimizer's own."""
        return self.optimizer.defaults

    @property
    def groups(self) -> list[str]:
        """Names of the groups: `block 1` …, `rest`."""
        return list(self.log.groups)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of the optimizer, then its length set in every group."""
        self._movement.start(self.optimizer)
        loss = self.optimizer.step(closure)
        step = self._movement.finish(self.optimizer)
        lengths = zip(step.states, step.weight.tolist(), step.update.tolist(), strict=True)
        factors = [self.tau * (weight + TINY) / update if state == MOVED else 1.0 for state, weight, update in lengths]
        self._movement.rescale(self.optimizer, factors)
        self.log.add(step)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the wrapped optimizer does."""
        self.optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """To the wrapped optimizer; its tensors join their blocks."""
        self.optimizer.add_param_group(param_group)
        self._movement.groups.trainable(self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state, and under `equal_step` τ and the log."""
        return self.optimizer.state_dict() | {"equal_step": {"tau": self.tau, "log": self.log.state_dict()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state; a state of the bare optimizer is accepted too. Raises InputError when it was saved at another τ."""
        own = state_dict.get("equal_step")
        if own is not None and own["tau"] != self.tau:
            raise InputError(f"this optimizer has tau={self.tau:g} and the saved one had {own['tau']:g}; pass that tau to go on")
        self.optimizer.load_state_dict({key: value for key, value in state_dict.items() if key != "equal_step"})
        if own is not None:
            self.log.load_state_dict(own["log"])

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "tau": self.tau, "_movement": self._movement, "log": self.log}

    def __repr__(self) -> str:
        return f"EqualStep(tau={self.tau:g}, groups={len(self.groups)}, {self.optimizer!r})"


