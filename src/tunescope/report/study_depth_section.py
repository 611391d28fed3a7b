"""The sections of a study's page about depth: profiles, slopes, standard → equal-step, signs, widths, variance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunescope.report.numbers import MISSING, count, percent, signed, three, two_digits
from tunescope.report.study_blocks import Block, Sheet, fold, heading, key, note, panel, panels, section, table
from tunescope.report.study_names import change, counted, of_n, on, p, sentence
from tunescope.report.study_profiles import profile_panel
from tunescope.report.study_series import Series, updates
from tunescope.report.study_slopes import slope_panel
from tunescope.report.study_steps import BLOCK_ROLES, ordered_cells, step_dumbbells

Payload = dict[str, Any]


def depth_sections(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    """Those of which the payload has something."""
    colours = updates([line["update"] for entry in payload["slopes"] for line in entry["lines"]])
    for make in (_profiles, _slopes):
        yield from make(payload, sheet, colours)
    yield from _steps(payload, sheet)


def by_study(payload: Payload, name: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The entries of a section, study by study; the word that a title needs where the page has several studies."""
    studies = list(dict.fromkeys(entry["study"] for entry in payload[name]))
    for study in studies:
        yield (f": {study}" if len(payload["studies"]) > 1 else ""), [entry for entry in payload[name] if entry["study"] == study]


def _profiles(payload: Payload, sheet: Sheet, colours: dict[str, Series]) -> Iterator[Block]:
    for which, entries in by_study(payload, "profiles"):
        entries = [entry for entry in entries if entry["lines"]]
        if not entries:
            continue
        first = entries[0]
        used = [series for name, series in colours.items() if any(line["update"] == name for entry in entries for line in entry["lines"])]
        many = any(sd is not None for entry in entries for line in entry["lines"] for sd in line["sd"])
        lead = (
            f"{sentence(change(first['measure']) + on(first['texts']))[:-1]} from the first block (left) to the last; one scale in all "
            "panels."
        )
        lead += " Bands: one sd over the runs of a line." if many else ""
        other = f" Read also on {', '.join(first['other_texts'])}; these are in report.json." if first["other_texts"] else ""
        yield section(
            "profiles",
            f"Where along depth{which}",
            lead + other,
            key(used) if len(used) > 1 else None,
            *_multiples(first, sheet, colours),
            *(fold(f"The same as {change(entry['measure'])}", *_multiples(entry, sheet, colours)) for entry in entries[1:]),
        )


def _multiples(entry: dict[str, Any], sheet: Sheet, colours: dict[str, Series]) -> Iterator[Block]:
    """A row of panels a model."""
    for model in dict.fromkeys(line["model"] for line in entry["lines"]):
        objectives = list(dict.fromkeys(line["objective"] for line in entry["lines"] if line["model"] == model))
        items = [panel(sheet("profile", profile_panel, entry, model, objective, colours), objective) for objective in objectives]
        yield heading(model)
        yield panels(items, "five" if len(items) > 2 else "two")


def _slopes(payload: Payload, sheet: Sheet, colours: dict[str, Series]) -> Iterator[Block]:
    for which, entries in by_study(payload, "slopes"):
        drawn = [entry for entry in entries if any(line["mean"] is not None for line in entry["lines"])]
        if not drawn:
            if any(entry["reason"] for entry in entries):
                yield section("slopes", f"Slopes over depth{which}", sentence(f"No slopes: {entries[0]['reason']}"))
            continue
        if sum(len(entry["lines"]) for entry in drawn) == 1:
            line = drawn[0]["lines"][0]
            said = (
                f"One curve, of {line['model']}: the slope of {change(drawn[0]['measure'])} on relative depth is {signed(line['mean'])}, "
                f"its rank slope {signed(line['rank_slope'])}"
            )
            yield section("slopes", f"Slopes over depth{which}", sentence(said))
            continue
        seeds = max(line["n"] for entry in drawn for line in entry["lines"])
        used = [series for name, series in colours.items() if any(line["update"] == name for entry in drawn for line in entry["lines"])]
        lead = "Least squares of a run’s change on relative depth: above 0, later blocks changed more. "
        lead += (
            "A dot a run, a tick the mean of its seeds with one sd." if seeds > 1 else "A dot a run; no cell was repeated with other seeds."
        )
        blocks: list[Block] = []
        for order, entry in enumerate(drawn):
            models = dict.fromkeys(line["model"] for line in entry["lines"] if line["mean"] is not None)
            items = [panel(sheet("slope", slope_panel, entry, model, colours), model) for model in models]
            grid = panels(items, {1: "one", 2: "two"}.get(len(items), "three"))
            made = (
                [heading(change(entry["measure"]) + on(entry["texts"])), grid]
                if not order
                else [fold(f"The same as {change(entry['measure'])}", grid)]
            )
            blocks += [*made, _slope_table(entry)]
        blocks += [note(sentence(f"No slopes of {change(entry['measure'])}: {entry['reason']}")) for entry in entries if entry["reason"]]
        yield section("slopes", f"Slopes over depth{which}", lead, key(used, mark="dot") if len(used) > 1 else None, *blocks)


def _slope_table(entry: dict[str, Any]) -> Block:
    seeds = any(line["n"] > 1 for line in entry["lines"])
    heads = [
        "model",
        "objective",
        "update",
        "slope",
        *(["sd"] if seeds else []),
        "seeds",
        "rank slope",
        "mean change",
        "last block’s share",
        "peak at depth",
        "",
    ]
    rows = [
        [
            line["model"],
            line["objective"],
            line["update"] or MISSING,
            signed(line["mean"]),
            *([three(line["sd"])] if seeds else []),
            count(line["n"]),
            signed(line["rank_slope"]),
            three(line["mean_change"]),
            percent(line["final_share"]),
            two_digits(line["peak_depth"]),
            line["reason"] or ("saturated" if line["saturated"] else ""),
        ]
        for line in entry["lines"]
    ]
    return fold(
        f"In figures, {change(entry['measure'])}: {counted(len(rows), 'cell')}",
        table(f"Slopes, {change(entry['measure'])}", heads, rows, words=(1, 2, len(heads) - 1)),
    )


def _steps(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    for which, entries in by_study(payload, "steps"):
        first = entries[0]
        said = [_ratio(first)] if first.get("ratio") or first.get("ratio_reason") else []
        lead = "Equal-step lets every block’s weights move equally far, so what is left of a slope is not the learning rates’. "
        before = " or ".join(dict.fromkeys(cell["from"] for cell in first["cells"] if cell["from"])) or "none other"
        lead += (
            f"Hollow: {before}; filled: {first['cells'][0]['to']}; square: it has brought the curve to its floor, where a slope says "
            "little."
        )
        kinds = [kind for kind in BLOCK_ROLES if any(cell["block"] == kind for cell in first["cells"])]
        marks = [Series(kind, f"{kind} blocks" if kind != "unknown" else "block type not told", BLOCK_ROLES[kind]) for kind in kinds]
        yield section(
            "steps",
            f"Standard → equal-step{which}",
            " ".join([lead, *said]),
            key(marks, mark="dot"),
            heading(change(first["measure"]) + on(first["texts"])),
            panels([panel(sheet("steps", step_dumbbells, first))], "one"),
            _step_signs(entries),
            note(_saturation(first)),
            *(
                fold(f"The same as {change(entry['measure'])}", panels([panel(sheet("steps", step_dumbbells, entry))], "one"))
                for entry in entries[1:]
            ),
            *(_step_table(entry) for entry in entries),
        )


def _ratio(entry: dict[str, Any]) -> str:
    found = entry.get("ratio")
    if not found:
        return sentence(f"No ratio of the changes: {entry['ratio_reason']}")
    return (
        f"Over {count(found['n'])} cells it changed {found['geometric_mean']:.1f} times as much as {found['to']} "
        f"({found['low']:.1f} to {found['high']:.1f}), in geometric mean of {change(entry['measure'])}."
    )


def _saturation(entry: dict[str, Any]) -> str:
    some = sum(cell["saturated"] for cell in entry["cells"])
    rules = {
        "mean": "a mean change of .9 or more, as no floor was measured",
        "floor": "most blocks within 2 sd of their floor or beyond it",
    }
    if entry["saturation"] is None:
        return f"No curve is marked as saturated: under {change(entry['measure'])} no floor was measured."
    return f"Saturated: {rules[entry['saturation']]}; {of_n(some, len(entry['cells']))} cells under {change(entry['measure'])}."


def _step_signs(entries: list[dict[str, Any]]) -> Block:
    words = {"block": "blocks", "saturation": "curve", "family": "objective"}
    rows = [
        [f"{words[group['by']]}: {group['group']}", change(entry["measure"]), of_n(group["positive"], group["n"]), p(group["p"])]
        for entry in entries
        for group in entry["groups"]
        if not (group["by"] == "saturation" and entry["saturation"] is None)
    ]
    return table("Signs under equal-step", ["slopes that stay positive", "under", "positive", "sign test"], rows, words=(1,))


def _step_table(entry: dict[str, Any]) -> Block:
    rows = [
        [
            cell["model"],
            cell["objective"],
            cell["block"],
            signed(cell["standard"]),
            signed(cell["equal"]),
            three(cell["equal_sd"]),
            count(cell["seeds"]),
            "saturated" if cell["saturated"] else "",
        ]
        for cell in ordered_cells(entry)
    ]
    heads = ["model", "objective", "blocks", "standard", "equal-step", "sd", "seeds", ""]
    return fold(f"In figures, {change(entry['measure'])}", table(f"Equal-step, {change(entry['measure'])}", heads, rows, words=(1, 2, 7)))
