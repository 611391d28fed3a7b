"""Directions in weight space against plain autograd, scikit-learn's probe, and tasks whose direction is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import tunescope as ts
from tiny_models import TEXTS, save_adapter, save_model, tiny_model, tokenizer_for
from tunescope.errors import InputError, NotEnoughRows
from tunescope.texts.labelled import labelled
from tunescope.training.evaluation_task import _fit_probe, evaluation_task
from tunescope.training.objectives import Contrastive, Learner
from tunescope.training.objectives.classify import CLASSES
from tunescope.training.task_alignment import _against, block_cosines, task_alignment, weight_change

CALM = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
QUERIES = [f"{one} {two}" for one in TEXTS for two in ("the cat", "and night", "over the sea")]
PASSAGES = [f"it was {query} under the red house" for query in QUERIES]
READING = {"batch_size": 8, "max_length": 32}


def bert(**changes):
    return ts.load_model((tiny_model("bert", head="mlm", **(CALM | changes)), tokenizer_for("bert")), pretraining="mlm")


def collection():
    documents = {f"d{row}": text for row, text in enumerate(PASSAGES)} | {"unjudged": "a dog ran"}
    queries = {f"q{row}": text for row, text in enumerate(QUERIES)} | {"again": "sun"}
    qrels = {f"q{row}": {f"d{row}": 1} for row in range(len(QUERIES))} | {"again": {"d0": 1, "d1": 0}}
    return ts.Collection.of(documents, queries, qrels)


def labelled_texts(rows=QUERIES):
    from tunescope.texts.corpus import Corpus

    names = tuple(("cat", "night", "sea")[row % 3] for row in range(len(rows)))
    return labelled(Corpus.of(rows, [str(row) for row in range(len(rows))], "words", columns={"class": names}), "class", share=0.5)


def test_a_retrieval_task_is_one_query_a_passage_and_its_descent_plain_autograd():
    model = bert()
    task = evaluation_task(collection(), model, items=8, seed=0, contrastive=Contrastive(pooling="mean"))
    assert len({passage for _, passage in task.items}) == len(task.items) == 8
    found = task.descent(model, **READING)
    model.module.zero_grad()
    rows = []
    for side in (0, 1):
        tokens = model.tokenizer([item[side] for item in task.items], padding=True, return_tensors="pt")
        states = model.module(**{key: tokens[key] for key in ("input_ids", "attention_mask")})[0]
        mask = tokens["attention_mask"].unsqueeze(-1)
        rows.append(F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1))
    F.cross_entropy(rows[0] @ rows[1].T / 0.05, torch.arange(8)).backward()
    plain = {name: -p.grad for name, p in model.module.named_parameters() if name.startswith("encoder.layer.")}
    assert found.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5)
    cosines = block_cosines(plain, found, model)
    assert cosines == pytest.approx([1.0] * 4, abs=1e-5)


def test_cosines_are_those_of_the_blocks_laid_end_to_end():
    model = bert()
    generator = torch.Generator().manual_seed(0)
    names = [name for name, _ in model.module.named_parameters() if name.startswith("encoder.layer.")]
    one, two = ({name: torch.randn(5, 3, generator=generator) for name in names} for _ in range(2))
    found = block_cosines(one, two, model)
    flat = [[np.concatenate([side[n].flatten() for n in names if n.startswith(start)]) for side in (one, two)]
            for start in ("encoder.", *(f"encoder.layer.{block}." for block in range(3)))]  # fmt: skip
    assert found == pytest.approx([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in flat], abs=1e-6)
    still = {name: torch.zeros_like(value) if ".1." in name else value for name, value in one.items()}
    assert block_cosines(still, two, model)[2] is None


def test_an_objective_that_is_the_task_pulls_as_it_does_and_a_run_up_the_loss_against_it():
    model = bert()
    task = evaluation_task(collection(), model, items=16, seed=0, contrastive=Contrastive(pooling="mean"))
    descent = task.descent(model, **READING)
    uphill = {name: -3 * value for name, value in descent.items()}
    found = task_alignment(model, {"same": descent, "against": uphill}, task, **READING, draws=4)
    assert [cell.cosine for cell in found["same"]] == pytest.approx([1.0] * 4, abs=1e-5)
    assert [cell.cosine for cell in found["against"]] == pytest.approx([-1.0] * 4, abs=1e-5)
    assert [cell.where for cell in found["same"]] == ["all blocks", "block 1", "block 2", "block 3"]
    assert found["same"][0].beyond == "above"
    assert found["against"][0].beyond == "below"


def test_the_floor_is_where_the_shuffled_task_falls_and_its_range_students():
    chance = [0.1, 0.14, 0.12, 0.08, 0.11]
    cell = _against("block 1", 1, [0.3, *chance])
    reach = stats.t.ppf(0.975, 4) * np.std(chance, ddof=1) * (1 + 1 / 5) ** 0.5
    assert (cell.floor, cell.low, cell.high) == pytest.approx((np.mean(chance), np.mean(chance) - reach, np.mean(chance) + reach))
    assert cell.beyond == "above"
    assert _against("block 1", 1, [0.12, *chance]).beyond == "within"
    assert _against("block 1", 1, [None, *chance]).reason == "its weights did not move"


def test_shuffling_keeps_the_texts_and_breaks_what_belongs_to_what():
    model = bert()
    for given in (collection(), labelled_texts()):
        task = evaluation_task(given, model, items=16, seed=0)
        other = task.shuffled(1)
        assert [first for first, _ in other.items] == [first for first, _ in task.items]
        assert sorted(second for _, second in other.items) == sorted(second for _, second in task.items)
        assert other.items != task.items
        assert len(other.fitting) == len(task.fitting)


def test_the_probe_is_scikit_learns():
    model = bert()
    task = evaluation_task(labelled_texts(), model, items=16, seed=0)
    with model.active() as body:
        learner = Learner(model, task.objective, max_length=32).eval()
        _fit_probe(learner, task.fitting, 8)
        rows = []
        with torch.no_grad():
            for text, _ in task.fitting:
                rows.append(body(**{"input_ids": model.tokenizer(text, return_tensors="pt")["input_ids"]})[0][0].mean(0))
    x, y = torch.stack(rows).double().numpy(), np.array([label for _, label in task.fitting])
    scaler = StandardScaler().fit(x)
    scaler.scale_ = scaler.scale_ * np.sqrt(len(x) / (len(x) - 1))  # ours divides by the sample deviation
    fit = LogisticRegression(C=1.0, max_iter=5000, tol=1e-8).fit(scaler.transform(x), y)
    with torch.no_grad():
        own = learner.heads[CLASSES](torch.tensor(x, dtype=torch.float32)).softmax(-1).numpy()
    np.testing.assert_allclose(own, fit.predict_proba(scaler.transform(x)), atol=5e-3)


def test_the_change_of_a_run_is_its_weights_less_the_bases(tmp_path):
    base = save_model(tmp_path / "base", **CALM)
    moved = tiny_model("bert", **CALM)
    with torch.no_grad():
        for parameter in moved.encoder.layer[1].parameters():
            parameter.add_(0.01)
    tuned = save_model(tmp_path / "tuned", model=moved)
    one, two = ts.load_pair(str(base), str(tuned))
    change = weight_change(one, two)
    for name, value in change.items():
        torch.testing.assert_close(value, torch.full_like(value, 0.01 if ".layer.1." in name else 0.0), atol=1e-6, rtol=0)
    adapter = save_adapter(tmp_path / "adapter", base)
    plain, worn = ts.load_pair(str(base), str(adapter))
    change = weight_change(plain, worn)
    state = dict(worn.module.named_parameters())
    name = "encoder.layer.0.attention.self.query"
    up, down = (state[f"{name}.lora_{side}.default.weight"].detach() for side in "BA")
    torch.testing.assert_close(change[f"{name}.weight"], 4 * up @ down, rtol=1e-4, atol=1e-6)  # alpha 8 over rank 2
    assert not change["encoder.layer.0.attention.self.key.weight"].any()


def test_the_whole_of_it_on_both_kinds_of_task(tmp_path):
    base = save_model(tmp_path / "base", head="mlm", **CALM)
    adapter = save_adapter(tmp_path / "adapter", base, head="mlm")
    options = {"texts": QUERIES, "reference": "mlm", "splits": 2, "draws": 3, "task_items": 12, "batch_size": 8}
    for task in (collection(), labelled_texts()):
        found = ts.objective_distance(str(base), "simcse,nsp", task=task, tuned=str(adapter), **options)
        table = found.alignment
        assert set(table["name"]) == {"mlm", "simcse", "adapter"} or table["kind"].tolist().count("tuned") == 4
        assert table["cosine"].dropna().between(-1, 1).all()
        assert "task_cosine" in found.table
        assert "objective_map" in found.html()
        assert {record.measure for record in found.records} >= {"task_alignment", "gradient_procrustes"}


def test_a_run_that_is_called_like_an_objective_takes_no_others_place(tmp_path, monkeypatch):
    """Two names for one run: all the numbers are the same."""
    monkeypatch.chdir(tmp_path)
    base = save_model(tmp_path / "base", head="mlm", **CALM)
    rows = {}
    for name in ("simcse", "run"):
        save_adapter(tmp_path / name, base, head="mlm")
        asked = {"texts": QUERIES, "reference": "mlm", "splits": 2, "draws": 3, "task_items": 12, "batch_size": 8}
        found = ts.objective_distance(str(base), "simcse", task=collection(), tuned=name, **asked)
        posed = found.payload["alignment"]["rows"]
        assert [(row["name"], row["kind"]) for row in posed] == [("mlm", "objective"), ("simcse", "objective"), (name, "tuned")]
        rows[name] = [(row["kind"], row["overall"], row["blocks"]) for row in posed]
        assert found.table["task_cosine"].notna().all()
    assert rows["simcse"] == rows["run"]


def test_tasks_that_cannot_be_posed_say_so(tmp_path):
    model = bert()
    with pytest.raises(InputError, match="task is a list; give a retrieval collection"):
        evaluation_task([1], model, items=8, seed=0)
    with pytest.raises(NotEnoughRows, match="6 held-out texts; the direction of a task needs at least 8"):
        evaluation_task(labelled_texts(QUERIES[:10]), model, items=8, seed=0)
    (tmp_path / "t.csv").write_text("text,label\n")
    with pytest.raises(InputError, match=r"a file; a folder is a retrieval collection, labelled texts are .*t.csv:COLUMN"):
        evaluation_task(str(tmp_path / "t.csv"), model, items=8, seed=0)
    task = evaluation_task(collection(), model, items=8, seed=0)
    with pytest.raises(InputError, match="2 shufflings asked for"):
        task_alignment(model, {}, task, **READING, draws=2)
