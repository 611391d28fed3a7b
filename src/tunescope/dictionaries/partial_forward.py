"""One forward pass that ends as soon as everything wanted of it has been read, and leaves no hook behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from tunescope.activations.capture import forward_arguments
from tunescope.activations.taps import check_states, layer_name
from tunescope.errors import ModelError
from tunescope.models import Model
from tunescope.models.placement import offloaded

Place = int | str  # a layer as activations count them (0: embeddings, i: what block i returns), or the dotted name of a module
Read = Callable[[tuple, dict[str, Any], Tensor], Any]  # from a module's arguments and the states (b, t, d) that are its output


class _Enough(Exception):  # noqa: N818 - no error: it carries the good news up through the body
    """Everything wanted was read."""


def place_name(place: Place) -> str:
    """What messages and reports call a place."""
    return layer_name(place) if isinstance(place, int) else place


def forward_until_read(model: Model, inputs: Tensor, mask: Tensor, reads: Mapping[Place, Read], *, stop: bool = True) -> dict[Place, Any]:
    """What each of `reads` makes of its place, from one forward of the model's body; call it inside `model.active()`.

    inputs, mask (b, t). The forward is left, by an exception of its own, when the last read was made, so what is read is bit for bit what
    a whole forward gives. stop False: it runs to its end, and a block that runs twice is found out; so does a body that is in part on the
    disk, whose weights accelerate takes out of memory again after each module.

    Raises: ModelError when a place was never run, or was run twice.
    """
    found: dict[Place, Any] = {}
    handles = [_hook(model, place, _reader(place, read, found, reads, tuple(inputs.shape), stop)) for place, read in reads.items()]
    try:
        model.module(input_ids=inputs, attention_mask=mask, **forward_arguments(model))
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    silent = [place for place in reads if place not in found]
    if silent:
        raise ModelError(f"{place_name(silent[0])} was not run by the forward of '{model.name}'; its anatomy is not what we take it for")
    return found


def may_stop(model: Model) -> bool:
    """Whether a forward can be left early without leaving weights behind that accelerate would have put away."""
    return not offloaded(model.module)


def module_at(model: Model, place: Place) -> nn.Module:
    """The block that returns layer `place`, or the module of that name; for layer 0 the block that receives it."""
    return model.blocks[max(place - 1, 0)] if isinstance(place, int) else model.module.get_submodule(place)


def _hook(model: Model, place: Place, reader: Callable[[tuple, dict, Any], None]) -> Any:
    module = module_at(model, place)
    if place == 0:
        return module.register_forward_pre_hook(lambda _, args, kwargs: reader(args, kwargs, _first(args, kwargs)), with_kwargs=True)
    return module.register_forward_hook(lambda _, args, kwargs, output: reader(args, kwargs, _first(output, {})), with_kwargs=True)


def _first(given: Any, kwargs: dict) -> Any:
    if isinstance(given, tuple):
        return given[0] if given else kwargs.get("hidden_states")
    return given


def _reader(
    place: Place, read: Read, found: dict[Place, Any], wanted: Mapping[Place, Read], shape: tuple[int, ...], stop: bool
) -> Callable[[tuple, dict, Any], None]:
    def reader(args: tuple, kwargs: dict, states: Any) -> None:
        if place in found:
            raise ModelError(f"{place_name(place)} ran twice in one forward: models that repeat a block cannot be read layer by layer")
        found[place] = read(args, kwargs, check_states(states, shape, place_name(place)))
        if stop and len(found) == len(wanted):
            raise _Enough

    return reader
