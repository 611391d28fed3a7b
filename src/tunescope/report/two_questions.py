"""Two questions of every layer: did it change, and does a linear probe read more or less from it? The rows, the table and the words."""

from __future__ import annotations

from typing import Any

from tunescope.report import reading
from tunescope.report.numbers import MISSING, count, interval, p_value, signed, stated, three

Probe = dict[str, Any]
_MAYBE = {"partial_pearson": "Pearson with depth held fixed", "partial_rank": "rank with depth held fixed"}


def probes(payload: reading.Payload) -> list[Probe]:
    """The probe tasks that were read layer by layer."""
    return [found for found in payload.get("outcome_details") or [] if found.get("kind") == "probe" and found.get("layers")]


def measure(payload: reading.Payload) -> str | None:
    """The measure of change: linear CKA where it was taken, else the comparison's own."""
    names = reading.comparing(payload)
    return "cka" if "cka" in names else names[0] if names else None


def rows(payload: reading.Payload, probe: Probe) -> list[dict[str, Any]]:
    """Per layer of the probe: its change with interval, both accuracies, their paired difference with interval, the status."""
    taken = measure(payload)
    by_index = {row["index"]: row for row in reading.layers(payload)}
    by_name = {row["name"]: row for row in reading.sites(payload)}
    out = []
    for layer in probe["layers"]:
        index = layer.get("index")
        place = by_index.get(index, {}) if index is not None else by_name.get(layer["name"], {})
        numbers = reading.entry(place, taken) if taken else {}
        band = reading.change_interval(payload, taken, numbers) if taken else None
        base, tuned = (layer.get(side) or {} for side in ("base", "tuned"))
        out.append({
            "index": index, "name": layer["name"], "depth": layer.get("depth"), "status": str(place.get("status") or MISSING),
            "change": numbers.get("change"), "change_low": band and band[0], "change_high": band and band[1],
            "base": base.get("accuracy"), "tuned": tuned.get("accuracy"), "sides": {"base": base, "tuned": tuned},
            "delta": layer.get("delta"), "low": layer.get("low"), "high": layer.get("high"), "p": layer.get("p"),
        })  # fmt: skip
    return out


def shown(row: dict[str, Any]) -> str:
    """What the interval of the difference shows: better, worse, or nothing."""
    if row["low"] is None or row["high"] is None:
        return ""
    return "better" if row["low"] > 0 else "worse" if row["high"] < 0 else ""


def view(payload: reading.Payload, drawn: dict[str, dict]) -> list[dict[str, Any]]:
    """What the page prints of each probe."""
    return [_view(payload, probe, order, drawn) for order, probe in enumerate(probes(payload))]


def _view(payload: reading.Payload, probe: Probe, order: int, drawn: dict[str, dict]) -> dict[str, Any]:
    chart, found = f"two_questions_{order}", rows(payload, probe)
    about = reading.about(payload, measure(payload) or "")
    association = probe.get("association") or (payload.get("association") if order == 0 else None)
    return {
        "name": probe["name"], "chart": chart if chart in drawn else None, "change": about["change"],
        "lead": _lead(found), "rows": [_row(row) for row in found], "said": _association(association),
        "numbers": _numbers(association), "protocol": _protocol(probe), "fits": _fits(found),
        "unconverged": _unconverged(found), "others": [_other(probe, key, found) for key in ("weak", "mteb") if _layers(probe, key)],
    }  # fmt: skip


def _row(row: dict[str, Any]) -> dict[str, Any]:
    glyph = {"better": "▲", "worse": "▼", "": ""}[shown(row)]
    return {
        "name": row["name"],
        "word": row["status"],
        "status_class": row["status"] if row["status"] in ("untouched", "refined", "rewritten") else "",
        "aside": "",
        "change": three(row["change"]),
        "change_interval": interval(row["change_low"], row["change_high"]),
        "base": three(row["base"]),
        "tuned": three(row["tuned"]),
        "delta": signed(row["delta"]),
        "glyph": glyph,
        "verdict_class": shown(row) or "even",
        "interval": f"[{signed(row['low'])}, {signed(row['high'])}]" if row["low"] is not None and row["high"] is not None else MISSING,
    }


def _lead(found: list[dict[str, Any]]) -> str:
    """From which layers a probe reads better or worse, by their intervals."""
    groups = [(word, [row["name"] for row in found if shown(row) == kind]) for kind, word in (("better", "better"), ("worse", "worse"))]
    parts = [f"{word} from {count(len(names))} ({_named(names)})" for word, names in groups if names]
    total = f"{count(len(found))} place{'' if len(found) == 1 else 's'}"
    if not parts:
        return f"Read by a linear probe, the difference is distinguishable from zero at none of {total}."
    rest = len(found) - sum(len(names) for _, names in groups)
    end = f"; at the other {count(rest)} the difference is not distinguishable from zero" if rest else ""
    return f"Of {total}, a linear probe reads {' and '.join(parts)} after tuning{end}."


def _named(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {count(len(names) - most)} more" if len(names) > most else "")


def _protocol(probe: Probe) -> str:
    """What was trained on how much, and what guessing would give."""
    made = probe.get("protocol") or {}
    classes = count(len(probe.get("classes") or []))
    said = f"{classes} classes, {count(probe.get('train'))} training and {count(probe.get('test'))} held-out rows"
    if probe.get("majority") is not None:
        said += f"; always guessing the most frequent class gives {three(probe['majority'])}"
    parts = [f"probe “{made['name']}”"] if made.get("name") else []
    parts += [f"{made['scaling']} features"] if made.get("scaling") else []
    cs = made.get("Cs") or []
    if len(cs) > 1:
        parts.append(f"C chosen among {', '.join(map(stated, cs))}" + (f" in {made['folds']} folds" if made.get("folds") else ""))
    elif cs:
        parts.append(f"C = {stated(cs[0])}")
    swing = probe.get("swing")
    end = (
        f" The probe’s own settings move accuracy by up to {three(swing)}: smaller differences between unlike probes say nothing."
        if swing
        else ""
    )
    return f"{said}. {', '.join(parts)[:1].upper()}{', '.join(parts)[1:]}{'.' if parts else ''}{end}".strip()


def _fits(found: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Every probe by itself: macro-F1, chosen C and selectivity."""
    if not any(side for row in found for side in row["sides"].values()):
        return []

    def pair(row: dict[str, Any], key: str, say: Any) -> str:
        base, tuned = (row["sides"][side].get(key) for side in ("base", "tuned"))
        return MISSING if base is None and tuned is None else f"{say(base)} → {say(tuned)}"

    return [
        {
            "name": row["name"],
            "f1": pair(row, "macro_f1", three),
            "C": pair(row, "C", stated),
            "selectivity": pair(row, "selectivity", three),
        }
        for row in found
    ]


def _unconverged(found: list[dict[str, Any]]) -> str:
    names = [f"{row['name']} ({side})" for row in found for side, fit in row["sides"].items() if fit.get("converged") is False]
    more = f" and {count(len(names) - 4)} more" if len(names) > 4 else ""
    return f"The solver did not converge at {', '.join(names[:4])}{more}." if names else ""


def _layers(probe: Probe, key: str) -> list[dict[str, Any]]:
    found = probe.get(key)
    listed = found.get("layers") if isinstance(found, dict) else found
    return listed if isinstance(listed, list) else []


def _other(probe: Probe, key: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The same layers under another probe, beside this one's difference."""
    title = {"weak": "A weak probe on the same features", "mteb": "MTEB’s own protocol on the same features"}[key]
    own = {row["name"]: row["delta"] for row in found}
    lines = []
    for layer in _layers(probe, key):
        base, tuned = ((layer.get(side) or {}).get("accuracy") for side in ("base", "tuned"))
        lines.append({"name": layer["name"], "own": signed(own.get(layer["name"])), "base": three(base), "tuned": three(tuned),
                      "delta": signed(layer.get("delta")), "interval": interval(layer.get("low"), layer.get("high"))})  # fmt: skip
    return {"title": title, "rows": lines}


def _association(found: dict[str, Any] | None) -> str:
    return str((found or {}).get("said") or "")


def _numbers(found: dict[str, Any] | None) -> str:
    """The correlations behind the sentence, each with its p-value or the reason there is none."""
    if not found:
        return ""
    parts = []
    for key, word in {"spearman": "Spearman", "pearson": "Pearson", **_MAYBE}.items():
        one = found.get(key)
        if not one:
            continue
        if one.get("value") is None:
            parts.append(f"{word}: {one.get('reason') or 'not taken'}")
        else:
            parts.append(f"{word} {signed(one['value'])}" + (f" ({p_value(one['p'])})" if one.get("p") is not None else ""))
    return f"Change against difference over {count(found.get('n'))} layers: {'; '.join(parts)}." if parts else ""
