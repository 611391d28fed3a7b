"""Runs: the same weights as a loop written by hand, everything kept that explains them, and going on exactly after a stop."""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, TrainerCallback

import tunescope as ts
from tiny_models import TEXTS, save_model, save_sentence_transformer, tiny_model, tokenizer_for
from tunescope.errors import ActivationError, InputError, ModelError, OutputError, TunescopeError, UnknownName
from tunescope.training.objectives import Learner, make_objective
from tunescope.training.run.data import RunCollator, RunData, RunOrder
from tunescope.training.run.folder import RunFolder
from tunescope.training.updates import select

LABELS = [f"{text} {number}" for number, text in enumerate(TEXTS * 6)]
PAIRS = [(f"{TEXTS[i % 7]} {i}", f"{TEXTS[(i + 1) % 7]} {i}") for i in range(40)]
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture
def bert(tmp_path) -> Path:
    return save_model(tmp_path / "bert", "bert", head="mlm")


def tensors(model: ts.models.Model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.tensors().items()}


def run_of(base, **changes):
    asked = {"objective": "mlm", "update": "uniform", "texts": LABELS, "steps": 6, "schedule": {"batch_size": 4, "lr": 1e-3}}
    asked["trajectory"] = None  # watched where a test is about that
    return ts.finetune(base if isinstance(base, tuple) else str(base), **(asked | changes))


# The weights


@pytest.mark.parametrize("objective", ["mlm", "simcse", "contrastive"])
def test_a_run_is_adamw_on_the_batches_in_their_order(objective, tmp_path):
    """Oracle: torch's AdamW, clipping and our loss, in a loop by hand over the same order; float32 on the CPU, so bit for bit."""
    still = {} if objective == "simcse" else STILL
    base = save_model(tmp_path / "b", model=tiny_model("bert", head="mlm", **still))
    given = {"pairs": PAIRS, "texts": None} if objective == "contrastive" else {"texts": LABELS}
    run = run_of(base, objective=objective, **given, seed=3)
    torch.manual_seed(3)
    model = ts.load_model(str(base))
    learner = Learner(model, make_objective(objective), seed=3)
    items = PAIRS if objective == "contrastive" else LABELS
    data, collate = RunData([items], seed=3), RunCollator(learner, seed=3)
    keys = [(frozenset(pair), frozenset()) for pair in PAIRS] if objective == "contrastive" else None
    order = list(RunOrder(len(items), seed=3, batch=4, keys=keys))
    update = select("uniform").apply(learner, lr=1e-3, body=learner.body)
    optimizer = torch.optim.AdamW([dict(group) for group in update.groups])
    torch.manual_seed(3)  # what dropout draws from, as the Trainer seeds it
    torch.empty((), dtype=torch.int64).random_()  # torch's DataLoader draws a seed for workers, though there are none
    losses = []
    for step in range(6):
        learner.train()
        batch = collate([data[place] for place in order[4 * step : 4 * step + 4]])["batch"]
        loss = learner(batch)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in learner.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert run.losses["loss"].tolist() == pytest.approx(losses, abs=1e-7)
    moved = tensors(run.model)
    assert all(torch.equal(moved[name], value) for name, value in tensors(model).items())


def test_accumulated_passes_are_one_step_of_their_mean(tmp_path):
    """Classification is a mean over items, so 2 passes of 4 give the step of one pass of 8. Losses to 1e-6, sums being in another order;
    weights to 5% of a step of 1e-3, since AdamW's first steps go by the sign of gradients that may be all rounding."""
    base = save_model(tmp_path / "b", model=tiny_model("bert", **STILL))
    file = labelled_file(tmp_path)
    classify = {"objective": "classify", "texts": str(file), "labels": "label", "steps": 4}
    one = run_of(base, **classify, schedule={"batch_size": 8, "lr": 1e-3})
    two = run_of(base, **classify, schedule={"batch_size": 4, "accumulate": 2, "lr": 1e-3})
    assert two.losses["loss"].tolist() == pytest.approx(one.losses["loss"].tolist(), abs=1e-6)
    other = tensors(two.model)
    for name, value in tensors(one.model).items():
        torch.testing.assert_close(other[name], value, atol=5e-5, rtol=0)


def test_a_loaded_model_is_left_as_it_was(tmp_path):
    model, tokenizer = tiny_model("bert", head="mlm"), tokenizer_for("bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = run_of((model, tokenizer), steps=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, before[f"bert.{name}"]) for name, value in tensors(run.model).items() if f"bert.{name}" in before)
    assert not any(p.requires_grad for p in run.model.module.parameters())


# What is kept


def test_checkpoints_are_models_and_the_folder_is_the_last(bert, tmp_path):
    run = run_of(bert, out=tmp_path / "run", update="lora", checkpoints=[2, 4])
    assert run.checkpoints == [0, 2, 4, 6]
    hashes = [ts.load_model(str(tmp_path / "run" / "checkpoints" / f"step-{step}")).identity()["weights_sha256"] for step in (0, 2, 4, 6)]
    assert hashes == [each["weights_sha256"] for each in run.record["checkpoints"]]
    assert len(set(hashes)) == 4
    read = ts.load_run(tmp_path / "run")
    assert read.model.identity()["weights_sha256"] == hashes[-1] == run.model.identity()["weights_sha256"]
    assert read.loss_rows == run.loss_rows
    base, start = ts.load_model(str(bert)), run.checkpoint(0)
    acts = [ts.capture(model, TEXTS).sites["output"] for model in (base, start)]
    assert torch.equal(*acts)  # B is zero at the start
    compared = ts.diff(str(bert), str(tmp_path / "run"), TEXTS * 2, measures=["cka"])
    assert compared.profile["cka"].min() < 1
    assert not (tmp_path / "run" / ".resume").exists()


def test_epochs_are_of_whole_batches_and_checkpoints_are_in_their_unit(bert, tmp_path):
    run = run_of(bert, steps=None, epochs=2, checkpoints=[0.5, 1], schedule={"batch_size": 4, "lr": 1e-3}, out=tmp_path / "run")
    assert len(LABELS) == 42
    assert (run.record["spec"]["steps"], run.record["spec"]["epoch_steps"]) == (20, 10)
    assert run.checkpoints == [0, 5, 10, 20]
    assert run.losses["epoch"].iloc[-1] == pytest.approx(2.0)


def test_a_head_that_trained_is_in_the_model_as_it_was_trained(bert, tmp_path):
    run_of(bert, out=tmp_path / "run")
    before, after = (AutoModelForMaskedLM.from_pretrained(path) for path in (bert, tmp_path / "run"))
    old, new = before.state_dict(), after.state_dict()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert "cls.predictions.transform.dense.weight" in moved
    assert after.cls.predictions.decoder.weight.data_ptr() == after.bert.embeddings.word_embeddings.weight.data_ptr()
    own = ts.load_model(str(tmp_path / "run")).tensors()
    assert all(torch.equal(value, new[f"bert.{name}"]) for name, value in own.items())


def test_every_number_of_what_moves_counts_the_head(tmp_path):
    base, file = save_model(tmp_path / "b"), labelled_file(tmp_path)
    said: list[str] = []
    asked = {"objective": "classify", "texts": str(file), "labels": "label", "steps": 1, "announce": said.append}
    for update, trains in (("lora", True), ("uniform", False), ("uniform", True)):
        run = run_of(base, update=update, train_drawn_head=trains, **asked)
        written = run.record["update"]
        assert sum(group["parameters"] for group in written["groups"]) == written["parameters"]
        assert f"{written['parameters']:,} of {written['parameters'] + written['frozen_parameters']:,} parameters move" in said[-1]
        assert any(group["name"] == "drawn head" for group in written["groups"]) is (trains and update == "lora")


@pytest.mark.parametrize("trains", [True, False])
def test_a_drawn_head_learns_beside_an_adapter_unless_told_otherwise(tmp_path, trains):
    base, file = save_model(tmp_path / "b"), labelled_file(tmp_path)
    run = run_of(base, objective="classify", update="lora", texts=str(file), labels="label", out=tmp_path / "r", train_drawn_head=trains)
    start, end = (load_file(path / "heads.safetensors") for path in (RunFolder(tmp_path / "r").checkpoint(0), tmp_path / "r"))
    assert start.keys() == {"classes.weight", "classes.bias"}
    assert torch.equal(start["classes.weight"], end["classes.weight"]) is not trains
    assert any(group["name"] == "drawn head" for group in run.record["update"]["groups"]) is trains
    assert run.record["spec"]["data"]["labels"]["classes"] == ["long", "short"]


def test_a_head_can_be_fitted_first_with_the_body_as_it_is(tmp_path):
    base = save_model(tmp_path / "bare")
    said = []
    run = run_of(base, update="lora", settings={"head": "fitted"}, fit_batches=30, out=tmp_path / "run", announce=said.append)
    fit = run.record["head_fit"]
    assert "the head is fitted on 30 batches first, the body as it is" in said
    assert f"the head is fitted: its loss went from {fit[0]:.3f} to {fit[-1]:.3f}" in said
    assert len(fit) == 30
    assert sum(fit[-5:]) < sum(fit[:5])
    acts = [ts.capture(model, TEXTS).sites["output"] for model in (ts.load_model(str(base)), run.checkpoint(0))]
    assert torch.equal(*acts)


def test_a_head_is_fitted_beside_layers_that_the_checkpoint_holds(tmp_path):
    """The Dense layer of the embedding is the base's: LoRA leaves it alone, and so does fitting the vocabulary head beside it."""
    base = save_sentence_transformer(tmp_path / "st", dense=8)
    asked = {"objective": "mlm,contrastive", "settings": {"mlm.head": "fitted"}, "update": "lora", "pairs": PAIRS, "texts": None}
    run = run_of(base, **asked, fit_batches=5, steps=4, checkpoints=[2], out=tmp_path / "run")
    before = load_file(base / "2_Dense" / "model.safetensors")["linear.weight"]
    for model in (run.model, ts.load_model(str(tmp_path / "run"))):
        dense = next(p for layer in model.output.layers for p in layer.parameters() if p.shape == before.shape)
        assert torch.equal(dense, before)
    assert run.record["head_fit"]


def test_every_block_moves_by_tau_of_a_paired_run(bert, tmp_path):
    run = run_of(bert, update="equal-step", tau="paired", out=tmp_path / "run")
    paired = ts.load_run(tmp_path / "run" / "paired")
    assert paired.record["update"]["rule"] == "uniform"
    tau = run.record["update"]["tau"]
    assert tau == paired.tau == paired.steps.query("state == 'moved'")["ratio"].median()
    before, after = (tensors(run.checkpoint(step)) for step in (0, 6))
    for block in range(3):
        names = [name for name in before if name.startswith(f"encoder.layer.{block}.")]
        moved = math.sqrt(sum(float((after[name] - before[name]).square().sum()) for name in names))
        size = math.sqrt(sum(float(before[name].square().sum()) for name in names))
        assert 0 < moved / size <= 6 * tau * 1.05
    again = run_of(bert, update="equal-step", tau=tmp_path / "run" / "paired")
    assert again.record["update"]["tau"] == tau
    assert ts.tau_from(paired) == ts.tau_from(tmp_path / "run" / "paired") == ts.tau_from(str(tmp_path / "run" / "paired")) == tau
    with pytest.raises(InputError, match="holds no run"):
        ts.tau_from(tmp_path)


def test_what_is_odd_about_the_texts_is_said_once(bert):
    said = []
    run_of(bert, update="equal-step", tau="paired", texts=[*LABELS, LABELS[0]], steps=1, announce=said.append)
    assert [line for line in said if "duplicate" in line] == [f"1 of {len(LABELS) + 1} texts is a duplicate of another"]


def test_preservation_and_sums_read_their_own_texts(bert):
    run = run_of(bert, objective="mlm:0.5,contrastive", pairs=PAIRS, texts=LABELS, keep=TEXTS, settings={"mlm.share": 0.3})
    written = run.record["objective"]
    assert written["name"] == "preserve"
    assert [part["name"] for part in written["objective"]["parts"]] == ["mlm", "contrastive"]
    assert written["objective"]["parts"][0]["share"] == 0.3
    assert written["objective"]["weights"] == [0.5, 1.0]
    assert {"distance_from_start", "0.mlm", "1.contrastive"} <= set(run.losses.columns)


def test_objectives_on_texts_take_both_sides_of_pairs(bert):
    run = run_of(bert, texts=None, pairs=PAIRS)
    assert run.record["spec"]["data"]["items"]["count"] == len({text for pair in PAIRS for text in pair})


def test_the_way_is_measured_at_the_checkpoints(bert, tmp_path):
    watched = {"texts": TEXTS * 3, "measures": ("cka", "nps")}
    run = run_of(bert, out=tmp_path / "run", checkpoints=[3], trajectory=watched)
    rows = run.trajectory.query("kind == 'geometry' and measure == 'cka' and where == 'output'").set_index("step")["value"]
    assert list(rows.index) == [0, 3, 6]
    start, middle = (ts.capture(run.checkpoint(step), TEXTS * 3, max_length=64).sites["output"] for step in (0, 3))
    assert rows[0] == 1
    assert rows[3] == pytest.approx(ts.cka(start, middle), abs=1e-6)
    same = run_of(bert, checkpoints=[3])
    assert same.model.identity()["weights_sha256"] == run.model.identity()["weights_sha256"]
    assert ts.read_trajectory(tmp_path / "run").equals(run.trajectory)
    level = float(rows[3])
    found = ts.match(str(tmp_path / "run"), str(tmp_path / "run"), measure="cka", at=level)
    assert found.a.at == pytest.approx(3)


def test_the_learning_rate_of_a_row_is_that_of_its_step(bert):
    run = run_of(bert, schedule={"batch_size": 4, "lr": 1e-2, "schedule": "linear", "warmup": 1}, steps=4)
    assert run.losses["learning_rate"].tolist() == pytest.approx([0, 1e-2, 1e-2 * 2 / 3, 1e-2 / 3])
    warmed = run_of(bert, schedule={"batch_size": 4, "lr": 1e-2, "warmup": 3}, steps=4)
    assert warmed.losses["learning_rate"].tolist() == pytest.approx([0, 1e-2 / 3, 2e-2 / 3, 1e-2])
    decayed = run_of(bert, update="standard", steps=1)
    assert decayed.losses["learning_rate"].tolist() == [1e-3]


def test_an_adapter_of_a_given_object_finds_its_base_again(tmp_path):
    model, tokenizer = tiny_model("bert", head="mlm", seed=7), tokenizer_for("bert")
    run = run_of((model, tokenizer), update="lora", steps=2, out=tmp_path / "run")
    read = ts.load_run(tmp_path / "run")
    acts = [ts.capture(each, TEXTS).sites["output"] for each in (run.model, read.model)]
    assert torch.equal(*acts)
    kept = AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "base").state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_the_callers_random_numbers_are_left_alone(bert):
    torch.manual_seed(11)
    random.seed(11)
    expected = torch.rand(2), random.random()
    torch.manual_seed(11)
    random.seed(11)
    run_of(bert, steps=1)
    assert torch.equal(torch.rand(2), expected[0])
    assert random.random() == expected[1]


def test_a_pooler_that_the_checkpoint_lacks_is_drawn_by_the_seed(bert):
    steps = []
    for number in (1, 2):
        torch.manual_seed(number)
        steps.append(run_of(bert, steps=2).steps)
    assert steps[0].equals(steps[1])


def test_pairs_lead_a_sum_in_whatever_order_it_is_written(bert):
    for asked in ("mlm,contrastive", "contrastive,mlm"):
        run = run_of(bert, objective=asked, pairs=PAIRS, texts=LABELS, steps=1)
        assert run.record["spec"]["data"]["items"]["count"] == len(PAIRS)


def test_a_run_says_why_it_stopped_early(bert, tmp_path):
    rows = [{"text": text, "label": str(number % 2)} for number, text in enumerate(LABELS)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    watched = {"texts": str(tmp_path / "t.jsonl"), "labels": "label", "measures": ("nps",), "stop": "probe/label/accuracy: drop>.0001"}
    run = run_of(bert, out=tmp_path / "run", schedule={"batch_size": 4, "lr": 0.3}, steps=8, checkpoints=[1, 2, 3, 4], trajectory=watched)
    ended = run.record["ended"]
    assert ended["step"] == len(run.losses)
    assert (ended["stopped"] is None) == (ended["step"] == 8)
    assert ended["stopped"] is None or "accuracy" in ended["stopped"]


# The order of items


def test_every_epoch_is_a_new_order_of_all_items():
    order = RunOrder(50, seed=1, batch=8)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    assert sorted(number for _, _, number in first) == list(range(50))
    assert [number for _, _, number in first] != [number for _, _, number in second]
    assert [place[:2] for place in second] == [(1, position) for position in range(50)]


def test_pairs_that_share_a_text_are_in_different_batches():
    keys = [(frozenset({f"q{i}", f"p{i // 4}"}), frozenset()) for i in range(64)]  # every passage belongs to four queries
    order = [number for _, _, number in RunOrder(64, seed=0, batch=8, keys=keys)]
    assert sorted(order) == list(range(64))
    batches = [order[start : start + 8] for start in range(0, 56, 8)]
    assert all(len({i // 4 for i in batch}) == 8 for batch in batches[:6])


def test_no_passage_stands_as_the_negative_of_its_own_query():
    keys = [(frozenset({f"q{i}", f"p{i}"}), frozenset({f"p{(i + 1) % 40}", "never apart"})) for i in range(40)]
    order = [number for _, _, number in RunOrder(40, seed=0, batch=8, keys=keys)]
    for start in range(0, 24, 8):
        batch = order[start : start + 8]
        assert not {f"p{i}" for i in batch} & {f"p{(i + 1) % 40}" for i in batch}


def test_columns_beside_go_round_shuffled_anew():
    data = RunData([list("abcdef"), [1, 2, 3, 4]], seed=0)
    read = [data[(epoch, position, position)][1][1] for epoch in range(2) for position in range(6)]
    assert [sorted(read[start : start + 4]) for start in (0, 4, 8)] == [[1, 2, 3, 4]] * 3


# Going on


class Stop(TrainerCallback):
    """Breaks the run off at a step, before its snapshot."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("update", "more"),
    [
        ("lora", {"trajectory": {"texts": TEXTS * 3, "measures": ("nps",)}}),
        ("uniform", {}),
        ("lora+equal-step", {"tau": 1e-3}),
        ("lora", {"settings": {"head": "fitted"}, "fit_batches": 5}),
    ],
)
def test_a_run_goes_on_exactly_where_it_stopped(bert, tmp_path, update, more):
    asked = {"update": update, "steps": 12, "checkpoints": [4, 9], "seed": 5, "epochs": None} | more
    whole = run_of(bert, out=tmp_path / "whole", **asked)
    with pytest.raises(KeyboardInterrupt):
        run_of(bert, out=tmp_path / "parts", **asked, callbacks=[Stop(7)])
    parts = run_of(bert, out=tmp_path / "parts", **asked, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert parts.model.identity()["weights_sha256"] == whole.model.identity()["weights_sha256"]


def assert_same_run(one: Path, two: Path) -> None:
    for name in ("losses.jsonl", "steps.jsonl", "trajectory.jsonl"):
        assert (one / name).exists() == (two / name).exists()
        if (one / name).exists():
            assert (one / name).read_bytes() == (two / name).read_bytes(), name
    weights = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert weights == sorted(path.relative_to(two) for path in two.rglob("*.safetensors"))
    assert all((one / path).read_bytes() == (two / path).read_bytes() for path in weights)
    records = [json.loads((path / "run.json").read_text()) for path in (one, two)]
    assert records[0] == records[1]


def test_a_run_that_was_through_makes_no_further_step(bert, tmp_path, monkeypatch):
    """5 steps in an epoch of 10: the Trainer would make a sixth before it looks."""
    from tunescope.training.run import engine

    asked = {"steps": 5, "out": tmp_path / "run"}
    finish = engine._finish
    monkeypatch.setattr(engine, "_finish", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_of(bert, **asked)
    monkeypatch.setattr(engine, "_finish", finish)
    parts, whole = run_of(bert, **asked, resume=True), run_of(bert, steps=5, out=tmp_path / "whole")
    assert parts.record["ended"]["step"] == 5
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert parts.loss_rows == whole.loss_rows


def test_another_run_is_never_taken_for_the_one_asked_for(bert, tmp_path):
    file = labelled_file(tmp_path)
    classify = {"objective": "classify", "labels": "label", "steps": 2, "out": tmp_path / "c"}
    run_of(bert, texts=str(file), **classify)
    flipped = tmp_path / "flipped.jsonl"
    flipped.write_text(file.read_text().replace("short", "x").replace("long", "short").replace('"x"', '"long"'))
    with pytest.raises(InputError, match="was started with other labels: give"):
        run_of(bert, texts=str(flipped), **classify, resume=True)
    paired = {"update": "equal-step", "tau": "paired", "steps": 2, "out": tmp_path / "p"}
    run_of(bert, **paired)
    with pytest.raises(InputError, match="was started with lr = 0.001: give"):
        run_of(bert, **paired, schedule={"batch_size": 4, "lr": 1e-5}, resume=True)
    lora = {"update": "lora", "out": tmp_path / "l", "schedule": {"batch_size": 4}}
    run_of(bert, **lora, steps=2)
    with pytest.raises(InputError, match="was started with steps = 2: give"):
        run_of(bert, **lora, steps=3, resume=True)
    with pytest.raises(InputError, match="was started with rank = 8: give"):
        run_of(bert, **lora, steps=2, options={"rank": 4}, resume=True)
    with pytest.raises(InputError, match="was started with update = lora: give"):
        run_of(bert, **(lora | {"update": "uniform"}), steps=2, resume=True)
    with pytest.raises(InputError, match="was started with objective = mlm; lr left out; seed = 0: give"):
        run_of(bert, **(lora | {"schedule": {"batch_size": 4, "lr": 1.0}}), objective="simcse", steps=2, seed=1, resume=True)


def test_a_finished_run_is_read_and_another_run_is_refused(bert, tmp_path):
    first = run_of(bert, out=tmp_path / "run", steps=2)
    assert re.fullmatch(r"<Run: 2 steps of \S+ by \S+ from \S+ in '.*run'>", repr(first))  # one line, and no tree of modules
    assert run_of(bert, out=tmp_path / "run", steps=2, resume=True).loss_rows == first.loss_rows
    with pytest.raises(OutputError, match="holds a run already; it is finished"):
        run_of(bert, out=tmp_path / "run", steps=2)
    with pytest.raises(KeyboardInterrupt):
        run_of(bert, out=tmp_path / "stopped", callbacks=[Stop(3)])
    with pytest.raises(OutputError, match="--resume goes on"):
        run_of(bert, out=tmp_path / "stopped")
    with pytest.raises(ModelError, match=r"is a run that is not finished; go on with it .*--resume\), or give a checkpoint .*step-0'"):
        ts.load_model(str(tmp_path / "stopped"))
    with pytest.raises(InputError, match="started with seed = 0: give what"):
        run_of(bert, out=tmp_path / "stopped", seed=1, resume=True)
    with pytest.raises(InputError, match="not finished"):
        ts.load_run(tmp_path / "stopped")
    with pytest.raises(InputError, match="holds no run to resume"):
        run_of(bert, out=tmp_path / "nothing", resume=True)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_finetune import run_of
run_of({base!r}, out={out!r}, update={update!r}, steps=60, checkpoints=[20, 41], resume={resume!r}, trajectory={trajectory!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("update", ["lora", "uniform"])
def test_a_killed_run_goes_on_exactly(bert, tmp_path, update):
    """kill -9 three times, a random moment after a random step."""
    rng, trajectory = random.Random(update), {"texts": TEXTS * 3, "measures": ("nps", "debiased_cka")}
    said = tmp_path / "said.txt"

    def start(out: Path, *, resume: bool) -> subprocess.Popen:
        asked = {"base": str(bert), "out": str(out), "update": update, "resume": resume, "trajectory": trajectory}
        script = KILLED.format(tests=str(Path(__file__).parent), **asked)
        with said.open("w") as file:
            return subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=file)

    def reached(out: Path) -> int:
        return max((int(path.name.rpartition("-")[2]) for path in (out / ".resume").glob("checkpoint-*")), default=0)

    assert start(tmp_path / "whole", resume=False).wait() == 0, said.read_text()
    out, step = tmp_path / "parts", 0
    for _ in range(3):
        process, step = start(out, resume=(out / "run.json").exists()), step + rng.randint(3, 15)
        while reached(out) < step and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        assert process.poll() is None, said.read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
        step = max(step, reached(out))
    assert start(out, resume=True).wait() == 0, said.read_text()
    assert_same_run(tmp_path / "whole", out)


# What is refused, before anything is written


def labelled_file(folder: Path) -> Path:
    rows = ({"text": text, "label": "long" if len(text) > 20 else "short"} for text in LABELS)
    file = folder / "labelled.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"objective": "nsp"}, TunescopeError, "next-sentence head"),
        ({"objective": "causal-lm"}, TunescopeError, "reads in both directions"),
        ({"objective": "contrastive"}, InputError, "contrastive needs pairs"),
        ({"objective": "classify"}, InputError, "column of labels"),
        ({"objective": "sft"}, TunescopeError, "conversations|causal|both directions"),
        ({"objective": "mlmm"}, UnknownName, "did you mean mlm"),
        ({"update": "lorra"}, UnknownName, "did you mean lora"),
        ({"update": "equal-step"}, InputError, "needs tau"),
        ({"tau": 1e-3}, InputError, "the update rule is 'uniform'"),
        ({"settings": {"shar": 0.2}}, UnknownName, "did you mean share"),
        ({"settings": {"preserve.weight": 2}}, InputError, "without texts to keep"),
        ({"options": {"rnk": 4}, "update": "lora"}, UnknownName, "rank"),
        ({"steps": 3, "epochs": 2}, InputError, "both given"),
        ({"checkpoints": [9]}, InputError, "checkpoint at step 9"),
        ({"texts": LABELS[:3]}, InputError, "3 items for batches of 4; give more, or a batch_size of 3 or less$"),
        ({"texts": LABELS[:1]}, InputError, "1 item for batches of 4; give more, or a batch_size of 1$"),
        ({"texts": None}, InputError, "something to read"),
        ({"schedule": {"lr": -1.0}}, InputError, "lr=-1.0"),
        ({"schedule": {"schedule": "cosin"}}, UnknownName, "did you mean cosine"),
        ({"schedule": {"speed": 1}}, InputError, "speed"),
        ({"labels": "label"}, TunescopeError, "no column 'label'"),
        ({"labels": ["a", "b"]}, InputError, "the name of the column"),
        ({"update": "equal-step", "tau": float("nan")}, InputError, "above 0, such as 5e-4"),
        ({"update": "equal-step", "tau": -1}, InputError, "above 0, such as 5e-4"),
        ({"update": "equal-step", "tau": "nowhere"}, InputError, "the folder of a run, or paired"),
        ({"update": "lora", "options": {"rank": "abc"}}, InputError, "give a number"),
        ({"seed": -1}, InputError, "whole number from 0"),
        ({"fit_batches": True}, InputError, "fit_batches=True was asked for"),
        ({"max_length": 0}, InputError, "max_length=0 was asked for; give a whole number from 2$"),
        ({"max_length": -3}, InputError, "max_length=-3"),
        ({"max_length": 5.5}, InputError, "max_length=5.5"),
        ({"objective": "mlm:100", "keep": TEXTS}, InputError, "'mlm:100' asked for; a weight is against another objective"),
        ({"train_drawn_head": False}, InputError, "mlm runs through no drawn head"),
        ({"loading": {"dtype": "bfloat16"}}, InputError, "^bfloat16 weights are to be trained"),
        ({"checkpoints": 1}, InputError, "checkpoints=1 asked for; give a list"),
        ({"checkpoints": ["a"]}, InputError, "a checkpoint at 'a' was asked for; give numbers of steps"),
        ({"schedule": {"lr": "a"}}, InputError, "lr='a' was asked for; give a number above 0$"),
        ({"schedule": {"lr": True}}, InputError, "lr=True was asked for"),
        ({"schedule": {"clip": -1}}, InputError, "clip=-1 was asked for; give a number from 0$"),
        ({"schedule": {"clip": math.nan}}, InputError, "clip=nan was asked for"),
        ({"options": {"weight_decay": math.nan}}, InputError, "weight_decay=nan was asked for"),
        ({"steps": 2.5}, InputError, "whole number from 1"),
        ({"schedule": {"warmup": -1}}, InputError, "warmup=-1"),
        ({"log_to": ["wand"]}, InputError, "the Trainer does not take this"),
        ({"trainer": {"max_steps": 3}}, InputError, "which the run sets itself or makes nothing of; give steps instead"),
        ({"trainer": {"learning_rate": 1.0}}, InputError, r"give schedule={'lr': …} instead"),
        ({"trainer": {"optim": "sgd"}}, InputError, "'optim': ….* it takes dataloader_in_order"),
        ({"trainer": {"label_smoothing_factor": 0.5}}, InputError, "label_smoothing_factor"),
        ({"trainer": {"gradient_checkpointing": True}}, InputError, "activation_checkpointing"),
        ({"trainer": {"eval_strategy": "steps"}}, InputError, "eval_strategy"),
        ({"trainer": {"neftune_noise_alpha": 5}}, InputError, "neftune_noise_alpha"),
        ({"trainer": {"nonsense": 3}}, InputError, "the Trainer does not take this"),
        ({"trajectory": True}, InputError, "arguments of TrajectoryCallback"),
        ({"trajectory": {"sample": 100}}, UnknownName, "unknown entry of trajectory .*'sample'"),
        ({"trajectory": {"steps": [1]}}, UnknownName, "points are the run's checkpoints"),
        ({"settings": {"rnk": 4}, "objective": "causal-lm"}, UnknownName, "setting of causal-lm 'rnk'; there are none"),
        ({"keep": TEXTS, "settings": {"preserve.head": "random"}}, UnknownName, "setting of preserve"),
        ({"objective": "mlm,contrastive"}, InputError, "contrastive needs pairs"),
        ({"update": "equal-step", "tau": 1e-3, "loading": {"dtype": "bfloat16"}}, InputError, "bfloat16"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_nothing_is_written(bert, tmp_path, changes, kind, said):
    with pytest.raises(kind, match=said) as caught:
        run_of(bert, out=tmp_path / "run", **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_before_its_first_model_leaves_nothing(bert, tmp_path):
    """A folder that was not there goes, one that was empty is empty again, and of one with a paired run that alone stays."""

    def broken(line):
        if (place / "run.json").is_file():
            raise RuntimeError("broken")

    (tmp_path / "empty").mkdir()
    for name, more, left in (("new", {}, None), ("empty", {}, []), ("equal", {"update": "equal-step", "tau": "paired"}, ["paired"])):
        place = tmp_path / name
        with pytest.raises(RuntimeError, match="broken"):
            run_of(bert, out=place, announce=broken, **more)
        assert (sorted(each.name for each in place.iterdir()) if place.is_dir() else None) == left
    assert len(run_of(bert, out=tmp_path / "equal", update="equal-step", tau="paired", resume=True).losses) == 6


def test_a_logger_that_is_not_installed_is_named(bert, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: False)
    with pytest.raises(InputError, match="the Trainer does not take this: TensorBoardCallback requires tensorboard"):
        run_of(bert, out=tmp_path / "run", log_to=["tensorboard"])
    assert not (tmp_path / "run").exists()


def test_a_first_loss_that_is_no_number_is_not_put_down_to_the_learning_rate(bert):
    """Cosines over 1e-40, a subnormal number, are infinite in float32."""
    with pytest.raises(ActivationError, match=r"the loss at step 1 is nan; nothing was learnt before it.*settings of simcse"):
        run_of(bert, objective="simcse", settings={"temperature": 1e-40})


def test_a_loss_that_is_no_number_stops_the_run(bert):
    with pytest.raises(ActivationError, match="the loss at step .* lower the learning rate"):
        run_of(bert, schedule={"batch_size": 4, "lr": 1e30, "clip": 0.0}, steps=20)


def test_a_run_that_diverged_says_what_becomes_of_its_folder(bert, tmp_path):
    diverging = {"schedule": {"batch_size": 4, "lr": 1e30, "clip": 0.0}, "steps": 20}
    with pytest.raises(ActivationError, match=r"remove '.*run', where it began, or name another folder"):
        run_of(bert, out=tmp_path / "run", **diverging)


def test_a_run_is_watched_unless_told_otherwise(bert, tmp_path):
    """As the command line does; on Python's own documentation."""
    asked = {"objective": "mlm", "update": "uniform", "texts": LABELS, "steps": 2, "schedule": {"batch_size": 4}}
    run = ts.finetune(str(bert), **asked, out=tmp_path / "run")
    assert set(run.trajectory["step"]) == {0, 2}
    assert run.trajectory["n"].max() == 256
    run_of(bert, out=tmp_path / "unwatched", steps=2)
    with pytest.raises(InputError, match=r"holds no trajectory.jsonl: nothing was measured .*trajectory="):
        ts.match(tmp_path / "unwatched", tmp_path / "run", measure="nps", at=0.9)


TWO = """
import sys
sys.path.insert(0, {tests!r})
from test_finetune import run_of
asked = {{"objective": "classify", "texts": {file!r}, "labels": "label", "steps": 5, "loading": {{"device": "cpu"}}}}
run_of({base!r}, out={out!r}, schedule={schedule!r}, **asked)
"""


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one_with_batches_of_both(tmp_path):
    """Means over items: the mean of two processes' gradients is that of their batches together. Losses to 1e-5, sums being in another
    order; weights to 5% of a step of 1e-3, since AdamW's first steps go by the sign of gradients that may be all rounding."""
    base, file = save_model(tmp_path / "b", model=tiny_model("bert", **STILL)), labelled_file(tmp_path)
    common = {"tests": str(Path(__file__).parent), "base": str(base), "file": str(file)}
    alone, both = tmp_path / "alone", tmp_path / "both"
    (tmp_path / "one.py").write_text(TWO.format(**common, out=str(alone), schedule={"batch_size": 8, "lr": 1e-3}))
    (tmp_path / "two.py").write_text(TWO.format(**common, out=str(both), schedule={"batch_size": 4, "lr": 1e-3}))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29551"]
    for command in ([sys.executable, str(tmp_path / "one.py")], [*torchrun, str(tmp_path / "two.py")]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    one, two = (AutoModel.from_pretrained(path).state_dict() for path in (alone, both))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=5e-5, rtol=0)
    losses = [[row["loss"] for row in RunFolder(path).rows("losses.jsonl")] for path in (alone, both)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
