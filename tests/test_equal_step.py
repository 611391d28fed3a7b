"""Equal steps against the definition computed in float64 from copies of the weights, and against plain AdamW from the same start."""

from __future__ import annotations

import copy
import math
import socket
import statistics

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import SGD, AdamW
from transformers import Trainer, TrainingArguments

import tunescope as ts
from tiny_models import ENCODERS, EVERY, LAYERS, RECURRENT, VOCABULARY, adapted, tiny_model, tokenizer_for
from tunescope.errors import Degenerate, FormatError, InputError, NotEnoughRows
from tunescope.models.quiet import quietly
from tunescope.training.step_groups import pieces
from tunescope.training.step_sizes import StepLog

TAU = 1e-2  # large enough that rounding of float32 weights (6e-8 of each) is far below 1e-5 of a step, even in groups of 1,000 numbers
IDS = torch.arange(5, 5 + 24).reshape(4, 6) % VOCABULARY
GROUPS = [*(f"block {i}" for i in range(1, LAYERS + 1)), "rest"]


def loss_of(model, ids=IDS) -> torch.Tensor:
    """A regression of the last hidden states on fixed numbers, summed over items."""
    options = {"use_cache": False} if model.config.model_type in RECURRENT else {}  # RWKV writes its cache over what gradients need
    result = model(input_ids=ids, **options)
    states = result.logits if hasattr(model, "lm_head") else result.last_hidden_state
    target = torch.linspace(-1, 1, states.shape[-1])
    return (states - target).square().mean(dim=(1, 2)).sum()


def members(model, marker: str) -> dict[str, list[str]]:
    """Groups by the names of trainable parameters, as the definition has it: the number after `marker`, else the rest."""
    found: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inside = f".{name}".split(f".{marker}.")[1:]
            found.setdefault(f"block {int(inside[0].split('.')[0]) + 1}" if inside else "rest", []).append(name)
    return found


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().double().clone() for name, parameter in model.named_parameters()}


def flat(found: dict[str, torch.Tensor], names: list[str]) -> torch.Tensor:
    return torch.cat([found[name].flatten() for name in names])


def check_steps(model, marker: str, *, steps: int = 4, lr: float = 1e-3) -> None:
    """Every step of every group is τ long, and along what AdamW does from the same weights, gradients and state."""
    optimizer = ts.EqualStep(AdamW([p for p in model.parameters() if p.requires_grad], lr=lr), model, tau=TAU)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        plain = copy.deepcopy(model)
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            theirs.grad = None if ours.grad is None else ours.grad.clone()
        adamw = AdamW([p for p in plain.parameters() if p.requires_grad], lr=lr)
        adamw.load_state_dict(copy.deepcopy(optimizer.optimizer.state_dict()))
        before = weights(model)
        adamw.step(), optimizer.step()
        after, wanted = weights(model), weights(plain)
        for group, names in members(model, marker).items():
            start = flat(before, names)
            moved, direction = flat(after, names) - start, flat(wanted, names) - start
            assert float(moved.norm() / start.norm()) == pytest.approx(TAU, rel=1e-5), group
            assert float(moved @ direction / (moved.norm() * direction.norm())) >= 1 - 1e-6, group
    assert all(row["state"] == "moved" for row in optimizer.log.rows() if row["group"] in members(model, marker))


# What stands before the number of a block in the names of its tensors.
MARKERS = dict.fromkeys(("bert", "roberta", "xlm-roberta", "mpnet", "electra", "distilbert"), "layer")
MARKERS |= dict.fromkeys(("gpt2", "codegen", "bloom"), "h") | dict.fromkeys(("t5", "umt5"), "block") | {"rwkv": "blocks"}
MARKERS |= dict.fromkeys([family for family in EVERY if family not in MARKERS], "layers")
TARGETS = {"gpt2": ["c_attn"], "mamba": ["in_proj", "x_proj"], "rwkv": ["key", "output"], "codegen": ["qkv_proj", "fc_out"]}
TARGETS |= {"gpt_neox": ["query_key_value"], "distilbert": ["q_lin", "v_lin"], "bloom": ["query_key_value"]}
TARGETS |= dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra"), ["query", "value"])
TARGETS |= dict.fromkeys(("mpnet", "t5", "umt5"), ["q", "v"])


@pytest.mark.parametrize("family", EVERY)
def test_every_group_moves_tau_along_adamw(family):
    check_steps(body_of(family), MARKERS[family])


@pytest.mark.parametrize("family", EVERY)
def test_it_composes_with_lora(family):
    peft = adapted(body_of(family), target_modules=TARGETS.get(family, ["q_proj", "v_proj"]), fan_in_fan_out=family == "gpt2")
    for name, parameter in peft.named_parameters():
        parameter.requires_grad_("lora_" in name)
    check_steps(peft.get_base_model(), MARKERS[family])


def body_of(family: str) -> torch.nn.Module:
    """What reads texts, taken out by the names of its class."""
    model = tiny_model(family)
    return model.get_encoder() if family in ENCODERS else model.text_model if family == "clip" else model


def test_fresh_adapters_move_from_their_random_half():
    with quietly():
        peft = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["query"], lora_dropout=0.0))
    optimizer = ts.EqualStep(AdamW([p for p in peft.parameters() if p.requires_grad], lr=1e-3), peft, tau=TAU)
    before = weights(peft)
    loss_of(peft).backward()
    optimizer.step()
    after = weights(peft)
    for group, names in members(peft, "layer").items():
        start = flat(before, names)
        assert float((flat(after, names) - start).norm() / start.norm()) == pytest.approx(TAU, rel=1e-5), group
    assert [row["state"] for row in optimizer.log.rows()] == ["moved"] * LAYERS + ["frozen"]


def test_tied_tensors_count_once():
    model = tiny_model("gpt2", head="lm")
    assert model.lm_head.weight is model.transformer.wte.weight
    optimizer = ts.EqualStep(AdamW(model.parameters(), lr=1e-3), model, tau=TAU)
    before = weights(model)  # named_parameters names a tied tensor once
    loss_of(model).backward()
    optimizer.step()
    once = torch.cat([before[name].flatten() for name in members(model, "h")["rest"]]).norm()
    assert optimizer.log.rows()[-1]["group"] == "rest"
    assert optimizer.log.rows()[-1]["weight"] == pytest.approx(float(once), rel=1e-6)


def test_two_parameters_on_one_memory_are_refused():
    model = tiny_model()
    model.encoder.layer[1].output.dense.weight.data = model.encoder.layer[0].output.dense.weight.data
    with pytest.raises(InputError, match="share one memory and would move twice; tie them as one Parameter"):
        ts.EqualStep(AdamW(model.parameters()), model, tau=TAU)


def test_accumulation_gives_the_step_of_the_whole_batch():
    """32 items at once or as 4 × 8, for a loss that is a sum over items: gradients agree to rounding, and so do the weights after a step.

    SGD, because the first steps of Adam are the sign of the gradient, which rounding can turn where a gradient is zero.
    """
    ids = torch.randint(5, VOCABULARY, (32, 6), generator=torch.Generator().manual_seed(3))
    ends = []
    for size in (32, 8):
        model = tiny_model()
        optimizer = ts.EqualStep(SGD(model.parameters(), lr=1e-2), model, tau=TAU)
        for _ in range(3):
            for part in ids.split(size):
                loss_of(model, part).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        ends.append(weights(model))
    for name, weight in ends[0].items():
        torch.testing.assert_close(ends[1][name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("family", ["bert", "gpt2", *RECURRENT])
def test_accumulation_gives_the_step_of_the_whole_batch_of_adamw_too(family, lora):
    """In float64, where the rounding of gradients (1e-16) is far below Adam's ε (1e-8), so that no sign turns; weights agree to 1e-7."""
    ids = torch.randint(5, VOCABULARY, (32, 6), generator=torch.Generator().manual_seed(3))
    ends = []
    for size in (32, 8):
        model = body_of(family).double()
        whole = adapted(model, target_modules=TARGETS[family], fan_in_fan_out=family == "gpt2") if lora else model
        moving = [parameter.requires_grad_("lora_" in name or not lora) for name, parameter in whole.named_parameters()]
        optimizer = ts.EqualStep(AdamW([parameter for parameter in moving if parameter.requires_grad], lr=1e-3), whole, tau=TAU)
        for _ in range(3):
            for part in ids.split(size):
                loss_of(model, part).backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(weights(whole))
    start = weights(body_of(family))
    assert lora or any(not torch.allclose(ends[0][name], weight) for name, weight in start.items())
    for name, weight in ends[0].items():
        torch.testing.assert_close(ends[1][name], weight, rtol=1e-7, atol=1e-7)


def test_a_frozen_block_a_still_block_and_a_zero_block_are_told_apart():
    model = tiny_model()
    first, second, third = model.encoder.layer
    first.requires_grad_(False)
    with torch.no_grad():
        for parameter in third.parameters():
            parameter.zero_()
    optimizer = ts.EqualStep(SGD(model.parameters(), lr=0.1), model, tau=TAU)
    before = weights(model)
    for block, value in ((second, None), (third, 0.5)):
        for parameter in block.parameters():
            parameter.grad = None if value is None else torch.full_like(parameter, value)
    optimizer.step()
    assert [row["state"] for row in optimizer.log.rows()] == ["frozen", "no update", "zero norm", "no update"]
    after = weights(model)
    for name, weight in after.items():
        expected = -0.05 if "layer.2." in name else 0.0  # SGD's own step, not rescaled
        assert torch.equal((weight - before[name]).float(), torch.full_like(weight, expected).float()), name


def test_a_learning_rate_of_zero_stops_and_any_other_makes_no_difference():
    ends = []
    for lr in (1e-3, 1e-1):
        model = tiny_model()
        optimizer = ts.EqualStep(SGD(model.parameters(), lr=lr), model, tau=TAU)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step > 0))  # a warm-up that starts at zero
        start = weights(model)
        for step in range(2):
            loss_of(model).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            assert step or all(torch.equal(weight, start[name]) for name, weight in weights(model).items())
        assert {row["state"] for row in optimizer.log.rows() if row["step"] == 1} == {"no update"}
        ends.append(weights(model))
    for name, weight in ends[0].items():
        torch.testing.assert_close(ends[1][name], weight, rtol=1e-4, atol=1e-6)


def run(model, optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, (IDS + step) % VOCABULARY).backward()
        optimizer.step()


def test_a_saved_state_goes_on_bit_for_bit(tmp_path):
    whole, half = tiny_model(), tiny_model()
    optimizer = ts.EqualStep(AdamW(whole.parameters(), lr=1e-3), whole, tau=TAU)
    run(whole, optimizer, range(6))
    first = ts.EqualStep(AdamW(half.parameters(), lr=1e-3), half, tau=TAU)
    run(half, first, range(3))
    torch.save({"model": half.state_dict(), "optimizer": first.state_dict()}, tmp_path / "state.pt")
    saved, again = torch.load(tmp_path / "state.pt", weights_only=True), tiny_model(seed=9)
    again.load_state_dict(saved["model"])
    second = ts.EqualStep(AdamW(again.parameters(), lr=5.0), again, tau=TAU)
    second.load_state_dict(saved["optimizer"])
    run(again, second, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    assert second.log.rows() == optimizer.log.rows()
    with pytest.raises(InputError, match="this optimizer has tau=0.02 and the saved one had 0.01; pass that tau to go on"):
        ts.EqualStep(AdamW(again.parameters()), again, tau=2 * TAU).load_state_dict(saved["optimizer"])
    with pytest.raises(FormatError, match="the saved log of step sizes is of block 1"):
        StepLog(["rest"]).load_state_dict(optimizer.log.state_dict())


def test_a_copy_of_the_optimizer_works_on_its_own():
    model, optimizer = copy.deepcopy((model := tiny_model(), ts.EqualStep(AdamW(model.parameters(), lr=1e-3), model, tau=TAU)))
    run(model, optimizer, range(2))
    assert len(optimizer.log) == 2


class Regression(torch.nn.Module):
    """A body with a loss, in the form the Trainer wants."""

    def __init__(self):
        super().__init__()
        self.body = tiny_model()

    def forward(self, input_ids, labels=None):
        return {"loss": loss_of(self.body, input_ids) / len(input_ids)}


def trained(folder, *, resume: str | None = None, **options) -> tuple[Regression, list[dict]]:
    model = Regression()
    rows = [{"input_ids": ids, "labels": 0} for ids in torch.randint(5, VOCABULARY, (48, 6), generator=torch.Generator().manual_seed(3))]
    arguments = TrainingArguments(
        folder, max_steps=6, save_steps=3, report_to=[], disable_tqdm=True, use_cpu=True, logging_strategy="no", **options
    )
    optimizer = ts.EqualStep(AdamW(model.parameters(), lr=1e-3), model.body, tau=TAU)
    trainer = Trainer(model, arguments, train_dataset=rows, optimizers=(optimizer, None))
    trainer.train(resume_from_checkpoint=resume)
    return model, optimizer.log.rows()


def test_the_trainer_accumulates_clips_schedules_saves_and_resumes(tmp_path):
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_grad_norm": 0.5, "lr_scheduler_type": "linear"}
    model, rows = trained(tmp_path / "a", **options)
    assert len(rows) == 6 * len(GROUPS)  # one step of the optimizer for four micro-batches
    assert all(math.sqrt(sum(row["gradient"] ** 2 for row in rows[at : at + 4])) <= 0.5 * (1 + 1e-5) for at in range(0, len(rows), 4))
    resumed, again = trained(tmp_path / "a", resume=str(tmp_path / "a" / "checkpoint-3"), **options)
    assert again == rows
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


def test_autocast_with_float32_weights_is_accepted_and_16_bit_weights_are_not():
    for dtype in (torch.bfloat16, torch.float16):
        model = tiny_model().to(dtype)
        message = f"{str(dtype)[6:]} weights are to be trained.*load the model in float32 and use autocast"
        with pytest.raises(InputError, match=message):
            ts.EqualStep(AdamW(model.parameters()), model, tau=TAU)
    model = tiny_model()
    optimizer = ts.EqualStep(AdamW(model.parameters(), lr=1e-3), model, tau=TAU)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model)
    loss.backward()
    optimizer.step()
    assert {row["state"] for row in optimizer.log.rows()} == {"moved"}


def test_what_does_not_fit_is_refused_in_one_line():
    model = tiny_model()
    for tau in (0.0, -1.0, math.inf, math.nan, None, "5e-4"):
        with pytest.raises(InputError, match="EqualStep needs a relative step tau above 0"):
            ts.EqualStep(AdamW(model.parameters()), model, tau=tau)
    with pytest.raises(InputError, match="the AdamW holds no tensor of this BertModel; build it over its parameters"):
        ts.EqualStep(AdamW(tiny_model(seed=1).parameters()), model, tau=TAU)
    with pytest.raises(InputError, match="EqualStep wraps a plain torch optimizer, got a EqualStep"):
        ts.EqualStep(ts.EqualStep(AdamW(model.parameters()), model, tau=TAU), model, tau=TAU)


def test_parameter_groups_may_be_added_and_are_the_wrapped_ones():
    model = tiny_model()
    adamw = AdamW(model.encoder.layer[2].parameters(), lr=1e-3)
    optimizer = ts.EqualStep(adamw, model, tau=TAU)
    optimizer.add_param_group({"params": list(model.encoder.layer[0].parameters()), "lr": 1e-4})
    assert optimizer.param_groups is adamw.param_groups
    loss_of(model).backward()
    optimizer.step()
    assert [row["state"] for row in optimizer.log.rows()] == ["moved", "frozen", "moved", "frozen"]


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own, by torch.compile
def test_models_of_every_wrapping_have_the_same_groups():
    model = tiny_model()
    loaded = ts.load_model((model, tokenizer_for("bert")))
    for wrapped in (model, loaded, torch.compile(model), tiny_model("bert", head="mlm")):
        parameters = (wrapped.module if isinstance(wrapped, type(loaded)) else wrapped).parameters()
        assert ts.EqualStep(AdamW(parameters), wrapped, tau=TAU).groups == GROUPS


# ---- tensors in shards


def sharded_and_whole(rank: int, port: int) -> None:
    """In each of two processes: the same model sharded by FSDP2 and whole, three equal steps each."""
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    whole, shards = tiny_model(), tiny_model()
    for part in (*shards.encoder.layer, shards):
        fully_shard(part, mesh=mesh)
    logs = []
    for model in (whole, shards):  # SGD, since Adam's first steps are signs, which rounding can turn
        optimizer = ts.EqualStep(SGD(model.parameters(), lr=1e-2), model, tau=TAU)
        run(model, optimizer, range(3))
        logs.append(optimizer.log.rows())
    for ours, theirs in zip(*logs, strict=True):
        assert (ours["state"], ours["weight"]) == (theirs["state"], pytest.approx(theirs["weight"], rel=1e-6))
        assert [ours["ratio"], ours["gradient"]] == pytest.approx([theirs["ratio"], theirs["gradient"]], rel=1e-4)
    for ours, theirs in zip(shards.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours.full_tensor(), theirs, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="the agreement of micro-batches is not known for sharded tensors"):
        ts.EqualStep(SGD(shards.parameters(), lr=1e-2), shards, tau=TAU, agreement=True)
    distributed.barrier()  # a process that leaves while the other still talks to it can abort it
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_that_hold_a_half_each_take_the_steps_of_the_whole():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    torch.multiprocessing.spawn(sharded_and_whole, (port,), 2)


# ---- the log of any optimizer, and τ from it


def test_step_sizes_logs_any_optimizer_and_leaves_it_alone():
    model, plain = tiny_model(), tiny_model()
    adamw = AdamW(model.parameters(), lr=1e-3)
    ratios = []
    with ts.StepSizes(adamw, model) as sizes:
        for step in range(3):
            before = weights(model)
            run(model, adamw, range(step, step + 1))
            after = weights(model)
            for group in GROUPS:
                names = members(model, "layer")[group]
                start = flat(before, names)
                ratios.append(float((flat(after, names) - start).norm() / start.norm()))
    run(model, adamw, range(3, 4))  # no longer heard
    run(plain, AdamW(plain.parameters(), lr=1e-3), range(4))
    assert [row["ratio"] for row in sizes.log.rows()] == pytest.approx(ratios, rel=1e-5)
    assert ts.tau_from(sizes.log) == pytest.approx(statistics.median(ratios), rel=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


def test_tau_needs_steps():
    with pytest.raises(NotEnoughRows, match="nothing moved in the 0 steps of this log"):
        ts.tau_from(StepLog(["rest"]))
    with pytest.raises(InputError, match="log of a StepSizes, a Run or the folder of a run; got a float"):
        ts.tau_from(5e-4)


@pytest.mark.parametrize(("power", "start"), [(1.0, 1e-6), (0.5, 10.0), (2.0, 5e-4)])
def test_tau_is_bisected_to_within_its_tolerance(power, start):
    found = ts.bisect_tau(lambda tau: 3 * tau**power, 0.01, start=start)
    assert found.movement == pytest.approx(0.01, rel=0.05)
    assert found.tau == pytest.approx((0.01 / 3) ** (1 / power), rel=0.11)  # 5% of the movement is up to 10% of τ at power 1/2
    assert found.runs[-1] == (found.tau, found.movement)


def test_a_movement_that_cannot_be_reached_is_said():
    with pytest.raises(Degenerate, match=r"a movement of 1 was not reached: τ = .* gives 0.5 \(saturated\?\)"):
        ts.bisect_tau(lambda tau: min(tau, 0.5), 1.0)
    with pytest.raises(InputError, match="bisect_tau needs a target above 0, got 0"):
        ts.bisect_tau(lambda tau: tau, 0)


def test_agreement_is_the_formula_over_the_micro_batches():
    model, batches = tiny_model(), [IDS, (IDS * 3) % VOCABULARY, (IDS + 7) % VOCABULARY]
    optimizer = ts.EqualStep(AdamW(model.parameters(), lr=1e-3), model, tau=TAU, agreement=True)
    singles = []  # torch.autograd.grad adds nothing to .grad, and must not be heard
    for ids in batches:
        gradients = torch.autograd.grad(loss_of(model, ids), list(model.parameters()), allow_unused=True)
        singles.append({name: g for (name, _), g in zip(model.named_parameters(), gradients, strict=True) if g is not None})
    for ids in batches:
        loss_of(model, ids).backward()
    optimizer.step()
    rows = {row["group"]: row for row in optimizer.log.rows()}
    for group, names in members(model, "layer").items():
        g = torch.stack([flat(single, [name for name in names if name in single]) for single in singles]).double()
        inner = g @ g.T
        assert rows[group]["agreement"] == pytest.approx(float((inner.sum() - inner.trace()) / (2 * inner.trace())), rel=1e-4), group
        assert rows[group]["gradient"] == pytest.approx(float(g.sum(0).norm()), rel=1e-5)


def test_groups_moved_by_noise_are_marked():
    """Block 1 gets independent gradients, block 2 the same one every time."""
    model = tiny_model()
    optimizer = ts.EqualStep(SGD(model.parameters(), lr=1e-3), model, tau=TAU, agreement=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        for _ in range(4):
            noise = sum((p * torch.randn(p.shape, generator=generator)).sum() for p in model.encoder.layer[0].parameters())
            (noise + sum(p.sum() for p in model.encoder.layer[1].parameters())).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert optimizer.log.moved_by_noise() == ["block 1"]
    assert {round(row["agreement"], 6) for row in optimizer.log.rows() if row["group"] == "block 2"} == {1.0}


def test_norms_of_large_tensors_keep_their_digits():
    """torch's own float32 norm of 5 million numbers on a CPU is off by more than 1e-5; the norm over pieces is not."""
    tensor = torch.randn(5_000_000, generator=torch.Generator().manual_seed(0))
    exact = float(tensor.double().norm())
    parts, owners = pieces([tensor])
    assert float(torch.stack(torch._foreach_norm(parts)).double().norm()) == pytest.approx(exact, rel=1e-6)
    assert set(owners) == {0}
