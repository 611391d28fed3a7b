"""What a comparison of features says, in words and cells: shared by the page and the terminal."""

from __future__ import annotations

from typing import Any

from tunescope.report import features_reading as found
from tunescope.report.features_reading import Place, Row
from tunescope.report.numbers import MISSING, count, percent, three
from tunescope.report.reading import Payload

NEW, REUSED, PARTLY, NOTHING, UNDECIDED = "new", "reused", "partly reused", "nothing above its floor", "undecided"
UNMOVED = "nothing changed"
_SAYS = {
    NEW: ("wrote new features at", "new"),
    REUSED: ("reused the base’s features at", "reused"),
    PARTLY: ("partly reused the base’s features at", "partly reused"),
    NOTHING: ("wrote nothing above its floor at", "nothing above the floor"),
    UNDECIDED: ("is undecided at", "undecided"),
    UNMOVED: ("changed nothing at", "nothing changed"),
}
CLASSES = {NEW: "rewritten", REUSED: "untouched", PARTLY: "refined"}
_SEVERAL = 3  # tuned models that a headline can name

# (comparison, which of its sides): title, what it asks
COMPARISONS = {
    ("one_to_one_cosine", 0): ("One-to-one cosine", "decoder rows, each paired once"),
    ("max_cosine", 0): ("Nearest cosine, tuned → base", "of each tuned feature with the nearest of the base"),
    ("max_cosine", 1): ("Nearest cosine, base → tuned", "of each base feature with the nearest tuned one"),
    ("shared_share", 0): ("Shared features", "share of pairs that count as one feature"),
    ("span_overlap", 0): ("Overlap of spans", "mean cos² between the leading features’ spans"),
    ("feature_cka_debiased", 0): ("CKA of feature activations", "debiased, on the same tokens"),
    ("raw_cka_debiased", 0): ("CKA of Δ with the base’s activations", "debiased, on the same tokens"),
    ("firing_overlap", 0): ("Firing together, tuned → base", "Jaccard with the likest base feature"),
    ("firing_overlap", 1): ("Firing together, base → tuned", "Jaccard with the likest tuned feature"),
    ("firing_overlap_of_pairs", 0): ("Firing together, of pairs", "Jaccard of the pairs nearest in direction"),
    ("feature_cka_biased", 0): ("CKA of feature activations, biased", "read against its floor only"),
    ("raw_cka_biased", 0): ("CKA of Δ with the base’s activations, biased", "read against its floor only"),
}
WAYS = {
    "the mean of the training rows": "mean alone",
    "the adapter's dictionary, its own encoder": "tuned: own encoder",
    "the adapter's decoder, re-coded": "tuned: re-coded",
    "the pretrained dictionary applied to Δ, its own encoder": "base: own encoder",
    "the pretrained decoder, re-coded": "base: re-coded",
    "a random dictionary as wide as the pretrained one, drawn like the base activations, re-coded": "random, like base",
    "a random dictionary as wide as the adapter's, drawn like Δ, re-coded": "random, like Δ",
    "as many principal directions of the training rows as features are active": "PCA",
}


def numbered(rows: list[Row]) -> list[tuple[tuple[str, int], Row]]:
    """The rows of a place, each with its comparison and which of the comparison's sides it is of."""
    sides: dict[str, list[str]] = {}
    out = []
    for row in rows:
        known = sides.setdefault(row["comparison"], [])
        if row["sides"] not in known:
            known.append(row["sides"])
        out.append(((row["comparison"], known.index(row["sides"])), row))
    return out


def title(key: tuple[str, int]) -> str:
    return COMPARISONS.get(key, (key[0].replace("_", " "), ""))[0]


def asks(key: tuple[str, int]) -> str:
    return COMPARISONS.get(key, ("", ""))[1]


def headline(payload: Payload) -> str:
    """What each tuned model wrote, where; of many, how many places say what."""
    places, names = found.places(payload), found.names(payload)
    if not places:
        return "Nothing was compared."
    if len(names) <= _SEVERAL:
        return " ".join(_of_model(payload, name) for name in names)
    groups = _grouped(payload, places)
    said = [f"{_SAYS[word][1]} at {count(len(group))}" for word, group in groups.items()]
    return f"{count(len(names))} tuned models at {_layers(found.layers(payload))}: of {count(len(places))} places, {_joined(said)}."


def _of_model(payload: Payload, name: str) -> str:
    groups = _grouped(payload, [place for place in found.places(payload) if place[1] == name])
    said = [f"{_SAYS[word][0]} {_layers([layer for layer, _ in group])}" for word, group in groups.items()]
    return f"{name} {_joined(said)}."


def _grouped(payload: Payload, places: list[Place]) -> dict[str, list[Place]]:
    verdicts = {place: found.verdict(payload, place)["verdict"] for place in places}
    return {word: group for word in _SAYS if (group := [place for place in places if verdicts[place] == word])}


def _layers(layers: list[int]) -> str:
    return f"layer{'' if len(layers) == 1 else 's'} {_joined([str(layer) for layer in layers])}"


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def sentence(payload: Payload, place: Place) -> str:
    """The verdict of one place as a sentence, with the figure it rests on."""
    layer, name = place
    row, share = found.verdict(payload, place), found.reused(payload, place)
    word = row["verdict"]
    said = f"At layer {layer}, {name} {_SAYS[word][0].removesuffix(' at')}" if word in _SAYS else f"At layer {layer}, {name}: {word}"
    if word == UNDECIDED:
        said = f"At layer {layer}, whether {name}’s features are new is undecided"
    if share is None or share["value"] is None or word == NOTHING:
        return f"{said}."
    within = "" if share.get("low") is None else f" [{percent(share['low'])}, {percent(share['high'])}]"
    gap = "of the gap between random directions and its own"
    if share["value"] <= 0:
        return f"{said}: the base’s features close none {gap} ({percent(share['value'])}{within})."
    return f"{said}: the base’s features close {percent(share['value'])}{within} {gap}."


def verdict_class(word: str) -> str:
    return CLASSES.get(word, "nothing")


def flags(payload: Payload) -> list[dict[str, Any]]:
    """What must not be believed alone: where, in words, and the figures."""
    named = {"applied": "base’s dictionary applied to Δ", "recoded": "base’s features, re-coded", "adapter": "the tuned model’s own"}
    return [
        {
            "kind": row["flag"], "place": f"layer {row['layer']}, {row['name']}", "words": row["words"],
            "title": "An artefact" if row["flag"] == "artefact" else row["flag"].replace("_", " ").capitalize(),
            "figures": [{"label": said, "value": share(row[key])} for key, said in named.items() if row.get(key) is not None],
        }
        for row in payload.get("flags") or []
    ]  # fmt: skip


def share(value: float | None) -> str:
    """An unexplained share: three decimals up to 10, then whole, since an encoder that fails leaves many times the variance."""
    return f"{value:,.0f}" if value is not None and value >= 10 else three(value)


def subject(payload: Payload) -> str:
    """Which base and which tuned models, read on what."""
    texts, read = payload.get("texts") or {}, payload.get("reading") or {}
    rows = read.get("rows") or {}
    tokens = f"{count(rows.get('train'))} tokens to train on, {count(rows.get('held_out'))} held out"
    return f"{count(texts.get('n'))} texts: {texts.get('source') or MISSING} · {tokens} · {read.get('kind') or MISSING} deltas"


def norm_name(name: str) -> str:
    """What the heat map calls a delta."""
    if name == found.NOISE:
        return "noise"
    if name.startswith(f"{found.CONTROL}random-"):
        return f"random {name.removeprefix(f'{found.CONTROL}random-')}"
    return name.removeprefix(found.CONTROL)
