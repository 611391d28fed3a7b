"""The section of a study's page about features: how large a change, how sparse, how well rebuilt, how like the base's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunescope.report.numbers import MISSING, amount, count, interval, three, two_digits
from tunescope.report.study_blocks import Block, Sheet, fold, heading, key, note, panel, panels, section, table
from tunescope.report.study_depth_section import by_study
from tunescope.report.study_features import feature_panel
from tunescope.report.study_names import counted, feature
from tunescope.report.study_series import listed

Payload = dict[str, Any]
_GROUPS = {
    "How large": ("delta_norm", "relative_delta_norm", "constant_share"),
    "How well its dictionaries do": ("r2", "r2_centred", "unexplained_share", "improvement", "l0", "density", "dead_share"),
    "Behaviour recovered": ("behaviour_recovered",),
}
_ALIKE = "How like the base’s: against floor and ceiling"


def feature_sections(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    """Measures in groups; what fits no group is a comparison with the base's features."""
    for which, entries in by_study(payload, "features"):
        entries = [_shown(entry) for entry in entries]
        colours = listed([str(line["layer"]) for entry in entries for line in entry["lines"]])
        blocks: list[Block] = []
        named = {measure for group in _GROUPS.values() for measure in group}
        groups = list(_GROUPS.items())[:2] + [(_ALIKE, tuple(e["measure"] for e in entries if e["measure"] not in named))] + list(_GROUPS.items())[2:]
        for title, measures in groups:
            own = sorted((entry for entry in entries if entry["measure"] in measures), key=lambda entry: measures.index(entry["measure"]))
            if own:
                items = [panel(sheet("features", feature_panel, entry, colours), feature(entry["measure"])) for entry in own]
                blocks += [heading(title), panels(items), *map(_table, own)]
        said = [type(one)(one.name, f"layer {one.name}", one.role, one.dash) for one in colours.values()]
        lead = "What each tuning wrote at a layer, read by sparse dictionaries. Grey ticks: the floor, what chance gives; green ticks: the ceiling, the same training from another seed. Rules: 95% intervals over documents."
        end = note("A cosine is the mean over pairs of features; the distribution behind it is on the page of each run, runs/…/features/report.html.")
        yield section("features", f"Features{which}", lead, key(said, mark="dot"), *blocks, end)


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    """Every row's name as it is printed: with what the task says besides, where a model has several rows a layer."""
    lines = entry["lines"]
    places = [(line["name"], line["layer"], line["model"], line["seed"]) for line in lines]
    several, models = len(set(places)) < len(places), len({line["model"] for line in lines}) > 1
    shown = []
    for line in lines:
        parts = [line["name"], *([line["model"]] if models else []), *([line["detail"]] if several and line["detail"] else [])]
        shown.append(line | {"shown": " · ".join(parts)})
    return entry | {"lines": shown}


def _table(entry: dict[str, Any]) -> Block:
    rows = [
        [line["shown"], count(line["layer"]), amount(line["value"]) if abs(line["value"]) >= 0.1 else two_digits(line["value"]),
         interval(line["low"], line["high"]), three(line["floor"]) + (f" ± {two_digits(line['floor_sd'])}" if line["floor_sd"] else ""),
         three(line["ceiling"]), count(line["n"])]
        for line in entry["lines"]
    ]  # fmt: skip
    heads = ["of", "layer", "value", "95% interval", "floor ± sd", "ceiling", "over"]
    used = [order for order in range(len(heads)) if order < 3 or any(row[order] != MISSING for row in rows)]
    name = feature(entry["measure"])
    return fold(f"{name} in figures: {counted(len(rows), 'row')}", table(name, [heads[i] for i in used], [[row[i] for i in used] for row in rows]))
