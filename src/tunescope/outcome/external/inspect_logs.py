"""Evaluation logs of Inspect: .eval (a zip of JSON) and .json, one a task.

Reference: https://inspect.aisi.org.uk/eval-logs.html; inspect_ai/log/_log.py and inspect_ai/log/_recorders/eval.py
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow

from tunescope.errors import FormatError, InputError
from tunescope.outcome.external.measured import Measured, number, read_json

GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # correct, partial, incorrect, no answer
WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
# Scorers that come with Inspect and give 1 for right and 0 for wrong.
SCORERS = frozenset(("answer", "choice", "exact", "includes", "match", "math", "model_graded_fact", "model_graded_qa", "pattern"))
ZSTANDARD = 93  # how a current .eval is compressed; the standard library reads it from Python 3.14 on


def read_inspect(path: Path, metric: str | None = None) -> list[Measured]:
    """Every task × scorer of a log, or of the newest log of each task under a folder. `metric`: read no other, where there
    is such a one.

    Grades count as Inspect counts them (C 1, P ½, I and N 0). An item run for several epochs scores their mean. A sample without a
    score (it failed, or its scorer gave NaN, Inspect's "unscored") is counted and left out, as Inspect's own metrics leave it out.

    Raises FormatError (not a log of Inspect), InputError (two models in a folder, a sample twice, a score that is no number).
    """
    logs = [(path, _log(path))] if not path.is_dir() else [(file, _log(file)) for file in log_files(path)]
    models = sorted({str(log["eval"].get("model")) for _, log in logs})
    if len(models) > 1:
        listed = ", ".join(models)
        raise InputError(f"{path}: the logs of {len(models)} models are in it ({listed}); put each model's in a folder of its own")
    tasks: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for file, log in logs:
        tasks.setdefault(log["eval"]["task"], []).append((file, log))
    found: list[Measured] = []
    for task, runs in tasks.items():
        *older, (file, log) = sorted(runs, key=lambda run: str(run[1]["eval"].get("created")))
        passed = f"{task}: {file.name} is read, the newest of {len(runs)} logs; name a file to read another"
        found += _tasks(file, log, (passed,) if older else (), metric)
    return found


def log_files(folder: Path) -> list[Path]:
    """The logs under a folder, at any depth: every .eval, and each .json that begins as a log does."""
    return sorted([*folder.rglob("*.eval"), *(file for file in folder.rglob("*.json") if is_log(file))])


def is_log(file: Path) -> bool:
    """Whether a .json is a log of Inspect, by its first keys."""
    with file.open("rb") as opened:
        start = opened.read(400)
    return b'"version"' in start and b'"status"' in start and b'"eval"' in start


def _log(file: Path) -> dict[str, Any]:
    """The log with `eval` (task, model, config) and `samples`, whichever way it is stored."""
    if file.suffix == ".eval":
        return _zipped(file)
    log = read_json(file)
    if not isinstance(log.get("eval"), dict) or "task" not in log["eval"]:
        raise FormatError(f"{file}: no log of Inspect: it has no 'eval' with a 'task'")
    if not log.get("samples"):
        raise FormatError(f"{file}: no samples in this log; it was written with --no-log-samples, or the evaluation had not begun")
    if not all(isinstance(sample, dict) and {"id", "epoch"} <= sample.keys() for sample in log["samples"]):
        raise FormatError(f"{file}: a sample of it has no 'id' or no 'epoch', which every log of Inspect has; was the file edited?")
    return log


def _zipped(file: Path) -> dict[str, Any]:
    """A log from a .eval: its header, and the summaries, which hold every sample's scores without its messages."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            header = "header.json" if "header.json" in names else "_journal/start.json"
            journal = sorted((name for name in names if name.startswith("_journal/summaries/")), key=lambda name: int(Path(name).stem))
            parts = ["summaries.json"] if "summaries.json" in names else journal
            if header not in names or not parts:
                raise FormatError(f"{file}: no log of Inspect: {header} or the summaries of samples are missing; was the run cut short?")
            log = json.loads(_member(file, archive, header))
            rows = [row for part in parts for row in json.loads(_member(file, archive, part))]
    except zipfile.BadZipFile as error:
        raise FormatError(f"{file}: not a whole .eval ({error}); was it copied while it was being written?") from error
    # A sample that was run again stands in the journal twice, the later run after the first.
    samples = {(row["id"], row["epoch"]): row for row in rows}
    return {"status": log.get("status", "started"), "eval": log["eval"], "samples": list(samples.values())}


def _member(file: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """A member's bytes, Zstandard included."""
    info = archive.getinfo(name)
    if info.compress_type != ZSTANDARD:
        return archive.read(name)
    with file.open("rb") as raw:
        raw.seek(info.header_offset + 26)  # where a local header has the lengths of its name and extra field
        raw.seek(sum(struct.unpack("<HH", raw.read(4))), 1)
        packed = raw.read(info.compress_size)
    data = pyarrow.CompressedInputStream(pyarrow.BufferReader(packed), "zstd").read()
    if zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile(f"{name} is damaged")
    return data


def _tasks(file: Path, log: dict[str, Any], warnings: tuple[str, ...], asked: str | None) -> Iterator[Measured]:
    task, samples = log["eval"]["task"], log["samples"]
    if log.get("status") != "success":
        warnings += (f"{task}: {file.name} has the status '{log.get('status')}': not all samples may be in it",)
    epochs = len({sample["epoch"] for sample in samples})
    if epochs > 1:
        warnings += (f"{task}: an item's score is the mean of its {epochs} epochs",)
    values, graded, left_out = _values(file, samples, asked)
    warnings += tuple(f"{task}: '{metric}' is left out: its scores are lists" for metric in left_out)
    if not values:
        raise FormatError(f"{file}: no sample of it has a score; was the evaluation run with --no-score?")
    ids = {str(sample["id"]) for sample in samples}
    kept = "start of the " if file.suffix == ".eval" else ""  # summaries shorten what a sample asks
    checks = {f"{kept}{key}": {str(sample["id"]): _content(sample.get(key)) for sample in samples} for key in ("input", "target")}
    for place, (metric, scored) in enumerate(values.items()):
        yield Measured(
            task=task,
            metric=metric,
            scores={item: math.fsum(runs) / len(runs) for item, runs in scored.items()},
            source=str(file),
            checks=checks,
            higher_is_better=True if metric in graded or metric in SCORERS else None,
            unscored=len(ids) - len(scored),
            warnings=warnings if place == 0 else (),
        )


def _values(
    file: Path, samples: list[dict[str, Any]], asked: str | None
) -> tuple[dict[str, dict[str, list[float]]], set[str], list[str]]:
    """Scores by metric and item, one an epoch; the metrics that are grades or yes and no; those that are lists."""
    seen: set[tuple[str, int]] = set()
    values: dict[str, dict[str, list[float]]] = {}
    graded: set[str] = set()
    lists: dict[str, None] = {}
    only = any(asked == metric for sample in samples for metric, _ in _flat(sample.get("scores") or {}))
    for sample in samples:
        item, epoch = str(sample["id"]), sample["epoch"]
        if (item, epoch) in seen:
            raise InputError(f"{file}: sample '{item}' is there twice for epoch {epoch}; every id may have one score an epoch")
        seen.add((item, epoch))
        for metric, value in _flat(sample.get("scores") or {}):
            if only and metric != asked:
                continue
            if isinstance(value, list):
                lists[metric] = None
            elif value is not None and not (isinstance(value, float) and math.isnan(value)):
                score = GRADES.get(value, WORDS.get(value.lower())) if isinstance(value, str) else None
                if score is not None or isinstance(value, bool):
                    graded.add(metric)
                score = number(value, f"{file}, sample '{item}'", metric) if score is None else score
                values.setdefault(metric, {}).setdefault(item, []).append(score)
    return values, graded, list(lists)


def _flat(scores: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Scorer and value; a scorer that gives several is one metric each."""
    for scorer, score in scores.items():
        value = score.get("value") if isinstance(score, dict) else score
        if isinstance(value, dict):
            yield from ((f"{scorer}/{key}", part) for key, part in value.items())
        else:
            yield scorer, value


def _content(value: Any) -> str:
    """A hash of what a sample asks or expects; a message's id is drawn anew in every run and is not part of it."""
    if isinstance(value, list):
        value = [[part.get("role"), part.get("content")] if isinstance(part, dict) else part for part in value]
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
