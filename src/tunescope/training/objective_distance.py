"""Distances of objectives to what a model was pretrained with, before any training, and where each goes as seen from a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tunescope.errors import InputError, ModelError, TextsError, UnknownName
from tunescope.identity import versions
from tunescope.models import Model
from tunescope.models.pretraining import UNKNOWN
from tunescope.training.evaluation_task import EvaluationTask, evaluation_task
from tunescope.training.gradient_distances import DISTANCES, OF_MEANS, gradient_distances
from tunescope.training.gradient_mean import LEVEL, GradientMean
from tunescope.training.objective_gradients import ObjectiveGradients, Weights, objective_gradients
from tunescope.training.objective_items import ObjectiveItems
from tunescope.training.objective_names import names_apart
from tunescope.training.objectives import OBJECTIVES, Contrastive, Mixture, Objective, Preserve, make_objective
from tunescope.training.split_half import SPLITS, split_half
from tunescope.training.task_alignment import DRAWS, task_alignment, weight_change

SCHEMA = "tunescope.distance/1"
Progress = Callable[[str, int, int], None]


def _silent(stage: str, done: int, total: int) -> None:
    return None


@dataclass(frozen=True, eq=False)
class DistanceRequest:
    """What is to be compared. objectives: by name, first the one to measure from, which by default is what the checkpoint was pretrained
    with. why: where that is from, in words. tuned: a finished run of this base.

    draws: shufflings of the task. task_items: how many of its queries or held-out texts are read.
    """

    model: Model
    objectives: Mapping[str, Objective]
    items: ObjectiveItems
    why: str
    max_length: int
    splits: int = SPLITS
    task: EvaluationTask | None = None
    tuned: Model | None = None
    draws: int = DRAWS
    warnings: tuple[str, ...] = field(default=())

    def measure(self, say: Progress = _silent) -> dict[str, Any]:
        """The payload of distance.json.

        Raises: what the reference's refusal is; InputError when every other objective is refused.
        """
        found, refused = self._gradients(say)
        means = {name: GradientMean.of(each.rows, each.totals, seed=self.items.seed) for name, each in found.items()}
        rows = [self._row(name, found, means, refused) for name in self.objectives]
        agreement = {measure: self._agreement(measure, found, means, say) for measure in ("procrustes", "cosine")}
        return {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "tunescope": versions()["tunescope"],
            "base": self.model.identity(),
            "reference": {"name": self._reference, "why": self.why},
            "data": self.items.record() | {"max_length": self.max_length},
            "distances": dict(DISTANCES),
            "level": LEVEL,
            "objectives": rows,
            "split_half": agreement,
            "alignment": None if self.task is None else self._alignment(self.task, found, say),
            "warnings": list(self.warnings),
            "versions": versions(),
        }

    @property
    def _reference(self) -> str:
        return next(iter(self.objectives))

    def _gradients(self, say: Progress) -> tuple[dict[str, ObjectiveGradients], dict[str, str]]:
        """By name, gradients or the reason there are none; the reference first."""
        found, refused = {}, {}
        for name, objective in self.objectives.items():
            def tell(done: int, total: int, name: str = name) -> None:
                say(f"gradients of {name}", done, total)

            try:
                if why := self.items.refusal(objective):
                    raise InputError(why)
                found[name] = objective_gradients(
                    self.model, objective, self.items, max_length=self.max_length, weights=self.task is not None, progress=tell
                )
            except (InputError, ModelError, TextsError) as error:
                if name == self._reference:
                    what = f"{name}, {self.why}, is what to measure from and cannot be taken here: {error}"
                    raise type(error)(f"{what}; or measure from another (--reference)") from error
                refused[name] = str(error)
        if len(found) < 2 and refused:
            said = "; ".join(refused.values())
            raise InputError(f"none of the objectives can be compared with {self._reference}: {said}")
        return found, refused

    def _row(
        self, name: str, found: dict[str, ObjectiveGradients], means: dict[str, GradientMean], refused: dict[str, str]
    ) -> dict[str, Any]:
        about = {"name": name, "title": self.objectives[name].title, "is_reference": name == self._reference}
        if name in refused:
            return {**about, "refused": refused[name]}
        own, reference = found[name], found[self._reference]
        pair = (self._reference, name)
        distances = gradient_distances(reference.rows, own.rows, (means[pair[0]], means[name]), names=pair, seed=self.items.seed)
        return {
            **about, "refused": None, "record": own.record, "loss": own.loss, "said": own.said, "gradient": means[name].row(),
            "distances": {each: value.row() for each, value in distances.items()},
        }  # fmt: skip

    def _agreement(
        self, measure: str, found: dict[str, ObjectiveGradients], means: dict[str, GradientMean], say: Progress
    ) -> dict[str, Any]:
        reference = self._reference
        told = [] if measure in OF_MEANS and means[reference].noise else [name for name in found if name != reference]
        rows = {name: found[name].rows for name in told if measure not in OF_MEANS or not means[name].noise}
        tell = None if measure in OF_MEANS else lambda done, total: say("random halves", done, total)
        return split_half(measure, rows, found[reference].rows, splits=self.splits, seed=self.items.seed, progress=tell).row()

    def _alignment(self, task: EvaluationTask, found: dict[str, ObjectiveGradients], say: Progress) -> dict[str, Any]:
        directions: dict[tuple[str, str], Weights] = {
            ("objective", name): {key: -gradient for key, gradient in (each.weights or {}).items()} for name, each in found.items()
        }
        if self.tuned is not None:
            directions["tuned", self.tuned.name] = weight_change(self.model, self.tuned)
        reading = {"batch_size": self.items.batch_size, "max_length": self.max_length, "draws": self.draws, "seed": self.items.seed}
        rows = task_alignment(
            self.model,
            {f"{kind}/{name}": each for (kind, name), each in directions.items()},
            task,
            **reading,
            progress=lambda done, total: say("the task, then shuffled", done, total),
        )
        return {
            "task": task.record(), "draws": self.draws, "level": LEVEL,
            "rows": [
                {"name": name, "kind": kind, "overall": first.row(), "blocks": [each.row() for each in rest]}
                for (kind, name), (first, *rest) in zip(directions, rows.values(), strict=True)
            ],
        }  # fmt: skip


def distance_request(
    model: Model,
    objectives: Iterable[str | Objective],
    items: ObjectiveItems,
    *,
    reference: str | Objective | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    task: Any = None,
    task_items: int,
    tuned: Model | None = None,
    **options: Any,
) -> DistanceRequest:
    """Names made objectives with their settings, and the reference found.

    Two of one name and other settings are two objectives, the reference among them.

    Raises: UnknownName, InputError (an objective twice, settings of none, no reference, tuned without a task).
    """
    given, own = dict(settings or {}), list(objectives)
    for name in given:
        if name not in OBJECTIVES:
            raise UnknownName("objective", name, OBJECTIVES)
    made = tuple(_made(each, given, items) for each in own)
    twice = next((each.name for place, each in enumerate(made) if each in made[:place]), None)
    if not made or twice:
        raise InputError(f"{twice} is asked for twice; name each objective once" if twice else "no objectives to compare; name one or more")
    against, why = _reference(model, reference)
    found = _made(against, given, items)
    named = names_apart((found, *made))
    asked = {each for each in (*own, against) if isinstance(each, str)}
    idle = sorted(given.keys() - asked - ({"contrastive"} if task is not None else set()))
    if idle:
        raise InputError(f"settings of {idle[0]} were given, which is not among the objectives; name it, or leave them out")
    if tuned is not None and task is None:
        raise InputError("a tuned model is compared with what a task asks for; give the task too (--task)")
    posed = None
    if task is not None:
        contrast = next((each for each in (*made, found) if isinstance(each, Contrastive)), None) or _made("contrastive", given, items)
        posed = evaluation_task(task, model, items=task_items, seed=items.seed, contrastive=contrast)
    return DistanceRequest(model, named, items, why, task=posed, tuned=tuned, warnings=_warnings(model, items), **options)


def _made(objective: str | Objective, settings: Mapping[str, Mapping[str, Any]], items: ObjectiveItems) -> Objective:
    if isinstance(objective, Objective):
        return objective
    classes = {"classes": len(items.classes)} if objective == "classify" and items.classes else {}
    return make_objective(objective, {**classes, **settings.get(objective, {})})


def _reference(model: Model, asked: str | Objective | None) -> tuple[str | Objective, str]:
    """The objective to measure from, and where it is from."""
    if asked is not None:
        return asked, "as asked for"
    stated = model.pretraining
    name = next((part for part in stated.split("+") if part in OBJECTIVES), None)
    if name is None:
        known = ", ".join(name for name, kind in OBJECTIVES.items() if kind not in (Mixture, Preserve))  # those are made of others
        what = "is unknown" if stated == UNKNOWN else f"is {stated}, which is no objective here"
        how = "say what it was (--pretraining, such as causal-lm or mlm), or name the objective to measure from (--reference)"
        raise InputError(f"what '{model.name}' was pretrained with {what}; {how}: {known}")
    return name, "what it was pretrained with" if stated == name else f"of what it was pretrained with ({stated})"


def _warnings(model: Model, items: ObjectiveItems) -> tuple[str, ...]:
    return (*model.warnings, *items.warnings)
