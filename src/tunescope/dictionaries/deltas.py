"""What a delta is: three kinds, never confused. Each says where it can be asked, and how one batch of it is made beside the base's pass.

residual: tuned − base at a block's output, with all that earlier blocks' changes propagated. local: what one module's own tuning adds, on
the tuned model's input. patched: what one tuned block adds when everything before it is the base's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from tunescope.activations.taps import check_states
from tunescope.dictionaries.contribution import Contribution, contribution
from tunescope.dictionaries.partial_forward import Place, Read, forward_until_read, may_stop, module_at, place_name
from tunescope.errors import InputError, ModelError, UnknownName
from tunescope.models import Model

Inputs = tuple[tuple, dict[str, Any]]  # the arguments of a block's call


@dataclass(frozen=True, eq=False)
class BasePass:
    """What the base gave on one batch of tokens (b, t), in the rows that stay."""

    ids: Tensor  # (b, t)
    mask: Tensor  # (b, t)
    kept: Tensor  # (rows,) flat positions in (b, t)
    x: dict[Place, Tensor]  # (rows, d) float32, where the states are
    inputs: dict[Place, Inputs] = field(default_factory=dict)  # of the blocks, for patched deltas

    def only(self, stays: Tensor) -> BasePass:
        """The same with only some of the rows; stays (rows,) bool."""
        if bool(stays.all()):
            return self
        x = {place: rows[stays.to(rows.device)] for place, rows in self.x.items()}
        return replace(self, kept=self.kept[stays.to(self.kept.device)], x=x)


class Delta(Protocol):
    """One kind of delta at some places of a base and its tuned models."""

    places: tuple[Place, ...]
    keeps_inputs: bool

    def of(self, name: str, model: Model, base: BasePass) -> dict[Place, Tensor]:
        """Δ (rows, d) float32 by place, for the tuned model of that name, which is active."""
        ...


class Residual:
    """Δ = h′ − h at a block's output, subtracted in float32."""

    keeps_inputs = False

    def __init__(self, base: Model, tuned: Mapping[str, Model], layers: Iterable[Place] | None):
        self.places = _layers(layers, (base, *tuned.values()), first=0, kind="residual")

    def of(self, name: str, model: Model, base: BasePass) -> dict[Place, Tensor]:
        rows = rows_at(model, base.ids, base.mask, base.kept, self.places)
        return {place: rows[place] - base.x[place].to(rows[place].device) for place in self.places}


class Patched:
    """Δ = block′(h) − block(h): block i runs a second time with the tuned weights, on the base's own inputs to block i; no third pass."""

    keeps_inputs = True

    def __init__(self, base: Model, tuned: Mapping[str, Model], layers: Iterable[Place] | None):
        self.places = _layers(layers, (base, *tuned.values()), first=1, kind="patched")

    def of(self, name: str, model: Model, base: BasePass) -> dict[Place, Tensor]:
        found = {}
        for place in self.places:
            args, kwargs = base.inputs[place]
            out = module_at(model, place)(*args, **kwargs)
            states = check_states(out[0] if isinstance(out, tuple) else out, tuple(base.ids.shape), place_name(place))
            rows = take(states, base.kept)
            found[place] = rows - base.x[place].to(rows.device)
        return found


class Local:
    """Δ = what the module's own tuning adds to its output on the tuned model's input: BAx, or (W′ − W)x (see `contribution`).

    The base's rows beside it are the module's outputs in the base.
    """

    keeps_inputs = False

    def __init__(self, base: Model, tuned: Mapping[str, Model], layers: Iterable[Place] | None):
        asked = tuple(dict.fromkeys(layers or ()))
        numbers = [place for place in asked if not isinstance(place, str)]
        if numbers or not asked:
            raise InputError(f"local deltas are asked for by the names of modules, and {numbers or 'none'} was given; name adapted modules")
        self.places: tuple[Place, ...] = asked
        self.contributions: dict[tuple[str, Place], Contribution] = {
            (name, place): contribution(base, model, str(place)) for name, model in tuned.items() for place in asked
        }

    def of(self, name: str, model: Model, base: BasePass) -> dict[Place, Tensor]:
        reads = {place: self._read(name, place, base) for place in self.places}
        return forward_until_read(model, base.ids, base.mask, reads, stop=may_stop(model))

    def _read(self, name: str, place: Place, base: BasePass) -> Read:
        def read(args: tuple, kwargs: dict[str, Any], states: Tensor) -> Tensor:
            given = args[0] if args else next(iter(kwargs.values()))
            if tuple(given.shape[:2]) != tuple(base.ids.shape):
                raise ModelError(f"{place} reads {tuple(given.shape)}, which is not one row a token; local deltas need a module of tokens")
            return self.contributions[name, place](given.flatten(0, 1).index_select(0, base.kept.to(given.device)))

        return read


KINDS: dict[str, Callable[[Model, Mapping[str, Model], Iterable[Place] | None], Delta]] = {
    "residual": Residual,
    "local": Local,
    "patched": Patched,
}


def make_delta(kind: str, base: Model, tuned: Mapping[str, Model], layers: Iterable[Place] | Place | None) -> Delta:
    """The kind of that name at these places; None asks for every layer.

    Raises UnknownName (kind, module), InputError (a layer outside, none).
    """
    if kind not in KINDS:
        raise UnknownName("kind of delta", kind, KINDS)
    return KINDS[kind](base, tuned, (layers,) if isinstance(layers, int | str) else layers)


def rows_at(model: Model, ids: Tensor, mask: Tensor, kept: Tensor, places: Iterable[Place], *, stop: bool = True) -> dict[Place, Tensor]:
    """The kept rows (rows, d) in float32 at each place, from one forward of an active model that ends after the last of them."""
    reads: dict[Place, Read] = {place: lambda args, kwargs, states: take(states, kept) for place in places}
    return forward_until_read(model, ids, mask, reads, stop=stop and may_stop(model))


def base_pass(model: Model, ids: Tensor, mask: Tensor, kept: Tensor, delta: Delta) -> BasePass:
    """The pass of the active base that a kind of delta starts from."""
    if not delta.keeps_inputs:
        return BasePass(ids, mask, kept, rows_at(model, ids, mask, kept, delta.places))
    reads: dict[Place, Read] = {
        place: lambda args, kwargs, states: (take(states, kept), _snapshot(args, kwargs)) for place in delta.places
    }
    found = forward_until_read(model, ids, mask, reads, stop=may_stop(model))
    rows, inputs = ({place: both[part] for place, both in found.items()} for part in (0, 1))
    return BasePass(ids, mask, kept, rows, inputs)


def take(states: Tensor, kept: Tensor) -> Tensor:
    """The rows of hidden states (b, t, d) at flat positions (rows,), in float32: subtraction comes after this, storage after that."""
    return states.flatten(0, 1).index_select(0, kept.to(states.device)).float()


def _snapshot(args: tuple, kwargs: dict[str, Any]) -> Inputs:
    """A block's arguments; its hidden states copied, which a later block may write over."""
    if args:
        return (args[0].clone(), *args[1:]), kwargs
    return args, kwargs | {"hidden_states": kwargs["hidden_states"].clone()}


def _layers(asked: Iterable[Place] | None, models: tuple[Model, ...], *, first: int, kind: str) -> tuple[Place, ...]:
    wanted = tuple(range(first, models[0].anatomy.n_layers + 1) if asked is None else dict.fromkeys(asked))
    for model in models:
        last = model.anatomy.n_layers
        outside = [place for place in wanted if place not in range(first, last + 1)]
        if outside or not wanted:
            begin, found = "0 (embeddings)" if first == 0 else f"{first}", outside[0] if outside else "none"
            raise InputError(f"layer {found} asked for; {kind} deltas of '{model.name}' are at {begin} to {last}")
    return tuple(sorted(wanted, key=int))
