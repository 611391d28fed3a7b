"""A features.json as `ts.features` writes it, made up but of realistic size, and readings of features; hostile on request."""

from __future__ import annotations

import copy
import hashlib
import random
from typing import Any

from example_payload import HOSTILE_NAME, HOSTILE_TEXT, identity, sha

VERDICTS = ("new", "partly reused", "reused", "nothing above its floor", "undecided")
WAYS = (
    ("the mean of the training rows", 1.002),
    ("the adapter's dictionary, its own encoder", 0.285),
    ("the adapter's decoder, re-coded", 0.261),
    ("the pretrained dictionary applied to Δ, its own encoder", 98.7),
    ("the pretrained decoder, re-coded", 0.343),
    ("a random dictionary as wide as the pretrained one, drawn like the base activations, re-coded", 0.612),
    ("a random dictionary as wide as the adapter's, drawn like Δ, re-coded", 0.511),
    ("as many principal directions of the training rows as features are active", 0.633),
)
# comparison, sides, value at the first place, floor, sd, ceiling
COMPARED = (
    ("one_to_one_cosine", "{} with the base", 0.417, 0.354, 0.0103, 0.594),
    ("shared_share", "{} with the base", 0.0078, 0.0, 0.0, 0.289),
    ("max_cosine", "each of {} with the nearest of the base", 0.466, 0.382, 0.0047, 0.636),
    ("max_cosine", "each of the base with the nearest of {}", 0.389, 0.394, 0.0022, 0.637),
    ("span_overlap", "{} with the base", 0.359, 0.25, 0.016, 0.616),
    ("span_overlap", "{} with the base", 0.359, 0.352, 0.011, 0.616),
    ("feature_cka_debiased", "{} with the base", 0.763, 0.0, 0.0006, None),
    ("feature_cka_biased", "{} with the base", 0.76, 0.0061, 0.0006, None),
    ("firing_overlap", "each of {} with the likest of the base", 0.177, 0.048, 0.0003, None),
    ("firing_overlap", "each of the base with the likest of {}", 0.182, 0.047, 0.0004, None),
    ("firing_overlap_of_pairs", "{} with the base", 0.016, 0.014, 0.0006, None),
    ("raw_cka_debiased", "{} with the base", 0.626, 0.0, 0.0006, None),
    ("raw_cka_biased", "{} with the base", 0.627, 0.006, 0.0006, None),
)


def example_features(*, layers: tuple[int, ...] = (3, 5), models: tuple[str, ...] = ("rank 4", "rank 16"), hostile: bool = False) -> dict:
    """Verdicts in turn, an artefact at the last place, every section there is."""
    names = [f"{HOSTILE_NAME}{name}" for name in models] if hostile else list(models)
    said = HOSTILE_TEXT if hostile else "re-coded, the pretrained features leave 0.34 unexplained"
    payload: dict[str, Any] = {
        "schema": "tunescope.features/1",
        "tunescope": "0.1.0",
        "created": "2026-11-25T03:09:56+00:00",
        "base": identity(HOSTILE_NAME if hostile else "org/base", 6, None),
        "tuned": {name: identity(name, 6, {"kind": "LORA", "rank": _rank(order)}) for order, name in enumerate(names)},
        "texts": {"n": 300, "sha256": sha("texts"), "source": HOSTILE_TEXT if hostile else "texts.txt", "sampled_from": None},
        "reading": {
            "kind": "residual",
            "hygiene": {"first": True, "special": True, "sinks": 10.0},
            "held_out": 0.1,
            "max_length": 64,
            "dropped": {"read": 18162, "first": 300, "kept": 17862},
            "rows": {"train": 15459, "held_out": 2403},
            "dtype": "float32",
        },
        "request": {
            "layers": list(layers),
            "latents": 128,
            "k": 4,
            "architecture": "topk",
            "seeds": [0, 1],
            "steps": 200,
            "controls": ["zero", "noise", "random", "shuffled"],
            "data_seed": 0,
        },
        "norms": [],
        "quality": [],
        "spectrum": [],
        "alignment": [],
        "verdicts": [],
        "flags": [],
        "controls": [],
        "dictionaries": [],
        "tables": [],
        "pages": [],
        "definitions": {"r2": "1 − E|x−x̂|² / (E|x|² − |E x|²)", "l0": "mean number of active features in a row"},
        "warnings": [HOSTILE_TEXT if hostile else "1 of 300 texts are duplicates of another"],
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
    }
    places = [(layer, name) for layer in layers for name in names]
    for order, (layer, name) in enumerate(places):
        _place(payload, layer, name, order, said)
    for layer in layers:
        _controls(payload, layer, names)
    layer, name = places[-1]
    payload["flags"] = [
        {"layer": layer, "name": name, "flag": "artefact", "words": said, "applied": 98.7, "recoded": 0.343, "adapter": 0.285}
    ]
    _tables(payload, layers, names)
    payload["recovered"] = _recovered(places)
    return payload


def _rank(order: int) -> int:
    return 4 ** (order + 1)


def _figure(value: float, half: float = 0.0173) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def _row(comparison: str, sides: str, value: float | None, **more: Any) -> dict[str, Any]:
    plain = {
        "floor": None,
        "floor_sd": None,
        "floor_of": None,
        "ceiling": None,
        "ceiling_of": None,
        "low": None,
        "high": None,
        "best": 1.0,
        "n": 128,
        "unit": "pairs",
        "verdict": None,
        "note": None,
    }
    return {"comparison": comparison, "sides": sides, "value": value, **plain, **more}


def _place(payload: dict[str, Any], layer: int, name: str, order: int, said: str) -> None:
    at = {"layer": layer, "name": name}
    shift, word = 0.011 * order, VERDICTS[order % len(VERDICTS)]
    payload["verdicts"].append({**at, "verdict": word, "words": said, "noise_r2": 0.281 + shift})
    payload["pages"].append(at)
    for seed in (0, 1):
        r2 = 0.715 - shift - 0.0013 * seed
        payload["quality"].append(
            {
                **at,
                "seed": seed,
                "latents": 128,
                "k": 4,
                "rows": 2403,
                "r2": _figure(r2),
                "r2_centred": _figure(r2 + 0.0002),
                "fvu": _figure(1 - r2),
                "constant_share": _figure(0.211),
                "l0": _figure(4.02, 0.01),
                "dead_share": 0.0234,
                "histogram": [0, 0, 0, 0, 0, 1, 2, 4 + order, 70, 43, 3, 0],
                "documents": 41,
                "median_density": 0.0266,
                "density": 0.03125,
            }
        )
    for comparison, sides, value, floor, sd, ceiling in COMPARED:
        seen = value + shift
        payload["alignment"].append(
            {
                **at,
                **_row(
                    comparison,
                    sides.format(name),
                    seen,
                    floor=floor,
                    floor_sd=sd,
                    floor_of=f"chance of {comparison}",
                    ceiling=ceiling,
                    ceiling_of=ceiling and "the same dictionary trained from another seed",
                    low=seen - 0.02,
                    high=seen + 0.02,
                    verdict="above its floor" if seen > floor + 3 * sd else "nothing above its floor",
                ),
            }
        )
    for sides, value in WAYS:
        payload["alignment"].append(
            {
                **at,
                **_row(
                    "unexplained_share",
                    sides,
                    value + shift,
                    floor=0.612,
                    ceiling=0.261,
                    low=value,
                    high=value + 2 * shift,
                    best=0.0,
                    unit="rows",
                    verdict="above its floor",
                    note="4.0 active",
                ),
            }
        )
    payload["alignment"].append(
        {**at, **_row("reused_share", WAYS[4][0], 0.766 - shift, floor=0.0, ceiling=1.0, low=0.7, high=0.81, verdict=word, note=said)}
    )
    for kind, value in (("applied", 99.7), ("recoded", 23.9)):
        payload["alignment"].append(
            {**at, **_row(f"improvement_{kind}", "adapter over pretrained", value, low=value - 1, high=value + 1, best=100.0)}
        )
    rank = payload["tuned"][name]["adapter"]["rank"]
    payload["spectrum"] += (
        [
            {
                "layer": layer,
                "name": "base",
                "rows": 15459,
                "width": 64,
                "participation_ratio": 21.4,
                "dimensions_90": 41,
                "dimensions_99": 60,
                "rank": None,
                "against_rank": None,
            }
        ]
        if order % 2 == 0
        else []
    )
    payload["spectrum"].append(
        {
            **at,
            "rows": 15459,
            "width": 64,
            "participation_ratio": 8.96 + shift,
            "dimensions_90": 38,
            "dimensions_99": 59,
            "rank": rank,
            "against_rank": (8.96 + shift) / rank,
        }
    )
    payload["norms"].append({**at, "rank": rank, "norm": 2.855, "relative": 0.438 + shift, "squared": 9.46, "constant": 0.2197})


def _controls(payload: dict[str, Any], layer: int, names: list[str]) -> None:
    payload["controls"] += [
        {"control": "zero", "layer": layer, "name": None, "relative": 0.0, "largest": 0.0},
        {"control": "noise", "layer": layer, "name": None, "relative": 1.31e-9, "largest": 5.2e-6},
    ]
    for name in names:
        for control, r2 in (("random", 0.511), ("shuffled", 0.655)):
            row = {
                "control": control,
                "layer": layer,
                "name": name,
                "r2": _figure(r2),
                "l0": _figure(4.0, 0.0),
                "dead_share": 0.0,
                "median_density": 0.027,
                "constant_share": _figure(0.059),
                "rows": 2403,
                "participation_ratio": 38.5,
                "one_to_one_cosine": 0.366,
                "floor": 0.356,
                "verdict": "nothing above its floor",
            }
            payload["controls"].append(row | ({"relative": 0.184} if control == "random" else {}))
        payload["norms"].append(
            {
                "layer": layer,
                "name": f"control-random-{name}",
                "rank": None,
                "norm": 1.2,
                "relative": 0.184,
                "squared": 1.6,
                "constant": 0.064,
            }
        )
    for name, relative in (("control-zero", 0.0), ("noise", 1.31e-9)):
        payload["norms"].append(
            {"layer": layer, "name": name, "rank": None, "norm": relative, "relative": relative, "squared": 0.0, "constant": 0.0}
        )


def _tables(payload: dict[str, Any], layers: tuple[int, ...], names: list[str]) -> None:
    def cells(kind: str, labels: list[str], at: dict[str, Any]) -> None:
        for i, a in enumerate(labels):
            for j, b in list(enumerate(labels))[i:]:
                sides = f"{kind} {a}, seed with seed" if i == j else f"{kind} {a} with {b}"
                value = 0.594 if i == j else 0.437 - 0.021 * j
                payload["tables"].append(
                    {
                        **at,
                        **_row(
                            f"{kind}_by_{kind}",
                            sides,
                            value,
                            floor=0.343,
                            floor_sd=0.004,
                            ceiling=None if i == j else 0.594,
                            verdict="above its floor",
                        ),
                    }
                )

    for layer in layers if len(names) > 1 else ():
        cells("adapter", names, {"layer": layer, "name": None})
    for name in names if len(layers) > 1 else ():
        cells("layer", [str(layer) for layer in layers], {"layer": None, "name": name})


def _recovered(places: list[tuple[int, str]]) -> dict[str, Any]:
    rows = []
    for layer, name in places:
        for spliced, closed in (("zero", 0.0), ("mean delta", 0.136), ("seed 0", 0.447), ("seed 1", 0.452), ("true delta", 0.556)):
            shares = dict.fromkeys(("closed", "loss_closed", "of_true"), closed)
            ends = {f"{key}_{end}": closed + shift for key in shares for end, shift in (("low", -0.009), ("high", 0.009))}
            rows.append(
                {
                    "adapter": name,
                    "layer": layer,
                    "spliced": spliced,
                    "reference": not spliced.startswith("seed"),
                    **shares,
                    **ends,
                    **{f"{key}_note": None for key in shares},
                    "distance": 1.496 * (1 - closed),
                    "base_distance": 1.496,
                    "loss": 5.269 - 1.47 * closed,
                    "base_loss": 5.269,
                    "tuned_loss": 3.799,
                    "documents": 41,
                    "answers": 12812,
                }
            )
    return {
        "behaviour": "predictions",
        "distance": "KL(tuned ‖ ·), nats per predicted token",
        "rows": rows,
        "definitions": {"closed": "1 − Σ d(tuned, spliced) / Σ d(tuned, base)"},
        "references": {"zero": "nothing is added"},
        "notes": ["behaviour: next tokens, each from those before it"],
        "dropped": {},
    }


def example_reading(*, features: int = 40, contexts: int = 6, hostile: bool = False) -> dict[str, Any]:
    """What `FeatureReading.describe` returns: by falling explained share; feature j fires on the token " w<j>"."""
    draw = random.Random(0)
    words = [f" w{j}" for j in range(features)]
    found = []
    for order in range(features):
        latent = (order * 7) % features if features % 7 else order
        odd = HOSTILE_TEXT if hostile else f" odd{latent}"
        windows = []
        for number in range(contexts):
            tokens = ["<s>", *draw.choices(words[:3], k=9), words[latent], odd, *draw.choices(words[:3], k=8), "\n"]
            strongest = 4.0 - 0.21 * number - 0.01 * order
            values = [None] + [0.0] * 9 + [strongest, strongest / 3] + [0.0] * 9
            windows.append(
                {
                    "document": number,
                    "id": f"line {number + 1}",
                    "position": 10 + number,
                    "activation": strongest,
                    "marked": 10,
                    "tokens": tokens,
                    "activations": values,
                    "set": "tuning" if number % 2 else "general",
                }
            )
        near = 0.2 + 0.5 * draw.random()
        found.append(
            {
                "latent": latent,
                "density": 0.2 * draw.random(),
                "max": 4.0 - 0.01 * order,
                "mean": 1.234,
                "explained_share": 0.2 / (order + 1),
                "density_by_set": {"general": 0.159, "tuning": 0.153},
                "documents_by_set": {"general": 150, "tuning": 149},
                "contexts": windows,
                "nearest": [{"dictionary": "base", "latent": 14 + order, "cosine": near, "floor": 0.383}],
                "promotes": [{"token": f" up{latent}", "id": 7, "score": 13.796}],
                "suppresses": [{"token": f" down{latent}", "id": 9, "score": -8.685}],
            }
        )
    return {
        "name": "topk-n128",
        "rows": 17862,
        "documents": 300,
        "latents": features + 3,
        "dead": 2,
        "described": features,
        "sets": {"general": 8900, "tuning": 8962},
        "definitions": {"density": "the share of rows a feature fires in"},
        "notes": [HOSTILE_TEXT] if hostile else [],
        "features": found,
    }


def bare(payload: dict[str, Any]) -> dict[str, Any]:
    """The same without all that may be missing."""
    kept = copy.deepcopy(payload)
    for name in ("recovered", "pages", "tables", "controls", "spectrum", "norms"):
        kept.pop(name)
    for row in kept["verdicts"]:
        row["noise_r2"] = None
    kept["alignment"] = [row for row in kept["alignment"] if row["comparison"] == "unexplained_share"]
    return kept


def short(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:6]
