"""What a run of a study does, on models it makes itself: rows are those of the calls a person would make."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

import tunescope as ts
from tunescope.errors import InputError, UnknownName
from tunescope.study.row import KEY
from tunescope.study.run_spec import Change, Measurement, Model, Objective, Pretraining, RunSpec, Source, Update
from tunescope.study.work import work
from tunescope.study.work.base_model import load_base, made
from tunescope.study.work.measured import outcome_requests
from tunescope.study.work.sources import texts_of
from tunescope.training.to_distance import TOLERANCE

DOCS = Source("docs", "python-docs", sample=60)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
BERT = Pretraining("bert", SIZES, DOCS, "mlm", steps=4, batch_size=8, max_length=24, vocabulary=320)
NEOX = replace(BERT, family="gpt_neox", objective="causal-lm", config=SIZES | {"use_parallel_residual": False})
ENCODER = Model("tiny-bert", pretrain=BERT, pretraining="mlm")
CAUSAL = Model("tiny-neox", pretrain=NEOX, pretraining="causal-lm")
MEASURED = Measurement((DOCS,), ("cka", "nps"))
TUNE = RunSpec(
    "tune", "mlm · uniform", ENCODER, MEASURED, seed=1, objective=Objective("mlm", "mlm", texts=DOCS), update=Update("uniform", "uniform"),
    schedule={"steps": 3, "batch_size": 8, "max_length": 24, "checkpoints": [1], "lr": 1e-2},
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder that runs lie in, with the models made and one run trained."""
    folder = tmp_path_factory.mktemp("runs")
    place = folder / TUNE.hash
    place.mkdir()
    (folder / "rows").mkdir()
    return folder, place, list(work(TUNE, place, quiet))


def quiet(step, steps, what):
    """Nobody listens."""


def test_a_run_trains_and_its_rows_are_the_comparison_a_person_would_make(runs):
    folder, place, rows = runs
    by_hand = ts.diff(load_base(ENCODER, folder), ts.load_run(place / "model").model, texts_of(DOCS), measures=("cka", "nps"))
    expected = {(record.where, record.measure): record.value for record in by_hand.records}
    assert {(row.where, row.measure): row.value for row in rows} == expected
    assert any(row.change > 0 for row in rows), "three steps moved it"
    assert {(row.run, row.model, row.objective, row.update, row.seed, row.texts, row.step) for row in rows} == {
        (TUNE.hash, "tiny-bert", "mlm", "uniform", 1, "docs", 3)
    }


def test_a_finished_run_is_only_read_again_and_says_the_same(runs):
    _, place, rows = runs
    before = (place / "model" / "run.json").stat().st_mtime_ns
    assert list(work(TUNE, place, quiet)) == rows
    assert (place / "model" / "run.json").stat().st_mtime_ns == before


def test_the_same_spec_gives_the_same_rows_wherever_it_is_made(tmp_path):
    """Equal steps reach every tensor of a group, so what a checkpoint lacks and loading draws must be drawn alike."""
    spec = replace(TUNE, condition="equal-step", update=Update("equal-step", "equal-step", tau=0.01))
    found = []
    for name in ("one", "other"):
        place = tmp_path / name / spec.hash
        place.mkdir(parents=True)
        torch.manual_seed(len(found))
        found.append([(row.where, row.measure, row.value, row.identity) for row in work(spec, place, quiet)])
    assert found[0] == found[1]


def test_checkpoints_are_measured_where_asked(runs):
    folder, place, rows = runs
    found = list(work(replace(TUNE, measurement=replace(MEASURED, at="checkpoints")), place, quiet))
    assert {row.step for row in found} == {1, 3}
    where = {"where": "block 2", "measure": "cka"}
    first, last = (next(r for r in found if r.step == step and r.where == where["where"] and r.measure == "cka") for step in (1, 3))
    assert 0 < first.change < last.change
    assert first.epoch == pytest.approx(1 / 7), "60 texts are 7 batches of 8"


def test_the_same_model_is_made_only_once_and_always_the_same(runs, tmp_path):
    folder, _, _ = runs
    there = made(BERT, folder)
    count = len(list(there.parent.iterdir()))
    assert made(BERT, folder) == there
    assert len(list(there.parent.iterdir())) == count, "nothing was made, no draft was left"
    again = ts.load_model(str(made(BERT, tmp_path))).identity()["weights_sha256"]
    assert again == ts.load_model(str(there)).identity()["weights_sha256"]


def test_a_control_is_as_large_as_the_run_it_is_like(runs):
    folder, _, rows = runs
    spec = replace(
        TUNE, kind="perturb", condition="random direction", objective=None, update=None,
        change=Change("random direction", "random-direction", like=TUNE.hash),
    )  # fmt: skip
    place = folder / spec.hash
    place.mkdir()
    found = list(work(spec, place, quiet))
    base, tuned = load_base(ENCODER, folder), ts.load_run(folder / TUNE.hash / "model").model
    moved = ts.perturb(base, kind="random-direction", like=tuned, seed=1)
    by_hand = {
        (record.where, record.measure): record.value for record in ts.diff(base, moved, texts_of(DOCS), measures=("cka", "nps")).records
    }
    assert {(row.where, row.measure): row.value for row in found} == by_hand


def test_a_control_moves_until_the_distance_is_reached(runs):
    folder, _, _ = runs
    change = Change("gaussian", "gaussian", to="nps=.8")
    spec = replace(TUNE, kind="perturb", condition="gaussian", objective=None, update=None, change=change)
    place = folder / spec.hash
    place.mkdir()
    found = list(work(spec, place, quiet))
    assert next(row.value for row in found if row.measure == "nps" and row.where == "output") == pytest.approx(0.8, abs=0.01)
    assert next(row.value for row in found if row.measure == "sigma") > 0


def test_a_control_is_moved_as_far_as_it_is_then_measured(runs):
    folder, _, _ = runs
    read = replace(MEASURED, texts=(replace(DOCS, prompt="passage: "),), options={"max_length": 12, "pooling": "cls", "batch_size": 8})
    change = Change("gaussian", "gaussian", to="nps=.7")
    spec = replace(TUNE, kind="perturb", condition="prompted", objective=None, update=None, change=change, measurement=read)
    place = folder / spec.hash
    place.mkdir()
    found = list(work(spec, place, quiet))
    assert next(row.value for row in found if row.measure == "nps" and row.where == "output") == pytest.approx(0.7, abs=TOLERANCE)


def test_distances_of_classes_are_measured_before_anything_is_trained(runs, tmp_path):
    folder, _, _ = runs
    docstrings = Source("docstrings", "python-docstrings", labels="package", sample=60)
    classify = Objective("classify", "classify", texts=docstrings)
    spec = replace(TUNE, condition="classes", objective=classify, measurement=replace(MEASURED, distances=True))
    place = folder / spec.hash
    place.mkdir()
    rows = [row for row in work(spec, place, quiet) if row.subject == "distance"]
    base = load_base(ENCODER, folder)
    by_hand = ts.objective_distance(base, "classify", texts=texts_of(docstrings), labels="package", max_length=24, seed=1)
    row = next(row for row in by_hand.payload["objectives"] if row["name"] == "classify")
    assert {row.measure: row.value for row in rows} == {name: cell["value"] for name, cell in row["distances"].items()}
    refused = replace(spec, objective=Objective("contrastive", "contrastive", texts=DOCS))
    with pytest.raises(InputError, match="contrastive learns from pairs"):
        list(work(refused, tmp_path, quiet))
    assert not (tmp_path / "model").exists()


def test_distances_leave_the_training_as_it_is(runs):
    folder, _, rows = runs
    spec = replace(TUNE, measurement=replace(MEASURED, distances=True))
    place = folder / spec.hash
    place.mkdir()
    found = [row for row in work(spec, place, quiet) if row.subject == "geometry"]
    assert [row.value for row in found] == [row.value for row in rows]


def test_a_prompt_of_labelled_texts_is_put_before_them(runs):
    labelled = Source("docstrings", "python-docstrings", labels="package", prompt="query: ")
    ((_, asked),) = outcome_requests((labelled,), (), ())
    assert asked["prompt"] == "query: "


def test_a_causal_model_is_made_with_its_block_type(runs):
    folder, _, _ = runs
    for parallel in (True, False):
        model = replace(CAUSAL, pretrain=replace(NEOX, config=SIZES | {"use_parallel_residual": parallel}))
        assert load_base(model, folder).module.config.use_parallel_residual is parallel


def test_models_that_are_there_are_compared(runs):
    folder, place, rows = runs
    spec = RunSpec("compare", "ours", ENCODER, MEASURED, tuned=(Model("ours", str(place / "model")),))
    found = list(work(spec, folder / "rows", quiet))
    assert [row.value for row in found] == [row.value for row in rows]


def test_features_of_a_run_are_those_of_its_file_and_no_two_rows_are_the_same_number(runs):
    folder, _, _ = runs
    lora = Update("lora r2", "lora", {"rank": 2})
    measurement = Measurement((DOCS,), options={"layers": [1, 2], "latents": 32, "k": 4, "steps": 20, "max_length": 24})
    spec = RunSpec(
        "features", "causal-lm · lora r2", CAUSAL, measurement, objective=Objective("causal-lm", "causal-lm", texts=DOCS), update=lora,
        schedule={"steps": 3, "batch_size": 8, "max_length": 24, "lr": 1e-2},
    )  # fmt: skip
    place = folder / spec.hash
    place.mkdir()
    rows = list(work(spec, place, quiet))
    payload = json.loads((place / "features" / "features.json").read_text())
    norms = {(row.layer, row.task): row.value for row in rows if row.measure == "delta_norm"}
    assert norms == {(row["layer"], row["name"]): row["norm"] for row in payload["norms"]}
    assert norms[2, "tuned"] > 0
    assert {row.measure for row in rows} >= {"r2", "density", "behaviour_recovered", "l0"}
    keys = [tuple(getattr(row, name) for name in KEY) for row in rows]
    assert not [key for key, times in Counter(keys).items() if times > 1]
    assert list(work(spec, place, quiet)) == rows, "only read again"


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        (replace(TUNE, kind="tuned"), UnknownName, "did you mean tune"),
        (replace(TUNE, objective=None, seed=5), InputError, "needs an objective and an update rule"),
        (replace(TUNE, kind="perturb"), InputError, "says not how"),
        (replace(TUNE, kind="features", objective=None), InputError, "compares features of nothing"),
        (replace(TUNE, model=Model("x", pretrain=replace(BERT, family="birt"))), InputError, "no such model type"),
        (replace(TUNE, model=Model("x", pretrain=replace(BERT, config={"hiden_size": 16}))), UnknownName, "did you mean hidden_size"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(runs, tmp_path, spec, error, words):
    with pytest.raises(error, match=words):
        list(work(spec, runs[0] / "refused", quiet))
