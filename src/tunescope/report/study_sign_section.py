"""The sections of a study's page about all slopes together: their signs, the widths, and what decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunescope.report.numbers import MISSING, count, percent, signed, three, two_digits
from tunescope.report.study_blocks import Block, Sheet, bullets, fold, note, panel, panels, section, table
from tunescope.report.study_depth_section import by_study
from tunescope.report.study_names import change, of_n, on, p, sentence, short
from tunescope.report.study_widths import ordered_widths, width_rows

Payload = dict[str, Any]


def sign_sections(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    """Those of which the payload has something."""
    yield from _signs(payload)
    yield from _widths(payload, sheet)
    yield from _shares(payload)


def _signs(payload: Payload) -> Iterator[Block]:
    for which, entries in by_study(payload, "signs"):
        entry = entries[0]
        rows = [
            [group["group"], change(group["measure"]), count(group["runs"])]
            + (
                [of_n(group["positive"], group["n"]), count(group["negative"]), count(group["zero"]), p(group["p"])]
                if not group["reason"]
                else [group["reason"], MISSING, MISSING, MISSING]
            )
            for group in entry["groups"]
        ]
        found, names = entry["agreement"], " and ".join(short(name) for name in entry["agreement_measures"])
        blocks = [table("Signs of slopes", ["runs", "under", "curves", "positive", "negative", "zero", "sign test"], rows, words=(1,))]
        if found:
            blocks.append(
                note(f"{names} agree in sign in {of_n(found['agree'], found['n'])} curves{'; not in:' if found['exceptions'] else '.'}")
            )
            blocks.append(bullets(_exception(line, entry["agreement_measures"]) for line in found["exceptions"][:12]))
        elif entry["reason"]:
            blocks.append(note(sentence(f"Agreement of measures: {entry['reason']}")))
        lead = (
            "How many slopes are positive, one trial a cell (the mean of its seeds), and the exact two-sided p that either sign is as "
            "likely."
        )
        yield section("signs", f"Signs{which}", lead, *blocks)


def _exception(line: dict[str, Any], measures: list[str]) -> str:
    said = ", ".join(f"{short(name)} {signed(line[name])}" for name in measures)
    return f"{line['model']}, {line['condition']}: {said}"


def _widths(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    for which, entries in by_study(payload, "widths"):
        entry = entries[0]
        if not entry["lines"]:
            yield section("widths", f"Width{which}", sentence(f"No shares: {entry['reason']}"))
            continue
        lines = ordered_widths(entry)
        lead = (
            f"Each depth’s share of the sum of {change(entry['measure'])}{on(entry['texts'])}, the mean of a model’s runs without "
            "equal-step; whiskers: one sd over them. "
        )
        if len(lines) > 1:
            lead += (
                f"Most concentrated: {lines[-1]['model']}, {percent(lines[-1]['shares'][-1])} at its last depth; least: "
                f"{lines[0]['model']}, {percent(lines[0]['shares'][-1])}."
            )
        same = len({tuple(line["depths"]) for line in lines}) == 1
        heads = [
            "model",
            "runs",
            *([two_digits(depth) if depth < 1 else "1" for depth in lines[0]["depths"]] if same else ["at the last"]),
            "sd at the last",
        ]
        rows = [
            [line["model"], count(line["runs"]), *(map(three, line["shares"] if same else line["shares"][-1:])), three(line["sd"][-1])]
            for line in lines
        ]
        yield section(
            "widths",
            f"Width{which}",
            lead,
            panels([panel(sheet("widths", width_rows, entry))], "one"),
            fold("In figures", table("Widths", heads, rows)),
            note(sentence(entry["reason"])) if entry["reason"] else None,
        )


def _shares(payload: Payload) -> Iterator[Block]:
    words = {"slope": "slope", "final_share": "last depth’s share of the change"}
    for which, entries in by_study(payload, "shares"):
        rows = [
            [
                row["factor"],
                f"{words[entry['value']]}, {change(entry['measure'])}",
                three(row["eta2"]),
                three(row["chance"]),
                count(row["groups"]),
                count(row["n"]),
            ]
            for entry in entries
            for row in entry["rows"]
        ]
        reasons = [sentence(f"{words[entry['value']]}: {entry['reason']}") for entry in entries if entry["reason"]]
        lead = (
            "η² of each choice taken alone, over training as usual. What it explains by chance alone stands beside it; in an unbalanced "
            "study shares overlap."
        )
        if rows or reasons:
            blocks = [table("Variance shares", ["choice", "of", "η²", "by chance", "groups", "runs"], rows, words=(1,))] if rows else []
            yield section("shares", f"What decides{which}", lead, *blocks, *map(note, reasons))
