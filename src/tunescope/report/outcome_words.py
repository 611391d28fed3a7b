"""Outcomes in words: the tasks of a comparison, what each metric means, the verdict of one row, and the headline of them all.

Every word here comes from measured differences and their intervals; none leans on geometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunescope.report.numbers import count, signed, stated, three

Row = dict[str, Any]
VERDICTS = ("worse", "better", "no difference shown", "equivalent", "not evaluable")
KINDS = {"retrieval": "retrieval", "probe": "linear probe", "language": "language model", "external": "measured elsewhere"}
LEVEL = 0.05
_LONG = 4  # tasks from which the headline counts instead of quoting each interval
_NAMED = 3
_METRICS = {
    "ndcg": "nDCG",
    "ndcg_exp": "exponential-gain nDCG",
    "mrr": "MRR",
    "map": "MAP",
    "macro_f1": "macro-F1",
    "f1": "F1",
    "kl": "KL",
    "bits_per_byte": "bits per byte",
}
_MEANING = {
    "ndcg": "how high the passages judged relevant rank, averaged over queries",
    "ndcg_exp": "nDCG whose gain is 2^grade − 1",
    "recall": "the share of the passages judged relevant that are found",
    "mrr": "one over the rank of the first relevant passage, averaged over queries",
    "map": "precision at each relevant passage, averaged",
    "accuracy": "the share of items answered right",
    "macro_f1": "F1 averaged over the classes",
    "loss": "mean negative log-likelihood of a token, in nats",
    "perplexity": "the exponential of the loss",
    "bits_per_byte": "the loss in bits, over the bytes of the text",
}


def tasks(outcomes: Sequence[Row]) -> list[Row]:
    """One row a task, its main metric: the model as deployed where it was measured, else the last layer measured.

    What re-embedding costs is no task: it compares two ways to deploy the tuned model, not base and tuned.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in outcomes:
        if row["kind"] != "reembedding":
            groups.setdefault((row["kind"], row["name"]), []).append(row)
    return [_main(rows) for rows in groups.values()]


def _main(rows: list[Row]) -> Row:
    named = [row for row in rows if row.get("main")] or rows[:1]
    deployed = [row for row in named if row.get("layer") in (None, "output")]
    return deployed[0] if deployed else named[-1]


def metric(name: str) -> str:
    """A metric as papers print it: "ndcg@10" is "nDCG@10"."""
    stem, at, cut = name.partition("@")
    return _METRICS.get(stem.lower(), stem.replace("_", " ")) + at + cut


def meaning(name: str) -> str:
    """What a metric counts, in a few words; empty for one of someone else's."""
    return _MEANING.get(name.partition("@")[0].lower(), "")


def direction(row: Row) -> str:
    return "higher is better" if row["higher_is_better"] else "lower is better"


def where(row: Row) -> str:
    """Where the features were read: "", "block 5", "embeddings", or a site's name."""
    layer = row.get("layer")
    if layer is None:
        return ""
    return ("embeddings" if layer == 0 else f"block {layer}") if isinstance(layer, int) else str(layer)


def reach(row: Row) -> str:
    """The 95% interval in words: "−.034 to −.009"; empty where there is none."""
    if row.get("low") is None or row.get("high") is None:
        return ""
    return f"{signed(row['low'])} to {signed(row['high'])}"


def difference(row: Row) -> str:
    """The difference with its metric and interval: "−.021 nDCG@10 (−.034 to −.009)"."""
    span = reach(row)
    return f"{signed(row.get('delta'))} {metric(row['metric'])}" + (f" ({span})" if span else "")


def verdict(row: Row) -> str:
    """The verdict of one row in a sentence: what the difference shows, its interval and how many items."""
    word = row["verdict"]
    if word == "not evaluable":
        return f"not evaluable: {row.get('reason') or 'no reason is given'}"
    on = f"on {count(row['n'])} {row.get('items') or 'items'}"
    if word == "equivalent":
        return f"equivalent within ±{stated(row['margin'])}: {difference(row)} {on}"
    if word == "no difference shown":
        return f"{word}: {difference(row)} {on}{_power(row)}"
    return f"{word}: {difference(row)} {on}"


def _power(row: Row) -> str:
    if row.get("detectable") is None:
        return ""
    return f"; this many {row.get('items') or 'items'} would show ±{three(row['detectable'])} four times in five"


def unproven(rows: Sequence[Row]) -> list[Row]:
    """Tasks called better or worse whose p-value does not stand after Holm's correction over the tasks."""
    return [row for row in rows if row["verdict"] in ("better", "worse") and (row.get("p_holm") or 0) > LEVEL]


def headline(outcomes: Sequence[Row]) -> str:
    """What the outcomes show, in a sentence or two; empty when nothing was measured."""
    found = tasks(outcomes)
    if not found:
        return ""
    few = len(found) < _LONG
    lost = [id(row) for row in unproven(found)]
    words = {id(row): "no difference shown" if id(row) in lost else row["verdict"] for row in found}
    groups = [(word, [row for row in found if words[id(row)] == word]) for word in VERDICTS]
    said = [_group(word, rows, few=few) for word, rows in groups if rows]
    start = "" if few else f"Of {count(len(found))} tasks, "
    line = f"{start}{'; '.join(said)}."
    return f"{line[0].upper()}{line[1:]}{_holm(found)}"


def _group(word: str, rows: list[Row], *, few: bool) -> str:
    names = _listed([_named(row) if few else row["name"] for row in rows])
    if few:
        lead = {"worse": "tuned is worse at", "better": "tuned is better at", "equivalent": "it is equivalent at",
                "no difference shown": "no difference is shown at", "not evaluable": "no verdict is possible at"}  # fmt: skip
        return f"{lead[word]} {names}"
    lead = {"worse": "tuned is worse at", "better": "better at", "equivalent": "equivalent within the margin at",
            "no difference shown": "no difference is shown at", "not evaluable": "no verdict is possible at"}  # fmt: skip
    return f"{lead[word]} {names}" if len(rows) <= _NAMED else f"{lead[word]} {count(len(rows))} ({names})"


def _named(row: Row) -> str:
    if row["verdict"] == "not evaluable":
        return f"{row['name']} ({row.get('reason') or 'no reason is given'})"
    name, span = metric(row["metric"]), reach(row)
    within = f", within ±{stated(row['margin'])}" if row["verdict"] == "equivalent" else ""
    moved = signed(row["delta"]) if row["delta"] else "unchanged"
    return f"{row['name']} ({name} {moved}{f', 95% {span}' if span else ''}{within})"


def _holm(found: list[Row]) -> str:
    lost = unproven(found)
    if not lost:
        return ""
    return f" After Holm’s correction over {count(len(found))} tasks, nothing is shown at {_listed([row['name'] for row in lost])}."


def _listed(names: list[str]) -> str:
    shown, more = names[:_NAMED], len(names) - _NAMED
    if more > 0:
        return f"{', '.join(shown)} and {count(more)} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
