"""The page of one place's features: a list that can be searched and sorted, and of each feature where it fires and what it is like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tunescope.report import features_reading as found
from tunescope.report import features_words as words
from tunescope.report import reading
from tunescope.report.numbers import count, three, two_digits
from tunescope.report.page import filled, script_json

SORTS = {  # what the list is in the order of, and whether the largest stands first
    "explained": ("explained share", True),
    "density": ("density", True),
    "max": ("maximum", True),
    "cosine": ("nearest cosine, likest first", True),
    "unlike": ("nearest cosine, least like first", False),
    "number": ("number", False),
}
_MOST, _FIRES_ON, _PROMOTED = 500, 3, 5  # features, and tokens of each that the list shows
_NAMES = {"density": "density", "mean": "mean", "explained_share": "explained share", "density_by_set": "density by set",
          "documents_by_set": "documents by set", "tokens": "promoted tokens"}  # fmt: skip
Feature = dict[str, Any]


def feature_page(payload: reading.Payload, place: found.Place, features: Mapping[str, Any] | Sequence[Feature]) -> str:
    """The self-contained page of the features of one (layer, tuned model), to write as `features_reading.page_name(place)` in UTF-8.

    payload: features.json. features: what `FeatureReading.describe` returns, or its list of features. Those without contexts are counted,
    not listed, where others have some; the list's first is shown first, and no more than 500 are listed.
    """
    payload, told = reading.printable(payload), reading.printable(features)
    read: dict[str, Any] = told if isinstance(told, dict) else {"features": told}
    listed = _listed(read["features"])
    view = _view(payload, place, read, listed) | {"island": script_json(_island(listed))}
    return filled("feature.html.j2", view, {})


def _listed(features: list[Feature]) -> list[Feature]:
    return [feature for feature in features if feature.get("contexts")][:_MOST] or features[:_MOST]


def _view(payload: reading.Payload, place: found.Place, read: dict[str, Any], listed: list[Feature]) -> dict[str, Any]:
    """What the template prints."""
    layer, name = place
    total, dead = read.get("latents", len(read["features"])), read.get("dead")
    facts = [
        ("features", count(total)),
        ("dead", count(dead)),
        ("tokens", count(read.get("rows"))),
        ("texts", count(read.get("documents"))),
    ]
    row = next(iter(found.at(payload, "verdicts", place)), None)
    version = payload.get("tunescope", "")
    return {
        "version": version, "layer": layer, "name": name, "back": found.PAGE,
        "verdict": row and {"word": row["verdict"], "status_class": words.verdict_class(row["verdict"]),
                            "sentence": words.sentence(payload, place)},
        "flags": [flag for flag, raw in zip(words.flags(payload), payload.get("flags") or [], strict=True)
                  if (raw["layer"], raw["name"]) == place],
        "facts": [{"label": label, "value": value} for label, value in facts if value != "–"],
        "left_out": count(total - len(listed)) if total > len(listed) else "", "notes": read.get("notes") or [],
        "rows": [_row(feature) for feature in listed], "sorts": [{"key": key, "title": title} for key, (title, _) in SORTS.items()],
        "definitions": [{"name": _NAMES.get(key, key), "said": said} for key, said in (read.get("definitions") or {}).items()],
        "footer": f"Written by tunescope {version} on {str(payload.get('created', ''))[:16].replace('T', ' ')}. "
                  "This file loads nothing and sends nothing.",
    }  # fmt: skip


def _row(feature: Feature) -> dict[str, Any]:
    """A line of the list."""
    fires = Counter(each["tokens"][each["marked"]] for each in feature.get("contexts") or [])
    promotes = [_visible(each["token"]) for each in (feature.get("promotes") or [])[:_PROMOTED]]
    return {"latent": feature["latent"], "figure": _said(feature)["explained"], "promotes": promotes,
            "fires": [_visible(token) for token, _ in fires.most_common(_FIRES_ON)]}  # fmt: skip


def _visible(token: str) -> str:
    """A token alone: white space that nothing stands beside is drawn, line ends always."""
    return (token if token.strip() else token.replace(" ", "␣")).replace("\r", "").replace("\n", "↵").replace("\t", "⇥")


def _said(feature: Feature) -> dict[str, str]:
    near = (feature.get("nearest") or [{}])[0].get("cosine")
    return {"explained": three(feature.get("explained_share")), "density": two_digits(feature["density"]), "max": three(feature["max"]),
            "cosine": three(near), "unlike": three(near), "number": ""}  # fmt: skip


def _island(listed: list[Feature]) -> dict[str, Any]:
    """What the script reads: figures as the page says them beside those it sorts by; tokens by their number among all, once each."""
    known: dict[str, int] = {}
    features = [_compact(feature, known) for feature in listed]
    floors = {each["floor"] for feature in listed for each in feature.get("nearest") or [] if each.get("floor") is not None}
    return {"tokens": list(known), "features": features, "floor": three(floors.pop()) if len(floors) == 1 else "",
            "descending": {key: largest for key, (_, largest) in SORTS.items()}}  # fmt: skip


def _floor(near: dict[str, Any]) -> str:
    """What the nearest of random directions reaches, and that this one does not pass it where it does not."""
    floor = near.get("floor")
    return three(floor) + (", not passed" if floor is not None and near["cosine"] <= floor else "")


def _compact(feature: Feature, known: dict[str, int]) -> dict[str, Any]:
    near = (feature.get("nearest") or [{}])[0].get("cosine")
    sets = feature.get("density_by_set") or {}
    documents = feature.get("documents_by_set") or {}
    return {
        "n": feature["latent"], "said": _said(feature), "mean": three(feature.get("mean")), "top": feature["max"],
        "by": {"explained": feature.get("explained_share"), "density": feature["density"], "max": feature["max"], "cosine": near,
               "unlike": near, "number": feature["latent"]},
        "sets": [[name, two_digits(share), count(documents.get(name))] for name, share in sets.items()],
        "near": [[each["dictionary"], str(each["latent"]), three(each["cosine"]), _floor(each)]
                 for each in feature.get("nearest") or []],
        "ends": [_end(feature.get(end)) for end in ("promotes", "suppresses")],
        "contexts": [_context(each, known) for each in feature.get("contexts") or []],
    }  # fmt: skip


def _end(tokens: list[dict[str, Any]] | None) -> list[list[str]] | None:
    return None if tokens is None else [[_visible(each["token"]), three(each["score"])] for each in tokens]


def _context(context: dict[str, Any], known: dict[str, int]) -> dict[str, Any]:
    """t: the number of each token; a: its activation to three digits, null where there was no row."""
    values = [None if value is None else float(f"{value:.3g}") or 0 for value in context["activations"]]
    return {
        "t": [known.setdefault(token, len(known)) for token in context["tokens"]],
        "a": values, "m": context["marked"], "v": three(context["activation"]),
        "where": f"{context['id']}, token {count(context['position'])}",
        "set": context.get("set") or "",
    }  # fmt: skip
