"""Tasks of MTEB by name, where the package mteb and a network are there: a collection to search, or labelled texts.

Reference: https://github.com/embeddings-benchmark/mteb
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tunescope.errors import InputError, TextsError
from tunescope.texts.collections import Collection
from tunescope.texts.corpus import Corpus

Task = Any  # an AbsTask of mteb, which may not be installed
KINDS = ("Retrieval", "Classification")
LABEL = "label"


@dataclass(frozen=True)
class RetrievalTask:
    """A collection to search, as `ts.retrieval` takes one.

    prompts: what the task says to put before a "query" and a "passage", if anything; used by MTEB for models that follow instructions.
    self_excluded: whether MTEB takes the document with a query's own id out of its ranking; a search that does not gives other figures.
    """

    collection: Collection
    prompts: dict[str, str]
    self_excluded: bool


@dataclass(frozen=True)
class ClassificationTask:
    """Texts to train and to test a probe on, their classes in the column `column`.

    samples_per_class, experiments: MTEB's own protocol draws so many training rows a class, so many times.
    """

    name: str
    split: str
    train: Corpus
    test: Corpus
    column: str
    samples_per_class: int
    experiments: int
    prompts: dict[str, str]


def mteb_task(task: str | Task, *, split: str | None = None, subset: str | None = None) -> RetrievalTask | ClassificationTask:
    """Load a task by its name in MTEB (or an mteb task object) through mteb's own loader.

    split: without it "test", or the only one the task is evaluated on. subset: a language of a multilingual task, needed where it has
    several.

    Raises InputError (mteb is not installed; no such task, split or subset; a task of another kind or not of text), TextsError (the
    data cannot be loaded, for want of a network among other reasons, or is not as the task says).
    """
    if isinstance(task, str):
        task = _by_name(task)
    _refuse_other_kinds(task)
    split = _one_of("split", split, task, list(task.eval_splits), default="test")
    subset = _one_of("subset", subset, task, list(task.hf_subsets), default="default")
    task.filter_eval_splits(eval_splits=[split])
    if task.metadata.is_multilingual:
        task.hf_subsets = [subset]
    data = _loaded(task, split, subset)
    return (_retrieval if task.metadata.type == "Retrieval" else _classification)(task, split, subset, data)


def _by_name(name: str) -> Task:
    try:
        mteb = importlib.import_module("mteb")
    except ModuleNotFoundError as error:
        if error.name != "mteb":
            raise
        raise InputError(f"the task '{name}' needs the package mteb; install it with: pip install 'tunescope[mteb]'") from None
    try:
        return mteb.get_task(name)
    except KeyError:
        known = {task.metadata.name.lower(): task.metadata.name for task in mteb.get_tasks()}
        near = [known[match] for match in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)]
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise InputError(f"unknown MTEB task '{name}'; {hint}mteb.get_tasks() lists all {len(known):,}") from None


def _refuse_other_kinds(task: Task) -> None:
    name, kind, modalities = task.metadata.name, task.metadata.type, list(task.metadata.modalities)
    if modalities != ["text"]:
        raise InputError(f"the MTEB task '{name}' is of {' and '.join(modalities)}; tasks of text only are read")
    if kind not in KINDS:
        raise InputError(f"the MTEB task '{name}' is of the type {kind}; those read are {' and '.join(KINDS)}")
    if kind == "Classification" and task.is_cross_validation:
        raise InputError(f"the MTEB task '{name}' has one split and is cross-validated; a probe needs a split to train and one to test on")


def _one_of(what: str, asked: str | None, task: Task, known: list[str], *, default: str) -> str:
    """The split or subset asked for, else the default one, else the only one."""
    if asked is None:
        asked = default if default in known else known[0] if len(known) == 1 else None
    if asked in known:
        return asked
    listed = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    found = f"has no {what} '{asked}'" if asked else f"has {len(known)} {what}s; name one with {what}="
    raise InputError(f"the MTEB task '{task.metadata.name}' {found}: {listed}")


def _loaded(task: Task, split: str, subset: str) -> Any:
    """What mteb loads: of a retrieval task the split's data, of a classification task all splits."""
    hub = importlib.import_module("huggingface_hub.errors")
    name = task.metadata.name
    try:
        task.load_data()
        if task.metadata.type == "Retrieval":
            task.convert_v1_dataset_format_to_v2(num_proc=None)
            return task.dataset[subset][split]
        return task.dataset.get(subset, task.dataset)  # a task of one language has its splits at the top
    except (OSError, ValueError, RuntimeError, hub.HfHubHTTPError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TextsError(f"MTEB task '{name}': mteb cannot load it ({reason}); the first time, that needs a network") from error


def _retrieval(task: Task, split: str, subset: str, data: Mapping[str, Any]) -> RetrievalTask:
    name = task.metadata.name
    if data.get("top_ranked"):
        raise InputError(f"the MTEB task '{name}' ranks a given list a query; a search of the whole corpus would give another figure")
    documents, queries = data["corpus"], data["queries"]
    titled = zip(_column(documents, "title"), _texts(documents, "text", name), strict=True)
    instructed = zip(_texts(queries, "text", name), _column(queries, "instruction"), strict=True)
    collection = Collection.of(
        _by_id(documents["id"], [f"{title or ''} {text}".strip() for title, text in titled], name),
        _by_id(queries["id"], [text if said is None else f"{text} {said}" for text, said in instructed], name),
        {str(query): {str(document): int(grade) for document, grade in row.items()} for query, row in data["relevant_docs"].items()},
        name=name if subset == "default" else f"{name}, {subset}",
        split=split,
        source=_source(name, split, subset),
    )
    return RetrievalTask(collection, _prompts(task), bool(task.ignore_identical_ids))


def _classification(task: Task, split: str, subset: str, data: Mapping[str, Any]) -> ClassificationTask:
    missing = [part for part in (task.train_split, split) if part not in data]
    if missing:
        listed = f"it has {', '.join(data)}"
        raise TextsError(f"MTEB task '{task.metadata.name}': no split {' and '.join(map(repr, missing))} in its data; {listed}")
    train, test = (_corpus(task, data[part], _source(task.metadata.name, part, subset)) for part in (task.train_split, split))
    return ClassificationTask(
        name=task.metadata.name if subset == "default" else f"{task.metadata.name}, {subset}",
        split=split,
        train=train,
        test=test,
        column=LABEL,
        samples_per_class=task.samples_per_label,
        experiments=task.n_experiments,
        prompts=_prompts(task),
    )


def _corpus(task: Task, rows: Any, source: str) -> Corpus:
    texts = _texts(rows, task.input_column_name, task.metadata.name)
    ids = (f"row {number}" for number in range(1, len(texts) + 1))
    return Corpus.of(texts, ids, source, columns={LABEL: _labels(rows, task.label_column_name)})


def _by_id(ids: Iterable[Any], texts: list[str], name: str) -> dict[str, str]:
    """Texts by id. Raises TextsError for an id twice."""
    found: dict[str, str] = {}
    for id, text in zip(map(str, ids), texts, strict=True):
        if id in found:
            raise TextsError(f"MTEB task '{name}': the id '{id}' is there twice; ids must be unique")
        found[id] = text
    return found


def _texts(rows: Any, column: str, name: str) -> tuple[str, ...]:
    texts = tuple(rows[column])
    other = next((place for place, text in enumerate(texts) if not isinstance(text, str)), None)
    if other is not None:
        kind = "a conversation" if isinstance(texts[other], (list, dict)) else f"a {type(texts[other]).__name__}"
        raise TextsError(f"MTEB task '{name}': row {other + 1:,} of its column '{column}' is {kind}, not a text")
    return texts


def _labels(rows: Any, column: str) -> tuple[str, ...]:
    """Labels by name where the data names them, else as they are."""
    names = getattr(rows.features[column], "names", None)
    return tuple(names[label] if names else str(label) for label in rows[column])


def _column(rows: Any, column: str) -> Iterable[Any]:
    return rows[column] if column in rows.column_names else [None] * len(rows)


def _prompts(task: Task) -> dict[str, str]:
    """What the task puts before a text, by the kind of text: MTEB calls a passage a document."""
    given = task.metadata.prompt or {}
    named = {"query": given} if isinstance(given, str) else given
    return {("passage" if kind == "document" else kind): text for kind, text in named.items()}


def _source(name: str, split: str, subset: str) -> str:
    return f"MTEB {name}, {split}" + ("" if subset == "default" else f", {subset}")
