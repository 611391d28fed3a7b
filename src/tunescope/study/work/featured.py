"""Which features a tuning wrote: train it where the plan says how, or take what others tuned, and set its dictionary against the base's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import InputError
from tunescope.study.row import Row
from tunescope.study.run_spec import RunSpec
from tunescope.study.work.base_model import load_base, place_of
from tunescope.study.work.measured import Subject, kept
from tunescope.study.work.sources import texts_of
from tunescope.study.work.trained import run_of

if TYPE_CHECKING:
    from tunescope.study.work import Tell

QUALITY = ("r2", "r2_centred", "constant_share", "l0")  # each with its interval over documents
OWN = "tuned"  # what the model is called that the run itself tunes


def featured(spec: RunSpec, folder: Path, tell: Tell) -> Iterator[Row]:
    """Rows of `features.json`: norms, quality, alignment and behaviour recovered by layer. Raises as `ts.features`."""
    from tunescope.comparison.features import features

    base = place_of(spec.model, folder.parent)
    tuned = {model.name: place_of(model, folder.parent) for model in spec.tuned}
    if spec.objective is not None:
        run_of(spec, load_base(spec.model, folder.parent), folder, tell)
        tuned[OWN] = str(kept(folder))
    if not tuned:
        raise InputError(f"the run '{spec.condition}' compares features of nothing; give tuned models, or an objective and an update rule")
    if len(spec.measurement.texts) != 1:
        raise InputError(f"the run '{spec.condition}' reads features on {len(spec.measurement.texts)} text sets; give one")
    texts = spec.measurement.texts[0]
    found = features(
        base, tuned, texts_of(texts), revision=spec.model.revision, out=folder / "features", resume=True, seed=spec.seed,
        progress=lambda stage, done, total: tell(done, total, stage), **_options(spec.measurement.options),
    )  # fmt: skip
    subject = Subject.of(spec)
    for row in feature_numbers(found.payload):
        yield subject.with_(subject="features", texts=texts.name, where=f"block {row['layer']}" if row["layer"] else None, **row)


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """As `ts.features` takes them: dictionaries by their places."""
    found, own = dict(given), given.get("dictionary")
    if isinstance(own, Mapping):
        found["dictionary"] = own["place"] if "place" in own else {layer: _place(each) for layer, each in own.items()}
    return found


def _place(given: Any) -> Any:
    return given["place"] if isinstance(given, Mapping) else given


def feature_numbers(payload: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """layer, task (the tuned model's name), measure, value and what stands beside it, of every row of features.json that a study reads."""
    for row in payload["norms"]:
        at = {"layer": row["layer"], "task": row["name"]}
        yield at | {"measure": "delta_norm", "value": row["norm"]}
        yield at | {"measure": "relative_delta_norm", "value": row["relative"]}
    for row in payload["quality"]:
        at = {"layer": row["layer"], "task": f"{row['name']}, seed {row['seed']}", "n": row["rows"]}
        for measure in QUALITY:
            cell = row[measure]
            yield at | {"measure": measure, "value": cell["value"], "low": cell["low"], "high": cell["high"]}
        yield at | {"measure": "density", "value": row["density"]}
        yield at | {"measure": "dead_share", "value": row["dead_share"]}
    for row in _strictest(payload["alignment"]):
        at = {"layer": row["layer"], "task": f"{row['name']}, {row['sides']}", "n": row["n"]}
        yield at | {"measure": row["comparison"], "null": row["floor"], "null_sd": row["floor_sd"]} | _interval(row, "value", "")
        if row["ceiling"] is not None:
            yield at | {"measure": f"{row['comparison']}_ceiling", "value": row["ceiling"]}
    for row in (payload["recovered"] or {"rows": ()})["rows"]:
        at = {"layer": row["layer"], "task": f"{row['adapter']}, {row['spliced']}", "n": row["documents"]}
        yield at | {"measure": "behaviour_recovered"} | _interval(row, "closed", "closed_")


def _strictest(alignment: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where one number stands against two floors, as the overlap of spans does, the higher floor stays."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in sorted(alignment, key=lambda row: row["floor"] or 0.0):
        found[tuple(row[key] for key in ("layer", "name", "comparison", "sides"))] = row
    return [row for row in alignment if any(row is each for each in found.values())]


def _interval(row: Mapping[str, Any], value: str, prefix: str) -> dict[str, Any]:
    return {"value": row[value], "low": row[f"{prefix}low"], "high": row[f"{prefix}high"]}
