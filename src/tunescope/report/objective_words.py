"""What the objective distances of a payload say, in words and cells: shared by the page and the terminal."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading
from tunescope.report.numbers import MISSING, count, half_width, interval, percent, signed, three, two_digits

SHOWN = ("cosine", "pearson", "fisher_cosine", "debiased_cka")
PROJECTED = ("cosine_128", "cosine_32")


def measured(payload: reading.Payload) -> list[dict[str, Any]]:
    """The objectives that have gradients: the reference, then by growing Procrustes distance."""
    rows = [row for row in payload["objectives"] if not row["refused"]]
    return sorted(rows, key=lambda row: (not row["is_reference"], row["distances"]["procrustes"]["value"]))


def refusals(payload: reading.Payload) -> list[tuple[str, str]]:
    """(objective, its reason) of those that could not be taken."""
    return [(row["name"], row["refused"]) for row in payload["objectives"] if row["refused"]]


def headline(payload: reading.Payload) -> str:
    """Which objective is nearest to the reference, which farthest, and which are no nearer than unrelated gradients."""
    name, others = payload["reference"]["name"], [row for row in measured(payload) if not row["is_reference"]]
    if not others:
        return f"Only {name}, the reference, could be taken."
    nearer, unrelated = ([row for row in others if _at_chance(row) == beyond] for beyond in (False, True))
    if len(others) == 1:
        how = "nearer" if nearer else "no nearer"
        return f"{others[0]['name']} pulls this model {how} to {name} than shuffled items would: Procrustes distance {_beside(others[0])}."
    if not nearer:
        names = _listed(unrelated)
        return f"None of {names} pulls this model nearer to {name} than shuffled items would: {others[0]['name']} is {_beside(others[0])}."
    said = f"{nearer[0]['name']} pulls this model most like {name}: Procrustes distance {_beside(nearer[0])}"
    said += f"; {others[-1]['name']} least, {_beside(others[-1])}" if others[-1] is not nearer[0] else ""
    return f"{said}.{f' No nearer than shuffled items would be: {_listed(unrelated)}.' if unrelated else ''}"


def _listed(rows: list[dict[str, Any]]) -> str:
    return ", ".join(row["name"] for row in rows)


def _beside(row: dict[str, Any]) -> str:
    found = row["distances"]["procrustes"]
    within = "" if found["low"] is None else f" {interval(found['low'], found['high'])}"
    return f"{three(found['value'])}{within} where shuffled items give {three(found['null'])}"


def _at_chance(row: dict[str, Any]) -> bool:
    """Whether the distance, or what its 95% interval leaves open, lies within two standard deviations of that of shuffled items."""
    found = row["distances"]["procrustes"]
    if found["null"] is None or found["null_sd"] is None:
        return False
    highest = found["value"] if found["high"] is None else found["high"]
    return highest >= found["null"] - 2 * found["null_sd"]


def subject(payload: reading.Payload) -> str:
    """Which model, measured from what, on what."""
    data = payload["data"]
    what = {"labels": "labelled texts"}.get(data["kind"], data["kind"])
    some = f" of {count(data['of'])}" if data["of"] != data["n"] else ""
    return (
        f"{payload['base']['name']} · from {payload['reference']['name']}, {payload['reference']['why']} · "
        f"{count(data['n'])}{some} {what}: {data['source']} · "
        f"batches of {data['batch_size']}, cut at {data['max_length']} tokens"
    )


def agreement(payload: reading.Payload) -> list[str]:
    """One sentence a distance: do halves of the items agree on the order?"""
    lines = []
    for name, title in (("procrustes", "Procrustes"), ("cosine", "cosine")):
        found = payload["split_half"][name]
        if found["reason"]:
            lines.append(f"Order by {title}: {found['reason']}.")
            continue
        lines.append(
            f"Order by {title}: {' < '.join(found['names'])}. Two halves of the items agree on all of it in {percent(found['same'])} of "
            f"{found['splits']} splits; Spearman {_ranged(found, 'spearman')}, Kendall {_ranged(found, 'kendall')}."
        )
    return lines


def _ranged(found: dict[str, Any], key: str) -> str:
    return f"{three(round(found[key], 12))} {interval(round(found[f'{key}_low'], 12), round(found[f'{key}_high'], 12))}"


def noise(payload: reading.Payload) -> list[str]:
    """Why a cosine was refused, once an objective."""
    found = [row["distances"]["cosine"]["reason"] for row in measured(payload)]
    return list(dict.fromkeys(reason for reason in found if reason))


def cells(row: dict[str, Any]) -> dict[str, str]:
    """The numbers of one objective as they are printed."""
    found, gradient = row["distances"], row["gradient"]
    main = found["procrustes"]
    return {
        "name": row["name"], "title": row["title"], "is_reference": row["is_reference"],
        "procrustes": three(main["value"]), "half": half_width(main["value"], main["low"], main["high"]) if not row["is_reference"] else "",
        "interval": interval(main["low"], main["high"]) if not row["is_reference"] else "",
        "null": three(main["null"]) if not row["is_reference"] else "",
        **{name: "noise" if found[name]["reason"] else three(found[name]["value"]) for name in SHOWN},
        **{f"{name}_interval": "" if row["is_reference"] else _between(found[name]) for name in SHOWN},
        "loss": three(row["loss"]), "norm": two_digits(gradient["norm"]), "norm_sd": two_digits(gradient["norm_sd"]),
        "coherence": three(gradient["coherence"]), "total_coherence": three(gradient["total_coherence"]),
        "chance": three(gradient["coherence_chance"]), "p": three(max(gradient["p"], gradient["total_p"])),
        "nonzero": percent(gradient["nonzero"]), "noise": "noise" if gradient["noise"] else "",
        "made": made(row),
    }  # fmt: skip


def _between(found: dict[str, Any]) -> str:
    return "" if found["low"] is None else interval(found["low"], found["high"])


def projections(payload: reading.Payload) -> list[str]:
    """The cosines after random projections, an objective each, where there are any."""
    said = []
    for row in measured(payload):
        found = [(name.removeprefix("cosine_"), row["distances"][name]) for name in PROJECTED]
        parts = [f"{three(each['value'])} ± {three(each['spread'])} in {width} dimensions" for width, each in found if each["spread"]]
        said += [f"{row['name']} {', '.join(parts)}"] if parts else []
    return said


def made(row: dict[str, Any]) -> str:
    """What the objective came to on this model, and what its views were apart."""
    record = row["record"]
    resolved = {key: value for key, value in (record.get("resolved") or {}).items() if not isinstance(value, dict | bool)}
    parts = [f"{key.replace('_', ' ')} {value}" for key, value in resolved.items()]
    if record.get("head_fitted_steps"):
        parts.append(f"head fitted for {record['head_fitted_steps']} steps with the body frozen")
    if "view_distance" in row["said"]:
        parts.append(f"views apart {three(row['said']['view_distance'])} of their length")
    return ", ".join(parts)


def alignment_rows(payload: reading.Payload) -> list[dict[str, Any]]:
    """Of every objective and run: its cosine with the task's direction over all blocks, the floor, and what that shows."""
    rows = (payload.get("alignment") or {"rows": []})["rows"]
    return [{"name": row["name"], "kind": row["kind"], **alignment_cells(row["overall"])} for row in rows]


def alignment_cells(cell: dict[str, Any]) -> dict[str, str]:
    beyond = {"above": "more than shuffled", "below": "less than shuffled", "within": "as when shuffled"}
    between = f"[{signed(cell['low'])}, {signed(cell['high'])}]" if cell["low"] is not None else MISSING
    shown = beyond.get(cell["beyond"], cell["reason"] or MISSING)
    return {"where": cell["where"], "cosine": signed(cell["cosine"]), "floor": signed(cell["floor"]), "between": between, "shown": shown}


def task_words(payload: reading.Payload) -> str:
    """Which task, on how much of it, and what its floor is."""
    posed = payload["alignment"]
    task = posed["task"]
    loss = "InfoNCE of a query and its passage" if task["kind"] == "retrieval" else f"a probe fitted on {count(task['fitted_on'])} texts"
    what = "queries" if task["kind"] == "retrieval" else "held-out texts"
    return (
        f"{task['name']} ({task['kind']}): {loss}, {count(task['n'])} of {count(task['of'])} {what}. Cosine of −∇L of tuning with −∇L "
        "of the task in the weights of the blocks; above 0, a small step of tuning lowers the task’s loss. Floor: the task shuffled "
        f"{posed['draws']} times (which text belongs to what), with the range in which 95% of further shufflings would fall."
    )
