"""The section of a study's page about features: how large a change, how sparse, how well rebuilt, how like the base's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tunescope.report.features_words import WAYS
from tunescope.report.numbers import MISSING, amount, count, interval, three, two_digits
from tunescope.report.study_blocks import Block, Sheet, fold, heading, key, note, panel, panels, section, table
from tunescope.report.study_depth_section import by_study
from tunescope.report.study_features import feature_panel
from tunescope.report.study_names import counted, feature
from tunescope.report.study_series import Series, listed

Payload = dict[str, Any]
_LARGE = ("delta_norm", "relative_delta_norm", "constant_share")
_QUALITY = ("r2", "r2_centred", "improvement_recoded", "improvement_applied", "l0", "density", "dead_share")
_BEHAVIOUR = ("behaviour_recovered",)
_REBUILT = ("unexplained_share",)


def feature_sections(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    """Measures in groups; what fits no group is a comparison with the base's features."""
    for which, entries in by_study(payload, "features"):
        entries = [_shown(part) for entry in entries for part in _sides(entry)]
        colours = listed(
            [str(layer) for layer in sorted({line["layer"] for entry in entries for line in entry["lines"] if line["layer"] is not None})]
        )
        named = {*_LARGE, *_QUALITY, *_BEHAVIOUR, *_REBUILT}
        alike = tuple(dict.fromkeys(entry["measure"] for entry in entries if entry["measure"] not in named))
        groups = {
            "How large": _LARGE,
            "How well its dictionaries do": _QUALITY,
            "How like the base’s: against floor and ceiling": alike,
            "What the base does with them": _BEHAVIOUR,
        }
        blocks = [block for title, measures in groups.items() for block in _group(title, measures, entries, colours, sheet)]
        rebuilt = [block for block in _group("", _REBUILT, entries, colours, sheet) if block["type"] != "heading"]
        if rebuilt:
            blocks.append(fold("Who can rebuild what tuning changed: the share each dictionary leaves unexplained", *rebuilt))
        said = [replace(one, said=f"layer {one.name}") for one in colours.values()]
        lead = (
            "What each tuning wrote at a layer, read by sparse dictionaries. "
            "Grey ticks: the floor, what chance gives; green ticks: the ceiling, the same training from another seed. "
            "Rules: 95% intervals over documents."
        )
        end = note(
            "A cosine is the mean over pairs of features; the distribution behind it is on the page of each run, "
            "runs/…/features/report.html."
        )
        yield section("features", f"Features{which}", lead, key(said, mark="dot"), *blocks, end)


def _group(
    title: str, measures: tuple[str, ...], entries: list[dict[str, Any]], colours: dict[str, Series], sheet: Sheet
) -> Iterator[Block]:
    own = sorted((entry for entry in entries if entry["measure"] in measures), key=lambda entry: measures.index(entry["measure"]))
    drawn = [entry for entry in own if any(str(line["layer"]) in colours for line in entry["lines"])]
    if not own:
        return
    yield heading(title)
    items = [panel(sheet("features", feature_panel, entry, colours), feature(entry["measure"], entry["side"])) for entry in drawn]
    yield panels(items, "two" if measures != _REBUILT else "one")
    yield fold(
        f"In figures: {counted(len(own), 'measure')}",
        *(part for entry in own for part in (heading(feature(entry["measure"], entry["side"])), _table(entry))),
    )


def _sides(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """A comparison that has two sides as two entries, each with its side; others as they are."""
    if not all(line["detail"].startswith("each of") for line in entry["lines"]):
        return [entry | {"side": 0}]
    found: dict[str, list[dict[str, Any]]] = {}
    for line in entry["lines"]:
        found.setdefault(line["detail"].replace(line["name"], "tuned"), []).append(line)
    ordered = sorted(found, key=lambda detail: not detail.startswith("each of tuned"))
    return [entry | {"side": side, "lines": found[detail]} for side, detail in enumerate(ordered)]


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    """Every row's name as it is printed: with what the task says besides, where a model has several rows a layer."""
    lines = entry["lines"]
    places = [(line["name"], line["layer"], line["model"], line["seed"]) for line in lines]
    several, models = len(set(places)) < len(places), len({line["model"] for line in lines}) > 1
    shown = []
    for line in lines:
        detail = WAYS.get(line["detail"], line["detail"])
        parts = [line["name"], *([line["model"]] if models else []), *([detail] if several and detail else [])]
        shown.append(line | {"shown": " · ".join(parts)})
    return entry | {"lines": shown}


def _table(entry: dict[str, Any]) -> Block:
    rows = [
        [
            line["shown"],
            count(line["layer"]),
            amount(line["value"]) if abs(line["value"]) >= 0.1 else two_digits(line["value"]),
            interval(line["low"], line["high"]),
            three(line["floor"]) + (f" ± {two_digits(line['floor_sd'])}" if line["floor_sd"] else ""),
            three(line["ceiling"]),
            count(line["n"]),
        ]
        for line in entry["lines"]
    ]
    heads = ["of", "layer", "value", "95% interval", "floor ± sd", "ceiling", "over"]
    used = [order for order in range(len(heads)) if order < 3 or any(row[order] != MISSING for row in rows)]
    name = feature(entry["measure"], entry["side"])
    return table(name, [heads[i] for i in used], [[row[i] for i in used] for row in rows])
