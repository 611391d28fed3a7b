"""What was measured, in words: the two models, the texts, the ruler and the measures."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading
from tunescope.report.numbers import MISSING, count, seconds, short_hash, three

_IDENTITY = {"name": "name", "family": "family", "layers": "blocks", "width": "width", "parameters": "parameters", "dtype": "precision",
             "revision": "revision", "adapter": "adapter", "weights_sha256": "weights, sha256", "tokenizer_sha256": "tokenizer, sha256",
             "derived": "anatomy", "rows_sha256": "rows, sha256", "declared": "declared of the tuning"}  # fmt: skip


def _shown(key: str, value: Any) -> dict[str, str]:
    full = ""
    if value is None or value in ("", [], {}):
        shown = MISSING
    elif key.endswith("sha256"):
        shown, full = short_hash(value), str(value)
    elif key == "derived":
        shown = "derived from the module tree" if value else "a known family"
    elif isinstance(value, bool):
        shown = "yes" if value else "no"
    elif isinstance(value, int):
        shown = count(value)
    elif key == "pooling" and value == "none":
        shown = "none: rows are tokens, those of output texts"
    elif isinstance(value, dict):
        shown = ", ".join(f"{k} {said}" for k, v in value.items() if (said := _shown(k, v)["shown"]) != MISSING) or MISSING
    elif isinstance(value, list | tuple):
        shown = ", ".join(map(str, value))
    else:
        shown = str(value)
    return {"shown": shown, "full": full}


def identity(*sides: dict) -> list[dict[str, Any]]:
    """A line a property, a cell a model; properties that none has are left out."""
    named = {key: None for side in sides for key in side}
    keys = [key for key in _IDENTITY if key in named] + [key for key in named if key not in _IDENTITY]
    rows: list[dict[str, Any]] = [
        {"label": _IDENTITY.get(key, key.replace("_", " ")), "cells": [_shown(key, side.get(key)) for side in sides]}
        for key in keys
    ]
    return [row for row in rows if any(cell["shown"] != MISSING for cell in row["cells"])]


def kept(payload: reading.Payload) -> list[dict[str, str]]:
    """The texts, versions and times of the measurement."""
    data = payload.get("data") or {}
    labels = {"n": "texts", "source": "source", "sampled_from": "sampled from", "pooling": "pooling", "max_length": "cut at, tokens",
              "truncated": "texts cut", "tokens": "tokens", "rows": "rows compared", "prompt": "prompt", "seed": "seed",
              "batch_size": "batch size", "sha256": "texts, sha256"}  # fmt: skip
    if reading.unit(payload) == "row":
        labels["n"], labels["source"] = "rows", "rows were"
        data = {key: value for key, value in data.items() if key != "rows"}
    rows = told(data, labels)
    if payload.get("versions"):
        rows.append(
            {"label": "versions", "shown": ", ".join(f"{name} {version}" for name, version in payload["versions"].items()), "full": ""}
        )
    if payload.get("seconds"):
        rows.append(
            {"label": "time", "shown": ", ".join(f"{name} {seconds(value)}" for name, value in payload["seconds"].items()), "full": ""}
        )
    return rows


def told(found: dict[str, Any], labels: dict[str, str]) -> list[dict[str, str]]:
    """What is known of something, a line a key: those with a label first, the others by their own names, unknown values left out."""
    keys = [*labels, *(key for key in found if key not in labels)]
    rows = [{"label": labels.get(key, key.replace("_", " ")), **_shown(key, found[key])} for key in keys if key in found]
    return [row for row in rows if row["shown"] != MISSING]


def controls(payload: reading.Payload) -> list[dict[str, str]]:
    names = reading.comparing(payload)
    out = []
    for control in payload.get("controls") or []:
        changes = [reading.entry(row, names[0]).get("change") for row in control["layers"]] if names else []
        largest = max((change for change in changes if change is not None), default=None)
        said = [str(control["note"])] if control.get("note") else []
        said += [f"largest change {three(largest)} ({reading.about(payload, names[0])['change']})"] if largest is not None else []
        out.append({"name": control["name"], "said": "; ".join(said)})
    return out


def definition(payload: reading.Payload, name: str) -> dict[str, str]:
    about = reading.about(payload, name)
    ends = about.get("range") or []
    shown = [three(end) if end is not None else "∞" for end in ends]
    url = str(about.get("reference") or "")
    return {
        "name": name, "title": about["title"], "direction": about.get("direction") or MISSING,
        "range": f"{'−' if ends and ends[0] is None else ''}{' to '.join(shown)}" if len(ends) == 2 else "",
        "change": about["change"], "interval": about.get("interval") or MISSING, "null": about.get("null") or "none",
        "invariances": ", ".join(about.get("invariances") or []) or "nothing",
        "url": url if url.startswith(("https://", "http://")) else "",
    }  # fmt: skip
