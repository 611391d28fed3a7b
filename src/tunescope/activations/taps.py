"""Hooks that read hidden states on their way through a body, and are always taken off again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from tunescope.activations.pooling import Pool
from tunescope.errors import ModelError
from tunescope.models.model import Model


def layer_name(index: int) -> str:
    """What reports call layer `index`: 0 is what enters block 1."""
    return f"block {index}" if index else "embeddings"


class Taps:
    """Hooks on the blocks that pool each hidden state as it passes by, in every way asked for, and keep nothing else; use as a context
    manager."""

    def __init__(self, model: Model, wanted: tuple[int, ...]):
        self.blocks, self.wanted = model.blocks, wanted
        self.pools: Mapping[str, Pool] = {}
        self.shape: tuple[int, ...] = ()
        self.rows: dict[int, dict[str, Tensor]] = {}
        self.handles: list[Any] = []

    def __enter__(self) -> Taps:
        for index in self.wanted:
            if index == 0:
                self.handles.append(self.blocks[0].register_forward_pre_hook(self._before, with_kwargs=True))
            else:
                self.handles.append(self.blocks[index - 1].register_forward_hook(self._after(index)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def start(self, pools: Mapping[str, Pool], shape: tuple[int, ...]) -> None:
        """Begin a batch of (b, t) tokens; `pools` by the name of their pooling."""
        self.pools, self.shape, self.rows = pools, shape, {}

    def finish(self) -> dict[str, dict[int | str, Tensor]]:
        """The rows of the batch by pooling and layer. Raises ModelError when a block was never run."""
        silent = [index for index in self.wanted if index not in self.rows]
        if silent:
            raise ModelError(f"{layer_name(silent[0])} was not run by the model's forward; its anatomy is not what we take it for")
        return {name: {index: rows[name] for index, rows in self.rows.items()} for name in self.pools}

    def _before(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._keep(0, args[0] if args else kwargs.get("hidden_states"))

    def _after(self, index: int) -> Callable[[nn.Module, tuple, Any], None]:
        return lambda module, args, output: self._keep(index, output[0] if isinstance(output, tuple) else output)

    def _keep(self, index: int, states: Any) -> None:
        if index in self.rows:
            raise ModelError(f"{layer_name(index)} ran twice in one forward: models that repeat a block cannot be read layer by layer")
        states = check_states(states, self.shape, layer_name(index))
        self.rows[index] = {name: pool(states) for name, pool in self.pools.items()}


def check_states(states: Any, shape: tuple[int, ...], place: str) -> Tensor:
    """`states` if it is (b, t, d) for a batch of shape (b, t); ModelError otherwise."""
    if isinstance(states, Tensor) and states.dim() == 3 and tuple(states.shape[:2]) == shape:
        return states
    found = tuple(states.shape) if isinstance(states, Tensor) else type(states).__name__
    raise ModelError(f"{place} gives {found}; (texts, tokens, features) for {shape[0]} texts of {shape[1]} tokens was expected")
