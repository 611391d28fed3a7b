"""The page of a study: what it found, how it departed from what was registered, and every analysis of its ledger as a picture."""

from __future__ import annotations

from typing import Any

from tunescope.report import provenance, reading, study_words
from tunescope.report.numbers import MISSING, count, seconds, short_hash, three
from tunescope.report.page import filled
from tunescope.report.study_blocks import Block, Sheet, fold, table

Payload = dict[str, Any]
MOST = 30  # runs that failed or have not ended, before the others are counted


def study_report(payload: Payload) -> str:
    """The self-contained page of a study, as text to write in UTF-8; it makes no request. payload: of `study.reporting.study_payload`."""
    payload = reading.printable(payload)
    sections, drawn = _sections(payload)
    return filled("study.html.j2", _view(payload, sections, drawn), drawn)


def study_charts(payload: Payload) -> dict[str, dict]:
    """Every chart of the page by name: profile_0, slope_0, …"""
    return _sections(reading.printable(payload))[1]


def _sections(payload: Payload) -> tuple[list[Block], dict[str, dict]]:
    from tunescope.report.charts import finished
    from tunescope.report.study_among_section import among_sections
    from tunescope.report.study_depth_section import depth_sections
    from tunescope.report.study_distance_section import distance_sections
    from tunescope.report.study_feature_section import feature_sections
    from tunescope.report.study_outcome_section import outcome_sections
    from tunescope.report.study_path_section import path_sections
    from tunescope.report.study_sign_section import sign_sections

    sheet, sections = Sheet(), []
    for make in (outcome_sections, path_sections, depth_sections, sign_sections, distance_sections, feature_sections, among_sections):
        sections += list(make(payload, sheet))
    return sections, finished(sheet.draw)


def _view(payload: Payload, sections: list[Block], drawn: dict[str, dict]) -> dict[str, Any]:
    """Everything the template prints, as strings."""
    plan, sealed = payload.get("plan") or {}, payload.get("sealed")
    made = str(payload["created"])[:16].replace("T", " ")
    found = list(study_words.findings(payload))
    told = study_words.headline(payload)
    return {
        "version": payload["tunescope"],
        "name": payload["name"],
        "about": plan.get("about") or "",
        "progress": study_words.progress(payload),
        "headline": told,
        "findings": [said for said in found if said not in told],
        "deviations": payload["deviations"],
        "verdicts": [_verdict(verdict) for verdict in payload["verdicts"]],
        "sealed": _sealed(sealed),
        "warnings": (sealed or {}).get("warnings") or [],
        "runs": _runs(payload["runs"]),
        "begun": bool(payload["runs"]["counts"].get("done")),
        "told": set(payload["runs"]["counts"]) > {"done"},
        "sections": sections,
        "drawn": set(drawn),
        "kept": _kept(payload),
        "footer": f"Written by tunescope {payload['tunescope']} on {made}. This file loads nothing and sends nothing.",
    }


def _verdict(verdict: dict[str, Any]) -> dict[str, Any]:
    numbers = verdict.get("numbers") or []
    spread = [number["value"] for number in numbers]
    runs = f"{count(len(spread))} run{'' if len(spread) == 1 else 's'}"
    over = f"{runs}, {three(min(spread))} to {three(max(spread))}" if len(spread) > 1 else runs if spread else ""
    return {
        "name": verdict["name"],
        "says": verdict["says"],
        "state": verdict["state"],
        "state_class": study_words.STATES.get(verdict["state"], ""),
        "why": verdict["why"],
        "predicted": verdict["predicted"],
        "value": three(verdict.get("value")),
        "over": over,
        "window": three(verdict["window"]) if verdict.get("window") is not None else "",
    }


def _sealed(sealed: dict[str, Any] | None) -> dict[str, str] | None:
    if not sealed:
        return None
    return {"when": str(sealed["sealed"])[:16].replace("T", " ") + " UTC", "hash": short_hash(sealed["hash"]), "full": str(sealed["hash"])}


def _runs(runs: dict[str, Any]) -> dict[str, Any]:
    """A line a kind and model, those that failed with the reason, those that have not ended."""
    kinds = [
        [
            kind["kind"],
            kind["model"],
            count(kind["runs"]),
            count(kind["conditions"]),
            count(kind["seeds"]) if kind["seeds"] else MISSING,
            _hours(kind["seconds"]),
            f"{count(kind['peak_mb'])} MB" if kind["peak_mb"] else MISSING,
        ]
        for kind in runs["kinds"]
    ]
    heads = ["kind", "model", "runs", "conditions", "seeds", "time", "peak memory"]
    used = [order for order in range(len(heads)) if order < 4 or any(row[order] != MISSING for row in kinds)]
    body = table("Runs", [heads[i] for i in used], [[row[i] for i in used] for row in kinds], words=(1,))
    waiting = [
        f"{run['name']}: {run['state']}" + (f", step {count(run['step'])} of {count(run['steps'])}" if run["steps"] else "")
        for run in runs["unfinished"]
    ]
    return {
        "table": None if not kinds else body if len(kinds) <= 8 else fold(f"By kind and model: {count(len(kinds))} lines", body),
        "failed": runs["failed"][:MOST],
        "more_failed": count(len(runs["failed"]) - MOST) if len(runs["failed"]) > MOST else "",
        "waiting": waiting[:MOST],
        "more_waiting": count(len(waiting) - MOST) if len(waiting) > MOST else "",
    }


def _hours(value: float | None) -> str:
    return MISSING if value is None else seconds(value) if value < 3600 else f"{value / 3600:,.1f} h"


def _kept(payload: Payload) -> list[dict[str, str]]:
    found, plan = payload["provenance"], payload.get("plan") or {}
    rows = provenance.told(
        {
            "studies": payload["studies"],
            "plan": plan.get("name"),
            "plan_sha256": plan.get("sha256"),
            "sealed_sha256": (payload.get("sealed") or {}).get("hash"),
            "rows": found["rows"],
            "rows_sha256": found["rows_sha256"],
            "identities": found["identities"] or None,
            "texts": found["texts"],
            "schemas": found["schemas"],
            "read_from": payload.get("source"),
        },
        {
            "studies": "studies",
            "plan": "plan",
            "plan_sha256": "plan, sha256",
            "sealed_sha256": "registration, sha256",
            "rows": "rows of the ledger",
            "rows_sha256": "rows, sha256",
            "identities": "different things measured",
            "texts": "text sets",
            "schemas": "schema of the rows",
            "read_from": "read from",
        },
    )
    rows += [{"label": f"made with, {count(line['runs'])} runs", "shown": line["versions"], "full": ""} for line in found["versions"][:6]]
    return rows
