"""Which controls stand beside the tuned model, and under which names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tunescope.errors import InputError
from tunescope.models import Model

_HOW = "give the Models that ts.perturb or ts.load_model return, in a list or as {name: Model}"


def named_controls(controls: Mapping[str, Model] | Iterable[Model] | None) -> dict[str, Model]:
    """The controls by name: a mapping as it is, other iterables by `Model.name`.

    Raises: InputError, when something in it is no Model or two have one name.
    """
    if controls is None:
        return {}
    if isinstance(controls, Model | str) or not isinstance(controls, Iterable):
        raise InputError(f"controls are several models, and a {type(controls).__name__} was given; {_HOW}")
    pairs = list(controls.items()) if isinstance(controls, Mapping) else [(_name(model), model) for model in controls]
    for name, model in pairs:
        if not isinstance(model, Model):
            raise InputError(f"control '{name}' is a {type(model).__name__} and no Model; {_HOW}")
    found = {str(name): model for name, model in pairs}
    if len(found) < len(pairs):
        names = [str(name) for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two controls are called '{twice}'; give {{name: Model}}, or ts.perturb(…, name=…)")
    return found


def _name(model: Any) -> str:
    return model.name if isinstance(model, Model) else str(model)[:40]
