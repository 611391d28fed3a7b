"""The report as one HTML file: nothing loaded from anywhere, readable without JavaScript, every outside string escaped."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from tunescope.report import bundle, cross_words, elsewhere, outcome_section, provenance, reading, theme, weight_table
from tunescope.report.numbers import MISSING, count, interval, percent, signed, three
from tunescope.report.published_place import published_place
from tunescope.report.ruler_marks import ruler_measure

_STATUS = ("untouched", "refined", "rewritten")


def render(payload: reading.Payload) -> str:
    """The self-contained page of a comparison (the dict of comparison.json), as text to write in UTF-8.

    The page makes no request: a content security policy forbids them all, and the chart library travels inside.
    """
    from tunescope.report import charts

    payload = reading.printable(payload)
    drawn = charts.charts(payload)
    return filled("page.html.j2", _view(payload, drawn), drawn)


def filled(template: str, view: dict[str, Any], drawn: dict[str, dict]) -> str:
    """A template of this package with what it prints, its charts, and the furniture of every page."""
    import jinja2

    loader = jinja2.FunctionLoader(_asset)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader)
    return environment.get_template(template).render(**view, **_furniture(drawn))


def script_json(value: Any) -> str:
    """JSON that is safe inside <script>: ASCII only, and no `<`, `>` or `&`."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return resources.files("tunescope.report").joinpath(name).read_text(encoding="utf-8")


def _furniture(drawn: dict[str, dict]) -> dict[str, str]:
    return {
        "css": _asset("page.css") + _asset("outcomes.css"), "js": _asset("page.js"), "bundle": bundle.script() if drawn else "",
        "light": theme.variables(theme.LIGHT), "dark": theme.variables(theme.DARK),
        "sans": theme.SANS, "serif": theme.SERIF, "mono": theme.MONO,
        "specs": script_json(drawn), "twins": script_json(theme.TO_DARK),
    }  # fmt: skip


def _view(payload: reading.Payload, drawn: dict[str, dict]) -> dict[str, Any]:
    """Everything the template prints, as strings."""
    base, tuned = payload.get("base") or {}, payload.get("tuned") or {}
    measures = [_measure(payload, name) for name in reading.comparing(payload)]
    measures = [measure for measure in measures if any(row["change"] != MISSING or row["value"] != MISSING for row in measure["rows"])]
    return {
        "version": payload.get("tunescope", ""), "headline": payload.get("headline"), "warnings": payload.get("warnings") or [],
        "notes": payload.get("notes") or [], "status_rule": payload.get("status_rule"),
        "base": {"name": base.get("name") or "the base"}, "tuned": {"name": tuned.get("name") or "the tuned model"},
        "measures": measures, "rows": reading.layers(payload), "sites": reading.sites(payload),
        "has_curve": any(name.startswith("depth_curve_") for name in drawn),
        "cross": cross_words.section(payload) if "cross_layer" in drawn else None, "width": _width(payload, drawn),
        "published": published_place(payload, drawn),
        "elsewhere": elsewhere.view(payload, drawn) if measures else None,
        "robust": _robust(payload),
        "curve": _curve(payload) if "neighbourhood_curve" in drawn else None,
        "sides": [_side(payload, name, name in drawn) for name in reading.one_sided(payload) if not reading.unchanged(payload)],
        "weights": weight_table.section(payload, drawn),
        "outcomes": outcome_section.view(payload, drawn), "outcome_headline": outcome_section.headline(payload),
        "texts": _texts(payload), "identity": provenance.identity(base, tuned), "kept": provenance.kept(payload),
        "controls": provenance.controls(payload), "ruler": _ruler(payload, "ruler" in drawn),
        "definitions": [provenance.definition(payload, name) for name in payload.get("measures") or {}],
        "footer": f"Written by tunescope {payload.get('tunescope', '')} on {str(payload.get('created', ''))[:16].replace('T', ' ')}. "
                  "This file loads nothing and sends nothing.",
    }  # fmt: skip


def _measure(payload: reading.Payload, name: str) -> dict[str, Any]:
    """One choice of the measure switch: its caption, facts and table."""
    about = reading.about(payload, name)
    rows, sites = reading.layers(payload), reading.sites(payload)
    scale = reading.scale(payload, name)
    table = [_table_row(payload, name, row, scale) for row in rows]
    table += [_table_row(payload, name, row, scale) | {"site_first": order == 0} for order, row in enumerate(sites)]
    own = about["change"] != about["title"]
    short = about["title"].split(",")[0]
    return {"name": name, "short": short, "title": about["title"], "change": about["change"], "own_change": own,
            "rows": table, "caption": _caption(payload, name, about), "facts": _facts(payload, name)}  # fmt: skip


def _table_row(payload: reading.Payload, name: str, row: dict, scale: float) -> dict[str, Any]:
    numbers = reading.entry(row, name)
    change = numbers.get("change")
    word = str(row.get("status") or MISSING)
    aside = ", ".join(reading.status(row).split(" · ")[1:])
    floor = reading.floor(payload, name, numbers)
    return {
        "name": row["name"], "word": word, "status_class": word if word in _STATUS else "", "aside": aside, "site_first": False,
        "value": three(numbers.get("value")), "interval": interval(numbers.get("low"), numbers.get("high")), "change": three(change),
        "bar": None if change is None else round(min(max(change / scale, 0), 1) * 100, 1),
        "floor": three(floor) if floor is not None else numbers.get("null_reason") or MISSING,
    }  # fmt: skip


def _caption(payload: reading.Payload, name: str, about: dict) -> str:
    own = about["change"] != about["title"]
    if reading.layers(payload):
        parts = [f"Each dot is a layer: {about['title']}" + (f", drawn as its change, {about['change']}." if own else ".")]
    else:
        parts = [about["title"] + (f", shown as its change, {about['change']}." if own else ".")]
    if about.get("interval"):
        parts.append(f"{'Shading: 95%' if reading.layers(payload) else '95%'} interval ({str(about['interval']).removesuffix(', 95%')}).")
    if about.get("null"):
        parts.append(f"Chance floor: {about['null']}.")
    noise = reading.noise(payload, name)
    if noise is not None:
        parts.append(f"Noise: the base run twice differs by {three(noise)} at most.")
    if payload.get("controls"):
        parts.append("Thin lines: the controls, the same base moved otherwise.")
    saturated = ((payload.get("locality") or {}).get(name) or {}).get("saturated_layers")
    if saturated:
        parts.append(f"At the chance floor, so carrying no more information: layers {', '.join(map(str, saturated))}.")
    return " ".join(parts)


def _facts(payload: reading.Payload, name: str) -> list[dict[str, str]]:
    """The few numbers worth reading first, for one measure."""
    rows = [row for row in reading.layers(payload) if reading.entry(row, name).get("change") is not None]
    locality = (payload.get("locality") or {}).get(name) or {}
    facts = []
    if rows:
        peak = max(rows, key=lambda row: reading.entry(row, name)["change"])
        value = reading.entry(peak, name)["change"]
        facts.append({"value": three(value), "label": f"largest change, at {peak['name']}" if value else "largest change: none anywhere"})
    for site in reading.sites(payload):
        change = reading.entry(site, name).get("change")
        if change is not None:
            output = "change of the output, the embedding as deployed" if rows else "change of the embeddings"
            said = {"output": output, "final": "change after the final norm"}
            facts.append({"value": three(change), "label": said.get(site["name"], f"change at {site['name']}")})
    if locality.get("slope") is not None and not reading.unchanged(payload):
        shape = "not steady"
        if locality.get("monotone"):
            shape = "steady rise" if locality["slope"] >= 0 else "steady fall"
        rank = f"; rank correlation {signed(locality['rank_slope'])}" if locality.get("rank_slope") is not None else ""
        facts.append({"value": signed(locality["slope"]), "label": f"slope over depth, {shape}{rank}"})
    return facts


def _robust(payload: reading.Payload) -> str:
    """What stands beside a status must be explained, where it stands."""
    if not any((row.get("outliers") or {}).get("disagree") for row in reading.layers(payload) + reading.sites(payload)):
        return ""
    return (
        "Standardised CKA: every dimension brought to unit variance, so that a few large ones cannot outweigh the others; shown where it "
        "and the plain one disagree."
    )


def _width(payload: reading.Payload, drawn: dict[str, dict]) -> dict[str, Any] | None:
    width = payload.get("width")
    if not width:
        return None
    if "width" not in drawn:
        return {"drawn": False, "lead": f"No shares to show: {width.get('reason') or 'none were measured'}.", "caption": ""}
    blocks = len(width["layers"])
    larger = reading.largest_share(payload)
    lead = f"{percent(width.get('final_share'))} of the change lies in the last of {count(blocks)} blocks"
    lead += f", {larger}; " if larger else "; "
    lead = (
        f"{lead}spread evenly it would be {percent(1 / blocks)}." if blocks > 1 else "There is one block, so all of the change lies in it."
    )
    return {"drawn": True, "lead": lead, "caption": "Each block’s share of the total change, 1 − CKA, over the blocks."}


def _curve(payload: reading.Payload) -> dict[str, str]:
    k = payload["nps_curve"]["k"]
    return {
        "said": f"Share of each {reading.unit(payload)}’s k nearest neighbours (cosine) that are still its neighbours after tuning, "
        f"k from {k[0]} to {k[-1]}."
    }


def _side(payload: reading.Payload, name: str, drawn: bool) -> dict[str, Any]:
    about = reading.about(payload, name)
    said = "A property of each side by itself, base and tuned."
    found = reading.largest_difference(payload, name)
    if found:
        where, base, tuned = found
        said += f" Largest difference at {where}: {three(base)} → {three(tuned)} ({signed(tuned - base)})."
    rows = [reading.entry(row, name) for row in reading.layers(payload) or reading.sites(payload)]
    reason = next((numbers["null_reason"] for numbers in rows if numbers.get("null_reason")), None)
    return {"name": name, "title": about["title"], "said": said + (f" No chance floor: {reason}." if reason else ""), "drawn": drawn}


def _ruler(payload: reading.Payload, drawn: bool) -> dict[str, Any] | None:
    ruler, name = payload.get("ruler"), ruler_measure(payload)
    if not ruler:
        return None
    caption = f"How far each moved the deployed embedding: {reading.about(payload, name)['title']}, logarithmic axis. " if name else ""
    return {"lead": ruler["said"], "drawn": drawn, "caption": caption + " ".join(f"Left out: {said}." for said in ruler["left_out"])}


def _texts(payload: reading.Payload) -> dict[str, Any] | None:
    texts = payload.get("texts")
    if not texts:
        return None

    def quote(row: dict) -> dict[str, str]:
        parts = [f"moved {three(row['moved'])}"] if row.get("moved") is not None else []
        parts += [f"kept {row['kept']} of {row['of']} neighbours"] if row.get("kept") is not None else []
        return {"id": row.get("id", ""), "text": row.get("text", ""), "said": ", ".join(parts)}

    sides = [
        {"title": title, "texts": [quote(row) for row in texts.get(key) or []]}
        for key, title in (("most", "Moved most"), ("least", "Moved least"))
    ]
    lead = (
        f"At {texts.get('site', 'the output')}, after the best rotation of one side onto the other; “moved” is the distance that remains, "
        f"in lengths of the {reading.unit(payload)}’s own vector (both sides centred and brought to one size)."
    )
    title = f"The {reading.unit(payload)}s that moved most and least"
    return {"title": title, "lead": lead, "sides": [side for side in sides if side["texts"]]}
