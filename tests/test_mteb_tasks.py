"""MTEB tasks: mteb's own loader reads a folder on disk as it reads one of the hub, and what comes out is what was written there."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from tunescope.errors import InputError, TextsError
from tunescope.outcome.mteb_tasks import ClassificationTask, RetrievalTask, mteb_task

pytestmark = pytest.mark.filterwarnings("ignore")  # what mteb and datasets say at their import is theirs

CORPUS = [
    {"_id": "d1", "title": "Cats", "text": "They purr."},
    {"_id": "d2", "title": "", "text": " Dogs bark. "},
    {"_id": "7", "title": "Birds", "text": "They sing."},
]
QUERIES = [{"_id": "q1", "text": "what purrs?"}, {"_id": "q2", "text": "what barks?"}, {"_id": "q3", "text": "nobody judged this"}]
QRELS = [
    {"query-id": "q1", "corpus-id": "d1", "score": 2},
    {"query-id": "q1", "corpus-id": "7", "score": 0},
    {"query-id": "q2", "corpus-id": "d2", "score": 1},
]
TRAIN = [{"text": f"train {row}", "label": row % 2} for row in range(6)]
TEST = [{"text": f"test {row}", "label": row % 2} for row in range(4)]


def folder(path: Path, files: dict[str, dict[str, list[dict]]], features: str = "") -> Path:
    """A dataset as the hub has it: jsonl files, and a README that says which configuration and split each one is."""
    configs = []
    for config, splits in files.items():
        parts = "".join(f"  - split: {split}\n    path: {config}-{split}.jsonl\n" for split in splits)
        configs.append(f"- config_name: {config}\n  data_files:\n{parts}")
        for split, rows in splits.items():
            (path / f"{config}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (path / "README.md").write_text(f"---\n{features}configs:\n{''.join(configs)}---\n", encoding="utf-8")
    return path


@pytest.fixture
def mteb(tmp_path, monkeypatch):
    """mteb with its caches out of the way, or a skip."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    module = pytest.importorskip("mteb", exc_type=ImportError)
    datasets = importlib.import_module("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return module


def metadata(mteb, kind: str, path: Path, **more):
    said = {"name": f"Local{kind}", "description": "d", "type": kind, "modalities": ["text"], "category": "t2t", "eval_splits": ["test"],
            "eval_langs": ["eng-Latn"], "main_score": "accuracy", "dataset": {"path": str(path), "revision": "1"}}  # fmt: skip
    return importlib.import_module("mteb.abstasks.task_metadata").TaskMetadata(**{**said, **more})


def retrieval(mteb, path: Path, **more):
    class LocalRetrieval(mteb.abstasks.AbsTaskRetrieval):
        metadata = globals()["metadata"](mteb, "Retrieval", path, main_score="ndcg_at_10", **more)

    return LocalRetrieval()


def classification(mteb, path: Path, **more):
    class LocalClassification(mteb.abstasks.AbsTaskClassification):
        metadata = globals()["metadata"](mteb, "Classification", path, **more)

    return LocalClassification()


@pytest.fixture
def beir(tmp_path):
    return folder(tmp_path, {"default": {"test": QRELS}, "corpus": {"corpus": CORPUS}, "queries": {"queries": QUERIES}})


def test_a_retrieval_task_is_what_its_files_say(mteb, beir):
    task = mteb_task(retrieval(mteb, beir, prompt={"query": "Find the animal: "}))
    assert isinstance(task, RetrievalTask)
    collection = task.collection
    assert collection.doc_ids == ("d1", "d2", "7")
    assert collection.doc_texts == ("Cats They purr.", "Dogs bark.", "Birds They sing.")
    assert (collection.query_ids, collection.query_texts) == (("q1", "q2"), ("what purrs?", "what barks?"))
    assert collection.qrels == {"q1": {"d1": 2, "7": 0}, "q2": {"d2": 1}}
    assert (collection.name, collection.split, collection.source) == ("LocalRetrieval", "test", "MTEB LocalRetrieval, test")
    assert (task.prompts, task.self_excluded) == ({"query": "Find the animal: "}, False)


def test_document_texts_are_those_mteb_gives_to_a_model(mteb, beir):
    task = retrieval(mteb, beir)
    ours = mteb_task(task)
    loader = importlib.import_module("mteb._create_dataloaders")
    kind = importlib.import_module("mteb.types").PromptType.document
    assert list(ours.collection.doc_texts) == loader._retrieval_texts(task.dataset["default"]["test"]["corpus"], kind)


def test_a_list_to_rank_again_is_refused(mteb, tmp_path):
    again = [{"query-id": "q1", "corpus-ids": ["d1", "7"]}, {"query-id": "q2", "corpus-ids": ["d2"]}]
    files = {"default": {"test": QRELS}, "corpus": {"test": CORPUS}, "queries": {"test": QUERIES}, "top_ranked": {"test": again}}
    with pytest.raises(InputError, match="'LocalRetrieval' ranks a given list a query; a search of the whole corpus"):
        mteb_task(retrieval(mteb, folder(tmp_path, files)))


def test_a_classification_task_is_what_its_files_say(mteb, tmp_path):
    names = "dataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n      class_label:\n"
    names += "        names:\n          '0': even\n          '1': odd\n"
    task = mteb_task(classification(mteb, folder(tmp_path, {"default": {"train": TRAIN, "test": TEST}}, names)))
    assert isinstance(task, ClassificationTask)
    assert task.train.texts == tuple(row["text"] for row in TRAIN)
    assert task.test.texts == tuple(row["text"] for row in TEST)
    assert task.train.columns[task.column] == ("even", "odd") * 3
    assert task.test.columns[task.column] == ("even", "odd") * 2
    assert (task.train.source, task.test.source) == ("MTEB LocalClassification, train", "MTEB LocalClassification, test")
    assert (task.samples_per_class, task.experiments) == (8, 10)  # MTEB's defaults


def test_a_subset_of_several_has_to_be_named(mteb, tmp_path):
    files = {"en": {"train": TRAIN, "test": TEST}, "de": {"train": TRAIN[::-1], "test": TEST}}
    make = lambda: classification(mteb, folder(tmp_path, files), eval_langs={"en": ["eng-Latn"], "de": ["deu-Latn"]})  # noqa: E731
    with pytest.raises(InputError, match="'LocalClassification' has 2 subsets; name one with subset=: en, de"):
        mteb_task(make())
    with pytest.raises(InputError, match="has no subset 'fr': en, de"):
        mteb_task(make(), subset="fr")
    german = mteb_task(make(), subset="de")
    assert german.train.texts[0] == "train 5"
    assert german.train.columns["label"][0] == "1"
    assert (german.name, german.test.source) == ("LocalClassification, de", "MTEB LocalClassification, test, de")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"type": "Regression"}, "is of the type Regression; those read are Retrieval and Classification"),
        ({"modalities": ["image"]}, "is of image; tasks of text only are read"),
    ],
)
def test_other_kinds_of_task_are_refused(mteb, tmp_path, more, said):
    with pytest.raises(InputError, match=said):
        mteb_task(classification(mteb, tmp_path, **more))


def test_a_split_that_is_not_there_is_refused(mteb, beir):
    with pytest.raises(InputError, match="'LocalRetrieval' has no split 'dev': test"):
        mteb_task(retrieval(mteb, beir), split="dev")


def test_data_that_cannot_be_loaded_is_one_line(mteb, tmp_path):
    with pytest.raises(TextsError, match=r"MTEB task 'LocalClassification': mteb cannot load it \(.+\); the first time") as error:
        mteb_task(classification(mteb, tmp_path / "nowhere"))
    assert "\n" not in str(error.value)


def test_an_unknown_task_answers_with_the_nearest(mteb):
    with pytest.raises(InputError, match=r"unknown MTEB task 'scifact'; did you mean SciFact, .*mteb\.get_tasks\(\) lists all"):
        mteb_task("scifact")


def test_without_mteb_the_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)  # so Python finds none
    with pytest.raises(InputError, match=r"'SciFact' needs the package mteb; install it with: pip install 'tunescope\[mteb\]'"):
        mteb_task("SciFact")
