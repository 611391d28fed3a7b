"""Results of MTEB: one JSON a task, with a score per split and subset, and per experiment where a task is run several times.

Reference: https://github.com/embeddings-benchmark/mteb, mteb/results/task_result.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunescope.errors import FormatError, InputError
from tunescope.outcome.external.measured import Measured, number, read_json

EXPERIMENTS = "scores_per_experiment"
# Tried in this order where several metrics have the main score's value.
PREFERRED = ("ndcg_at_10", "accuracy", "f1", "map_at_1000", "cosine_spearman", "max_ap", "v_measure")
SAID = frozenset(("main_score", "hf_subset", "languages", "mteb_version", EXPERIMENTS))


def read_mteb(path: Path) -> list[Measured]:
    """The main score of every task in a result file or under a folder, higher being better.

    MTEB keeps no score per text or query here. A task's items are its experiments (the same draws of training rows for every model),
    or its splits and subsets where there are no experiments: an interval over them says nothing of the draw of test texts.

    Raises FormatError (not a result of MTEB, or one of before its version 1.11), InputError (a task twice, a score that is no number).
    """
    if not path.is_dir():
        return [_measured(path, _result(path))]
    found: dict[str, Measured] = {}
    for file in result_files(path):
        measured = _measured(file, _result(file))
        if measured.task in found:
            both = f"{Path(found[measured.task].source).relative_to(path)} and {file.relative_to(path)}"
            raise InputError(f"{path}: {measured.task} is there twice ({both}); name the folder of one model and revision")
        found[measured.task] = measured
    return list(found.values())


def result_files(folder: Path) -> list[Path]:
    """The results under a folder, at any depth."""
    return [file for file in sorted(folder.rglob("*.json")) if is_result(file)]


def is_result(file: Path) -> bool:
    """Whether a .json is a result of MTEB, by its keys."""
    with file.open("rb") as opened:
        start = opened.read(400)
    return b'"task_name"' in start or b'"mteb_dataset_name"' in start


def _result(file: Path) -> dict[str, Any]:
    result = read_json(file)
    if "mteb_dataset_name" in result:
        again = "mteb.TaskResult.from_disk(path).to_disk(path)"
        raise FormatError(f"{file}: written by mteb before 1.11, which this reader does not know; rewrite it with {again}")
    if "task_name" not in result or not isinstance(result.get("scores"), dict):
        raise FormatError(f"{file}: no result of MTEB: it has no 'task_name' with 'scores'")
    entries = [entry for split in result["scores"].values() for entry in (split if isinstance(split, list) else [split])]
    if not all(isinstance(entry, dict) and {"hf_subset", "main_score"} <= entry.keys() for entry in entries):
        raise FormatError(f"{file}: a score of it has no 'hf_subset' or no 'main_score', which MTEB writes; was the file edited?")
    return result


def _measured(file: Path, result: dict[str, Any]) -> Measured:
    """A task's scores, one an experiment or one a subset."""
    entries = {f"{split}/{entry['hf_subset']}": entry for split, subsets in result["scores"].items() for entry in subsets}
    main = _main_metric(list(entries.values()))
    scores, groups = {}, {}
    for name, entry in entries.items():
        for item, value in _scores(name, entry, main):
            scores[item] = number(value, f"{file}, {item}", main)
            groups[item] = name
    if not scores:
        raise FormatError(f"{file}: no scores in it; was the evaluation cut short?")
    experiments = len(scores) > len(entries)
    kind = "splits and subsets" if not experiments else "experiments" if len(entries) == 1 else "experiments of subsets"
    return Measured(
        task=result["task_name"],
        metric=main,
        scores=scores,
        source=str(file),
        groups=groups if experiments and len(entries) > 1 else {},
        higher_is_better=True,
        items=kind,
        version=result.get("dataset_revision"),
        made_by=f"mteb {result.get('mteb_version')}",
    )


def _scores(name: str, entry: dict[str, Any], main: str) -> Iterator[tuple[str, Any]]:
    experiments = entry.get(EXPERIMENTS)
    if isinstance(experiments, list) and experiments and all(main in part for part in experiments if isinstance(part, dict)):
        yield from ((f"{name}, experiment {count}", part[main]) for count, part in enumerate(experiments, 1))
    else:
        yield name, entry.get("main_score")


def _main_metric(entries: list[dict[str, Any]]) -> str:
    """The name of the main score, of which the file gives the value only: a metric that has this value everywhere."""
    named = [metric for metric in (entries[0] if entries else ()) if metric not in SAID]
    alike = [metric for metric in named if all(entry.get(metric) == entry.get("main_score") for entry in entries)]
    return next((metric for metric in (*PREFERRED, *alike) if metric in alike), "main_score")
