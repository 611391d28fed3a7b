"""Whether tuning goes where a task would have the weights go: directions in weight space, block by block, against chance."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy import stats

from tunescope.errors import InputError
from tunescope.models import Model, acting_weights
from tunescope.training.evaluation_task import EvaluationTask
from tunescope.training.objective_gradients import Weights

DRAWS, LEVEL = 10, 0.05


@dataclass(frozen=True)
class Alignment:
    """The cosine of two directions in the weights of one block, or of all of them, beside what it is when the task is shuffled.

    floor, floor_sd: mean and standard deviation over shufflings. low, high: where 95% of further shufflings would fall (Student's t), and
    beyond: whether the cosine is above or below that. reason: why there is no cosine.
    """

    where: str
    layer: int | None
    cosine: float | None
    floor: float | None = None
    floor_sd: float | None = None
    low: float | None = None
    high: float | None = None
    beyond: str | None = None
    reason: str | None = None

    def row(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def task_alignment(
    model: Model,
    directions: Mapping[str, Weights],
    task: EvaluationTask,
    *,
    batch_size: int,
    max_length: int,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[Alignment]]:
    """By direction, cos(direction, −∇L_eval) in all blocks together (first) and in each block; > 0: a step that way lowers the task's loss.

    directions: −∇L_tune of objectives, or ΔW of a finished run. Chance: the same with the task shuffled, over `draws` shufflings; its floor
    is not 0, since texts and loss stay the same and two losses of one kind pull alike whatever belongs to what.

    Raises: InputError for fewer than 3 draws, and what reading the task's texts raises.
    """
    if draws < 3:
        raise InputError(f"{draws} shufflings asked for; a floor and its spread need 3 or more")
    found: list[dict[str, list[float | None]]] = []
    for draw in range(draws + 1):
        posed = task if not draw else task.shuffled(seed + draw)
        descent = posed.descent(model, batch_size=batch_size, max_length=max_length)
        found.append({name: block_cosines(direction, descent, model) for name, direction in directions.items()})
        if progress is not None:
            progress(draw + 1, draws + 1)
    places = [("all blocks", None), *((f"block {index}", index) for index in range(1, model.anatomy.n_layers + 1))]
    return {
        name: [_against(*place, [one[name][order] for one in found]) for order, place in enumerate(places)] for name in directions
    }


def block_cosines(one: Weights, two: Weights, model: Model) -> list[float | None]:
    """Of the weights of all blocks, then of each; None where either is 0. Sums in float64."""
    pattern = re.compile(rf"{re.escape(model.anatomy.blocks)}\.(\d+)\.")
    sums = torch.zeros(model.anatomy.n_layers, 3, dtype=torch.float64)
    for name, tensor in two.items():
        other, place = one[name].to(tensor.device), pattern.match(name)
        if place is not None:
            left, right = other.flatten().double(), tensor.flatten().double()
            sums[int(place[1])] += torch.stack([left @ right, left @ left, right @ right]).cpu()
    rows = [sums.sum(0), *sums]
    return [float(dot / (a * b).sqrt()) if a > 0 and b > 0 else None for dot, a, b in rows]


def _against(where: str, layer: int | None, values: list[float | None]) -> Alignment:
    """The first of the values against the others."""
    observed, chance = values[0], [value for value in values[1:] if value is not None]
    if observed is None:
        return Alignment(where, layer, None, reason="its weights did not move")
    if len(chance) < 2:
        return Alignment(where, layer, observed, reason="the shuffled task has no gradient here")
    drawn = torch.tensor(chance, dtype=torch.float64)
    mean, sd = float(drawn.mean()), float(drawn.std())
    reach = float(stats.t.ppf(1 - LEVEL / 2, len(chance) - 1)) * sd * (1 + 1 / len(chance)) ** 0.5
    beyond = "above" if observed > mean + reach else "below" if observed < mean - reach else "within"
    return Alignment(where, layer, observed, mean, sd, mean - reach, mean + reach, beyond)


def weight_change(model: Model, tuned: Model) -> Weights:
    """ΔW of the blocks' weights, float32, as both act: an adapter's update is folded in.

    Raises: InputError when `tuned` was not tuned from `model`.
    """
    start = f"{model.anatomy.blocks}."
    before, after = acting_weights(model), acting_weights(tuned)
    found = {}
    for name, weight in before.items():
        if not name.startswith(start):
            continue
        old = weight.tensor()
        if name not in after or after[name].tensor().shape != old.shape:
            raise InputError(f"'{tuned.name}' has no tensor {name} of shape {tuple(old.shape)}; it must be tuned from '{model.name}'")
        found[name] = (after[name].tensor().detach().double() - old.detach().double().to(after[name].stored.device)).float()
    return found
