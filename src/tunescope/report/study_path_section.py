"""The sections of a study's page that follow a model: over its checkpoints, and layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunescope.report.numbers import MISSING, count, signed, three
from tunescope.report.study_blocks import Block, Sheet, fold, heading, key, note, panel, panels, section, table
from tunescope.report.study_depth_section import by_study
from tunescope.report.study_layers import layer_curve, layer_gains
from tunescope.report.study_names import change, metric, on, rho, sentence, short
from tunescope.report.study_series import listed
from tunescope.report.study_trajectories import trajectory

Payload = dict[str, Any]


def path_sections(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    """Those of which the payload has something."""
    yield from _trajectories(payload, sheet)
    yield from _layers(payload, sheet)


def _trajectories(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    for which, entries in by_study(payload, "trajectories"):
        blocks: list[Block] = []
        for model in dict.fromkeys(entry["model"] for entry in entries):
            own = [entry for entry in entries if entry["model"] == model]
            colours = listed([path["condition"] for entry in own for path in entry["paths"]])
            first = own[0]
            items = [
                panel(
                    sheet("trajectory", trajectory, first, "drift", colours),
                    change(first["measure"]) + on(first["texts"]),
                    "change, 0 for none",
                )
            ]
            items += [
                panel(
                    sheet("trajectory", trajectory, entry, "gain", colours),
                    f"{entry['task']}, {metric(entry['outcome'])}",
                    "tuned − base" + (", turned so that up is better" if entry["better"] == "lower" else ""),
                )
                for entry in own
            ]
            blocks += [heading(model), key(colours.values()), panels(items), _path_table(own)]
        lead = (
            "The measure and the outcomes over checkpoints. Neighbours on a path are not exchangeable, so the p of a correlation along "
            "it is too small; what is left with time partialled out says more."
        )
        yield section("trajectories", f"While it was tuned{which}", lead, *blocks)


def _path_table(entries: list[dict[str, Any]]) -> Block:
    rows = []
    for entry in entries:
        for path in entry["paths"]:
            found = path["association"]
            cells = [rho(found[name]) for name in ("spearman", "rank_partial")] if found else [path["reason"] or MISSING, MISSING]
            rows.append([path["condition"], f"{entry['task']}, {metric(entry['outcome'])}", count(len(path["points"])), *cells])
    heads = ["condition", "outcome", "checkpoints", "ρ of change and gain", "given the clock"]
    return table(f"Along the path, {entries[0]['model']}", heads, rows, words=(1, 3, 4))


def _layers(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    for which, entries in by_study(payload, "layers"):
        blocks: list[Block] = []
        for entry in entries:
            for group in entry["groups"]:
                title = f"{group['model']}, {group['condition']}"
                curve = panel(sheet("layers", layer_curve, group), short(entry["measure"]) + on(entry["texts"]), "value at each layer")
                gains = panel(sheet("layers", layer_gains, group), f"{entry['task']}, {metric(entry['outcome'])}", "tuned − base")
                blocks += [
                    heading(title),
                    panels([curve, gains]),
                    note(_association(group, short(entry["measure"]))),
                    _layer_table(entry, group),
                ]
            if entry["reason"]:
                blocks.append(note(sentence(f"{entry['task']}: {entry['reason']}")))
        lead = (
            "Where the model changed beside where it got better. That both lie in the same layers says that they go together there, and "
            "not that one made the other."
        )
        yield section("layers", f"Layer by layer{which}", lead, *blocks)


def _association(group: dict[str, Any], measure: str) -> str:
    found = group["association"]
    if not found:
        return sentence(f"No association: {group['reason']}")
    return (
        f"{measure} with the gain over layers: Spearman {rho(found['spearman'])}. "
        f"With the layer’s number partialled out: by values {rho(found['partial'])}; "
        f"by ranks {rho(found['rank_partial'])}."
    )


def _layer_table(entry: dict[str, Any], group: dict[str, Any]) -> Block:
    rows = [
        [count(row["layer"]), three(row["value"]), three(row["change"]), signed(row["gain"]), count(row["runs"])] for row in group["rows"]
    ]
    name = f"Layers, {group['model']}, {group['condition']}, {entry['task']}"
    return fold("In figures", table(name, ["layer", short(entry["measure"]), "change", "gain", "runs"], rows))
