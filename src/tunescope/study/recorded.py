"""Which numbers the runs of a plan will record, so that a hypothesis on one that none does is refused before anything runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from tunescope.errors import InputError, UnknownName
from tunescope.study import known
from tunescope.study.hypotheses import BASE_INTERVAL, END, Hypothesis, Selection
from tunescope.study.run_spec import Change, RunSpec


def check_hypotheses(hypotheses: Iterable[Hypothesis], specs: Iterable[RunSpec], *, layers: Mapping[str, int] | None = None) -> None:
    """Raises UnknownName or InputError, naming the hypothesis, for the first number that no run records or that is not one number.

    layers: how many blocks the models have of which that is known.
    """
    specs = tuple(specs)
    names = [hypothesis.name for hypothesis in hypotheses]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two hypotheses are called '{twice}'; give each a name of its own")
    for hypothesis in hypotheses:
        where = f"hypothesis '{hypothesis.name}'"
        regions = (hypothesis.supported, hypothesis.falsified)
        if hypothesis.on.number == "value" and hypothesis.on.subject == "outcome" and any(each and each.within for each in regions):
            raise InputError(f"{where}: the {BASE_INTERVAL} is of a change, and the value is asked for; ask for the change")
        for selection in hypothesis.selections:
            check_selection(selection, specs, where=where, layers=layers)
        if hypothesis.minus is not None:
            _check_paired(hypothesis.on, hypothesis.minus, specs, where)


def check_selection(
    selection: Selection, specs: tuple[RunSpec, ...], *, where: str, layers: Mapping[str, int] | None = None
) -> tuple[RunSpec, ...]:
    """The runs whose rows it reads. Raises as `check_hypotheses`."""
    _check_place(selection, where)
    found = selected(selection, specs, where=where)
    checks: dict[str, Callable[[Selection, tuple[RunSpec, ...], str], None]] = {
        "geometry": _geometry, "outcome": _outcome, "distance": _distance, "features": _features, "cost": _cost
    }  # fmt: skip
    if selection.subject in checks:
        checks[selection.subject](selection, found, where)
    _check_layer(selection, found, layers or {}, where)
    _check_when(selection, found, where)
    return found


def selected(selection: Selection, specs: Iterable[RunSpec], *, where: str = "the selection") -> tuple[RunSpec, ...]:
    """The runs that have its model, condition, objective, rule and data. Raises UnknownName for one that none has."""
    left = tuple(specs)
    for axis, of in _AXES.items():
        asked = getattr(selection, axis)
        if asked is not None:
            have = {name for spec in left if (name := of(spec)) is not None}
            left = tuple(spec for spec in left if of(spec) == asked)
            if not left:
                raise UnknownName(f"{axis} of {where}", asked, have)
    return left


def data_of(spec: RunSpec) -> str | None:
    """As the row has it: the names of what is trained on."""
    if spec.objective is None:
        return None
    return ", ".join(source.name for source in (spec.objective.texts, spec.objective.pairs) if source is not None) or None


def update_of(spec: RunSpec) -> str | None:
    """As the row has it: the rule, or the change of a control."""
    return spec.update.name if spec.update is not None else None if spec.change is None else spec.change.name


_AXES: dict[str, Callable[[RunSpec], str | None]] = {
    "model": lambda spec: spec.model.name,
    "condition": lambda spec: spec.condition,
    "objective": lambda spec: None if spec.objective is None else spec.objective.name,
    "update": update_of,
    "data": data_of,
}


def tasks_of(spec: RunSpec) -> dict[str, tuple[str, ...]]:
    """The tasks a run is judged by, and the measures recorded of each."""
    asked = spec.measurement
    kinds = ((asked.labels, known.PROBES), (asked.retrieval, known.RETRIEVAL), (asked.lm, known.LANGUAGE))
    found: dict[str, tuple[str, ...]] = {}
    for source, measures in ((source, measures) for sources, measures in kinds for source in sources if spec.kind != "features"):
        found[source.name] = (*found.get(source.name, ()), *measures)
    return found


def _geometry(selection: Selection, specs: tuple[RunSpec, ...], where: str) -> None:
    specs = tuple(spec for spec in specs if spec.kind != "features")
    recorded = {measure for spec in specs for measure in (*spec.measurement.measures, "cka")}
    if selection.measure not in recorded:
        raise UnknownName(f"measure of {where} among those the plan records", selection.measure, recorded)
    anchors = {source.name for spec in specs for source in spec.measurement.texts}
    _check_one("texts", selection.texts, anchors, where)


def _outcome(selection: Selection, specs: tuple[RunSpec, ...], where: str) -> None:
    tasks = {name: measures for spec in specs for name, measures in tasks_of(spec).items()}
    if not tasks:
        raise InputError(f"{where} is about an outcome, and the runs it names are judged by none; add labels, retrieval or lm to measure")
    if selection.task is None:
        tasks = {name: measures for name, measures in tasks.items() if selection.measure in measures} or tasks
    _check_one("task", selection.task, tasks.keys(), where)
    measures = tasks[selection.task] if selection.task is not None else next(iter(tasks.values()))
    if selection.measure not in measures:
        raise UnknownName(f"measure of {where} among those the plan records", selection.measure, measures)
    if selection.layer is not None and selection.measure not in known.PROBES:
        raise InputError(f"{where}: {selection.measure} is of the whole model, and layer = {selection.layer} asked for; leave it out")


def _distance(selection: Selection, specs: tuple[RunSpec, ...], where: str) -> None:
    if not any(spec.measurement.distances and spec.objective is not None for spec in specs):
        raise InputError(f"{where} is about a distance of objectives, which the plan does not record; set measure.distances = true")
    if selection.measure not in known.DISTANCES:
        raise UnknownName(f"measure of {where}", selection.measure, known.DISTANCES)


def _features(selection: Selection, specs: tuple[RunSpec, ...], where: str) -> None:
    if not any(spec.kind == "features" for spec in specs):
        raise InputError(f"{where} is about features, and none of the runs it names is of kind 'features'; plan one")
    if selection.measure not in known.FEATURES:
        raise UnknownName(f"measure of {where}", selection.measure, known.FEATURES)
    if selection.task is None or (selection.layer is None and selection.measure != "behaviour_recovered"):
        raise InputError(f"{where} is about features, of which a run has many: name layer and task (\"tuned\", \"tuned, seed 0\", …)")
    layers = {layer for spec in specs if spec.kind == "features" for layer in _list(spec.measurement.options["layers"])}
    if selection.layer is not None and selection.layer not in layers:
        raise InputError(f"{where} is about layer {selection.layer}, and features are recorded at {', '.join(map(str, sorted(layers)))}")


def _cost(selection: Selection, specs: tuple[RunSpec, ...], where: str) -> None:
    amounts = {name for spec in specs if spec.change is not None for name in _amounts(spec.change)}
    if not amounts:
        raise InputError(f"{where} is about the cost of a control, and none of the runs it names is of kind 'perturb'; plan one")
    if selection.measure not in amounts:
        raise UnknownName(f"measure of {where} among those the plan records", selection.measure, amounts)


def _amounts(change: Change) -> tuple[str, ...]:
    return tuple(change.amounts) if change.to is None else tuple(set(known.CHANGES[change.kind]) & set(known.PARAMETERS))


def _check_place(asked: Selection, where: str) -> None:
    """That there are rows of its place: what is asked of a place that has none can never be answered."""
    if asked.where is not None and asked.layer is not None:
        raise InputError(f"{where}: where = '{asked.where}' and layer = {asked.layer} asked for; give one of them")
    if asked.number == "slope" and (asked.subject != "geometry" or asked.where is not None or asked.layer is not None):
        raise InputError(f"{where}: a slope is of geometry, over all blocks; ask for the change, or leave layer and where out")
    if asked.subject == "outcome" and asked.where not in (None, "output"):
        raise InputError(f"{where}: outcomes of a layer are asked for by layer, not by where = '{asked.where}'")


def _check_layer(selection: Selection, specs: tuple[RunSpec, ...], layers: Mapping[str, int], where: str) -> None:
    """That some of the models have it, and that it is read."""
    if selection.subject not in ("geometry", "outcome"):
        return
    block = re.fullmatch(r"block (\d+)", selection.where or "")
    asked = int(block[1]) if block else selection.layer
    if asked is None:
        return
    have = [layers.get(spec.model.name) for spec in specs]
    if asked < 0 or not any(count is None or asked <= count for count in have):
        most = max((count for count in have if count is not None), default=0)
        raise InputError(f"{where} is about layer {asked}, and the models it names have 0 to {most}")
    read = [_list(spec.measurement.options["layers"]) for spec in specs if "layers" in spec.measurement.options]
    if len(read) == len(specs) and not any(asked in each for each in read):
        told = ", ".join(map(str, sorted({layer for each in read for layer in each})))
        raise InputError(f"{where} is about layer {asked}, and measure.options.layers reads {told}")


def _check_paired(on: Selection, minus: Selection, specs: tuple[RunSpec, ...], where: str) -> None:
    """That each side of a difference has one run a seed, and both the same seeds."""
    seeds = []
    for side, selection in (("on", on), ("minus", minus)):
        found = [spec for spec in selected(selection, specs) if records(selection, spec)]
        numbers = [spec.seed for spec in found]
        twice = next((seed for seed in numbers if numbers.count(seed) > 1), None)
        if twice is not None:
            told = ", ".join(f"'{spec.condition}' of {spec.model.name}" for spec in found if spec.seed == twice)
            raise InputError(f"{where}: a difference is taken seed by seed, and {side} has of seed {twice} {told}; name one")
        seeds.append(sorted(numbers))
    if seeds[0] != seeds[1]:
        told, other = (", ".join(map(str, each)) or "none" for each in seeds)
        raise InputError(f"{where}: a difference is taken seed by seed, and on has seeds {told}, minus {other}; give both the same")


def records(selection: Selection, spec: RunSpec) -> bool:
    """Whether a run writes rows of what is selected."""
    asked = spec.measurement
    if selection.at != END and (spec.kind != "tune" or asked.at != "checkpoints"):
        return False
    if selection.subject == "geometry":
        anchors = (None, *(source.name for source in asked.texts))
        return spec.kind != "features" and selection.measure in (*asked.measures, "cka") and selection.texts in anchors
    if selection.subject == "outcome":
        tasks = tasks_of(spec)
        return any(selection.measure in tasks[task] for task in tasks if selection.task in (None, task))
    if selection.subject == "distance":
        return spec.kind == "tune" and asked.distances
    if selection.subject == "cost":
        return spec.change is not None and selection.measure in _amounts(spec.change)
    return spec.kind == "features"


def _check_one(what: str, asked: str | None, have: Iterable[str], where: str) -> None:
    """That a run has one number: the name is known, or there is only one."""
    have = sorted(have)
    if asked is not None and asked not in have:
        raise UnknownName(f"{what} of {where}", asked, have)
    if asked is None and len(have) > 1:
        raise InputError(f"{where} does not say on which {what}, and there are {', '.join(have)}; name one")


def _check_when(selection: Selection, specs: tuple[RunSpec, ...], where: str) -> None:
    if selection.at == END:
        return
    if isinstance(selection.at, str):
        raise InputError(f"{where}: at = '{selection.at}' asked for; give \"{END}\" or an epoch")
    if all(spec.measurement.at != "checkpoints" for spec in specs):
        raise InputError(f"{where} is about epoch {selection.at:g}, and only the end is measured; set measure.at = \"checkpoints\"")
    trained = [spec for spec in specs if spec.kind == "tune"]
    steps = next((spec for spec in trained if "steps" in spec.schedule), None)
    if steps is not None:
        raise InputError(
            f"{where} is about epoch {selection.at:g}, and '{steps.condition}' of {steps.model.name} is given in steps; "
            f"give its length in epochs, or ask for \"{END}\""
        )
    points = {point for spec in trained for point in (*spec.schedule.get("checkpoints", ()), spec.schedule.get("epochs", 1)) if point > 0}
    if selection.at not in points:
        told = ", ".join(f"{point:g}" for point in sorted(points))
        raise InputError(f"{where} is about epoch {selection.at:g}, and models are kept at {told}")


def _list(layers: int | list[int]) -> list[int]:
    return [layers] if isinstance(layers, int) else list(layers)
