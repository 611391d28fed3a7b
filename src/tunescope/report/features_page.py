"""The page of a comparison of features: what tuning wrote at each layer, beside what chance gives and what a second seed gives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tunescope.report import features_reading as found
from tunescope.report import features_tables as tables
from tunescope.report import features_words as words
from tunescope.report import provenance, reading
from tunescope.report.chart_parts import Tables
from tunescope.report.numbers import count, percent, two_digits
from tunescope.report.page import filled

_LABELS = {"kind": "deltas", "hygiene": "tokens dropped", "held_out": "documents held out", "max_length": "cut at, tokens",
           "dropped": "tokens", "rows": "rows", "dtype": "stored as"}  # fmt: skip
_ASKED = {"architecture": "architecture", "latents": "features", "k": "active", "layers": "layers", "seeds": "seeds", "steps": "steps",
          "controls": "controls", "data_seed": "seed of the data"}  # fmt: skip
_TEXTS = {"n": "texts", "source": "source", "sampled_from": "sampled from", "sha256": "texts, sha256"}
_LEFT_OUT = ("output", "block", "pretraining")  # of a model: no part of what is compared here
_DEFINED = {"r2": "R²", "r2_centred": "R², centred", "fvu": "unexplained", "l0": "L0", "constant_share": "constant share",
            "density": "density", "dead_share": "dead"}  # fmt: skip


def features_report(payload: reading.Payload) -> str:
    """The self-contained page of features.json, as text to write in UTF-8 (`report.html`); it makes no request.

    payload: as `ts.features` writes it. "recovered" may hold what `BehaviourRecovered.describe` returns; "pages" the places, each with
    layer and name, whose features have a page of their own beside this one, named by `features_reading.page_name`.
    """
    payload = reading.printable(payload)
    drawn = features_charts(payload)
    return filled("features.html.j2", _view(payload, drawn), drawn)


def features_charts(payload: reading.Payload) -> dict[str, dict]:
    """Every chart, by name: alignment_<order>, norms, and of each place reconstruction_, density_ and recovered_<order>; table_<order>."""
    from tunescope.report.charts import finished
    from tunescope.report.features_bars import density_panel, reconstruction_bars
    from tunescope.report.features_maps import groups, norm_map, table_map
    from tunescope.report.features_marks import alignment_panel, comparisons, recovered_panel

    draw: dict[str, Callable[[Tables], Any]] = {"norms": functools.partial(norm_map, payload)}
    for order, key in enumerate(comparisons(payload)):
        draw[f"alignment_{order}"] = functools.partial(alignment_panel, payload, key)
    for order, place in enumerate(found.places(payload)):
        draw[f"reconstruction_{order}"] = functools.partial(reconstruction_bars, payload, place)
        draw[f"density_{order}"] = functools.partial(density_panel, payload, place)
        draw[f"recovered_{order}"] = functools.partial(recovered_panel, payload, place)
    for order, group in enumerate(groups(payload)):
        draw[f"table_{order}"] = functools.partial(table_map, payload, group)
    return finished(draw)


def _view(payload: reading.Payload, drawn: dict[str, dict]) -> dict[str, Any]:
    """Everything the template prints, as strings."""
    from tunescope.report.features_maps import groups, labels
    from tunescope.report.features_marks import comparisons

    base, version = payload.get("base") or {}, payload.get("tunescope", "")
    many = len(found.places(payload)) > 4
    return {
        "version": version, "base": base.get("name") or "the base", "subject": words.subject(payload), "headline": words.headline(payload),
        "flags": words.flags(payload), "warnings": payload.get("warnings") or [], "verdicts": _verdicts(payload), "drawn": set(drawn),
        "quality": tables.quality(payload), "noise_known": any(row.get("noise_r2") is not None for row in payload["verdicts"]),
        "panels": [{"title": words.title(key), "asks": words.asks(key), "chart": f"alignment_{order}"}
                   for order, key in enumerate(comparisons(payload)) if f"alignment_{order}" in drawn],
        "alignments": _by_place(payload, drawn, "alignment"), "many": many,
        "reconstructions": _by_place(payload, drawn, "reconstruction"), "densities": _by_place(payload, drawn, "density"),
        "columns": len(found.names(payload)), "spectrum": tables.spectrum(payload), "recovered": _recovered(payload, drawn),
        "maps": [{"title": group, "chart": f"table_{order}", "size": len(labels(payload, group))}
                 for order, group in enumerate(groups(payload)) if f"table_{order}" in drawn],
        "table_rows": tables.table_rows(payload), "definitions": _definitions(payload),
        "identity": _identity(payload), "texts": provenance.told(payload.get("texts") or {}, _TEXTS),
        "read": provenance.told(payload.get("reading") or {}, _LABELS), "asked": provenance.told(payload.get("request") or {}, _ASKED),
        "versions": ", ".join(f"{name} {number}" for name, number in (payload.get("versions") or {}).items()),
        "footer": f"Written by tunescope {version} on {str(payload.get('created', ''))[:16].replace('T', ' ')}. "
                  "This file loads nothing and sends nothing.",
    }  # fmt: skip


def _verdicts(payload: reading.Payload) -> list[dict[str, Any]]:
    flagged = {(row["layer"], row["name"]) for row in payload.get("flags") or []}
    return [
        {
            "layer": place[0], "name": place[1], "word": row["verdict"], "status_class": words.verdict_class(row["verdict"]),
            "sentence": words.sentence(payload, place), "why": row.get("words") or "", "page": found.page_of(payload, place),
            "flagged": place in flagged,
        }
        for place in found.places(payload)
        for row in [found.verdict(payload, place)]
    ]  # fmt: skip


def _by_place(payload: reading.Payload, drawn: dict[str, dict], kind: str) -> list[dict[str, Any]]:
    """A panel a place: its chart where it has one, and its rows."""
    rows = {"alignment": tables.alignment, "reconstruction": tables.reconstruction}.get(kind)
    out = []
    for order, place in enumerate(found.places(payload)):
        chart = f"{kind}_{order}"
        lines = rows(payload, place) if rows else []
        said = {"reconstruction": tables.improvement, "density": _density}.get(kind)
        if lines or (chart in drawn and not rows):
            out.append({
                "layer": place[0], "name": place[1], "chart": chart if chart in drawn else "", "rows": lines,
                "said": said(payload, place) if said else "", "origins": tables.origins(payload, place),
                "verdict": found.verdict(payload, place)["verdict"],
            })  # fmt: skip
    return out


def _density(payload: reading.Payload, place: found.Place) -> str:
    row = next(iter(found.at(payload, "quality", place)), {})
    return f"median {two_digits(row.get('median_density'))}, dead {percent(row.get('dead_share'))} of {count(row.get('latents'))}"


def _recovered(payload: reading.Payload, drawn: dict[str, dict]) -> dict[str, Any] | None:
    posed = payload.get("recovered")
    if not posed or not posed.get("rows"):
        return None
    panels = []
    for order, place in enumerate(found.places(payload)):
        if rows := tables.recovered(payload, place):
            first = found.behaviour(payload, place)[0]
            panels.append({"layer": place[0], "name": place[1], "chart": f"recovered_{order}" if f"recovered_{order}" in drawn else "",
                           "rows": rows, "documents": count(first.get("documents")), "answers": count(first.get("answers"))})  # fmt: skip
    told = {**(posed.get("definitions") or {}), **(posed.get("references") or {})}
    return {"panels": panels, "distance": posed.get("distance") or "distance", "notes": posed.get("notes") or [],
            "definitions": [{"name": name.replace("_", " "), "said": said} for name, said in told.items()]}  # fmt: skip


def _definitions(payload: reading.Payload) -> list[dict[str, str]]:
    return [{"name": _DEFINED.get(name, name.replace("_", " ")), "said": said} for name, said in (payload.get("definitions") or {}).items()]


def _identity(payload: reading.Payload) -> dict[str, Any]:
    """The base and the tuned models side by side, without the controls."""
    tuned = {name: side for name, side in (payload.get("tuned") or {}).items() if not name.startswith(found.CONTROL)}
    sides = [payload.get("base") or {}, *tuned.values()]
    kept = [{key: value for key, value in side.items() if key not in _LEFT_OUT} for side in sides]
    return {"heads": ["base", *tuned], "rows": provenance.identity(*kept)}
