"""The section of a study's page that sets objective distance against slope."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunescope.report.numbers import MISSING, count, signed, three
from tunescope.report.study_blocks import Block, Sheet, fold, heading, note, panel, panels, section, table
from tunescope.report.study_depth_section import by_study
from tunescope.report.study_distances import distance_panel, distance_scatter
from tunescope.report.study_names import change, of_n, p, rho, sentence, short

Payload = dict[str, Any]
MOST = 12


def distance_sections(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    """An entry a measure of distance: the first open, the others folded."""
    for which, entries in by_study(payload, "distances"):
        known = [entry for entry in entries if entry["points"]]
        if not known:
            yield section("distances", f"Objective distance against slope{which}", sentence(f"Not computed: {entries[0]['reason']}"))
            continue
        first = known[0]
        lead = (
            "Does an objective whose gradients lie further from those of pretraining make a steeper profile? Across: "
            f"{short(first['distance'])} distance of gradients; "
            f"up: the slope of {change(first['measure'])} over depth, mean of the rules without equal-step. {_told(first)}"
        )
        rest = [fold(f"With the {short(entry['distance'])} distance", note(_told(entry)), *_parts(entry, sheet)) for entry in known[1:]]
        yield section("distances", f"Objective distance against slope{which}", lead, *_parts(first, sheet), *rest)


def _parts(entry: dict[str, Any], sheet: Sheet) -> Iterator[Block]:
    found = entry["residuals"]
    yield panels([panel(sheet("distances", distance_scatter, entry), "", _line(entry))], "one")
    models = list(dict.fromkeys(point["model"] for point in entry["points"]))
    own = {row["model"]: row for row in entry["within"].get("models") or []}
    if len(models) > 1:
        yield heading("Within each model")
        yield panels((panel(sheet("distance", distance_panel, entry, model), model, _within(own.get(model))) for model in models), "three")
    if entry["within"].get("models"):
        rows = [
            [
                row["model"],
                count(row["n"]),
                signed(row["rho"]),
                p(row["p"]) if row["p"] is not None else MISSING,
                row["reason"] or ("every order" if row["method"] == "enumerated" else "drawn orders"),
            ]
            for row in entry["within"]["models"]
        ]
        yield fold(
            "Rank correlations in figures",
            table(
                f"Spearman within models, {short(entry['distance'])}",
                ["model", "objectives", "ρ", "p, two-sided", "p by"],
                rows,
                words=(4,),
            ),
        )
    if not found.get("reason"):
        rows = [
            [
                f"{row['model']}, {row['objective']}",
                three(row["distance"]),
                signed(row["slope"]),
                signed(row["fitted"]),
                signed(row["residual"]),
                signed(row["standardised"]),
            ]
            for row in found["table"][:MOST]
        ]
        yield fold(
            f"The largest {count(len(rows))} residuals of {count(len(found['table']))}",
            table(f"Residuals, {short(entry['distance'])}", ["of", "distance", "slope", "on the line", "residual", "in sd"], rows),
        )


def _line(entry: dict[str, Any]) -> str:
    found = entry["residuals"]
    if found.get("reason"):
        return sentence(f"No common line: {found['reason']}")
    odd = sum(row["anomaly"] for row in found["table"])
    return (
        f"Dashed: the least-squares line of all {count(len(entry['points']))} points, slope = {three(found['intercept'])} "
        f"{_plus(found['gradient'])} × distance; "
        f"orange: {count(odd) if odd else 'none'} at {found['beyond']:g} sd or more from it. A point far out draws the line towards itself."
    )


def _plus(value: float) -> str:
    return f"{'−' if value < 0 else '+'} {three(abs(value))}"


def _told(entry: dict[str, Any]) -> str:
    within, without, pooled = entry["within"], entry["without"], entry["pooled"]
    said = [_signs("Within models ρ is positive in", within, "no correlation within models")]
    said.append(
        _signs(
            "Without the objectives at distance 0, which are there by definition:",
            without,
            "without the reference objective nothing is left",
        )
    )
    if not pooled.get("reason"):
        said.append(
            f"Over all points together ρ is {rho(pooled['spearman'])}; this mixes what lies within models with what lies between them."
        )
    return " ".join(said)


def _signs(said: str, found: dict[str, Any], none: str) -> str:
    if found.get("reason"):
        return sentence(f"{none}: {found['reason']}")
    return f"{said} {of_n(found['positive'], found['n'])} (sign test {p(found['p'])})."


def _within(row: dict[str, Any] | None) -> str:
    if row is None or row["rho"] is None:
        return (row or {}).get("reason") or "no correlation"
    return f"ρ {signed(row['rho'])}, {p(row['p'])}, n {row['n']}"
