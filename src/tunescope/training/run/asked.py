"""An objective from how it is written: a name, several with weights, with settings, and with preservation on top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunescope.errors import InputError, UnknownName
from tunescope.training.objectives import Objective, Preserve, make_objective
from tunescope.training.objectives.classify import Classify
from tunescope.training.objectives.mixture import Mixture


def read_objective(
    asked: str | Objective, settings: Mapping[str, Any] | None = None, *, classes: int = 0, keeps: bool = False
) -> Objective:
    """`asked` may be "mlm", or "mlm:0.5,contrastive" for a weighted sum (a weight of 1 where none is given), or an Objective.

    settings: of one objective by name; of several as "mlm.share"; of preservation as "preserve.weight". classes: of labelled texts.
    keeps: whether preservation goes on top.

    Raises: UnknownName (objective, setting), InputError (a weight that is no number, settings of an Objective that is made already).
    """
    given = dict(settings or {})
    kept = {key.removeprefix("preserve."): given.pop(key) for key in list(given) if key.startswith("preserve.")}
    if kept and not keeps:
        raise InputError(f"settings of preserve were given ({', '.join(kept)}) without texts to keep; give them (--keep)")
    if isinstance(asked, Objective):
        if given:
            raise InputError(f"settings ({', '.join(given)}) of an objective that is made already; set them where it is made")
        objective = asked
    else:
        objective = _named(asked, given, classes)
    return _preserved(objective, kept) if keeps else objective


def in_words(objective: Objective) -> str:
    """What a model is asked for, as a sentence begins with it."""
    if isinstance(objective, Preserve):
        return f"{in_words(objective.objective)}, held to the start,"
    if isinstance(objective, Mixture):
        return " + ".join(f"{weight:g} × {in_words(part)}" for part, weight in zip(objective.parts, objective.weights, strict=True))
    return objective.title


def _preserved(objective: Objective, settings: dict[str, Any]) -> Preserve:
    known = ("kind", "weight")
    for name in settings:
        if name not in known:
            raise UnknownName("setting of preserve", name, known)
    return Preserve(objective, **settings)


def _named(asked: str, settings: dict[str, Any], classes: int) -> Objective:
    parts = [part.partition(":") for part in asked.replace(" ", "").split(",")]
    if len(parts) == 1:
        if _weight(parts[0][2], asked) != 1:
            raise InputError(
                f"objective '{asked}' asked for; a weight is against another objective, and there is none: leave it out, or set "
                "preserve.weight against texts to keep"
            )
        return _one(parts[0][0], {key.removeprefix(f"{parts[0][0]}."): value for key, value in settings.items()}, classes)
    objectives, weights = [], []
    for name, _, weight in parts:
        own = {key.partition(".")[2]: settings.pop(key) for key in list(settings) if key.startswith(f"{name}.")}
        objectives.append(_one(name, own, classes))
        weights.append(_weight(weight, asked))
    if settings:
        raise InputError(f"{', '.join(settings)}: of which objective? Write it as {parts[0][0]}.{next(iter(settings))}")
    return Mixture(tuple(objectives), tuple(weights))


def _one(name: str, settings: dict[str, Any], classes: int) -> Objective:
    return make_objective(name, ({"classes": classes} if name == Classify.name and classes else {}) | settings)


def _weight(text: str, asked: str) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        raise InputError(f"objective '{asked}' asked for; '{text}' is no weight: write mlm:0.5,contrastive:1") from None
