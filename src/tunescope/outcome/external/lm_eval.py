"""Sample logs of lm-evaluation-harness: `lm_eval … --log_samples` writes samples_<task>_<time>.jsonl, one item a line and filter.

Reference: https://github.com/EleutherAI/lm-evaluation-harness, lm_eval/loggers/evaluation_tracker.py and lm_eval/api/task.py
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tunescope.errors import FormatError, InputError
from tunescope.outcome.external.measured import Measured, number, once, read_json

NAME = re.compile(r"samples_(?P<task>.+)_(?P<time>\d{4}-\d\d-\d\dT[\d.-]+)")
# What a line holds beside its metrics.
LOGGED = frozenset(("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash"))
LOGGED |= {"target_hash"}
# Logged as (log-likelihood of the text, its words or bytes): the harness makes a perplexity of the sums, not of the items.
SUMS = {"word_perplexity": ("log_word_perplexity", 1.0), "byte_perplexity": ("log_byte_perplexity", 1.0)}
SUMS["bits_per_byte"] = ("bits_per_byte", math.log(2))


def read_lm_eval(path: Path, metric: str | None = None) -> list[Measured]:
    """Every task × filter × metric of a samples file, or of the newest samples file of each task under a folder.
    `metric`: read no other, where there is such a one.

    `perplexity` is logged as a log-likelihood, and `word_perplexity`, `byte_perplexity` and `bits_per_byte` as a log-likelihood and a
    count: the per-item score is then −log-likelihood (in bits for `bits_per_byte`), so that its (weighted) mean is the logarithm of the
    harness's own figure (its own figure for `bits_per_byte`). A metric that is no number per item, such as the pairs of a corpus F1,
    is left out with a warning.

    Raises FormatError (no such log), InputError (two models in a folder, an item twice, a score that is no finite number).
    """
    return [measured for file, warnings in _newest(path) for measured in _read(file, warnings, metric)]


def sample_files(folder: Path) -> list[Path]:
    """The samples files under a folder, at any depth."""
    return sorted(folder.rglob("samples_*.jsonl"))


def _newest(path: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The files to read, and what was passed over for each."""
    if not path.is_dir():
        yield path, ()
        return
    files = sample_files(path)
    homes = sorted({file.parent for file in files})
    if len(homes) > 1:
        listed = ", ".join(str(home.relative_to(path)) for home in homes)
        raise InputError(f"{path}: the logs of {len(homes)} models or runs are in it ({listed}); name one of these folders")
    tasks: dict[str, list[Path]] = {}
    for file in files:
        tasks.setdefault(_task(file), []).append(file)
    for task, runs in tasks.items():
        *older, newest = sorted(runs, key=lambda file: file.name)  # the name ends in the time
        passed = f"{task}: {newest.name} is read, the newest of {len(runs)} runs; name a file to read another" if older else ""
        yield newest, (passed,) if passed else ()


def _task(file: Path) -> str:
    named = NAME.fullmatch(file.stem)
    return named["task"] if named else file.stem.removeprefix("samples_")


def _read(file: Path, warnings: tuple[str, ...], asked: str | None) -> Iterator[Measured]:
    lines = list(_lines(file))
    if not lines:
        raise FormatError(f"{file}: no items in it; was the evaluation cut short?")
    filters: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for place, line in lines:
        filters.setdefault(str(line.get("filter", "none")), []).append((place, line))
    said, found = _directions(file), []
    for name, rows in filters.items():
        metrics = rows[0][1].get("metrics") or [key for key in rows[0][1] if key not in LOGGED]
        for metric in metrics:
            values = [row.get(metric) for _, row in rows]
            if metric not in SUMS and not any(isinstance(value, (bool, int, float)) for value in values):
                warnings += (f"{_task(file)}: '{metric}' is left out: the harness computes it over all items at once, no item has a score",)
                continue
            found.append((name, metric, rows))
    if not found:
        raise FormatError(f"{file}: no metric with a score per item in it; was it written by lm_eval with --log_samples?")
    chosen = [part for part in found if asked is not None and asked.split(",")[0].removeprefix("log_") == part[1]]
    for count, (name, metric, rows) in enumerate(chosen or found):
        yield _measured(file, name, metric, rows, said, warnings if count == 0 else ())


def _measured(
    file: Path, filtered: str, metric: str, rows: list[tuple[str, dict[str, Any]]], said: Mapping[str, bool], warnings: tuple[str, ...]
) -> Measured:
    """The scores of one filter and metric."""
    places: dict[str, str] = {}
    scores: dict[str, float] = {}
    weights: dict[str, float] = {}
    for place, row in rows:
        item = str(row["doc_id"])
        once(places, item, place, str(file))
        if metric in SUMS:
            scores[item], weights[item] = _sums(row.get(metric), f"{file}, {place}", metric)
        else:
            scores[item] = number(row.get(metric), f"{file}, {place}", metric)
    label, higher = metric, said.get(metric)
    if metric in SUMS:
        label, higher = SUMS[metric][0], False
    elif metric == "perplexity" and max(scores.values()) <= 0:  # a perplexity is at least 1: these are log-likelihoods
        label, higher = "log_perplexity", False
        scores = {item: -score for item, score in scores.items()}
    return Measured(
        task=_task(file),
        metric=label if filtered == "none" else f"{label},{filtered}",
        scores=scores,
        source=str(file),
        checks={key: _hashes(rows, key) for key in ("doc_hash", "target_hash")},
        prompts=_hashes(rows, "prompt_hash"),
        weights=weights,
        higher_is_better=higher,
        warnings=warnings,
    )


def _sums(value: Any, place: str, metric: str) -> tuple[float, float]:
    """The loss summed over an item's text, and how many words or bytes that is."""
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f"{place}: {metric} is {value!r:.40}, not [log-likelihood, count] as lm_eval logs it; was the file edited?")
    loglikelihood, count = (number(part, place, metric) for part in value)
    return -loglikelihood / SUMS[metric][1], count


def _hashes(rows: Iterable[tuple[str, dict[str, Any]]], key: str) -> dict[str, str]:
    return {str(row["doc_id"]): row[key] for _, row in rows if isinstance(row.get(key), str)}


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's name and what it holds."""
    with file.open("rb") as lines:
        for count, text in enumerate(lines, 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                reason = getattr(error, "msg", None) or "not UTF-8"
                raise FormatError(f"{file}, line {count:,}: not JSON ({reason}); was the evaluation cut short?") from error
            if not isinstance(line, dict) or "doc_id" not in line:
                raise FormatError(f"{file}, line {count:,}: no doc_id; lm_eval writes one in every line of its samples files")
            yield f"line {count:,}", line


def _directions(file: Path) -> Mapping[str, bool]:
    """What the results file of the same run says of the task's metrics."""
    named = NAME.fullmatch(file.stem)
    results = file.with_name(f"results_{named['time']}.json") if named else None
    if results is None or not results.exists():
        return {}
    said = read_json(results).get("higher_is_better", {}).get(_task(file), {})
    return {metric: better for metric, better in said.items() if isinstance(better, bool)}
