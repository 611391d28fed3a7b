"""A comparison.json as `Comparison.payload()` writes it, made up but of realistic size, with hostile names and texts on request."""

from __future__ import annotations

import copy
import hashlib
import math
import statistics
from typing import Any

from tunescope.reference import CONDITIONS, runs

HOSTILE_TEXT = '<script>alert(1)</script> & "quotes" </script><!-- \u2028 ${x} {{ 7*7 }}'
HOSTILE_NAME = "<img src=x onerror=alert(2)>/e5</script>\x1b[31m"
REFERENCE = "https://proceedings.mlr.press/v97/kornblith19a.html"

MEASURES: dict[str, dict[str, Any]] = {
    "cka": {"title": "Linear CKA", "direction": "higher is closer", "range": [0, 1], "change": "1 − cka",
            "interval": "delete-one jackknife, 95%", "null": "row permutation, closed form",
            "invariances": ["rotation", "isotropic scale", "translation"], "reference": REFERENCE},
    "debiased_cka": {"title": "Debiased CKA", "direction": "higher is closer", "range": [None, 1], "change": "1 − debiased_cka",
                     "interval": "delete-one jackknife, 95%", "null": "row permutation, closed form",
                     "invariances": ["rotation", "isotropic scale", "translation"], "reference": "https://arxiv.org/abs/2010.15327"},
    "procrustes": {"title": "Procrustes distance", "direction": "lower is closer", "range": [0, math.sqrt(2)], "change": "procrustes",
                   "interval": "infinitesimal jackknife, 95%", "null": "row permutation, ten draws",
                   "invariances": ["rotation", "isotropic scale", "translation"], "reference": "https://arxiv.org/abs/2108.01661"},
    "nps": {"title": "Neighbourhood preservation, cosine, k = 10", "direction": "higher is closer", "range": [0, 1], "change": "1 − nps",
            "interval": "delete-a-group jackknife, 95%", "null": "k/(N − 1)",
            "invariances": ["rotation", "isotropic scale"], "reference": "https://arxiv.org/abs/2305.06329"},
    "isotropy": {"title": "Isotropy (IsoScore)", "direction": "higher is closer", "range": [0, 1], "change": "tuned − base",
                 "interval": "delete-one jackknife, 95%", "null": None, "invariances": ["rotation", "isotropic scale", "translation"],
                 "reference": "https://aclanthology.org/2022.findings-acl.262/"},
}  # fmt: skip


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def identity(name: str, blocks: int, adapter: dict | None) -> dict:
    return {
        "name": name, "family": "bert", "layers": blocks, "width": 384, "parameters": 22_713_216, "weights_sha256": sha(name),
        "tokenizer_sha256": sha("tokenizer"), "revision": None, "dtype": "float32", "adapter": adapter, "derived": False,
    }  # fmt: skip


def _bump(depth: float, top: float) -> float:
    return top * (depth**1.6) * (1 - 0.22 * math.exp(-((depth - 1) ** 2) / 0.006))


def _numbers(measure: str, change: float, *, noise: float = 3e-9) -> dict:
    spread = 0.004 + 0.03 * change
    if measure == "procrustes":
        value, null, sd = math.sqrt(2) * math.sqrt(max(change, 0)) * 0.9, 1.108, 0.004
        moved = value
    else:
        scale = {"cka": 1.0, "debiased_cka": 1.06, "nps": 1.7}[measure]
        moved = min(change * scale, 0.985)
        value, null, sd = 1 - moved, {"cka": 0.071, "debiased_cka": 0.0, "nps": 0.0100}[measure], 0.003
    spread = spread if change else 0.0
    return {"value": value, "change": moved, "low": value - spread, "high": value + spread, "null": null, "null_sd": sd, "noise": noise}


def _row(change: float, depth: float) -> dict:
    status = "untouched" if change < 0.01 else "refined" if change < 0.13 else "rewritten"
    measures = {name: _numbers(name, change) for name in MEASURES if name != "isotropy"}
    base = 0.05 + 0.21 * (1 - depth) ** 2
    tuned = base + 0.19 * change - 0.004 * depth
    measures["isotropy"] = {
        "value": tuned, "base": base, "change": tuned - base, "low": tuned - 0.006, "high": tuned + 0.006,
        "null": None, "null_sd": None, "noise": None, "null_reason": "permuting the rows of one array changes nothing",
    }  # fmt: skip
    outliers = _outliers(1 - change)
    return {"status": status, "identical": change == 0, "saturated": False, "measures": measures, "outliers": outliers}


def _cross(names: list[str], changes: list[float]) -> dict:
    count = len(names)
    values = [
        [math.exp(-2.2 * abs(i - j) / max(count, 4)) * (1 - changes[j]) + 0.03 * math.sin(i * 1.7 + j) * (i != j) for j in range(count)]
        for i in range(count)
    ]
    values = [[min(1.0, max(0.02, value)) for value in row] for row in values]
    matching = {"measure": "debiased_cka", "floor": 0.0063, "tested": count * (count - 1), "rule": "kept, moved and new are decided."}
    return {"measure": "cka", "values": values, "base_names": names, "tuned_names": names, "null": [[0.071] * count for _ in names],
            "layers": _matches(names, changes), "matching": matching}  # fmt: skip


def _matches(names: list[str], changes: list[float]) -> list[dict]:
    """Every layer with its own, as `cross.layers`."""
    return [
        {
            "index": i, "name": name, "own_index": i, "own_name": name, "best_index": i, "best_name": name, "displacement": 0,
            "displacement_depth": 0.0, "value": 1 - change, "low": 1 - change - 0.01, "high": 1 - change + 0.01, "null": 0.0,
            "null_sd": 0.0014, "own_value": 1 - change, "difference": 0.0, "difference_low": None, "difference_high": None,
            "similarity": None, "verdict": "kept", "reason": None,
        }
        for i, (name, change) in enumerate(zip(names, changes, strict=True))
    ]  # fmt: skip


def displaced() -> dict:
    """The example in which block 2 carries block 5, block 4 is new and block 6 is a shade closer to block 5; block 1 has a massive
    dimension."""
    payload = example()
    found = payload["cross"]["layers"]
    found[2] |= {
        "best_index": 5, "best_name": "block 5", "displacement": 3, "displacement_depth": 0.5, "value": 0.912, "low": 0.897, "high": 0.927,
        "own_value": 0.441, "difference": 0.471, "difference_low": 0.43, "difference_high": 0.512, "similarity": 0.48, "verdict": "moved",
    }  # fmt: skip
    found[4] |= {"value": 0.004, "low": -0.001, "high": 0.009, "own_value": 0.004, "verdict": "new"}
    found[6] |= {
        "best_index": 5, "best_name": "block 5", "displacement": -1, "displacement_depth": -1 / 6, "value": 0.702, "low": 0.66,
        "high": 0.744, "own_value": 0.694, "difference": 0.008, "difference_low": -0.004, "difference_high": 0.02, "similarity": 0.93,
    }  # fmt: skip
    payload["layers"][1]["outliers"] |= {"share": {"base": 0.71, "tuned": 0.68}, "robust_cka": 0.412, "disagree": True, "owned": True}
    return payload


def _outliers(value: float) -> dict:
    sides = {"base": 0.018, "tuned": 0.017}
    return {
        "share": sides, "counts": [1, 3, 10], "shares": {side: [0.018, 0.04, 0.09] for side in sides},
        "top": dict.fromkeys(sides, [217, 8]),
        "gram_share": {"base": 0.16, "tuned": 0.15}, "dead": {"base": 0, "tuned": 0}, "robust": "standardised", "robust_cka": value,
        "robust_change": 1 - value, "robust_low": value - 0.01, "robust_high": value + 0.01, "robust_null": 0.04, "robust_null_sd": 0.001,
        "robust_status": "refined", "owned": False, "disagree": False,
    }  # fmt: skip


def _controls(rows: list[dict]) -> list[dict]:
    made = []
    for name, note, top, power in (
        ("gaussian noise, σ = .02", "independent noise on every weight matrix", 0.17, 1.1),
        ("int4 rounding", "weights rounded to 4 bits, group of 64", 0.055, 0.9),
        ("int8 rounding", "weights rounded to 8 bits per row", 0.0004, 1.0),
    ):
        layers = [
            {key: row[key] for key in ("index", "name", "depth")}
            | {"measures": {m: _numbers(m, top * row["depth"] ** power) for m in MEASURES if m != "isotropy"}}
            for row in rows
        ]
        made.append({"name": name, "note": note, "layers": layers, "locality": {"cka": {"slope": top}}})
    return made


def _published(top: float) -> dict:
    """The published axis of a made-up curve, top·depth², beside the printed runs; slopes by the standard library."""
    depths = [0.10, 0.25, 0.40, 0.60, 0.75, 0.90, 1.00]
    values = [top * depth**2 for depth in depths]
    found: dict[str, Any] = {"depths": depths, "interpolated": True, "source": "A study, tables 1–9", "note": "Six blocks, interpolated."}
    slopes = {name: {run: statistics.linear_regression(depths, run.changes).slope for run in runs(name)} for name in ("procrustes", "cka")}
    finals = {run: run.changes[-1] / sum(run.changes) for run in runs("cka")}
    slope, share = statistics.linear_regression(depths, values).slope, depths[-1] ** 2 / sum(depth**2 for depth in depths)

    def place(value: float, others: dict) -> dict:
        near = sorted(others, key=lambda run: abs(others[run] - value))[:3]
        said = [{"model": r.model, "objective": r.objective, "condition": CONDITIONS[r.condition], "value": others[r]} for r in near]
        return {"value": value, "rank": 1 + sum(other > value for other in others.values()), "of": len(others) + 1, "runs": said}

    among = []
    for model in dict.fromkeys(run.model for run in runs("cka")):
        own = {name: [run for run in slopes[name] if run.model == model] for name in slopes}
        shares = [[change / sum(run.changes) for change in run.changes] for run in own["cka"] if run.condition != "EqStep"]
        among.append({
            "model": model, "runs": [f"{run.objective}, {CONDITIONS[run.condition]}" for run in own["cka"]],
            "slopes": {name: [slopes[name][run] for run in own[name]] for name in slopes},
            "shares": [statistics.fmean(column) for column in zip(*shares, strict=True)],
        })  # fmt: skip
    if not top:
        nothing = {"shares": None, "final_share": None, "reason": "no block changed, so there are no shares"}
        flat = {name: {"values": values, "slope": 0.0, "rank_slope": None} for name in slopes}
        return found | {"measures": flat, "width": nothing, "nearest": None, "among": None, "reason": "nothing changed"}
    return found | {
        "measures": {name: {"values": values, "slope": slope, "rank_slope": 1.0} for name in slopes},
        "width": {"shares": [value / sum(values) for value in values], "final_share": share},
        "nearest": {"slope": {name: place(slope, slopes[name]) for name in slopes}, "final_share": place(share, finals)},
        "among": among,
    }


def _weights(rows: list[dict]) -> dict:
    """A LoRA on all blocks but the first, whose update grows with depth."""
    blocks, matrices = [], []
    for row in rows:
        frozen, change = row["index"] < 2, row["measures"]["cka"]["change"]
        moved = 0.0 if frozen else 0.02 + 0.03 * row["depth"]
        ranks = {"stable_rank": None, "effective_rank": None} if frozen else {"stable_rank": 2.31, "effective_rank": 5.84}
        name = f"encoder.layer.{row['index'] - 1}.attention.self.query.weight"
        blocks.append(
            {key: row[key] for key in ("index", "name", "depth")} | {"relative_change": moved, "frozen": frozen} | ranks
            | {"most_changed": None if frozen else name, "representation_change": change,
               "change_per_weight_change": None if frozen else change / moved}
        )  # fmt: skip
        if row["index"]:
            matrices.append({"name": name, "block": row["index"], "shape": [384, 384], "relative_change": moved, "frozen": frozen} | ranks)
    return {"blocks": blocks, "matrices": matrices, "slope": 0.034, "rank_slope": 0.97, "notes": ["their ratio grows with depth."]}


def _text_sets(rows: list[dict], *, headline: str) -> dict:
    """The main set, tuning texts that changed twice as far, a set that agrees; two more poolings, of which one does not count."""

    def layers(factor: float, power: float) -> list[dict]:
        made = []
        for row in rows:
            change = min(0.95, factor * row["measures"]["cka"]["change"] * row["depth"] ** power)
            made.append({key: row[key] for key in ("index", "name", "depth")} | _row(change, row["depth"]))
        return made

    def read_off(made: list[dict]) -> dict:
        top = max(made, key=lambda row: row["measures"]["cka"]["change"])
        numbers = top["measures"]["cka"]
        peak = {"index": top["index"], "name": top["name"]} | {key: numbers[key] for key in ("value", "change", "low", "high")}
        return {"layers": made, "headline": headline, "peak": peak, "locality": {"cka": {"slope": 0.4}}}

    def one(name: str, role: str, made: list[dict]) -> dict:
        return {"name": name, "role": role, "n": 1000, "sha256": sha(name), "source": f"{name}.jsonl", "sampled_from": None,
                "output": None} | read_off(made)  # fmt: skip

    def held(holds: bool | None, most: str, *changed: tuple[str, str, str]) -> dict:
        words = [dict(zip(("block", "here", "there"), row, strict=True)) for row in changed]
        return {"verdict": {"place": holds, "words": holds, "holds": holds, "most_moved": most, "contradicted": words}}

    last = rows[-1]["name"]
    shares = {"of_a": {"texts": 52, "share": 0.052}, "of_b": {"texts": 50, "share": 0.05}}
    agreement = {"measure": "cka", "rank_correlation": 0.943, "n": len(rows) - 1}
    return {
        "sets": [
            one("wiki", "general", layers(1, 0)),
            one("reviews", "tuning", layers(2, 0.3)) | held(False, last, (last, "refined", "rewritten")),
            one("code", "general", layers(0.9, 0.1)) | held(True, last),
        ],
        "agreement": [{"a": a, "b": b, **agreement} for a, b in (("wiki", "reviews"), ("wiki", "code"), ("reviews", "code"))],
        "overlap": [{"a": "wiki", "b": "reviews", "exact": shares, "folded": shares}],
        "pooling": [
            {"pooling": "last", "counts": True, "reason": None, "agreement": [agreement]} | read_off(layers(0.7, 0)) | held(True, last),
            {"pooling": "cls", "counts": False, "reason": "the first token of a causal model reads no other token",
             "agreement": [{"measure": "cka", "rank_correlation": None, "n": 0, "reason": "no block has a value"}]}
            | read_off(layers(0.2, 1)) | held(None, last),
        ],
        "survives": {"text_set": False, "pooling": True, "said": (
            f"The headline does not hold on 'reviews' (tuning texts): status words change ({last} refined → rewritten). The headline "
            "holds on 'code'. The headline holds under last pooling.")},
    }  # fmt: skip


TEXTS = (
    ("line 412", "os.path.commonpath(paths): Return the longest common sub-path of each pathname in the sequence paths.", 0.612, 1),
    ("line 88", HOSTILE_TEXT, 0.588, 2),
    ("line 731", "هذا نص عربي قصير للتجربة، مع رقم 42 وكلمة Python في الوسط.", 0.561, 2),
    ("line 19", "🧪 Deprecated since version 3.12: 👩‍👩‍👧‍👦 the family emoji stays one glyph.", 0.534, 3),
    ("line 640", "A" * 120 + " an unbreakable word of one hundred and twenty letters, then an ordinary ending.", 0.507, 3),
    ("line 5", "The decimal module provides support for fast correctly rounded decimal floating point arithmetic.", 0.024, 10),
    ("line 301", "Changed in version 3.7: Keyword arguments are now accepted.", 0.021, 10),
    ("line 77", "See also the shelve module, which uses pickle to store Python objects in DBM-style database files.", 0.017, 10),
)


def example(
    *, blocks: int = 6, top: float = 0.42, base: str = "sentence-transformers/all-MiniLM-L6-v2", tuned: str = "./my-adapter"
) -> dict:
    """A whole payload for a model of that many blocks whose strongest layer changed by about `top` (1 − cka)."""
    rows = []
    for index in range(blocks + 1):
        depth = index / blocks
        rows.append({"index": index, "name": f"block {index}" if index else "embeddings", "depth": depth} | _row(_bump(depth, top), depth))
    changes = [row["measures"]["cka"]["change"] for row in rows]
    names = [row["name"] for row in rows]
    steps = [abs(change) for change in changes[1:]]
    total = sum(steps)
    shares = [step / total for step in steps] if total else None
    peak = max(range(len(rows)), key=changes.__getitem__)
    curve = {
        "slope": 0.391,
        "rank_slope": 0.964,
        "peak_depth": rows[peak]["depth"],
        "peak_layer": peak,
        "monotone": False,
        "saturated_layers": [],
    }
    texts = [{"id": i, "text": text, "moved": moved, "kept": kept, "of": 10} for i, text, moved, kept in TEXTS]
    return {
        "schema": "tunescope.comparison/1", "created": "2026-11-22T13:30:00+00:00", "tunescope": "0.1.0",
        "headline": (
            f"The change sits in the last layers: block {peak} moved most (1 − CKA {changes[peak]:.3f}, chance .929), twice as far as "
            "gaussian noise of σ = .02, while the embeddings are bit-identical."
        ),
        "base": identity(base, blocks, None),
        "tuned": identity(tuned, blocks, {"type": "LORA", "r": 8, "alpha": 16, "targets": ["query", "value"]}),
        "data": {"n": 1000, "source": "python documentation", "sha256": sha("texts"), "sampled_from": 12_345, "pooling": "mean",
                 "max_length": 128, "prompt": "", "truncated": 12, "tokens": 81_234, "rows": 1000, "seed": 0, "batch_size": 32},
        "measures": copy.deepcopy(MEASURES), "default_measure": "cka", "layers": rows,
        "sites": {"final": {"name": "final", **_row(top * 0.8, 1.0)}, "output": {"name": "output", **_row(top * 0.74, 1.0)}},
        "cross": _cross(names, changes),
        "locality": {name: dict(curve) for name in MEASURES},
        "width": {"shares": shares, "final_share": shares[-1] if shares else None, "layers": names[1:],
                  "reason": None if shares else "no block changed, so there is nothing to share out"},
        "published": _published(top),
        "status_rule": "untouched: CKA ≥ .99 or change within noise; refined: CKA ≥ .87; rewritten: below.",
        "nps_curve": {"k": [5, 10, 25, 50], "names": names,
                      "values": [[min(1.0, 1 - 1.7 * change * (1.12 - 0.07 * step)) for step in range(4)] for change in changes]},
        "texts": {"site": "output", "most": texts[:5], "least": texts[5:]},
        "weights": _weights(rows),
        "controls": _controls(rows),
        "text_sets": _text_sets(rows, headline="The change sits in the last layers."),
        "warnings": ["23 of 1,000 texts are duplicates of another; their neighbours tie."],
        "notes": ["block 6 is read before the final norm; the site `final` is read after it."],
        "versions": {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2", "python": "3.11.9"},
        "seconds": {"load": 1.94, "forward": 12.7, "geometry": 0.83},
    }  # fmt: skip


def hostile() -> dict:
    """The example with a script in every place a stranger's string can reach."""
    payload = example(base=HOSTILE_NAME, tuned=HOSTILE_NAME + "tuned")
    payload["headline"] += HOSTILE_TEXT
    payload["warnings"] = [HOSTILE_TEXT, "[red]markup[/red] \x1b[31mescape"]
    payload["notes"] = [HOSTILE_TEXT]
    payload["data"]["source"] = HOSTILE_TEXT
    payload["data"]["prompt"] = HOSTILE_TEXT
    payload["controls"][0]["name"] = HOSTILE_TEXT
    payload["text_sets"]["sets"][1] |= {"name": HOSTILE_TEXT, "role": HOSTILE_TEXT}
    payload["text_sets"]["survives"]["said"] = HOSTILE_TEXT
    payload["text_sets"]["overlap"][0]["a"] = HOSTILE_TEXT
    payload["text_sets"]["pooling"][1]["agreement"][0]["reason"] = HOSTILE_TEXT
    payload["layers"][1]["name"] = HOSTILE_TEXT
    payload["cross"]["base_names"] = [HOSTILE_TEXT, *payload["cross"]["base_names"][1:]]
    payload["cross"]["layers"][1] |= {"name": HOSTILE_TEXT, "best_name": HOSTILE_TEXT, "displacement": -1, "verdict": "moved"}
    payload["measures"]["cka"]["reference"] = "javascript:alert(3)"
    payload["status_rule"] = HOSTILE_TEXT
    payload["published"] |= {"note": HOSTILE_TEXT, "source": HOSTILE_TEXT}
    payload["published"]["among"][0] |= {"model": HOSTILE_NAME, "runs": [HOSTILE_TEXT] * len(payload["published"]["among"][0]["runs"])}
    return payload
