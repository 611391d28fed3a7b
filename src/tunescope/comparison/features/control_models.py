"""Models that are tuned by nothing, or by chance, for the deltas of a comparison to be set against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunescope.models import Model
from tunescope.training import perturb
from tunescope.training.tuned_change import tuned_changes

CONTROL = "control-"  # how the names of their deltas begin


def control_models(controls: Sequence[str], base: Model, tuned: Mapping[str, Model], *, seed: int) -> dict[str, Model]:
    """`control-zero`: a copy of the base's weights, moved by nothing. `control-random-NAME`: for each tuned model that moved
    a random update of the same size: of the same rank in every matrix to which a LoRA adds, else in a random direction. Each is a copy of
    the weights in memory."""
    first = next(iter(tuned.values()))
    found = {}
    if "zero" in controls:
        found[f"{CONTROL}zero"] = perturb(base, kind="interpolate", alpha=0.0, like=first)
    if "random" in controls:
        for name, model in tuned.items():
            if changes := tuned_changes(base, model):
                kind = "random-rank" if any(change.rank for change in changes.values()) else "random-direction"
                found[f"{CONTROL}random-{name}"] = perturb(base, kind=kind, like=model, seed=seed)
    return found
