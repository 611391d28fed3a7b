"""Which numbers the runs of a plan will record, so that a hypothesis on one that none does is refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tunescope.errors import InputError, UnknownName
from tunescope.study import known
from tunescope.study.hypotheses import END, Hypothesis, Selection
from tunescope.study.run_spec import RunSpec


def check_hypotheses(hypotheses: Iterable[Hypothesis], specs: Iterable[RunSpec]) -> None:
    """Raises UnknownName or InputError, naming the hypothesis, for the first number that no run records or that is not one number."""
    specs = tuple(specs)
    names = [hypothesis.name for hypothesis in hypotheses]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two hypotheses are called '{twice}'; give each a name of its own")
    for hypothesis in hypotheses:
        for selection in hypothesis.selections:
            check_selection(selection, specs, where=f"hypothesis '{hypothesis.name}'")


def check_selection(selection: Selection, specs: tuple[RunSpec, ...], *, where: str) -> tuple[RunSpec, ...]:
    """The runs whose rows it reads. Raises as `check_hypotheses`."""
    found = selected(selection, specs, where=where)
    checks: dict[str, Callable[[Selection, tuple[RunSpec, ...], str], None]] = {
        "geometry": _geometry, "outcome": _outcome, "distance": _distance, "features": _features
    }  # fmt: skip
    if selection.subject in checks:
        checks[selection.subject](selection, found, where)
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
    return {source.name: measures for sources, measures in kinds for source in sources} if spec.kind != "features" else {}


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
    points = {point for spec in specs for point in (*spec.schedule.get("checkpoints", ()), spec.schedule.get("epochs"))}
    if selection.at not in points:
        told = ", ".join(f"{point:g}" for point in sorted(point for point in points if point is not None))
        raise InputError(f"{where} is about epoch {selection.at:g}, and models are kept at {told}")


def _list(layers: int | list[int]) -> list[int]:
    return [layers] if isinstance(layers, int) else list(layers)
