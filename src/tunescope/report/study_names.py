"""What measures, tasks and p-values are called on the page of a study."""

from __future__ import annotations

from typing import Any

from tunescope.report import features_words
from tunescope.report.numbers import p_value, signed

CHANGES = {
    "procrustes": "Procrustes distance",
    "cka": "1\u00a0−\u00a0CKA",
    "nps": "1\u00a0−\u00a0NPS",
    "debiased_cka": "1\u00a0−\u00a0debiased CKA",
}
SHORT = {"procrustes": "Procrustes", "cka": "CKA", "nps": "NPS", "debiased_cka": "debiased CKA"}
OUTCOMES = {"ndcg@10": "nDCG@10", "mrr@10": "MRR@10", "map": "MAP"}
_FEATURES = {
    "delta_norm": "Mean |Δ|",
    "relative_delta_norm": "|Δ| / |x|",
    "r2": "Reconstruction, R²",
    "r2_centred": "Reconstruction, centred R²",
    "constant_share": "Share of a constant",
    "l0": "Active features, L0",
    "density": "Density, median",
    "dead_share": "Dead features",
    "raw_cka": "CKA of Δ and base",
    "behaviour_recovered": "Behaviour recovered",
    "unexplained_share": "Left unexplained",
    "improvement_recoded": "Improvement on the base’s dictionary, re-coded, %",
    "improvement_applied": "Improvement on the base’s dictionary as it is, %",
    "reused_share": "Gap closed by the base’s features",
}


def change(measure: str) -> str:
    """The change under a measure: "1 − CKA"."""
    return CHANGES.get(measure, measure)


def short(measure: str) -> str:
    return SHORT.get(measure, measure)


def metric(name: str) -> str:
    return OUTCOMES.get(name, name)


def feature(measure: str, side: int = 0) -> str:
    """side: which of a comparison’s two, where it has two."""
    return _FEATURES[measure] if measure in _FEATURES else features_words.title((measure, side))


def on(texts: str | None) -> str:
    return f" on {texts}" if texts else ""


def p(value: float | None) -> str:
    """A p-value that stays on one line."""
    return p_value(value).replace(" ", "\u00a0")


def counted(number: int, word: str, words: str | None = None) -> str:
    """With its noun: "1 pair", "15 pairs"."""
    return f"{number:,} {word if number == 1 else words or word + 's'}"


def of_n(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}"


def rho(found: dict[str, Any]) -> str:
    """A correlation in words: "+.943, p = .017, exact, n 6"; the reason where there is none."""
    if found.get("value") is None:
        return f"no correlation: {found.get('reason') or 'not computed'}"
    exact = ", exact" if found.get("method") == "enumerated" else ""
    return f"{signed(found['value'])}, {p(found['p'])}{exact}, n\u00a0{found['n']}"


def sentence(text: str) -> str:
    """With a capital at its start and a full stop at its end."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def main_tasks(entries: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Those of tasks, and those of readings of another's task: "docs: old index" is one of "docs"."""
    names = {entry["task"] for entry in entries}
    second = [entry for entry in entries if any(entry["task"].startswith(f"{name}: ") for name in names)]
    return [entry for entry in entries if entry not in second], second
