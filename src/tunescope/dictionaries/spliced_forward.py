"""A forward that goes on from other states than its own: the blocks before them are not run, those after them are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tunescope.activations.capture import forward_arguments
from tunescope.activations.taps import check_states, layer_name
from tunescope.errors import ModelError
from tunescope.models import Model


@dataclass(frozen=True, eq=False)
class WholePass:
    """One whole forward of a body: what it returned, and copies of the states (b, t, d) at the layers asked for.

    beside: what each block up to the last of them returned beside its states, None for one that returns states alone.
    """

    ids: Tensor  # (b, t)
    mask: Tensor  # (b, t)
    out: Any
    states: dict[int, Tensor]
    beside: tuple[tuple | None, ...]


def whole_pass(model: Model, ids: Tensor, mask: Tensor, layers: Iterable[int]) -> WholePass:
    """Run the active model and keep what `continued_from` needs to go on from `layers` (0: embeddings, i: what block i returns).

    Raises ModelError for a body that repeats a block, or whose block gives no states (b, t, d).
    """
    wanted = tuple(layers)
    states: dict[int, Tensor] = {}
    beside: dict[int, tuple | None] = {}

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        states[0] = _checked(args[0] if args else kwargs.get("hidden_states"), ids, 0).clone()

    def after(index: int) -> Callable[[nn.Module, tuple, Any], None]:
        def keep(module: nn.Module, args: tuple, output: Any) -> None:
            if index in beside:
                raise ModelError(f"{layer_name(index)} ran twice in one forward: models that repeat a block cannot be spliced")
            beside[index] = output[1:] if isinstance(output, tuple) else None
            if index in wanted:
                states[index] = _checked(output[0] if isinstance(output, tuple) else output, ids, index).clone()

        return keep

    blocks = model.blocks
    handles = [blocks[0].register_forward_pre_hook(before, with_kwargs=True)] if 0 in wanted else []
    handles += [blocks[index - 1].register_forward_hook(after(index)) for index in range(1, max(wanted, default=0) + 1)]
    try:
        out = model.module(input_ids=ids, attention_mask=mask, **forward_arguments(model))
    finally:
        for handle in handles:
            handle.remove()
    silent = [layer for layer in wanted if layer not in states]
    if silent:
        raise ModelError(f"{layer_name(silent[0])} was not run by the forward of '{model.name}'; its anatomy is not what we take it for")
    return WholePass(ids, mask, out, states, tuple(beside[index] for index in sorted(beside)))


def continued_from(model: Model, found: WholePass, layer: int, states: Tensor) -> Any:
    """What the active body returns when the states at `layer` are these (b, t, d) instead: bit for bit a whole forward with them put in.

    Blocks up to `layer` hand the states on without being run; masks, positions and whatever else the body prepares are its own.
    """
    states = states.to(found.states[layer].dtype)
    with _replaced(model, found, layer, states):
        return model.module(input_ids=found.ids, attention_mask=found.mask, **forward_arguments(model))


@contextmanager
def _replaced(model: Model, found: WholePass, layer: int, states: Tensor) -> Iterator[None]:
    """The blocks up to `layer` return the states; for layer 0 the first block receives them. All is put back afterwards."""
    if layer == 0:
        handle = model.blocks[0].register_forward_pre_hook(lambda _, args, kwargs: _instead(args, kwargs, states), with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
        return
    blocks = model.blocks[:layer]
    own = [block.__dict__.get("forward") for block in blocks]  # accelerate sets one of its own
    try:
        for block, beside in zip(blocks, found.beside, strict=False):
            block.forward = _returning(states if beside is None else (states, *beside))
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            if forward is None:
                block.__dict__.pop("forward", None)
            else:
                block.forward = forward


def _returning(output: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: output


def _instead(args: tuple, kwargs: dict, states: Tensor) -> tuple[tuple, dict]:
    return ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})


def _checked(states: Any, ids: Tensor, layer: int) -> Tensor:
    return check_states(states, tuple(ids.shape), layer_name(layer))
