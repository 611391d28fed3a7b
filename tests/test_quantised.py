"""4-bit bases: refused in one line where bitsandbytes is missing; where it is not, packed as in QLoRA, and trained through unchanged."""

from __future__ import annotations

import json

import pytest
import torch

import tunescope as ts
from test_objectives import CHAT, generator, items_for, objective_of
from tiny_models import TEXTS, save_model, tiny_model, tokenizer_for
from tunescope.errors import InputError, ModelError, UnknownName
from tunescope.training.objectives import Learner
from tunescope.training.updates import select

WIDE = {"hidden_size": 64, "intermediate_size": 128}  # whole blocks of 64 numbers in every row


@pytest.fixture
def folder(tmp_path):
    return save_model(tmp_path / "base", "llama", head="lm", **WIDE)


def test_four_bits_without_bitsandbytes_are_refused_in_one_line(folder, monkeypatch):
    monkeypatch.setattr("tunescope.models.quantised.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="asked for in 4bit, which needs bitsandbytes: pip install bitsandbytes, or leave quantise out$"):
        ts.load_model(folder, quantise="4bit")
    assert ts.load_model(folder).dtype == torch.float32


def test_packings_that_cannot_be_are_refused_in_one_line(folder, monkeypatch):
    with pytest.raises(UnknownName, match="unknown quantisation at load '4-bit'; did you mean 4bit"):
        ts.load_model(folder, quantise="4-bit")
    with pytest.raises(InputError, match="quantise='4bit' was asked for on a loaded tuple; weights are packed as they are read"):
        ts.load_model((tiny_model(), tokenizer_for("bert")), quantise="4bit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(ModelError, match="asked for in 4bit and is quantised by fp8 already; leave quantise out"):
        ts.load_model(folder, quantise="4bit")


@pytest.mark.parametrize("name", ["simcse", "preserve"])
def test_no_pass_of_a_learner_repacks_weights(name):
    """bitsandbytes' Linear4bit rewrites its bytes in evaluation mode on some CPUs; a stand-in with its switch shows that it is off."""
    seen, module = [], tiny_model()
    dense = module.encoder.layer[0].output.dense
    dense.support_avx512bf16_for_cpu = True
    learner = Learner(ts.load_model((module, tokenizer_for("bert"))), objective_of(name)).eval()
    for body in [learner.body, *(start.body for start in learner._start)]:
        layer = body.encoder.layer[0].output.dense
        layer.register_forward_pre_hook(lambda part, _arguments: seen.append(part.support_avx512bf16_for_cpu))
    learner.loss(learner.collate(items_for(learner.objective), generator()))
    assert seen == [False] * (3 if name == "preserve" else 1)
    assert dense.support_avx512bf16_for_cpu


# ---- where the library is


def packed(tmp_path, family: str, **changes):
    pytest.importorskip("bitsandbytes", reason="packs weights to 4 bits", exc_type=ImportError)
    head = {"bert": "mlm", "t5": "", "clip": ""}.get(family, "lm")
    folder = save_model(tmp_path / family, family, head=head, **changes)
    model = ts.load_model(folder, quantise="4bit", device="cpu")
    model.tokenizer.chat_template = CHAT
    return folder, model


def test_a_packed_matrix_has_sixteen_levels_a_block(tmp_path):
    """4-bit NormalFloat: each 64 numbers in a row are a scale times 16 levels (https://arxiv.org/abs/2305.14314)."""
    folder, model = packed(tmp_path, "llama", **WIDE)
    plain = ts.load_model(folder, device="cpu").module.layers[0].mlp.up_proj.weight
    with model.active() as body, torch.no_grad():
        found = body.layers[0].mlp.up_proj(torch.eye(64)).T  # (128, 64)
    assert max(len(row.unique()) for row in found) <= 16
    assert max(len(row.unique()) for row in plain) == 64
    assert float((found - plain).norm() / plain.norm()) == pytest.approx(0.09, abs=0.02)  # of gaussian weights
    assert any("was packed to 4bit as it was read" in said for said in model.warnings)
    for name in ("embed_tokens", "norm", "layers.0.input_layernorm"):
        assert body.get_submodule(name).weight.dtype == torch.float32


@pytest.mark.parametrize("rule", ["lora", "lora+equal-step"])
@pytest.mark.parametrize(
    ("family", "name"), [("llama", "sft"), ("bert", "mlm"), ("mamba", "causal-lm"), ("rwkv", "causal-lm"), ("t5", "contrastive")]
)
def test_lora_learns_through_a_packed_base_and_leaves_its_bytes(tmp_path, family, name, rule):
    _, model = packed(tmp_path, family)
    learner = Learner(model, objective_of(name))
    before = {key: tensor.clone() for key, tensor in learner.body.state_dict().items()}
    update = select(rule, {"tau": 1e-3} if "equal" in rule else {}).apply(learner, lr=1e-3, body=learner.body)
    optimizer, batch, losses = update.optimizer(), learner.collate(items_for(learner.objective), generator()), []
    learner.train()
    for _ in range(4):
        optimizer.zero_grad()
        torch.manual_seed(0)
        value = learner.loss(batch).value
        losses.append(float(value.detach()))
        value.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    with torch.no_grad():
        learner.eval().loss(batch)
    ts.capture(model, TEXTS)
    after = {key.replace(".base_layer", ""): tensor for key, tensor in learner.body.state_dict().items()}
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


@pytest.mark.parametrize("rule", ["uniform", "frozen-norm", "top-1"])
def test_rules_that_move_packed_weights_are_refused(tmp_path, rule):
    _, model = packed(tmp_path, "llama")
    with pytest.raises(ModelError, match=r"cannot train .*proj.weight, packed as torch.uint8; use 'lora'"):
        select(rule).apply(model, lr=1e-3)


def test_an_adapter_comes_back_on_its_packed_base(tmp_path):
    folder, model = packed(tmp_path, "llama", **WIDE)
    update = select("lora").apply(model, lr=1e-3)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in update.module.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.1)
    update.module.eval()
    wanted = ts.capture(model, TEXTS).layers[3]
    update.adapter.peft_config["default"].base_model_name_or_path = str(folder)
    update.adapter.save_pretrained(tmp_path / "adapter")
    again = ts.load_model(tmp_path / "adapter", quantise="4bit", device="cpu")
    torch.testing.assert_close(ts.capture(again, TEXTS).layers[3], wanted)
    plain = ts.capture(ts.load_model(tmp_path / "adapter", device="cpu"), TEXTS).layers[3]
    assert not torch.allclose(plain, wanted, rtol=1e-2)


def test_packed_weights_are_not_written_as_a_whole_model(tmp_path):
    _, model = packed(tmp_path, "llama")
    from tunescope.training.model_folder import write_model

    with pytest.raises(ModelError, match="the weights of .* are packed, and moved ones cannot be packed again; give it unquantised"):
        write_model(model, tmp_path)
