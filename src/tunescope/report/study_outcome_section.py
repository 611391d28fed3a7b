"""The sections of a study's page about the whole model: conditions, change against damage, anchors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunescope.report.numbers import MISSING, count, interval, signed, three
from tunescope.report.study_anchors import anchor_ranks
from tunescope.report.study_blocks import Block, Sheet, fold, heading, key, note, panel, panels, section, table
from tunescope.report.study_conditions import condition_bars, within
from tunescope.report.study_depth_section import by_study
from tunescope.report.study_matched import matched_scatter
from tunescope.report.study_names import change, counted, main_tasks, metric, on, p, rho, sentence
from tunescope.report.study_series import Series, regimes

Payload = dict[str, Any]


def outcome_sections(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    """Those of which the payload has something."""
    yield from _conditions(payload, sheet)
    yield from _matched(payload, sheet)
    yield from _anchors(payload, sheet)


def _column(column: dict[str, Any]) -> str:
    if column["subject"] == "geometry":
        return change(column["measure"]) + on(column["texts"])
    return f"{column['task']}, {metric(column['measure'])}"


def _conditions(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    for which, entries in by_study(payload, "conditions"):
        ranked = {
            entry["model"] for entry in payload["anchors"] if entry["study"] == entries[0]["study"]
        }  # shown there, where nothing came of it
        drawn = [entry for entry in entries if len(entry["lines"]) > 1 and not (entry["model"] in ranked and not _judged(entry))]
        if not drawn:
            continue
        colours = regimes([line["regime"] for entry in drawn for line in entry["lines"]])
        blocks: list[Block] = []
        for entry in drawn:
            items = [
                panel(sheet("conditions", condition_bars, entry, order, colours), _column(column), _what(column))
                for order, column in enumerate(entry["columns"])
            ]
            blocks += [heading(entry["model"]), panels(items), _condition_table(entry)]
        lead = (
            "How far each condition moved the whole model, and what came of it: the same order in every panel, by the first. "
            "Whiskers: one sd over seeds, or the 95% interval of a single run."
        )
        yield section("conditions", f"Conditions{which}", lead, key(colours.values(), mark="dot") if len(colours) > 1 else None, *blocks)


def _judged(entry: dict[str, Any]) -> bool:
    return any(column["subject"] == "outcome" for column in entry["columns"])


def _what(column: dict[str, Any]) -> str:
    if column["subject"] == "geometry":
        return "change, 0 for none"
    return "tuned − base" + ("; lower is better" if column["better"] == "lower" else "")


def _condition_table(entry: dict[str, Any]) -> Block:
    def said(cell: dict[str, Any] | None, outcome: bool) -> str:
        return MISSING if cell is None else f"{(signed if outcome else three)(cell['mean'])} {within(cell)}"

    rows = [
        [
            line["condition"],
            line["regime"] or MISSING,
            *(said(cell, column["subject"] == "outcome") for cell, column in zip(line["cells"], entry["columns"], strict=True)),
        ]
        for line in entry["lines"]
    ]
    return fold(
        "In figures", table(f"Conditions of {entry['model']}", ["condition", "regime", *map(_column, entry["columns"])], rows, words=(1,))
    )


def _matched(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    for which, entries in by_study(payload, "matched"):
        colours = regimes([point["regime"] for entry in entries for point in entry["points"]])
        blocks: list[Block] = []
        for model in dict.fromkeys(entry["model"] for entry in entries):
            own = [entry for entry in entries if entry["model"] == model]
            first, others = main_tasks(own)
            blocks += [block for entry in first for block in _matched_parts(entry, colours, sheet)]
            blocks += [fold(_matched_title(entry), *list(_matched_parts(entry, colours, sheet))[1:]) for entry in others]
        lead = (
            "A point a condition: across how far it moved, up what came of it. "
            "Were distance the cause of damage, points would fall along one line; points above one another moved alike and did not fare "
            "alike. The untuned model is at the origin."
        )
        yield section(
            "matched", f"Change against damage{which}", lead, key(colours.values(), mark="dot") if len(colours) > 1 else None, *blocks
        )


def _matched_title(entry: dict[str, Any]) -> str:
    return f"{entry['model']}: {entry['task']}, {metric(entry['outcome'])}"


def _matched_parts(entry: dict[str, Any], colours: dict[str | None, Series], sheet: Sheet) -> Iterator[Block]:
    lower = entry["better"] == "lower"
    gain = f"{metric(entry['outcome'])}, {'base − tuned, as lower is better' if lower else 'tuned − base'}"
    told = entry | {"said": change(entry["measure"]) + on(entry["texts"]), "gain_said": gain}
    yield heading(_matched_title(entry))
    yield panels([panel(sheet("matched", matched_scatter, told, colours), "", " ".join(_matched_words(entry)))], "one")
    yield _pairs(entry)


def _matched_words(entry: dict[str, Any]) -> Iterator[str]:
    found = entry["correlation"]
    yield (
        f"Spearman’s ρ of change and damage over the conditions that moved: {rho(found)}."
        if found
        else sentence(f"No rank correlation: {entry['correlation_reason']}")
    )
    ratio = entry["ratio"]
    if ratio is None:
        yield sentence(f"No ratio test: {entry['ratio_reason']}")
        return
    yield (
        f"Of the {count(len(ratio['conditions']))} conditions that lost, change differs {ratio['drift']:.2f} times and damage "
        f"{ratio['damage']:.2f} times: a margin of "
        f"{ratio['margin']:.1f}, {'at least' if ratio['holds'] else 'below'} the {ratio['rule']:g} that the drift study asks for."
    )


def _pairs(entry: dict[str, Any]) -> Block:
    if entry["pairs"] is None:
        return note(sentence(f"No pairs at one distance: {entry['pairs_reason']}"))
    ordered = sorted(entry["pairs"], key=lambda pair: -abs(pair["difference"]))
    rows = [
        [
            f"{pair['b']} − {pair['a']}",
            three(pair["drift"]),
            signed(pair["difference"]),
            interval(pair["low"], pair["high"]),
            p(pair["p"]) if pair["p"] is not None else MISSING,
            count(pair["n"]),
            count(pair["checkpoints"]),
        ]
        for pair in ordered
    ]
    said = (
        "Each path is read where it first reaches the largest change that both reach, linear between checkpoints; with one checkpoint "
        "it is the straight line from the untuned model. Intervals and p are over pairs of seeds; one pair has neither."
    )
    heads = ["pair", "at a change of", "difference", "95% interval", "p", "pairs", "checkpoints"]
    return fold(
        f"Matched by interpolation: {counted(len(rows), 'pair')}",
        note(said),
        table(f"Pairs at one change, {entry['model']}, {entry['task']}", heads, rows),
    )


def _anchors(payload: Payload, sheet: Sheet) -> Iterator[Block]:
    for which, entries in by_study(payload, "anchors"):
        items, blocks = [], []
        for entry in entries:
            title = f"{entry['model']}, {change(entry['measure'])}"
            if entry["reason"]:
                blocks.append(note(sentence(f"{title}: {entry['reason']}")))
                continue
            left = f" Left out: {', '.join(entry['left_out'])}." if entry["left_out"] else ""
            items.append(panel(sheet("anchors", anchor_ranks, entry), title, f"{count(len(entry['lines']))} conditions.{left}"))
            rows = [
                [
                    f"{pair['a']}, {pair['b']}",
                    signed(pair["rho"]),
                    p(pair["p"]),
                    count(pair["n"]),
                    pair["reason"] or ("every order" if pair["method"] == "enumerated" else "drawn orders"),
                ]
                for pair in entry["pairs"]
            ]
            blocks.append(table(f"Ranks between texts, {title}", [title, "ρ", "p, two-sided", "conditions", "p by"], rows, words=(4,)))
        lead = (
            "The conditions in the order of how far they moved, read on each set of texts; 1 moved most, ties share their mean rank. "
            "Lines that do not cross: the order does not depend on the texts."
        )
        yield section("anchors", f"Ranks across texts{which}", lead, panels(items) if items else None, *blocks)
