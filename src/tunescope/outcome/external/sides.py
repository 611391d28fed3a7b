"""Which reader a file or folder is for, what it says of each side, and what both sides measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tunescope.errors import AlignmentError, FormatError, InputError, UnknownName
from tunescope.outcome.external.inspect_logs import is_log, log_files, read_inspect
from tunescope.outcome.external.item_tables import KINDS, from_mapping, read_pair, read_side
from tunescope.outcome.external.lm_eval import read_lm_eval, sample_files
from tunescope.outcome.external.measured import Measured
from tunescope.outcome.external.mteb_predictions import Qrels, is_predictions, read_predictions, read_qrels
from tunescope.outcome.external.mteb_results import is_result, read_mteb, result_files

READERS = ("lm-eval", "inspect", "mteb", "table")
PREDICTIONS = "mteb-predictions"
Scores = str | Path | Mapping[str, float]
Pair = tuple[Measured, Measured]


def read_sides(
    base: Scores, tuned: Scores | None, metric: str | None, reader: str | None, qrels: Qrels | str | Path | None
) -> tuple[str, tuple[list[Measured], list[Measured]]]:
    """Which reader was used, and what it read on each side."""
    try:
        return _read_sides(base, tuned, metric, reader, qrels)
    except OSError as error:
        raise InputError(f"{error.filename or base}: cannot be read ({error.strerror or error})") from error


def _read_sides(
    base: Scores, tuned: Scores | None, metric: str | None, reader: str | None, qrels: Qrels | str | Path | None
) -> tuple[str, tuple[list[Measured], list[Measured]]]:
    if reader is not None and reader not in READERS:
        raise UnknownName("reader of results", reader, READERS)
    if isinstance(base, Mapping) or isinstance(tuned, Mapping):
        if not isinstance(base, Mapping) or not isinstance(tuned, Mapping):
            raise InputError("one side is a mapping and the other is not; give {id: score} for both, or a file for both")
        return "table", (from_mapping(base, "base", metric=metric), from_mapping(tuned, "tuned", metric=metric))
    kinds = [reader or _kind(Path(side)) for side in (base, tuned) if side is not None]
    if len(set(kinds)) > 1:
        raise InputError(f"{base} is read as {kinds[0]} and {tuned} as {kinds[1]}; both sides need the same program's results")
    if tuned is None and kinds[0] != "table":
        raise InputError(f"{base} holds one model's results ({kinds[0]}); give the other model's too, base first (--results BASE,TUNED)")
    if tuned is None:
        return "table", read_pair(Path(base), metric=metric)
    if kinds[0] == "table":
        return "table", (read_side(Path(base), metric=metric), read_side(Path(tuned), metric=metric))
    if kinds[0] == PREDICTIONS:
        if qrels is None:
            raise InputError(f"{base} holds rankings and no scores; give the judgements of the task: qrels=, a mapping or a .tsv")
        judged = qrels if isinstance(qrels, Mapping) else read_qrels(Path(qrels))
        return kinds[0], (read_predictions(Path(base), judged), read_predictions(Path(tuned), judged))
    if kinds[0] == "mteb":
        return "mteb", (read_mteb(Path(base)), read_mteb(Path(tuned)))
    read = read_lm_eval if kinds[0] == "lm-eval" else read_inspect
    return kinds[0], (read(Path(base), metric), read(Path(tuned), metric))


def _kind(path: Path) -> str:
    """Which reader a file or folder is for, by its names and first keys."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; looked in {path.parent.resolve()}")
    if path.is_dir():
        kinds = [kind for kind, files in (("lm-eval", sample_files), ("inspect", log_files), ("mteb", result_files)) if files(path)]
        if len(kinds) == 1:
            return kinds[0]
        if kinds:
            raise FormatError(f"{path}: the folder has results of {' and '.join(kinds)}; name one with reader='{kinds[0]}'")
        raise FormatError(f"{path}: the folder has no samples_*.jsonl of lm_eval, no .eval of Inspect and no .json of Inspect or MTEB")
    if path.suffix == ".jsonl":
        return "lm-eval" if path.name.startswith("samples_") or _has_doc_ids(path) else "table"
    if path.suffix == ".eval" or (path.suffix == ".json" and is_log(path)):
        return "inspect"
    if path.suffix == ".json" and is_predictions(path):
        return PREDICTIONS
    if path.suffix == ".json" and is_result(path):
        return "mteb"
    if path.suffix == ".json":
        means = "it may hold means only: lm_eval writes scores per item into samples_*.jsonl, with --log_samples"
        raise FormatError(f"{path}: neither a log of Inspect nor a result of MTEB; {means}")
    if path.suffix in KINDS:
        return "table"
    raise FormatError(f"{path}: results are read from {', '.join(KINDS)}, .json, .eval, or a folder")


def _has_doc_ids(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as lines:
        first = lines.readline()
    return '"doc_id"' in first and '"filtered_resps"' in first


def shared_tasks(base: list[Measured], tuned: list[Measured]) -> tuple[dict[str, list[Pair]], tuple[str, ...]]:
    """Tasks and metrics of both sides, in the base's order, and what is on one side only."""
    theirs = {(measured.task, measured.metric): measured for measured in tuned}
    ours = {(measured.task, measured.metric): measured for measured in base}
    tasks: dict[str, list[Pair]] = {}
    for key, measured in ours.items():
        if key in theirs:
            tasks.setdefault(key[0], []).append((measured, theirs[key]))
    if not tasks:
        listed = (", ".join(sorted({f"{task} {metric}".strip() for task, metric in side})[:5]) for side in (ours, theirs))
        raise AlignmentError("no task and metric is on both sides: base has {}; tuned has {}".format(*listed))
    warnings: list[str] = [text for measured in (*base, *tuned) for text in measured.warnings]
    for side, one, other in (("base", ours, theirs), ("tuned", theirs, ours)):
        alone = [f"{task} {metric}".strip() for task, metric in one if (task, metric) not in other]
        if alone:
            warnings.append(f"measured on the {side} side only and left out: {', '.join(alone)}")
    return tasks, tuple(warnings)
