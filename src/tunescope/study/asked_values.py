"""Whether the values of a schedule, a measurement and an exclusion can be, where only the run would say so, after minutes or hours."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import InputError, UnknownName
from tunescope.study import known
from tunescope.study.embedded import DOCSTRINGS, PLACES
from tunescope.study.run_spec import Measurement, Pretraining, Source
from tunescope.texts.hub import PREFIX

if TYPE_CHECKING:
    from tunescope.study.plan import Block

_WHOLE = {"steps": 1, "max_length": 2, "batch_size": 1, "accumulate": 1, "warmup": 0}  # the least
_ABOVE_ZERO = ("epochs", "lr", "drawn_lr")
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
_BITS = range(2, 9)


def check_schedule(schedule: Mapping[str, Any], *, where: str) -> None:
    """Raises UnknownName or InputError for a key or value that no run can have."""
    _named("key", schedule, known.SCHEDULE, where)
    if "steps" in schedule and "epochs" in schedule:
        raise InputError(f"{where}: steps and epochs are both given; a run is as long as one of them says")
    for key, value in schedule.items():
        if key in _WHOLE and not (_number(value) and isinstance(value, int) and value >= _WHOLE[key]):
            raise InputError(f"{where}: {key} = {value!r} found; give a whole number from {_WHOLE[key]}")
        if key in _ABOVE_ZERO and not (_number(value) and value > 0):
            raise InputError(f"{where}: {key} = {value!r} found; give a number above 0")
        if key == "clip" and not (_number(value) and value >= 0):
            raise InputError(f"{where}: clip = {value!r} found; give a number from 0")
        if key == "activation_checkpointing" and not isinstance(value, bool):
            raise InputError(f"{where}: activation_checkpointing = {value!r} found; give true or false")
        if key == "checkpoints" and not (isinstance(value, list) and all(_number(each) and each >= 0 for each in value)):
            raise InputError(f"{where}: checkpoints = {value!r} found; give a list of epochs or steps, as the run's length is given")
    _named("precision", [schedule[key] for key in ("precision",) if key in schedule], known.PRECISIONS, where)
    _named("schedule", [schedule[key] for key in ("schedule",) if key in schedule], known.SCHEDULES, where)


def check_length(schedule: Mapping[str, Any], *, where: str) -> None:
    """That there is one, and that checkpoints lie within it. schedule: of one run, put together. Raises InputError."""
    if "steps" not in schedule and "epochs" not in schedule:
        raise InputError(f"{where}: how long it is to be trained is not said; give epochs or steps in [schedule]")
    unit, length = ("step", schedule["steps"]) if "steps" in schedule else ("epoch", schedule["epochs"])
    for point in schedule.get("checkpoints", ()):
        if point > length:
            raise InputError(f"{where}: a checkpoint at {unit} {point:g} asked for, and the run has {length:g}; leave it out")
        if unit == "step" and point != int(point):
            raise InputError(f"{where}: a checkpoint at step {point:g} asked for, and the run is {length} steps; give whole steps")


def check_sizes(asked: Pretraining, *, where: str) -> None:
    """That a model of these sizes can be made, as far as its config alone says so. Raises InputError."""
    config = asked.config
    for key in _SIZES:
        if key in config and not (_number(config[key]) and isinstance(config[key], int) and config[key] >= 1):
            raise InputError(f"{where}: {key} = {config[key]!r} found; give a whole number from 1")
    width, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if width and heads and width % heads:
        raise InputError(f"{where}: hidden_size = {width} is no multiple of num_attention_heads = {heads}; heads share the width evenly")
    positions = config.get("max_position_embeddings", asked.max_length)
    if positions < asked.max_length:
        raise InputError(f"{where}: max_length = {asked.max_length} asked for, and max_position_embeddings = {positions}; give as many")


def check_options(options: Mapping[str, Any], *, where: str) -> None:
    """That the numbers of an update rule can be. Raises InputError."""
    for key, value in options.items():
        if key not in known.OPTION_RANGES or (key == "tau" and isinstance(value, str)):
            continue
        whole, least, included, most = known.OPTION_RANGES[key]
        fits = _number(value) and (isinstance(value, int) or not whole) and (value >= least if included else value > least)
        if not fits or value > most or (key == "dropout" and value == most):
            range_ = f"a {'whole ' if whole else ''}number {'from' if included else 'above'} {least:g}"
            raise InputError(f"{where}: {key} = {value!r} found; give {range_}{'' if math.isinf(most) else f' to {most:g}'}")


def check_amounts(amounts: Mapping[str, float], *, where: str) -> None:
    """That a perturbation can be of these. Raises InputError."""
    for key, value in amounts.items():
        if not _number(value) or (key in ("sigma", "scale") and value <= 0) or (key == "bits" and value not in _BITS):
            range_ = "a whole number from 2 to 8" if key == "bits" else "a number" + (" above 0" if key != "alpha" else "")
            raise InputError(f"{where}: {key} = {value!r} found; give {range_}")


def check_measurement(asked: Measurement, *, where: str) -> None:
    """Raises UnknownName or InputError for what is named twice or known to nothing that measures."""
    for key in ("texts", "labels", "retrieval", "lm", "measures"):
        names = [each.name if isinstance(each, Source) else each for each in getattr(asked, key)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{where}.{key}: '{twice}' is named twice; name it once")
    _named("pooling", [asked.options[key] for key in ("pooling",) if key in asked.options], known.POOLINGS, f"{where}.options")
    for key, choices in (("dtype", known.PRECISIONS), ("method", known.METHODS)):
        _named(key, [asked.options[key]] if key in asked.options else [], choices, f"{where}.options")
    for key, least in (("batch_size", 1), ("max_length", 1)):
        value = asked.options.get(key, least)
        if not (_number(value) and isinstance(value, int) and value >= least):
            raise InputError(f"{where}.options: {key} = {value!r} found; give a whole number from {least}")
    if asked.labels and asked.options.get("pooling") == "none":
        raise InputError(f"{where}: labels are of texts, and pooling = \"none\" gives a row a token; pool, or leave labels out")
    for key, sources in (("lm", asked.lm), ("retrieval", asked.retrieval)):
        prompted = next((source for source in sources if source.prompt is not None), None)
        if prompted is not None:
            raise InputError(f"{where}.{key}: sources.{prompted.name} has a prompt, which {key} puts before nothing; name one without")


def check_layers(asked: Measurement, count: int | None, *, where: str) -> None:
    """That the model has the layers that are read. count: its blocks, None where that is not known. Raises InputError."""
    layers = asked.options.get("layers", [])
    given = layers if isinstance(layers, list) else [layers]
    if not all(isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0 for layer in given):
        raise InputError(f"{where}.options: layers = {layers!r} found; give whole numbers from 0, such as [3, 6]")
    if count is not None and given and max(given) > count:
        raise InputError(f"{where}.options: layer {max(given)} asked for, and the model has {count} blocks")


def check_labels(source: Source, *, where: str) -> None:
    """That a file which is here has the column of classes. Raises InputError, UnknownName."""
    column, columns = source.labels or "label", _columns(source.place)
    if columns is None or column in columns:
        return
    if not columns:
        raise InputError(f"{where}: sources.{source.name} has texts only, and labels need a column of classes; give a table or jsonl")
    raise UnknownName(f"column of labels of sources.{source.name}", column, columns)


def check_excluded(block: Block, *, where: str) -> None:
    """That what is left out would be there: a name with an error in it leaves nothing out. Raises UnknownName."""
    axes: dict[str, tuple[Any, ...]] = {
        "model": block.models, "objective": block.objectives, "update": block.updates, "seed": block.seeds, "corpus": block.corpora,
        "views": block.views, "change": block.changes, "tuned": block.tuned, "anchors": tuple(map(list, block.anchors)),
    }  # fmt: skip
    for pattern in block.exclude:
        _named("axis", pattern, axes, where)
        for axis, value in pattern.items():
            for each in value if isinstance(value, list) and axis != "anchors" else [value]:
                if each not in axes[axis]:
                    raise UnknownName(f"{axis} of {where}", str(each), [str(one) for one in axes[axis]])


def check_target(to: str, *, where: str) -> None:
    """That a distance to move to names a measure that tells distance, and a value. Raises UnknownName, InputError."""
    name, _, value = (part.strip() for part in to.partition("="))
    _named("measure", [name], known.TARGETS, f"{where}.to")
    try:
        if math.isfinite(float(value)):
            return
    except ValueError:
        pass
    raise InputError(f"{where}: to = '{to}' asked for; give one measure and its value, such as nps=.48")


def _columns(place: str) -> list[str] | None:
    """Of a table's head; none of plain texts; None where it cannot be told, and reading will."""
    if place in PLACES:
        return ["package"] if place == DOCSTRINGS else []
    path = Path(place)
    kind = path.suffix.lower()
    if place.startswith(PREFIX) or not path.is_file() or kind not in (".txt", ".csv", ".tsv", ".jsonl"):
        return None
    if kind == ".txt":
        return []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            if kind == ".jsonl":
                first = json.loads(next((line for line in file if line.strip()), "null"))
                return list(first) if isinstance(first, dict) else None
            return next(csv.reader(file, delimiter="\t" if kind == ".tsv" else ","), None)
    except (UnicodeDecodeError, ValueError, csv.Error):
        return None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _named(kind: str, names: Iterable[Any], known_names: Iterable[str], where: str) -> None:
    names_there = list(known_names)
    for name in names:
        if name not in names_there:
            raise UnknownName(f"{kind} of {where}", str(name), names_there)
