"""tunescope study plan PLAN"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunescope.cli.run import tell

if TYPE_CHECKING:
    from tunescope.study.estimate import Estimate
    from tunescope.study.local_content import LocalContent
    from tunescope.study.plan import Plan
    from tunescope.study.run_spec import RunSpec

TFLOPS = 30.0


def plan(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A plan.toml, or the name of a bundled plan.")],
    runs: Annotated[bool, typer.Option("--runs", help="Also list every run.")] = False,
    tflops: Annotated[float, typer.Option("--tflops", min=0.001, help="Operations a second that a GPU sustains, in 10¹².")] = TFLOPS,
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="FILE", show_default=False, help="Only write the plan's text to FILE, to be changed and run."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Check a plan and say what it comes to: runs by axis, what is measured, hypotheses, and an estimate of GPU-hours, memory and disk.

    Nothing is loaded or run. A plan that cannot be is refused in one line; data files that are not here yet are listed.
    """
    from tunescope.study.estimate import estimate
    from tunescope.study.expand import expand
    from tunescope.study.local_content import LocalContent
    from tunescope.study.plan import read_plan

    read = read_plan(plan)
    if write is not None:
        _write(read, write)
        return
    content = LocalContent(read.folder, lenient=True)
    specs = expand(read, content=content)
    cost = estimate(read, specs, tflops=tflops)
    if json:
        import json as format_json

        typer.echo(format_json.dumps(_described(read, specs, content, cost), ensure_ascii=False, allow_nan=False))
        return
    for line in _lines(read, specs, content, cost):
        tell(line, label=11)
    if runs:
        for spec in specs:
            typer.echo(f"run      {spec.condition}, {spec.model.name}, seed {spec.seed}")


def _write(plan: Plan, path: Path) -> None:
    from tunescope.errors import OutputError

    if path.exists():
        raise OutputError(f"'{path}' is there already; name another file with --write")
    path.write_text(plan.text, encoding="utf-8")
    typer.echo(f"wrote    {path}")


def counts(specs: Iterable[RunSpec]) -> dict[str, dict[str, int]]:
    """Runs by axis and choice, in the order in which the plan names them."""
    from tunescope.study.recorded import data_of, update_of

    axes: dict[str, list[Any]] = {
        name: [] for name in ("kinds", "models", "objectives", "updates", "corpora", "views", "seeds", "regimes", "anchors")
    }
    for spec in specs:
        objective = spec.objective
        found = {
            "kinds": spec.kind, "models": spec.model.name, "objectives": objective and objective.name, "updates": update_of(spec),
            "corpora": data_of(spec), "views": objective and objective.settings.get("views"), "seeds": str(spec.seed),
            "regimes": spec.regime, "anchors": " + ".join(source.name for source in spec.measurement.texts),
        }  # fmt: skip
        for axis, name in found.items():
            axes[axis].append(name)
    return {axis: dict(Counter(name for name in names if name)) for axis, names in axes.items()}


def _lines(plan: Plan, specs: tuple[RunSpec, ...], content: LocalContent, cost: Estimate) -> Iterator[str]:
    from tunescope.report.study_names import counted
    from tunescope.study.alternatives import warnings_of
    from tunescope.study.controlled import check_claims
    from tunescope.study.estimate import RULES

    yield f"study      {plan.name}: {counted(len(specs), 'run')}"
    if plan.about:
        yield f"asks       {plan.about}"
    for axis, found in counts(specs).items():
        if found:
            yield f"{axis:<11}{', '.join(f'{name} {count}' for name, count in found.items())}"
    yield f"measures   {', '.join(dict.fromkeys(measure for spec in specs for measure in _measured(spec)))}"
    for control in check_claims(plan.controlled, specs):
        yield f"control    {control}"
    for hypothesis in plan.hypotheses:
        on = hypothesis.on if hypothesis.minus is None else f"{hypothesis.on}, minus that of {hypothesis.minus.apart(hypothesis.on)}"
        against = "otherwise falsified" if hypothesis.falsified is None else f"falsified {hypothesis.falsified}"
        yield f"hypothesis '{hypothesis.name}': {on} {hypothesis.supported}, {against}; predicted: {hypothesis.predicted}"
    yield from (f"note       {line}" for line in warnings_of(plan.hypotheses))
    yield from _costs(cost, len(specs))
    yield from (f"reckoned   {rule}" for rule in RULES)
    yield from _loose(plan, specs, content)


def _measured(spec: RunSpec) -> Iterator[str]:
    from tunescope.study.recorded import tasks_of

    if spec.kind == "features":
        yield f"features at layers {', '.join(map(str, _list(spec.measurement.options['layers'])))}"
        return
    yield from spec.measurement.measures
    yield from (f"{measures[0]} of {task}" for task, measures in tasks_of(spec).items())
    if spec.measurement.distances:
        yield "distance of the objective"


def _costs(cost: Estimate, runs: int) -> Iterator[str]:
    if cost.unknown == runs:
        yield "estimate   none: sizes of models or rows of sources are not known; say parameters of models, rows of sources"
        return
    left = f"; without {cost.unknown} runs of unknown size" if cost.unknown else ""
    yield f"estimate   about {_hours(cost.hours)} of one GPU at {cost.tflops:g} TFLOP/s sustained{left}"
    if cost.memory is not None and cost.largest is not None:
        yield f"memory     about {_bytes(cost.memory)} for the largest run, '{cost.largest.condition}' of {cost.largest.model.name}"
    yield f"disk       about {_bytes(cost.disk)} for the models that are kept"


def _loose(plan: Plan, specs: tuple[RunSpec, ...], content: LocalContent) -> Iterator[str]:
    """What is not here, not pinned or not used: said, not refused."""
    for place, name in content.missing.items():
        yield f"missing    {name}: '{place}' is not here; tunescope study run and register need it"
    loose = [name for name, model in plan.models.items() if _on_hub(model) and model.revision in (None, "main")]
    if loose:
        yield f"unpinned   {', '.join(loose)}: the hub's branch may change under the study; give a commit as revision"
    used = {source.name for spec in specs for source in _sources(spec)}
    unused = [name for name in plan.sources if name not in used]
    if unused:
        yield f"unused     sources {', '.join(unused)}"


def _on_hub(model: Any) -> bool:
    return bool(model.place) and not model.place.startswith("package:") and not Path(model.place).is_dir()


def _sources(spec: RunSpec) -> Iterator[Any]:
    asked = spec.measurement
    yield from (*asked.texts, *asked.labels, *asked.retrieval, *asked.lm)
    if spec.objective is not None:
        yield from (source for source in (spec.objective.texts, spec.objective.pairs) if source is not None)
    if spec.model.pretrain is not None:
        yield spec.model.pretrain.texts


def _described(plan: Plan, specs: tuple[RunSpec, ...], content: LocalContent, cost: Estimate) -> dict[str, Any]:
    from tunescope.study.alternatives import warnings_of

    return {
        "study": plan.name, "runs": len(specs), "counts": counts(specs), "hypotheses": [each.describe() for each in plan.hypotheses],
        "notes": list(warnings_of(plan.hypotheses)), "estimate": cost.describe(), "missing": content.missing,
        "specs": [{"run": spec.hash, **spec.describe()} for spec in specs],
    }  # fmt: skip


def _hours(hours: float) -> str:
    from tunescope.report.study_names import counted

    return f"{hours:,.0f} hours" if hours >= 10 else f"{hours:.1f} hours" if hours >= 1 else counted(max(1, round(60 * hours)), "minute")


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.0f} kB"


def _list(layers: Any) -> list[int]:
    return [layers] if isinstance(layers, int) else list(layers)
