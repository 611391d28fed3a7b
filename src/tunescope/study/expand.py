"""From a plan to its runs: the products of its choices, without what is excluded, each as a frozen spec with a hash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from tunescope.errors import InputError, UnknownName
from tunescope.study import known
from tunescope.study.asked_values import check_labels, check_layers, check_length, check_measurement
from tunescope.study.controlled import check_claims
from tunescope.study.jobs import jobs_of
from tunescope.study.local_content import LocalContent
from tunescope.study.plan import Block, Plan, measured, source_of
from tunescope.study.possible import check_pair, check_rule, layers_of, objective_parts, pretraining
from tunescope.study.recorded import check_hypotheses
from tunescope.study.run_spec import Measurement, Model, Objective, RunSpec, Source, Update


def expand(plan: Plan, *, content: LocalContent | None = None) -> tuple[RunSpec, ...]:
    """The runs of a plan, in its order.

    content: how local files are looked at; by default every one must be there, and its hash goes into the runs that read it.
    Raises: InputError (a file that is not there, an impossible pair, two runs of one name, a hypothesis on what is not recorded, a claim
    of control that does not hold), UnknownName.
    """
    makers = _Maker(plan, content or LocalContent(plan.folder))
    specs: dict[tuple[str, str, int], RunSpec] = {}
    for number, block in enumerate(plan.blocks, 1):
        for spec in makers.block(block, specs, where=f"{plan.origin}, runs[{number}]"):
            key = spec.condition, spec.model.name, spec.seed
            if key in specs:
                named = f"'{spec.condition}' of {spec.model.name} seed {spec.seed}"
                raise InputError(f"{plan.origin}, runs[{number}]: {named} is planned twice; give one of them a condition of its own")
            specs[key] = spec
    runs = tuple(specs.values())
    jobs_of(runs)
    layers = {name: count for name, model in plan.models.items() if (count := layers_of(model, plan))}
    check_hypotheses(plan.hypotheses, runs, layers=layers)
    check_claims(plan.controlled, runs)
    return runs


@dataclass(frozen=True)
class _Maker:
    plan: Plan
    content: LocalContent

    def block(self, block: Block, done: Mapping[tuple[str, str, int], RunSpec], *, where: str) -> Iterator[RunSpec]:
        """The runs of one product. done: those before it, which a control may be like."""
        whats: tuple[tuple[str, str], ...] = tuple(product(block.objectives, block.updates)) or (("", ""),)
        changed = block.changes or (block.tuned if block.kind == "compare" else ("",))
        axes = product(block.models, whats, changed, block.corpora or ("",), block.views or ("",), block.anchors or ((),), block.seeds)
        for model, (objective, update), other, corpus, views, anchors, seed in axes:
            chosen = {"model": model, "objective": objective, "update": update, "seed": seed, "corpus": corpus, "views": views,
                      "change": other, "tuned": other, "anchors": list(anchors)}  # fmt: skip
            if not any(_excluded(chosen, each) for each in block.exclude):
                yield self._spec(block, chosen, done, where)

    def _spec(self, block: Block, chosen: Mapping[str, Any], done: Mapping[tuple[str, str, int], RunSpec], where: str) -> RunSpec:
        model = self.content.model(self.plan.models[chosen["model"]])
        measurement = self._measurement(block, chosen["anchors"], where)
        check_layers(measurement, layers_of(model, self.plan), where=f"{where}.measure")
        spec = RunSpec(block.kind, self._condition(block, chosen), model, measurement, seed=chosen["seed"], regime=block.regime)
        if chosen["objective"]:
            objective = self._objective(chosen, where)
            update, schedule = self._updated(block, self.plan.updates[chosen["update"]])
            check_length(schedule, where=where)
            if objective.texts is not None and "classify" in objective_parts(objective.objective):
                check_labels(objective.texts, where=where)
            self._check_trained(model, objective, update, measurement, where)
            spec = replace(spec, objective=objective, update=update, schedule=schedule)
        if block.kind == "perturb":
            change = self.plan.changes[chosen["change"]]
            if change.like is not None:
                change = replace(change, like=_like(change.like, spec, done, where))
            spec = replace(spec, change=change)
        if block.kind in ("compare", "features"):
            names = (chosen["tuned"],) if block.kind == "compare" else block.tuned
            spec = replace(spec, tuned=tuple(self.content.model(self.plan.models[name]) for name in names))
        return spec

    def _condition(self, block: Block, chosen: Mapping[str, Any]) -> str:
        """What a run is called beside its model and seed: only axes with several values are named, but objective and rule always are."""
        if block.condition is not None:
            several = [axis for axis in ("corpora", "views", "anchors") if len(getattr(block, axis)) > 1]
            if len(block.objectives) * len(block.updates) > 1 or len(block.changes) > 1 or several:
                raise InputError(f"{self.plan.origin}: condition '{block.condition}' names several; leave it out, or part the product")
            return block.condition
        parts = [chosen["objective"], chosen["update"], chosen["change"] if block.kind in ("perturb", "compare") else ""]
        parts += [chosen["corpus"] if len(block.corpora) > 1 else "", f"{chosen['views']} views" if len(block.views) > 1 else ""]
        parts += ["+".join(chosen["anchors"]) if len(block.anchors) > 1 else ""]
        said = " ".join(part for part in parts if part)
        return said if block.kind != "features" else f"features {said}".strip()

    def _objective(self, chosen: Mapping[str, Any], where: str) -> Objective:
        objective = self.plan.objectives[chosen["objective"]]
        if chosen["views"]:
            if not any("views" in known.OBJECTIVES[part].settings for part in objective_parts(objective.objective)):
                raise InputError(f"{where}: views are of simcse and barlow-twins, and '{objective.name}' has none; part the product")
            objective = replace(objective, settings={**objective.settings, "views": chosen["views"]})
        if chosen["corpus"]:
            corpus = source_of(chosen["corpus"], self.plan.sources, where=where)
            objective = replace(objective, pairs=corpus) if objective.pairs is not None else replace(objective, texts=corpus)
        return replace(
            objective, texts=self.content.source(objective.texts, "texts"), pairs=self.content.source(objective.pairs, "pairs")
        )

    def _updated(self, block: Block, update: Update) -> tuple[Update, dict[str, Any]]:
        """The rule, and the schedule of the plan, the block and the rule put together, the later over the earlier."""
        schedule: dict[str, Any] = {}
        for given in (self.plan.schedule, block.schedule, update.schedule):
            if {"steps", "epochs"} & given.keys():
                schedule.pop("steps", None)
                schedule.pop("epochs", None)
            schedule |= given
        return replace(update, schedule={}), schedule

    def _measurement(self, block: Block, anchors: list[str], where: str) -> Measurement:
        given = {**block.measure, **({"texts": anchors} if anchors else {})}
        found = measured(self.plan.measurement, given, self.plan.sources, where=f"{where}.measure")
        if not found.texts:
            raise InputError(f"{where}: nothing is read to measure on; name measure.texts")
        options = known.FEATURE_OPTIONS if block.kind == "features" else known.DIFF_OPTIONS
        for name in found.options:
            if name not in options:
                raise UnknownName(f"option of what {where} measures", name, options)
        if block.kind == "features" and ("layers" not in found.options or len(found.texts) != 1):
            raise InputError(f"{where}: features need measure.options.layers, and one text set in measure.texts")
        if "dictionary" in found.options:
            found = replace(found, options={**found.options, "dictionary": self._dictionary(found.options["dictionary"], where)})
        check_measurement(found, where=f"{where}.measure")
        labels = self._sources(found.labels, "texts")
        for source in labels:
            check_labels(source, where=f"{where}.measure.labels")
        return replace(
            found,
            texts=self._sources(found.texts, "texts"),
            labels=labels,
            retrieval=self._sources(found.retrieval, "retrieval"),
            lm=self._sources(found.lm, "texts"),
        )

    def _dictionary(self, given: Any, where: str) -> dict[Any, Any]:
        """With what lies there hashed: one, or one a layer. Keys of TOML are text."""
        named = f"{where}.measure.options.dictionary"
        places = list(given.values()) if isinstance(given, dict) else [given]
        if not all(isinstance(each, str) for each in places) or (isinstance(given, dict) and not all(map(str.isdecimal, given))):
            raise InputError(f"{named}: {given!r} found; give a folder or file, or one a layer, as in {{ 3 = \"folder\" }}")
        if isinstance(given, dict):
            return {int(layer): self.content.dictionary(each, where=named) for layer, each in given.items()}
        return self.content.dictionary(given, where=named)

    def _sources(self, sources: tuple[Source, ...], use: str) -> tuple[Source, ...]:
        return tuple(found for each in sources if (found := self.content.source(each, use)) is not None)

    def _check_trained(self, model: Model, objective: Objective, update: Update, measurement: Measurement, where: str) -> None:
        try:
            check_pair(model, objective, self.plan)
            check_rule(model, update, self.plan)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if measurement.distances:
            if objective.objective == "sft":
                raise InputError(f"{where}: the distance of sft is not measured, which reads conversations; leave measure.distances out")
            if objective.objective not in known.OBJECTIVES:
                raise InputError(f"{where}: the distance of a mixture ('{objective.name}') is not measured; leave measure.distances out")
            against = next((part for part in pretraining(model).split("+") if part in known.OBJECTIVES), None)
            if against is None:
                raise InputError(
                    f"{where}: distances are from what a model was pretrained with, and of '{model.name}' that is {pretraining(model)}; "
                    f"say it: models.{model.name}.pretraining"
                )
            if known.OBJECTIVES[against].needs == known.PAIRS and objective.pairs is None:
                raise InputError(f"{where}: '{model.name}' was pretrained by {against}, which needs pairs to be measured from; give them")


def _excluded(chosen: Mapping[str, Any], pattern: Mapping[str, Any]) -> bool:
    """Whether all of a pattern is met; a list in it stands for any of its members."""
    return all(chosen[axis] in value if isinstance(value, list) and axis != "anchors" else chosen[axis] == value
               for axis, value in pattern.items())  # fmt: skip


def _like(condition: str, spec: RunSpec, done: Mapping[tuple[str, str, int], RunSpec], where: str) -> str:
    """The hash of the run of that condition with the same model and seed."""
    found = done.get((condition, spec.model.name, spec.seed))
    if found is None:
        conditions = {name for name, model, _ in done if model == spec.model.name}
        if condition not in conditions:
            raise UnknownName(f"condition before {where} of '{spec.model.name}'", condition, conditions)
        raise InputError(f"{where}: '{condition}' of '{spec.model.name}' has no run of seed {spec.seed}; give both the same seeds")
    if found.kind != "tune":
        raise InputError(f"{where}: '{condition}' is no training; a control can only be like a run that is trained")
    return found.hash
