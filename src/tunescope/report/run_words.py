"""A training run in words: what was moved, how far against chance, what came of it, how large its steps were.

Nothing here calls a distance good or bad; only outcomes are.
"""

from __future__ import annotations

import statistics

from tunescope.report import outcome_words, reading, run_objective, run_reading
from tunescope.report.loss_curve import loss_rows
from tunescope.report.numbers import amount, count, one_decimal, percent, signed, stated, three, two_digits
from tunescope.report.run_reading import Row
from tunescope.report.thinning import last_steps, window

_NAMED = 4
_REST = "rest"  # the group of tensors that are in no block
_NEIGHBOURS = "nps"  # whose change is a share of neighbours


def steps_of(payload: reading.Payload) -> int:
    """How many steps were made, as far as the payload knows."""
    rows = [*(payload.get("losses") or []), *(payload.get("steps") or [])]
    return max((row["step"] for row in rows), default=(payload["record"].get("spec") or {}).get("steps") or 0)


def headline(payload: reading.Payload) -> str:
    """What moved, by what, and how far, in two or three sentences."""
    record = payload["record"]
    update, steps = record.get("update") or {}, steps_of(payload)
    moved, total = update.get("parameters"), (update.get("parameters") or 0) + (update.get("frozen_parameters") or 0)
    what = f"{count(moved)} of {count(total)} parameters ({percent(moved / total)})" if moved and total else "the model"
    asked = run_objective.named(record.get("objective") or {})
    made = f"{count(steps)} step{'s' if steps != 1 else ''} of {asked}{',' if ', ' in asked else ''}"
    said = [f"{made} by {update.get('rule') or 'an unnamed rule'} moved {what}."]
    if not record.get("finished", True):
        said.append(f"The run is not finished: it was to make {count((record.get('spec') or {}).get('steps'))} steps.")
    return " ".join([*said, distance(payload)])


def distance(payload: reading.Payload) -> str:
    """How far the last point is from the start, at the deployed embedding or the deepest place measured, by the first measure."""
    rows = run_reading.geometry(payload)
    distances = [name for name in run_reading.measures(payload) if run_reading.is_distance(payload, name)]
    if not distances:
        why = "Nothing was measured on the way" if not rows else "No distance from the start is known"
        return f"{why}, so this page does not say how far it moved."
    measure, place = distances[0], run_reading.places(payload)[-1]["name"]
    found = run_reading.numbers(payload, measure)
    known = [found[key] for key in sorted(found, key=lambda key: key[0]) if key[1] == place and found[key].get("change") is not None]
    if not known or not known[-1]["step"]:
        return "Only the start was measured, so this page does not say how far it moved."
    last, name, title = known[-1], run_reading.change_name(payload, measure), reading.about(payload, measure)["title"]
    name += f" ({title[0].lower() if title[1:2].islower() else title[0]}{title[1:]})" if title != measure else ""
    if measure == _NEIGHBOURS:
        return _neighbours(known, place)
    said = f"At step {count(last['step'])} the {_place(place)} was {three(last['change'])} from the start by {name}"
    if not last["change"]:
        said = f"At step {count(last['step'])} the {_place(place)} was where it began by {name}"
    elif last["floor"]:
        share = last["change"] / last["floor"]
        said += f", {percent(share)} of the {three(last['floor'])} of an unrelated representation"
    farthest = max(known, key=lambda row: row["change"])
    if three(farthest["change"]) != three(last["change"]):
        said += f"; farthest at step {count(farthest['step'])}, {three(farthest['change'])}"
    return f"{said}."


def _neighbours(known: list[Row], place: str) -> str:
    """The same of the share of each text's nearest neighbours that changed."""
    last = known[-1]
    lost = "every text had the neighbours it began with"
    if last["change"]:
        lost = f"a text had lost {percent(last['change'])} of its neighbours"
    said = f"At step {count(last['step'])} {lost} at the {_place(place)} (1 − nps {three(last['change'])})"
    said += f"; in an unrelated representation it would lose {percent(last['floor'])}" if last["floor"] and last["change"] else ""
    farthest = max(known, key=lambda row: row["change"])
    if percent(farthest["change"]) != percent(last["change"]):
        said += f"; most at step {count(farthest['step'])}, {percent(farthest['change'])}"
    return f"{said}."


def _place(name: str) -> str:
    return {"output": "output", "final": "final norm"}.get(name, f"{name} output" if name.startswith("block") else name)


def outcome_headline(payload: reading.Payload) -> str:
    """What the outcomes of the last point show; empty where none was judged."""
    rows = run_reading.at_end(payload)
    said = outcome_words.headline(rows)
    return f"At step {count(rows[0]['step'])}, {said[0].lower()}{said[1:]}" if said else ""


def loss(payload: reading.Payload) -> str:
    """The loss in a sentence: first step, last steps, lowest running mean."""
    rows = loss_rows(payload)
    if not rows:
        return "No losses were kept, so how the objective went is not known."
    if len(rows) == 1:
        return f"The loss of the only step was {three(rows[0]['loss'])}."
    over = window(len(rows))
    last = rows[-last_steps(len(rows)) :]
    said = f"The loss was {three(rows[0]['loss'])} at the first step and {three(statistics.fmean(row['loss'] for row in last))}"
    said += f" {f'over the last {count(len(last))}' if len(last) > 1 else 'at the last'}, on the batches that were trained on."
    if over > 1:
        low = min(rows, key=lambda row: row["mean"])
        said += f" Its running mean over {count(over)} steps was lowest around step {low['at']}, {low['smooth']}."
    return said


def beside_the_loss(payload: reading.Payload) -> list[str]:
    """What the objective says beside its loss, first and last."""
    rows = payload.get("losses") or []
    own = {"step", "epoch", "loss", "learning_rate", "gradient_norm"}
    names = dict.fromkeys(key for row in rows for key, value in row.items() if key not in own and isinstance(value, int | float))
    asked, found = payload["record"].get("objective") or {}, []
    for name in names:
        values = [row[name] for row in rows if row.get(name) is not None]
        found.append(f"{run_objective.beside(name, asked)}: {three(values[0])} at first, {three(values[-1])} at last, "
                     f"{three(min(values))} to {three(max(values))} on the way")  # fmt: skip
    return found


def trajectory(payload: reading.Payload) -> str:
    """Lead of the section on change by layer."""
    rows = run_reading.geometry(payload)
    if not rows:
        return "No point of this run was measured: its trajectory file is missing or empty, or the trajectory was turned off."
    measured = run_reading.points(rows)
    n = max((row.get("n") or 0 for row in rows), default=0)
    texts = f", on {count(n)} fixed texts" if n else ""
    if len(measured) == 1:
        return f"Only step {count(measured[0])} was measured{texts}."
    said = f"Distance from the weights the run began with, at {count(len(measured))} points from step {count(measured[0])} to "
    return f"{said}{count(measured[-1])}{texts}. Changes carry no interval here; tunescope diff gives one."


def missing(payload: reading.Payload) -> list[str]:
    """Why distances are not there: each reason once, with its places."""
    found: dict[str, dict[str, None]] = {}
    for row in run_reading.geometry(payload):
        if row.get("reason"):
            found.setdefault(str(row["reason"]), {})[row["where"]] = None
    return [f"{', '.join(where)}: {reason}" for reason, where in found.items()]


def step_sizes(payload: reading.Payload) -> list[str]:
    """Paragraphs on how far the groups were moved a step, and what equal steps flattened."""
    groups = run_reading.groups(payload)
    medians = {name: statistics.median(found) for name, rows in groups.items() if (found := run_reading.ratios(rows))}
    if not groups:
        return ["No step sizes were kept."]
    if not medians:
        return ["No group of tensors moved from a norm above zero, so no step has a relative size."]
    small, large = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    span = f"from {two_digits(medians[small])} ({small}) to {two_digits(medians[large])} ({large})"
    times = f"{one_decimal(medians[large] / medians[small])} times as far"
    tau = run_reading.tau(payload)
    if tau and len(medians) > 1:
        said = f"Equal steps flattened this: the optimizer’s own median step ran {span} of a group’s size, {times}. Each was then set to "
        said += f"τ = {stated(tau)}, so every group that moved went equally far a step, in the optimizer’s direction."
    elif tau:
        said = f"The optimizer’s own median step was {two_digits(medians[small])} of the group’s size; each was set to τ = {stated(tau)}."
    elif len(medians) > 1:
        said = f"A group’s median step ran {span} of its size, {times}. Nothing was rescaled."
    else:
        said = f"The median step of {small} was {two_digits(medians[small])} of its size. Nothing was rescaled."
    return [said, *_apart(groups), *_noise(groups, equal=tau is not None)]


def _apart(groups: dict[str, list[Row]]) -> list[str]:
    """Groups whose steps have no relative size, and why."""
    told = {
        "frozen": "{} did not train",
        "no update": "{} could train and was not moved at {}",
        "zero norm": "{} made {} from zero norm, where no relative step exists, and that was the optimizer’s own",
    }
    said = []
    for state, words in told.items():
        counts = {name: sum(row["state"] == state for row in rows) for name, rows in groups.items()}
        counts = {name: found for name, found in counts.items() if found}
        if counts:
            most = max(counts.values())
            number = f"{'' if len(set(counts.values())) == 1 else 'up to '}{count(most)} step{'s' if most > 1 else ''}"
            said.append(words.format(_listed(["what is in no block" if name == _REST else name for name in counts]), number))
    return [f"{'; '.join(said)[0].upper()}{'; '.join(said)[1:]}."] if said else []


def _noise(groups: dict[str, list[Row]], *, equal: bool) -> list[str]:
    if not any(run_reading.agreements(rows) for rows in groups.values()):
        return []
    noisy = [name for name, rows in groups.items() if run_reading.by_noise(rows)]
    if not noisy:
        return ["Micro-batches agreed on the direction of every group whose agreement is known."]
    far = "; equal steps moved it as far as any other, along noise" if equal else ""
    rule = "the agreement of its micro-batches’ gradients is at most two standard errors above zero"
    return [f"Moved by noise: {_listed(noisy)}. Of such a group {rule}{far}."]


def _listed(names: list[str]) -> str:
    if len(names) > _NAMED:
        return f"{', '.join(names[:_NAMED])} and {count(len(names) - _NAMED)} more groups"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def score(row: Row | None) -> dict[str, str]:
    """An outcome in a table: where it stands, and its difference from the start, with interval and verdict."""
    if row is None or row.get("delta") is None or not row["step"]:
        return {"score": amount((row or {}).get("tuned")), "delta": "", "verdict": ""}
    reach = outcome_words.reach(row).replace(" to ", ", ")
    delta = f"{signed(row['delta'])}{f' [{reach}]' if reach else ''}"
    return {"score": amount(row.get("tuned")), "delta": delta, "verdict": row["verdict"]}
