"""Weights in shards over processes (FSDP2): a run that keeps, measures and goes on from what one process alone would have.

accelerate cuts weights on devices only, so two gloo processes on the CPU pass for such here: one line of accelerate's state is replaced in
these processes, and all that follows (accelerate's preparation of model and optimizer, torch's fully_shard) is what runs on devices.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

import tunescope as ts
from test_finetune import STILL, assert_same_run, labelled_file, run_of
from tiny_models import TEXTS, save_model, tiny_model, tokenizer_for
from tunescope.errors import InputError
from tunescope.training.run.folder import RunFolder
from tunescope.training.run.fsdp import CHOSEN, check_fsdp

REAL = PartialState._prepare_backend
READ = [f"{text} {end}" for text in TEXTS for end in ("sun", "night")]
WATCHED = {"trajectory": {"texts": READ, "measures": ("nps", "debiased_cka", "relative_drift")}, "checkpoints": [3]}
ENVIRONMENT = os.environ | {"ACCELERATE_TORCH_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}


class Seen(TrainerCallback):
    """How much of the weights lies in shards, and how much of a tensor a process has."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        parameters = list(model.parameters())
        self.cut = sum(isinstance(parameter, DTensor) for parameter in parameters)
        self.whole = len(parameters) - self.cut
        self.share = sum(p.to_local().numel() for p in parameters) / sum(p.numel() for p in parameters)


def pass_for_devices() -> None:
    """In each process that torchrun started."""
    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)


def in_shards(**asked) -> ts.Run:
    """A run whose every tensor was seen cut, about a half here; nothing is left behind for the next run of the process."""
    seen = Seen()
    made = run_of(**asked, loading={"device": "cpu"}, trainer={"fsdp": True}, callbacks=[seen])
    assert (seen.cut > 50, seen.whole) == (True, 0)
    assert 0.4 < seen.share < 0.6
    assert CHOSEN not in os.environ
    return made


def torchrun(program: str, folder: Path, **asked) -> list[str]:
    """The command that runs a program in two processes, with `asked` as JSON."""
    start = f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import conftest; from test_shards import *\n"
    (folder / "program.py").write_text(f"{start}pass_for_devices(); asked = json.loads(sys.argv[1])\n{program}")
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [sys.executable, *two, str(folder / "program.py"), json.dumps(asked)]


def both_processes(program: str, folder: Path, **asked) -> None:
    done = subprocess.run(torchrun(program, folder, **asked), env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def assert_alike(one: Path, two: Path) -> None:
    """The same files. Weights to 1e-6 (about 1e-7 was seen: sums are in another order), but for biases of keys, on which no attention
    depends, so that AdamW takes steps of 1e-3 by the sign of rounding. Losses to 1e-5 relative; measures and sizes of steps, to which
    those biases add, to 1e-4."""
    files = [sorted(path.relative_to(each).as_posix() for path in each.rglob("*") if path.is_file()) for each in (one, two)]
    assert files[0] == files[1]
    for path in (path for path in files[0] if path.endswith(".safetensors")):
        ours, theirs = load_file(two / path), load_file(one / path)
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {name for name in ours if name.endswith("key.bias")}:
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=0, msg=lambda said, at=f"{path} {name}": f"{at}: {said}")
    for name, near in (("losses", 1e-5), ("steps", 1e-4), ("trajectory", 1e-4)):
        rows = [RunFolder(each).rows(f"{name}.jsonl") for each in (one, two)]
        assert len(rows[0]) == len(rows[1])
        for theirs, ours in zip(*rows, strict=True):
            numbers = {key: pytest.approx(value, rel=near, abs=1e-6) for key, value in theirs.items() if isinstance(value, float)}
            assert ours == theirs | numbers


@pytest.fixture
def bert(tmp_path) -> str:
    return str(save_model(tmp_path / "bert", model=tiny_model("bert", head="mlm", **STILL)))


@pytest.mark.slow
def test_two_processes_with_a_half_of_the_weights_each_make_the_run_of_one(bert, tmp_path):
    """Means over items: the mean of two processes' gradients is that of their batches together."""
    labels = {"objective": "classify", "texts": str(labelled_file(tmp_path)), "labels": "label", "steps": 5, **WATCHED}
    rules: dict[str, dict] = {"equal-step": {}, "lora+equal-step": {"options": {"dropout": 0.0}}}  # two processes drop other places
    asked = {rule: {**labels, "base": bert, "update": rule, "tau": "paired", **more} for rule, more in rules.items()}
    program = """
for rule, each in asked["runs"].items():
    made = in_shards(**each, out=f"{asked['out']}-{rule}", schedule={"batch_size": 4, "lr": 1e-3})
    assert made.model.identity()["weights_sha256"] == ts.load_run(made.folder).model.identity()["weights_sha256"]
"""
    both_processes(program, tmp_path, runs=asked, out=str(tmp_path / "two"))
    for rule, each in asked.items():
        run_of(**each, out=tmp_path / f"one-{rule}", schedule={"batch_size": 8, "lr": 1e-3}, loading={"device": "cpu"})
        for part in ("", "paired"):  # by equal steps, and the same rule without them
            assert_alike(tmp_path / f"one-{rule}" / part, tmp_path / f"two-{rule}" / part)


@pytest.mark.slow
def test_shards_make_the_run_of_whole_weights_in_as_many_processes(bert, tmp_path):
    """Where two batches are not one: masks, contrast within a batch. Heads tied to the embeddings, several passes, mixed precision."""
    runs = {
        "mlm": {"keep": TEXTS, "schedule": {"batch_size": 4, "lr": 1e-3, "activation_checkpointing": True}},
        "contrastive": {"pairs": [[text, text[::-1]] for text in READ], "texts": None, "settings": {"chunk": 2}, "update": "lora"},
        "simcse": {"schedule": {"batch_size": 4, "lr": 1e-3, "precision": "bfloat16"}},
    }
    program = """
for objective, each in asked["runs"].items():
    in_shards(**each, objective=objective, out=f"{asked['out']}-{objective}-shards")
PartialState._prepare_backend = REAL
for objective, each in asked["runs"].items():
    run_of(**each, objective=objective, out=f"{asked['out']}-{objective}-whole", loading={"device": "cpu"})
"""
    runs = {objective: {"base": bert, "steps": 4, **WATCHED, **each} for objective, each in runs.items()}
    both_processes(program, tmp_path, runs=runs, out=str(tmp_path / "run"))
    for objective in runs:
        assert_alike(tmp_path / f"run-{objective}-whole", tmp_path / f"run-{objective}-shards")


@pytest.mark.slow
def test_a_killed_run_of_shards_goes_on_exactly(bert, tmp_path):
    """kill -9 of both processes, a random moment after a random step; accumulated gradients, whose snapshots hold AdamW's state."""
    asked = {"base": bert, "update": "uniform", "steps": 30, **WATCHED, "schedule": {"batch_size": 2, "lr": 1e-3, "accumulate": 2}}
    whole, parts, draw = tmp_path / "whole", tmp_path / "parts", random.Random(3)
    both_processes("in_shards(**asked)", tmp_path, **asked, out=str(whole))
    (tmp_path / "alive").mkdir()
    program = f"Path({str(tmp_path / 'alive')!r}, str(os.getpid())).touch(); in_shards(**asked)"
    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen(torchrun(program, tmp_path, **asked, out=str(parts)), env=ENVIRONMENT, stderr=said)
    step = draw.randint(4, 20)
    while process.poll() is None and not any(int(path.name.rpartition("-")[2]) >= step for path in (parts / ".resume").glob("*")):
        time.sleep(0.01)
    time.sleep(draw.uniform(0, 0.1))
    assert process.poll() is None, (tmp_path / "said.txt").read_text()
    for alive in (tmp_path / "alive").iterdir():
        os.kill(int(alive.name), signal.SIGKILL)
    assert process.wait() != 0
    assert not json.loads((parts / "run.json").read_text())["finished"]
    both_processes("in_shards(**asked)", tmp_path, **asked, out=str(parts), resume=True)
    assert_same_run(whole, parts)


# What is refused


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"fsdp": True}, "one process, which has nobody to share its weights with; use torchrun"),
        ({"fsdp": True, "fsdp_config": {"version": 1}}, r"\{'version': 1\}.* was given; FSDP1 hides how it cuts tensors"),
        ({"fsdp": True, "fsdp_config": {"cpu_offload": True}}, r"\{'cpu_offload': True\}.* step sizes are added up where the weights lie"),
        ({"fsdp": True, "fsdp_config": {"activation_checkpointing": True}}, "use activation_checkpointing of the schedule"),
        ({"fsdp": True, "fsdp_config": {"cpu_ram_efficient_loading": True}}, "it unties heads from their embeddings"),
        ({"fsdp": True, "fsdp_config": {"auto_wrap_policy": "NO_WRAP"}}, "cuts its model block by block"),
        ({"fsdp": True, "fsdp_config": {"xla": True}}, "cannot keep what XLA cuts"),
        ({"deepspeed": "ds.json"}, "cannot keep what DeepSpeed cuts"),
    ],
)
def test_shards_that_a_run_cannot_keep_are_refused_before_it_begins(bert, tmp_path, trainer, said):
    with pytest.raises(InputError, match=said) as caught:
        run_of(bert, out=tmp_path / "run", trainer=trainer)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_shards_are_refused_on_the_cpu_and_where_a_launcher_makes_its_own(bert, monkeypatch):
    model = ts.load_model((tiny_model(), tokenizer_for("bert")))
    cpu = SimpleNamespace(distributed_type=DistributedType.MULTI_CPU)
    with pytest.raises(InputError, match="on the CPU, where accelerate cuts no weights; leave it out"):
        check_fsdp(SimpleNamespace(fsdp=True, fsdp_plugin_args={"fsdp_version": 2}, distributed_state=cpu), model)
    monkeypatch.setenv(CHOSEN, "true")
    with pytest.raises(InputError, match="whose shards a run does not know; use torchrun and fsdp=True"):
        run_of(bert)
