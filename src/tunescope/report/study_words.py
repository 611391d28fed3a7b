"""What a study found, in sentences: the headline, and the findings under it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tunescope.report.numbers import count, percent, signed, three
from tunescope.report.study_names import change, counted, main_tasks, metric, of_n, p

Payload = dict[str, Any]
ALIKE = 1.5
SPREADS = 3
STATES = {"supported": "rewritten", "falsified": "alarm", "invalid window": "refined", "not evaluable": "nothing"}


def headline(payload: Payload) -> str:
    """Two or three sentences: verdicts, else the first findings; that it is unfinished, or that runs failed."""
    runs, said = payload["runs"], []
    if not runs["total"] or not runs["counts"].get("done"):
        said.append("Nothing has been measured yet.")
    if payload["verdicts"]:
        said.append(verdict_counts(payload["verdicts"]))
    said += list(findings(payload))[: 1 if said else 2]
    return " ".join(said) or "There is nothing to tell of these rows."


def verdict_counts(verdicts: list[dict[str, Any]]) -> str:
    """How many hypotheses are in each state."""
    found = Counter(verdict["state"] for verdict in verdicts)
    if len(verdicts) == 1:
        return (
            f"The one hypothesis is {verdicts[0]['state']}."
            if "window" not in verdicts[0]["state"]
            else "The one hypothesis has an invalid window."
        )
    parts = []
    for state in STATES:
        if number := found[state]:
            verb = ("has an" if number == 1 else "have an") if "window" in state else ("is" if number == 1 else "are")
            parts.append(f"{number} {verb} {state}")
    return f"Of {count(len(verdicts))} hypotheses {_joined(parts)}."


def progress(payload: Payload) -> str:
    """How many runs are done, failed and still to come."""
    runs = payload["runs"]
    counts, total = runs["counts"], runs["total"]
    parts = [f"{count(counts.get('done', 0))} of {count(total)} runs are done"]
    parts += [f"{count(counts['failed'])} failed"] if counts.get("failed") else []
    waiting = counts.get("running", 0) + counts.get("queued", 0)
    parts += [f"{count(waiting)} {'is' if waiting == 1 else 'are'} still to come"] if waiting else []
    left = runs.get("left_out") or 0
    whose = "were not registered" if payload.get("sealed") else "are not of this plan"
    of = f" Rows of {counted(left, 'other run')} in the folder, which {whose}, are left out." if left else ""
    return f"{_joined(parts)}.{of}"


def findings(payload: Payload) -> Iterator[str]:
    """A sentence a finding, each with its n; what was not measured is not mentioned."""
    yield from _depth(payload)
    yield from _outcomes(payload)
    yield from _distances(payload)
    yield from _features(payload)
    yield from _largest(payload)


def _of(entry: dict[str, Any], payload: Payload) -> str:
    return f" ({entry['study']})" if len(payload["studies"]) > 1 and not entry["study"].startswith(("depth", "drift", "layers")) else ""


def _depth(payload: Payload) -> Iterator[str]:
    for entry in payload["signs"]:
        groups = [group for group in entry["groups"] if not group["reason"] and group["measure"] == entry["groups"][0]["measure"]]
        for group in groups:
            if group["group"] == "training as usual":
                yield (
                    f"Slopes over depth rise towards the output in {of_n(group['positive'], group['n'])} cells trained as usual "
                    f"({change(group['measure'])}, sign test {p(group['p'])}){_of(entry, payload)}."
                )
            elif group["group"] == "equal-step":
                yield f"When every block moves equally far, {of_n(group['positive'], group['n'])} stay positive ({p(group['p'])})."


def _outcomes(payload: Payload) -> Iterator[str]:
    for model in dict.fromkeys(entry["model"] for entry in payload["matched"]):
        own, _ = main_tasks([entry for entry in payload["matched"] if entry["model"] == model])
        pairs = [(pair, entry) for entry in own for pair in _near(entry)]
        if pairs:
            yield _apart(*max(pairs, key=lambda each: abs(each[0]["difference"])))
        known = [entry for entry in own if entry["correlation"] and entry["correlation"]["value"] is not None]
        if known:
            said = [
                f"{signed(entry['correlation']['value'])} in {entry['task']} ({p(entry['correlation']['p'])}, "
                f"n\u00a0{entry['correlation']['n']})"
                for entry in known
            ]
            yield f"Within {model}, the change and the damage of conditions have ρ {_joined(said)}."


def _near(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Pairs of conditions that moved about equally far."""
    moved = {point["condition"]: point["drift"] for point in entry["points"]}
    known = [pair for pair in entry["pairs"] or [] if {pair["a"], pair["b"]} <= moved.keys()]  # of some only a checkpoint is known
    return [pair for pair in known if _alike(moved[pair["a"]], moved[pair["b"]])]


def _apart(pair: dict[str, Any], entry: dict[str, Any]) -> str:
    low, high = (pair["b"], pair["a"]) if pair["difference"] < 0 else (pair["a"], pair["b"])
    return (
        f"Moved equally far ({change(entry['measure'])} {three(pair['drift'])}), {low} of {entry['model']} comes out "
        f"{three(abs(pair['difference']))} below {high} "
        f"in {entry['task']} {metric(entry['outcome'])}{_over(pair)}."
    )


def _alike(one: float, other: float) -> bool:
    """Whether two changes are near enough for their pair to be told of first: neither is more than half as large again."""
    return 0 < max(one, other) <= ALIKE * min(one, other)


def _over(pair: dict[str, Any]) -> str:
    return f" ({p(pair['p'])} over {pair['n']} pairs)" if pair["p"] is not None else " (one pair, so no interval)"


def _distances(payload: Payload) -> Iterator[str]:
    entry = next((entry for entry in payload["distances"] if entry["points"] and not entry["within"].get("reason")), None)
    if entry:
        found = entry["within"]
        yield (
            f"Objectives further from pretraining have steeper profiles within {of_n(found['positive'], found['n'])} models (sign test "
            f"{p(found['p'])})"
            f"{_bare(entry)}."
        )


def _bare(entry: dict[str, Any]) -> str:
    found = entry["without"]
    return (
        "" if found.get("reason") else f", without the reference objective within {of_n(found['positive'], found['n'])} ({p(found['p'])})"
    )


def _features(payload: Payload) -> Iterator[str]:
    for entry in payload["features"]:
        lines = [line for line in entry["lines"] if line["layer"] is not None]
        if entry["measure"] == "one_to_one_cosine" and (known := [line for line in lines if line["floor"] is not None]):
            above = sum(line["value"] > line["floor"] + SPREADS * (line["floor_sd"] or 0) for line in known)
            yield (
                f"The one-to-one cosine of features with the base’s lies above its floor by more than {SPREADS} sd of chance at "
                f"{of_n(above, len(known))} places."
            )
        if entry["measure"] == "relative_delta_norm":
            own = sorted(
                (line["value"], line["name"], line["layer"]) for line in lines if not line["name"].startswith(("control", "noise"))
            )
            if len(own) > 1:
                yield (
                    f"|Δ| / |x| goes from {three(own[0][0])} ({own[0][1]}, layer {own[0][2]}) to {three(own[-1][0])} ({own[-1][1]}, "
                    f"layer {own[-1][2]})."
                )


def _largest(payload: Payload) -> Iterator[str]:
    gains = [
        (cell["mean"], line["condition"], entry["model"], column)
        for entry in payload["conditions"]
        for line in entry["lines"]
        for cell, column in zip(line["cells"], entry["columns"], strict=True)
        if cell and column["subject"] == "outcome" and column["better"] == "higher"
    ]
    if gains:
        ordered = sorted(gains, key=lambda each: each[0])
        ends = [ordered[-1], ordered[0]] if len(gains) > 1 else gains
        said = [
            f"{signed(value)} ({model}, {condition}: {column['task']} {metric(column['measure'])})"
            for value, condition, model, column in ends
        ]
        yield f"The outcomes go from {said[-1]} to {said[0]}." if len(said) > 1 else f"The one outcome changed by {said[0]}."
    for entry in payload["widths"]:
        if len({percent(line["shares"][-1]) for line in entry["lines"]}) > 1:
            shares = sorted((line["shares"][-1], line["model"]) for line in entry["lines"])
            yield (
                f"The last depth holds {percent(shares[0][0])} ({shares[0][1]}) to {percent(shares[-1][0])} ({shares[-1][1]}) of a "
                "model’s change."
            )


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
