"""What a comparison of features says, in words and cells: shared by the page and the terminal."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tunescope.report import features_reading as found
from tunescope.report.features_reading import Place, Row
from tunescope.report.numbers import MISSING, count, interval, percent, three, two_digits
from tunescope.report.reading import Payload

NEW, REUSED, PARTLY, NOTHING, UNDECIDED = "new", "reused", "partly reused", "nothing above its floor", "undecided"
_SAYS = {
    NEW: ("wrote new features at", "new"),
    REUSED: ("reused the base’s features at", "reused"),
    PARTLY: ("partly reused the base’s features at", "partly reused"),
    NOTHING: ("wrote nothing above its floor at", "nothing above the floor"),
    UNDECIDED: ("is undecided at", "undecided"),
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
    texts, rows = payload.get("texts") or {}, (payload.get("reading") or {}).get("rows") or {}
    tokens = f"{count(rows.get('train'))} tokens to train on, {count(rows.get('held_out'))} held out"
    return f"{count(texts.get('n'))} texts: {texts.get('source') or MISSING} · {tokens} · {(payload.get('reading') or {}).get('kind')} deltas"


def _figure(row: Row, key: str) -> Row:
    return row.get(key) or {}


def quality(payload: Payload) -> list[dict[str, Any]]:
    """A group a layer: its dictionaries by model and seed, the controls in the same columns."""
    return [{"layer": layer, "rows": [*_trained(payload, layer), *_controls(payload, layer)]} for layer in found.layers(payload)]


def _trained(payload: Payload, layer: int) -> list[dict[str, Any]]:
    out = []
    for place in (place for place in found.places(payload) if place[0] == layer):
        near, moved = found.one_to_one(payload, place), found.norm(payload, place).get("relative")
        noise = found.verdict(payload, place).get("noise_r2")
        for order, row in enumerate(found.at(payload, "quality", place)):
            cells = _cells(row) | {"name": place[1], "aside": f"seed {row['seed']}", "control": False, "noise": three(noise)}
            first = order == 0 and near is not None
            cosine = {"cosine": three(near["value"]), "floor": three(near["floor"])} if first and near else {}
            out.append(cells | {"moved": two_digits(moved)} | ({"cosine": MISSING, "floor": ""} | cosine))
    return out


def _controls(payload: Payload, layer: int) -> list[dict[str, Any]]:
    out = []
    for row in found.controls(payload, layer):
        aside = f"for {row['name']}" if row.get("name") else f"largest |Δ| {two_digits(row.get('largest'))}"
        cells = _cells(row) | {"name": found.CONTROLS.get(row["control"], row["control"]), "aside": aside, "control": True}
        cosine = {"cosine": three(row.get("one_to_one_cosine")), "floor": three(row.get("floor")) if row.get("floor") is not None else ""}
        out.append(cells | cosine | {"noise": MISSING, "moved": two_digits(row.get("relative"))})
    return out


def _cells(row: Row) -> dict[str, str]:
    r2, unexplained, l0 = _figure(row, "r2"), _figure(row, "fvu"), _figure(row, "l0")
    if not unexplained and r2:
        unexplained = {"value": 1 - r2["value"]}
    return {
        "r2": three(r2.get("value")), "interval": interval(r2.get("low"), r2.get("high")) if r2.get("low") is not None else "",
        "fvu": share(unexplained.get("value")), "l0": _active(l0.get("value")), "dead": percent(row.get("dead_share")),
        "density": two_digits(row.get("median_density")), "constant": percent(_figure(row, "constant_share").get("value")),
    }  # fmt: skip


def _active(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.1f}".removesuffix(".0")


def alignment(payload: Payload, place: Place) -> list[dict[str, str]]:
    """The table of a place: each comparison with its floor and its ceiling."""
    order = {key: number for number, key in enumerate(COMPARISONS)}
    rows = numbered(found.alignment(payload, place))
    rows.sort(key=lambda pair: order.get(pair[0], len(order)))
    often = Counter(key for key, _ in rows)
    return [{"title": title(key), "aside": _aside(key, row, often[key] > 1)} | beside(row) for key, row in rows]


def _aside(key: tuple[str, int], row: Row, again: bool) -> str:
    """What a title leaves open: the sides where it is no known one, the note, and of two floors which."""
    parts = [] if key in COMPARISONS else [row["sides"]]
    parts += [row["note"]] if row.get("note") else [asks(key)] if asks(key) else []
    parts += [f"floor: {row['floor_of']}"] if again and row.get("floor_of") else []
    return "; ".join(parts)


def beside(row: Row) -> dict[str, str]:
    """The cells of an alignment row."""
    sd = row.get("floor_sd")
    return {
        "value": share(row["value"]), "interval": interval(row["low"], row["high"]) if row.get("low") is not None else "",
        "floor": share(row.get("floor")), "sd": f"± {two_digits(sd)}" if sd is not None else "",
        "ceiling": share(row.get("ceiling")), "floor_of": row.get("floor_of") or "", "ceiling_of": row.get("ceiling_of") or "",
        "n": f"{count(row.get('n'))} {row.get('unit') or ''}".strip(), "verdict": row.get("verdict") or MISSING,
        "note": row.get("note") or "", "sides": row["sides"],
    }  # fmt: skip


def origins(payload: Payload, place: Place) -> list[str]:
    """What the floors and ceilings of a place are of, each said once."""
    rows, said = found.alignment(payload, place), []
    for end, title in (("floor", "Floors"), ("ceiling", "Ceiling")):
        of = list(dict.fromkeys(row[f"{end}_of"] for row in rows if row.get(f"{end}_of")))
        said += [f"{title}: {'; '.join(of)}."] if of else []
    return said


def reconstruction(payload: Payload, place: Place) -> list[dict[str, str]]:
    rows = found.reconstruction(payload, place)
    return [{"title": WAYS.get(row["sides"], row["sides"]), "aside": f"{row['sides']}; {row['note']}" if row.get("note") else row["sides"]}
            | beside(row) for row in rows]  # fmt: skip


def improvement(payload: Payload, place: Place) -> str:
    """By how much the adapter's error is smaller, as its encoder stands and fairly."""
    rows = found.improvements(payload, place)
    said = {"applied": "than the base’s dictionary applied to Δ", "recoded": "than the base’s features, both re-coded"}
    parts = [f"{_percent(rows[key])} {words}" for key, words in said.items() if key in rows and rows[key]["value"] is not None]
    return f"Error of the tuned model’s dictionary, smaller by {'; by '.join(parts)}." if parts else ""


def _percent(row: Row) -> str:
    within = "" if row.get("low") is None else f" [{_one(row['low'])}, {_one(row['high'])}]"
    return f"{_one(row['value'])}%{within}"


def _one(value: float) -> str:
    return f"{value:.1f}".replace("-", "−")


def spectrum(payload: Payload) -> list[dict[str, Any]]:
    """A line a layer and stream, the base's own rows first."""
    rows = sorted(payload.get("spectrum") or [], key=lambda row: row["layer"])
    return [
        {
            "layer": row["layer"], "name": row["name"], "rank": count(row.get("rank")), "pr": _ratio(row["participation_ratio"]),
            "d90": count(row["dimensions_90"]), "d99": count(row["dimensions_99"]), "width": count(row["width"]),
            "against": f"× {_ratio(row['against_rank'])}" if row.get("against_rank") is not None else MISSING, "rows": count(row["rows"]),
        }
        for row in rows
    ]  # fmt: skip


def _ratio(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"


def recovered(payload: Payload, place: Place) -> list[dict[str, str]]:
    """The table of behaviour recovered at a place."""
    return [
        {
            "name": row["spliced"], "reference": "reference" if row["reference"] else "",
            **{key: _closed(row, key) for key in ("closed", "of_true", "loss_closed")},
            **{f"{key}_interval": interval(row.get(f"{key}_low"), row.get(f"{key}_high")) if row.get(f"{key}_low") is not None else ""
               for key in ("closed", "of_true", "loss_closed")},
            "distance": three(row["distance"]), "loss": three(row.get("loss")),
            "note": row.get("closed_note") or row.get("of_true_note") or row.get("loss_closed_note") or "",
        }
        for row in found.behaviour(payload, place)
    ]  # fmt: skip


def _closed(row: Row, key: str) -> str:
    return percent(row.get(key))


def table_rows(payload: Payload) -> list[dict[str, str]]:
    """Dictionary against dictionary, in figures."""
    return [{"group": group(row)} | beside(row) for row in payload.get("tables") or []]


def group(row: Row) -> str:
    return f"layer {row['layer']}" if row.get("layer") is not None else str(row["name"])


def norm_name(name: str) -> str:
    """What the heat map calls a delta."""
    if name == found.NOISE:
        return "noise"
    if name.startswith(f"{found.CONTROL}random-"):
        return f"random {name.removeprefix(f'{found.CONTROL}random-')}"
    return name.removeprefix(found.CONTROL)
