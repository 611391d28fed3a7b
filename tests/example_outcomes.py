"""A comparison.json with outcomes of every kind, made up but of realistic size, with hostile names and texts on request."""

from __future__ import annotations

import math
from typing import Any

from example_payload import HOSTILE_NAME, HOSTILE_TEXT, example

GAINS = (-0.002, 0.001, 0.004, 0.003, 0.009, 0.021, 0.026)


def outcome(kind: str, name: str, metric: str, base: float | None, tuned: float | None, half: float, **more: Any) -> dict:
    """A row of `outcomes`: the verdict follows from the interval and the margin unless it is given."""
    margin, higher = more.pop("margin", 0.01), more.pop("higher_is_better", True)
    delta = None if base is None or tuned is None else tuned - base
    low, high = (None, None) if delta is None else (delta - half, delta + half)
    if delta is None:
        word = "not evaluable"
    elif -margin < low and high < margin:
        word = "equivalent"
    else:
        word = "no difference shown" if low <= 0 <= high else "better" if (delta > 0) == higher else "worse"
    known = delta is not None
    row = {
        "kind": kind, "name": name, "metric": metric, "base": base, "tuned": tuned, "delta": delta, "low": low, "high": high,
        "p": (0.0004 if word in ("better", "worse") else 0.41) if known else None, "n": 300, "margin": margin, "higher_is_better": higher,
        "verdict": word, "layer": None, "main": False, "items": "queries", "sd": 0.11 if known else None,
        "equivalence_p": (0.003 if word == "equivalent" else 0.62) if known else None, "detectable": 1.43 * half if known else None,
        "p_holm": None, "reason": None,
    }  # fmt: skip
    return row | more


def outcomes(rows: list[dict]) -> list[dict]:
    """Retrieval (worse, equivalent), a probe at every layer, language (better), results of elsewhere (nothing shown, no verdict)."""
    made = [
        outcome("retrieval", "scifact", "ndcg@10", 0.645, 0.624, 0.013, main=True, p_holm=0.002),
        outcome("retrieval", "scifact", "recall@100", 0.925, 0.921, 0.014),
        outcome("retrieval", "scifact", "mrr@10", 0.604, 0.583, 0.015),
        outcome("retrieval", "nfcorpus", "ndcg@10", 0.316, 0.318, 0.006, main=True, p_holm=0.82, n=323),
        outcome("language", "wiki", "loss", 2.417, 2.305, 0.011, higher_is_better=False, main=True, p_holm=0.002, n=500, items="texts",
                margin=0.02),
        outcome("language", "wiki", "kl", 0.0, 0.084, 0.003, higher_is_better=False, n=500, items="texts", margin=0.0),
        outcome("external", "gsm8k", "accuracy", 0.412, 0.406, 0.021, main=True, p_holm=0.82, n=1319, items="problems", margin=0.0),
        outcome("external", "ifeval", "accuracy", None, None, 0.0, main=True, n=1, items="prompts", reason="one item in common"),
    ]  # fmt: skip
    for row, gain in zip(rows, GAINS * 20, strict=False):
        made.append(outcome("probe", "banking77", "accuracy", 0.71 + 0.2 * row["depth"], 0.71 + 0.2 * row["depth"] + gain, 0.008,
                            layer=row["index"], n=3080, items="rows", main=row is rows[-1], p_holm=0.002))  # fmt: skip
    return made


def probe(rows: list[dict], *, weak: bool = True) -> dict:
    """A probe at every layer and at the output, deeper layers gaining more."""

    def layer(row: dict, gain: float) -> dict:
        base = 0.71 + 0.2 * (row["depth"] if row["depth"] is not None else 1)
        fit = {"macro_f1": base - 0.004, "C": 0.1, "converged": True, "selectivity": 0.61}
        return {"index": row["index"], "name": row["name"], "depth": row["depth"], "base": {"accuracy": base} | fit,
                "tuned": {"accuracy": base + gain} | fit, "delta": gain, "low": gain - 0.008, "high": gain + 0.008, "p": 0.02}  # fmt: skip

    output = {"index": None, "name": "output", "depth": None}
    layers = [layer(row, gain) for row, gain in zip(rows, GAINS * 20, strict=False)] + [layer(output, 0.023)]
    layers[min(1, len(layers) - 1)]["tuned"] |= {"converged": False}
    surface = [[[0.42 + 0.05 * r + 0.11 * c - 0.02 * r * c + 0.04 * s for c in range(4)] for r in range(4)] for s in range(3)]
    return {
        "kind": "probe", "name": "banking77", "classes": [f"class {i}" for i in range(77)],
        "train": 10_003, "test": 3_080, "majority": 0.013,
        "protocol": {"name": "strong", "rows": 10_003, "scaling": "standardised", "Cs": [0.001, 0.01, 0.1, 1.0], "folds": 3, "seed": 0},
        "layers": layers, "weak": layers[:3] if weak else None, "mteb": None, "swing": 0.117,
        "audit": {"rows": [500, 1000, 2000, 10_003], "Cs": [0.01, 0.1, 1, 10], "scalings": ["unit norm", "standardised", "none"],
                  "accuracy": surface, "swing": 0.42, "parts": {"rows": 0.15, "C": 0.33, "scaling": 0.08}},
    }  # fmt: skip


def retrieval(name: str = "scifact") -> dict:
    """Broken and mended queries, the first of them a script."""
    texts = [HOSTILE_TEXT, "Does aspirin inhibit the production of PGE2?", "هل يقلل الأسبرين الالتهاب؟", "A" * 180]
    broken = [{"id": f"q{i}", "text": text, "base_rank": i + 1, "tuned_rank": None if i < 2 else 7 + i, "base": 1 / (i + 1),
               "tuned": 0.0 if i < 2 else 0.3, "delta": 0.0 - 0.4} for i, text in enumerate(texts * 5)]  # fmt: skip
    mended = [{"id": "q61", "text": "Vitamin D is involved in calcium absorption.", "base_rank": None, "tuned_rank": 1, "base": 0.0,
               "tuned": 1.0, "delta": 1.0}]  # fmt: skip
    return {
        "kind": "retrieval",
        "name": name,
        "split": "test",
        "source": f"data/{name}",
        "corpus": 5_183,
        "queries": 300,
        "judged_missing": 0,
        "prompts": {"query": "query: ", "passage": ""},
        "max_length": 256,
        "truncated": 412,
        "main_metric": "ndcg@10",
        "k": 1000,
        "warnings": ["2 queries have no judged passage and are left out"],
        "base_interval": [0.601, 0.688],
        "tuned_interval": [0.58, 0.667],
        "disjoint": False,
        "counts": {"broken": 41, "mended": 18, "same": 241},
        "broken": broken,
        "mended": mended,
        "hash": "0" * 64,
    }


def language(name: str = "wiki") -> dict:
    """Six changed tokens, one a script, one a space; three changed texts."""
    words = [("The capital of France is ", "Paris", ", which lies on the Seine."), ("x = ", "<script>alert(1)</script>", " # "),
             ("The patient was given", " ", "aspirin."), ("القاهرة عاصمة ", "مصر", " منذ قرون"), ("line one", "\n", "line two"),
             ("a " * 60, "b" * 90, "")]  # fmt: skip
    tokens = [
        {
            "text_id": f"line {i}",
            "before": before,
            "token": token,
            "after": after,
            "base_loss": 0.42 + i,
            "tuned_loss": 6.1 - i,
            "kl": 3.4 - 0.5 * i,
            "base_top": [[token, 0.66], ["Lyon", 0.09], [" ", 0.0004]],
            "tuned_top": [["Rome", 0.41], ["Berlin", 0.2], [token, 0.002]],
        }
        for i, (before, token, after) in enumerate(words)
    ]
    texts = [{"id": f"line {i}", "text": text, "base": 2.1, "tuned": 3.4 - i, "delta": 1.3 - i, "kl": 0.41}
             for i, text in enumerate((HOSTILE_TEXT, "A short text.", "Another."))]  # fmt: skip
    return {
        "kind": "language",
        "name": name,
        "head": "masked",
        "texts": 500,
        "tokens": 8_412,
        "base_loss": 2.417,
        "tuned_loss": 2.305,
        "unit": "nats per token",
        "notes": ["12 of 512 texts have no token to predict: left out"],
        "base_perplexity": math.exp(2.417),
        "tuned_perplexity": math.exp(2.305),
        "kl": 0.084,
        "kl_reverse": 0.091,
        "kl_interval": [0.081, 0.087],
        "agreement": 0.872,
        "agreement_interval": [0.866, 0.878],
        "most_changed_tokens": tokens,
        "most_changed_texts": texts,
    }


def reembedding() -> dict:
    choices = [
        ("re-embed", "embed the corpus again", 0.624, None, None, None, None, 1.0, 5_183),
        ("as-is", "the base index as it is", 0.571, -0.053, -0.07, -0.036, "worse", 0.62, 0),
        ("orthogonal", "an orthogonal bridge", 0.613, -0.011, -0.02, -0.002, "worse", 0.84, 1_000),
        ("linear", "a linear bridge", 0.62, -0.004, -0.008, 0.001, "equivalent", 0.88, 1_000),
    ]
    keys = ("key", "title", "ndcg", "delta_to_reembed", "low", "high", "verdict", "kept", "cost")
    return {"kind": "reembedding", "name": "scifact", "metric": "ndcg@10", "anchors": 1000, "cheapest": "linear",
            "choices": [dict(zip(keys, choice, strict=True)) for choice in choices]}  # fmt: skip


def external() -> dict:
    changed = [{"id": f"gsm8k/{i}", "base": 1.0, "tuned": 0.0, "delta": -1.0} for i in range(5)]
    return {"kind": "external", "name": "gsm8k", "source": "base.jsonl and tuned.jsonl", "reader": "lm-evaluation-harness", "items": 1319,
            "unmatched": 3, "warnings": [], "most_changed": changed}  # fmt: skip


ASSOCIATION = {
    "spearman": {"value": 0.857, "p": 0.0238}, "pearson": {"value": 0.946, "p": 0.0013}, "partial_pearson": {"value": 0.52, "p": 0.29},
    "partial_rank": {"value": None, "reason": "collinear with depth"}, "n": 7,
    "said": "Change and gain both grow with depth; with depth held fixed no association is shown.",
}  # fmt: skip


def with_outcomes(payload: dict | None = None) -> dict:
    """The example with outcomes of every kind."""
    payload = payload or example()
    rows = payload["layers"]
    marks = [("int8 rounding", -0.001), ("int4 rounding", -0.014), ("noise, σ = .02", -0.062), ("unrelated", -0.641)]
    return payload | {
        "outcomes": outcomes(rows),
        "outcome_details": [retrieval(), probe(rows), language(), reembedding(), external()],
        "association": dict(ASSOCIATION),
        "ruler": {
            "said": "The tuned model moved between int4 rounding and noise.",
            "left_out": [],
            "readings": [],
            "marks": [],
            "tuned": {"sites": {}},
            "outcomes": [
                {
                    "label": label,
                    "kind": "retrieval",
                    "metric": "ndcg@10",
                    "name": "scifact",
                    "delta": delta,
                    "base": 0.645,
                    "value": 0.645 + delta,
                }
                for label, delta in marks
            ],
        },
    }


def many_tasks(count: int = 14) -> dict:
    """A suite: every third task worse, the fifth not evaluable, one that falls with Holm's correction."""
    rows = []
    for i in range(count):
        delta = (-0.03, 0.004, 0.022)[i % 3] * (1 + 0.1 * i)
        row = outcome("external", f"task number {i}", "accuracy", 0.5, 0.5 + delta, 0.012, main=True, margin=0.0)
        row["p_holm"] = 1.0 if row["p"] > 0.05 else 0.004 if i else 0.21
        if i == 4:
            row = outcome(
                "external", f"task number {i}", "accuracy", None, None, 0.0, main=True, reason="every item is undefined", p_holm=None
            )
        rows.append(row)
    return example() | {"outcomes": rows, "outcome_details": [], "association": None}


def hostile_outcomes() -> dict:
    """A script in every place of an outcome that a stranger's string can reach."""
    payload = with_outcomes(example(base=HOSTILE_NAME))
    for row in payload["outcomes"]:
        row |= {"name": row["name"] + HOSTILE_NAME, "items": HOSTILE_TEXT, "metric": row["metric"] + HOSTILE_TEXT}
        row["reason"] = row["reason"] and HOSTILE_TEXT
    payload["outcome_headline"] = HOSTILE_TEXT
    payload["association"]["said"] = HOSTILE_TEXT
    retrieved, probed, spoken, again, elsewhere = payload["outcome_details"]
    retrieved |= {"name": HOSTILE_NAME, "split": HOSTILE_TEXT, "main_metric": HOSTILE_TEXT, "prompts": {"query": HOSTILE_TEXT}}
    probed["name"] = HOSTILE_NAME
    probed["layers"][1]["name"] = HOSTILE_TEXT
    probed["protocol"] |= {"name": HOSTILE_TEXT, "scaling": HOSTILE_TEXT}
    probed["audit"]["scalings"] = [HOSTILE_TEXT] * 3
    spoken |= {"name": HOSTILE_NAME}
    again |= {"name": HOSTILE_NAME, "metric": HOSTILE_TEXT}
    again["choices"][1] |= {"title": HOSTILE_TEXT, "cost": HOSTILE_TEXT}
    elsewhere |= {"name": HOSTILE_NAME, "source": HOSTILE_TEXT, "reader": HOSTILE_TEXT}
    elsewhere["most_changed"][0]["id"] = HOSTILE_TEXT
    for mark in payload["ruler"]["outcomes"]:
        mark |= {"label": mark["label"] + HOSTILE_TEXT, "name": HOSTILE_NAME}
    return payload
