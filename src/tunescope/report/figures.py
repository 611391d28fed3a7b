"""Every chart of a comparison as files, PNG and SVG, on white."""

from __future__ import annotations

import re
from pathlib import Path

from tunescope.errors import OutputError
from tunescope.report import elsewhere, outcome_section, reading
from tunescope.report.chart_parts import wrap
from tunescope.report.theme import LIGHT

WIDTH = 760
SCALE = 2


def figures(payload: reading.Payload, folder: str | Path) -> list[Path]:
    """Write each chart as `<name>.png` (twice the pixels) and `<name>.svg` into the folder, made if it is missing; the paths written.

    Names are those of `charts`: depth_curve_<measure>, cross_layer and so on, with one per one-sided
    measure (isotropy).
    Raises OutputError when the folder cannot be made or written.
    """
    import vl_convert

    from tunescope.report import charts

    folder, payload = Path(folder), reading.printable(payload)
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, spec in charts.charts(payload, width=WIDTH).items():
            spec |= {"background": LIGHT["paper"], "padding": 14, "title": _title(payload, name)}
            if name == "cross_layer":
                spec |= {"width": WIDTH * 3 // 4, "height": WIDTH * 3 // 4}
            stem = folder / re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
            png, svg = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg")
            png.write_bytes(vl_convert.vegalite_to_png(spec, scale=SCALE, allowed_base_urls=[]))
            svg.write_text(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]), encoding="utf-8")
            written += [png, svg]
    except OSError as error:
        raise OutputError(f"cannot write figures into {folder}: {error.strerror or error}; give another folder") from error
    return written


def _title(payload: reading.Payload, name: str) -> dict:
    """A figure standing alone says what it shows and of what."""
    outcome = outcome_section.titles(payload).get(name)
    if outcome:
        return {"text": outcome["text"], "subtitle": wrap(outcome["subtitle"], width=110)}
    measure = name.removeprefix("depth_curve_")
    about = reading.about(payload, measure)
    known = {
        "cross_layer": "Every base layer against every tuned layer",
        "width": "Each block’s share of the total change",
        "neighbourhood_curve": "Nearest neighbours kept",
        "ruler": "As far as what? Known disturbances of the same base",
        "published_slopes": "Slope over depth, among published runs",
        "published_width": "Where the change sits, beside published models",
        "weight_change": "How far each block’s weights moved",
        "representation_change": "How far each block’s output moved",
    }
    if name.startswith("elsewhere_"):
        return elsewhere.figure_title(payload, int(name.removeprefix("elsewhere_")))
    text = known.get(name) or (f"Change by layer: {about['title']}" if name.startswith("depth_curve_") else about["title"])
    sides = [_short((payload.get(side) or {}).get("name") or side) for side in ("base", "tuned")]
    rows = (payload.get("data") or {}).get("n")
    return {"text": text, "subtitle": f"{sides[0]} → {sides[1]}" + (f", {rows:,} {reading.unit(payload)}s" if rows else "")}


def _short(name: str, most: int = 44) -> str:
    return name if len(name) <= most else "…" + name[-most + 1 :]
