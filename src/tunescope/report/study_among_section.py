"""The section of a study's page that places its own runs among the published ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunescope.report.numbers import count, signed, three
from tunescope.report.study_among import among_slopes, band_of
from tunescope.report.study_blocks import Block, Sheet, fold, heading, key, note, panel, panels, section, table
from tunescope.report.study_depth_section import by_study
from tunescope.report.study_names import change, sentence
from tunescope.report.study_profiles import profile_panel
from tunescope.report.study_series import Series, updates

Payload = dict[str, Any]


def among_sections(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    """An entry a measure: the first open, the other folded."""
    for which, entries in by_study(payload, "among"):
        known = [entry for entry in entries if entry["own"]]
        if not known:
            yield section(
                "among",
                f"Among the published runs{which}",
                sentence(f"No place among them: {entries[0]['reason'] or 'no slope was found'}"),
            )
            continue
        colours = updates([line["update"] for entry in known for line in entry["own"]])
        first, lead = known[0], "Read at the seven depths of a published study, whose runs are grey: "
        lead += (
            f"{_placed(first)} Grey bands behind the profiles: the middle 80% and the median of the published runs, of the same model "
            "where it was published, else of all."
        )
        rest = [fold(f"The same as {change(entry['measure'])}", *_parts(entry, sheet, colours)) for entry in known[1:]]
        yield section(
            "among",
            f"Among the published runs{which}",
            lead,
            key(colours.values(), mark="dot") if len(colours) > 1 else None,
            *_parts(first, sheet, colours),
            *rest,
            note(f"Source: {first['source']}."),
        )


def _placed(entry: dict[str, Any]) -> str:
    own = sorted(entry["own"], key=lambda line: line["slope"])
    if len(own) == 1:
        return (
            f"{own[0]['model']} has a slope of {signed(own[0]['slope'])}, and {own[0]['steeper']} of {own[0]['of']} published ones are "
            "steeper."
        )
    low, high = own[0], own[-1]
    return (
        f"own slopes go from {signed(low['slope'])} ({low['model']}, {low['objective']}; {low['steeper']} of {low['of']} published ones "
        "are steeper) "
        f"to {signed(high['slope'])} ({high['model']}, {high['objective']}; {high['steeper']} steeper)."
    )


def _parts(entry: dict[str, Any], sheet: Sheet, colours: dict[str, Series]) -> Iterator[Block]:
    yield heading(f"Slopes of {change(entry['measure'])}")
    yield panels([panel(sheet("among", among_slopes, entry, colours))], "one")
    whole = {"lines": [line | {"sd": [None] * len(line["depths"]), "curves": "mean"} for line in entry["profiles"]]}
    cells = list(dict.fromkeys((line["model"], line["objective"]) for line in entry["profiles"]))
    items = [
        panel(
            sheet("profile", profile_panel, whole, model, objective, colours, grey=band_of(entry, model)),
            f"{model}, {objective}",
            _behind(entry, model),
        )
        for model, objective in cells
    ]
    yield heading("Profiles on the published axis")
    yield panels(items, "three")
    rows = [
        [
            line["model"],
            line["objective"],
            line["update"],
            signed(line["slope"]),
            three(line["sd"]),
            count(line["seeds"]),
            f"{line['steeper']} of {line['of']}",
        ]
        for line in entry["own"]
    ]
    heads = ["model", "objective", "update", "slope", "sd", "seeds", "published, steeper"]
    yield fold("In figures", table(f"Among the published, {change(entry['measure'])}", heads, rows, words=(1, 2)))
    if entry["reason"]:
        yield note(sentence(entry["reason"]))


def _behind(entry: dict[str, Any], model: str) -> str:
    band = band_of(entry, model)
    return f"behind: {count(band['runs'])} runs of {band['model'] or 'all nine models'}"
