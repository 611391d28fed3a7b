"""How what ran departs from what was registered: said before any verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tunescope.study.registered import Registration

if TYPE_CHECKING:
    import pandas as pd

    from tunescope.study.folder import StudyFolder
    from tunescope.study.plan import Plan
    from tunescope.study.run_spec import RunSpec

FEW = 5


def deviations(
    registration: Registration | None, rows: pd.DataFrame, *, plan: Plan | None = None, specs: Iterable[RunSpec] = ()
) -> tuple[str, ...]:
    """One line each: no registration, a changed plan, runs that are missing, changed or were never registered, other versions.

    rows: of the ledger. plan, specs: the plan as it is now and its runs, where it is at hand.
    """
    if registration is None:
        return ("nothing was registered before the runs: the verdicts are exploratory", *_of_others(rows, tuple(specs)))
    return (
        *(() if plan is None else plan_changes(registration, plan, specs)),
        *_runs(registration, rows),
        *_versions(registration, rows),
    )


def begun_before(registration: Registration | None, folder: StudyFolder) -> Iterator[str]:
    """Runs that had begun before the plan was sealed, by what the folder tells of them: what is stated after a number is no prediction."""
    if registration is None:
        return
    sealed = datetime.fromisoformat(registration.sealed).timestamp()
    told = (folder.state(run) or {} for run in sorted(folder.begun()))
    early = sum("begun" in state and state["begun"] < sealed for state in told)
    if early:
        yield f"{early} run{' had' if early == 1 else 's had'} begun before the plan was sealed: the verdicts are no predictions"


def _of_others(rows: pd.DataFrame, specs: tuple[RunSpec, ...]) -> Iterator[str]:
    """Runs in the folder that are none of the plan's."""
    own = {spec.hash for spec in specs}
    others = rows.loc[~rows["run"].isin(list(own)), "run"].nunique() if own else 0
    if others:
        yield f"{others} run{' of the folder is' if others == 1 else 's of the folder are'} not of this plan as it is now, and not judged"


def plan_changes(registration: Registration, plan: Plan, specs: Iterable[RunSpec]) -> tuple[str, ...]:
    """What of the plan, or of the data it names, was changed since it was sealed, one line each.

    specs: its runs as they are now; none where its data are not here, and then only texts and hypotheses are compared.
    """
    specs = tuple(specs)
    found = (*_hypotheses(registration, plan), *(_specs(registration, specs) if specs else ()))
    if found or plan.text == registration.plan:
        return found
    return ("the plan's text was changed after it was sealed, and neither a run nor a hypothesis of it",)


def _hypotheses(registration: Registration, plan: Plan) -> Iterator[str]:
    sealed, now = ({each.name: each.describe() for each in hypotheses} for hypotheses in (registration.hypotheses, plan.hypotheses))
    for name in sorted(sealed.keys() | now.keys()):
        if name not in now:
            yield f"the hypothesis '{name}' was taken out of the plan after it was sealed; it is judged as it was sealed"
        elif name not in sealed:
            yield f"the hypothesis '{name}' was added to the plan after it was sealed; it is not judged"
        elif sealed[name] != now[name]:
            changed = "; ".join(_differing(sealed[name], now[name]))
            yield f"the hypothesis '{name}' was changed after it was sealed ({changed}); it is judged as it was sealed"


def _specs(registration: Registration, specs: tuple[RunSpec, ...]) -> Iterator[str]:
    """Runs of the plan as it is now, against the sealed."""
    now = {(spec.condition, spec.model.name, spec.seed): spec for spec in specs}
    sealed = {(run["condition"], run["model"], run["seed"]): (hash, run) for hash, run in registration.runs.items()}
    changed = [name for name in sealed.keys() & now.keys() if sealed[name][0] != now[name].hash]
    yield from _listed("was changed in the plan after it was sealed", "were changed in the plan after it was sealed", changed)
    fields: dict[str, int] = {}
    for name in changed:
        for field in _differing(sealed[name][1]["spec"], _plain(now[name].describe())):
            fields[field] = fields.get(field, 0) + 1
    yield from (f"changed in {count} run{'' if count == 1 else 's'}: {field}" for field, count in sorted(fields.items()))
    yield from _listed("was taken out of the plan", "were taken out of the plan", sealed.keys() - now.keys())
    yield from _listed("was added to the plan", "were added to the plan", now.keys() - sealed.keys())


def _runs(registration: Registration, rows: pd.DataFrame) -> Iterator[str]:
    """Runs of the ledger against the sealed."""
    ran = {str(run): (str(condition), str(model), int(seed)) for run, condition, model, seed in
           rows[["run", "condition", "model", "seed"]].fillna({"seed": 0}).drop_duplicates("run").itertuples(index=False)}  # fmt: skip
    missing = {run: (told["condition"], told["model"], told["seed"]) for run, told in registration.runs.items() if run not in ran}
    extra = {run: name for run, name in ran.items() if run not in registration.runs}
    other = set(missing.values()) & set(extra.values())
    yield from _listed("ran by another spec than the registered one", "ran by another spec than the registered one", other)
    yield from _listed("was registered and has no rows", "were registered and have no rows", set(missing.values()) - other)
    yield from _listed("was never registered and is not judged", "were never registered and are not judged", set(extra.values()) - other)


def _versions(registration: Registration, rows: pd.DataFrame) -> Iterator[str]:
    """Libraries that were others when it ran."""
    sealed = ", ".join(f"{name} {version}" for name, version in registration.versions.items())
    for told in sorted(set(rows["versions"].dropna().astype(str))):
        if told != sealed:
            before, then = (dict(part.rpartition(" ")[::2] for part in text.split(", ")) for text in (sealed, told))
            changed = (f"{name} {before.get(name, 'none')} → {then.get(name, 'none')}" for name in sorted(before.keys() | then.keys())
                       if before.get(name) != then.get(name))  # fmt: skip
            runs = rows.loc[rows["versions"] == told, "run"].nunique()
            yield f"{runs} run{' was' if runs == 1 else 's were'} made with other versions than were sealed: {', '.join(changed)}"


def _listed(one: str, several: str, names: Iterable[tuple[str, str, int]]) -> Iterator[str]:
    told = sorted(f"'{condition}' of {model} seed {seed}" for condition, model, seed in names)
    if told:
        more = f" and {len(told) - FEW} more" if len(told) > FEW else ""
        yield f"{len(told)} run{'' if len(told) == 1 else 's'} {one if len(told) == 1 else several}: {', '.join(told[:FEW])}{more}"


def _differing(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Dotted fields in which two described specs differ, with both values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted(one.keys() | other.keys()):
            yield from _differing(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
    elif one != other:
        yield f"{path}, {_short(one)} → {_short(other)}"


def _plain(content: Any) -> Any:
    import json

    return json.loads(json.dumps(content))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
