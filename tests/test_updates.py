"""Every rule on every family: what moves and what does not, bit for bit, at which rates, and that a repeated batch is learned."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import tunescope as ts
from tiny_models import EVERY, LAYERS, RECURRENT, UNLISTED, VOCABULARY, adapted, tiny_model, tokenizer_for
from tunescope.errors import AdapterError, InputError, ModelError, UnknownName
from tunescope.models.anatomy import read_anatomy, text_body
from tunescope.training.updates import UPDATES, select

IDS = torch.arange(5, 5 + 24).reshape(4, 6) % VOCABULARY
TAU = 1e-3
NAMES = ("standard", "uniform", "lora", "frozen-norm", "frozen-interior", "top-1", "top-2", "bitfit", "equal-step", "lora+equal-step")
NAMES = (*NAMES, "top-2+equal-step")
NO_BIASES = ("llama", "mistral", "qwen3", "gemma", "gemma2", "gemma3_text", "t5", "umt5")
BERT = ("query", "key", "value", "dense")
TARGETS = {  # spec of the depth study
    "bert": BERT,
    "roberta": BERT,
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "gpt_neox": ("query_key_value", "dense"),
    "codegen": ("qkv_proj", "out_proj", "fc_in", "fc_out"),
    "mamba": ("in_proj", "x_proj", "dt_proj"),
    "rwkv": ("key", "value", "receptance", "output"),
}
PER_BLOCK = {"bert": 6, "roberta": 6, "gpt2": 4, "opt": 4, "gpt_neox": 2, "codegen": 4, "mamba": 3, "rwkv": 7}  # linear layers, by hand


def loss_of(body) -> torch.Tensor:
    """A regression of the last hidden states on fixed numbers; its cache must not be written over what RWKV's gradients need."""
    options = {"use_cache": False} if body.config.model_type in RECURRENT else {}
    states = body(input_ids=IDS, **options).last_hidden_state
    return (states - torch.sin(torch.arange(states.numel(), dtype=torch.float32)).view_as(states)).square().mean()


def rule_for(name: str, family: str):
    options = {"dropout": 0.0} if name.startswith("lora") else {}
    if family in UNLISTED and name.startswith("lora"):
        options["targets"] = ("dense",)
    return select(name, options | ({"tau": TAU} if "equal-step" in name else {}))


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", EVERY)
def test_three_steps_learn_a_repeated_batch_and_leave_the_frozen_alone(family, name):
    body = text_body(tiny_model(family)).requires_grad_(False)  # as loading leaves it
    if name == "bitfit" and family in NO_BIASES:
        with pytest.raises(ModelError, match="'bitfit' trains biases, and this .* has none; use 'lora' or 'top-2'"):
            rule_for(name, family).apply(body, lr=1e-3)
        return
    update = rule_for(name, family).apply(body, lr=1e-3)
    optimizer, before = update.optimizer(), values(update.module)
    moving = {key for key, parameter in update.module.named_parameters() if parameter.requires_grad}
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = loss_of(body)
        losses.append(float(loss.detach()))
        loss.backward()
        if len(losses) < 4:
            optimizer.step()
    assert losses[-1] < losses[0]
    after = values(update.module)
    assert all(torch.equal(after[key], before[key]) for key in before if key not in moving)
    assert any(not torch.equal(after[key], before[key]) for key in moving)
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in update.module.parameters() if p.requires_grad}
    assert len(held) == len({id(p) for p in held}) == update.description["tensors"]
    assert json.loads(json.dumps(update.description)) == update.description


def trainable(name: str, module: nn.Module) -> set[str]:
    select(name).apply(module, lr=1e-3)
    return {key for key, parameter in module.named_parameters() if parameter.requires_grad}


def test_each_rule_trains_what_its_name_says():
    """The oracle is the names of BERT's parameters."""
    model = tiny_model("bert", head="mlm")
    every = {name for name, _ in model.named_parameters()}
    blocks = {index: {name for name in every if f"encoder.layer.{index}." in name} for index in range(LAYERS)}
    assert trainable("uniform", model) == trainable("standard", model) == every
    assert trainable("frozen-norm", model) == {name for name in every if "LayerNorm" not in name}
    assert trainable("frozen-interior", model) == every - blocks[0]  # one of three
    assert trainable("top-1", model) == blocks[2]
    assert trainable("top-2", model) == blocks[1] | blocks[2]
    assert trainable("bitfit", model) == {name for name in every if name.endswith("bias")}


@pytest.mark.parametrize(("family", "layers"), [("bert", 4), ("gpt2", 4), ("mamba", 4)])
def test_frozen_interior_is_half_of_an_even_number(family, layers):
    key = "n_layer" if family == "gpt2" else "num_hidden_layers"
    body = tiny_model(family, **{key: layers})
    select("frozen-interior").apply(body, lr=1e-3)
    anatomy = read_anatomy(body)
    moves = [any(p.requires_grad for p in block.parameters()) for block in anatomy.block_modules(body)]
    assert moves == [False, False, True, True]
    assert body.get_input_embeddings().weight.requires_grad


@pytest.mark.parametrize("family", ["llama", "t5", "mamba", "gemma2", "bart"])
def test_frozen_norm_finds_every_kind_of_normalisation(family):
    body = text_body(tiny_model(family))
    select("frozen-norm").apply(body, lr=1e-3)
    frozen = {name for name, parameter in body.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in body.named_parameters() if "norm" in name.lower()}  # the names of these families say it
    assert frozen


def test_layer_wise_decay_gives_the_rates_of_the_formula():
    model = tiny_model("bert", head="mlm")
    update = select("standard").apply(model, lr=2e-5)
    rates = {id(p): group["lr"] for group in update.optimizer().param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        index = int(name.split("layer.")[1].split(".")[0]) if "encoder.layer." in name else None
        power = LAYERS if "embeddings" in name else 0 if index is None else LAYERS - 1 - index
        assert rates[id(parameter)] == pytest.approx(2e-5 * 0.95**power, rel=1e-12), name
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight  # tied: an embedding
    assert {group["lr"] for group in select("uniform").apply(model, lr=3e-4).groups} == {3e-4}


@pytest.mark.parametrize(
    ("family", "marker", "tables"),
    [
        ("gpt2", "h", ("wte", "wpe")),
        ("opt", "layers", ("embed_tokens", "embed_positions")),
        ("gpt_neox", "layers", ("embed_in",)),
        ("codegen", "h", ("wte",)),
        ("llama", "layers", ("embed_tokens",)),
        ("distilbert", "layer", ("embeddings",)),
        ("mamba", "layers", ("embeddings",)),
        ("rwkv", "blocks", ("embeddings",)),
        ("t5", "block", ("embed_tokens", "shared")),
        ("clip_text_model", "layers", ("embeddings",)),
    ],
)
def test_layer_wise_decay_follows_the_blocks_of_every_family(family, marker, tables):
    """lr·.9^(L − i) in block i, lr·.9^L in the embeddings, lr above the blocks; the place of a tensor is read off its name."""
    body = text_body(tiny_model(family))
    update = select("standard", {"decay": 0.9}).apply(body, lr=1e-3)
    rates = {id(p): group["lr"] for group in update.optimizer().param_groups for p in group["params"]}
    powers = set()
    for name, parameter in body.named_parameters():
        inside = f".{name}".split(f".{marker}.")[1:]
        power = LAYERS - 1 - int(inside[0].split(".")[0]) if inside else LAYERS if any(table in name for table in tables) else 0
        assert rates[id(parameter)] == pytest.approx(1e-3 * 0.9**power, rel=1e-12), name
        powers.add(power)
    assert powers == set(range(LAYERS + 1))


@pytest.mark.parametrize("family", ["bert", "mamba", "rwkv", "gpt2"])
def test_weight_decay_is_on_matrices_only(family):
    model = tiny_model(family)
    decay = {id(p): group["weight_decay"] for group in select("uniform").apply(model, lr=1e-3).groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        vector = max(parameter.shape) == parameter.numel()
        exempt = vector or name.endswith(("bias", "A_log"))  # as the authors of Mamba train it
        assert decay[id(parameter)] == (0.0 if exempt else 0.01), name


@pytest.mark.parametrize("family", TARGETS)
def test_lora_is_on_the_targets_of_the_study(family):
    body = tiny_model(family)
    update = select("lora").apply(body, lr=1e-3)
    adapted_layers = [name.removesuffix(".lora_A") for name, _ in body.named_modules() if name.endswith(".lora_A")]
    assert {name.rpartition(".")[2] for name in adapted_layers} == set(TARGETS[family])
    assert len(adapted_layers) == PER_BLOCK[family] * LAYERS  # BERT's pooler.dense is not in a block
    assert update.description["targets"] == list(TARGETS[family])
    assert (update.description["rank"], update.description["alpha"]) == (8, 16)
    assert update.adapter.peft_config["default"].lora_dropout == 0.1
    assert update.description["unheard"] == (["dt_proj"] if family == "mamba" else [])


def test_lora_in_a_model_with_a_head_freezes_the_head_and_wraps_the_body(tmp_path):
    model = tiny_model("bert", head="mlm")
    update = select("lora", {"rank": 2, "targets": ("query",)}).apply(model, lr=1e-3)
    assert update.module is model
    assert all("lora_" in name for name, parameter in model.named_parameters() if parameter.requires_grad)
    update.adapter.save_pretrained(tmp_path)
    base, tuned = ts.load_pair((tiny_model("bert", head="mlm"), tokenizer_for("bert")), tmp_path)  # fits the bare body
    assert tuned.adapter["rank"] == 2


def test_flags_that_were_turned_are_counted():
    model = tiny_model("bert")
    first = select("top-1").apply(model, lr=1e-3).description
    assert (first["turned_on"], first["turned_off"]) == (0, first["frozen_tensors"])
    second = select("uniform").apply(model, lr=1e-3).description
    assert (second["turned_on"], second["turned_off"], second["frozen_tensors"]) == (first["frozen_tensors"], 0, 0)


def test_equal_step_is_the_rule_with_equal_steps():
    update = select("top-2+equal-step").apply(tiny_model(), lr=1e-3)
    with pytest.raises(InputError, match="'top-2\\+equal-step' needs a relative step tau: the median step of a paired run"):
        update.optimizer()
    optimizer = update.optimizer(tau=TAU, agreement=True)
    assert isinstance(optimizer, ts.EqualStep)
    assert optimizer.tau == TAU
    assert update.description["rule"] == "top-2+equal-step"
    with pytest.raises(InputError, match="tau and agreement belong to equal-step, and the rule is 'uniform'"):
        select("uniform").apply(tiny_model(), lr=1e-3).optimizer(tau=TAU)


def test_a_loaded_model_and_a_module_around_a_body_can_be_trained():
    loaded = ts.load_model((tiny_model(), tokenizer_for("bert")))
    assert select("top-1").apply(loaded, lr=1e-3).body is loaded.module
    around = nn.ModuleDict({"body": loaded.module, "head": nn.Linear(16, 2)})
    update = select("standard").apply(around, lr=1.0, body=loaded.module)
    rates = {id(p): group["lr"] for group in update.groups for p in group["params"]}
    assert rates[id(around["head"].weight)] == 1.0


# ---- what is refused


@pytest.mark.parametrize(
    ("name", "family", "options", "error", "message"),
    [
        ("top-4", "bert", {}, InputError, "'top-4' asked for on a model of 3 blocks; give k from 1 to 3"),
        ("lora", "phi", {}, AdapterError, "no LoRA targets are known for 'phi'; name some of its linear layers: dense, fc1"),
        ("lora", "bert", {"targets": ("q_proj",)}, AdapterError, "LoRA target 'q_proj' is not in the blocks of BertModel; there are dense"),
    ],
)
def test_what_does_not_fit_a_model_is_refused_before_anything_changes(name, family, options, error, message):
    model = tiny_model(family)
    with pytest.raises(error, match=message):
        select(name, options).apply(model, lr=1e-3)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any("lora_" in name for name, _ in model.named_parameters())


def test_a_model_that_wears_an_adapter_is_refused():
    peft = adapted(tiny_model())
    for name in ("uniform", "lora", "bitfit+equal-step"):
        with pytest.raises(InputError, match="would train the base beneath the adapter that the model wears"):
            select(name).apply(peft, lr=1e-3)


@pytest.mark.parametrize("lr", [0.0, -1.0, math.inf, math.nan])
def test_a_learning_rate_is_above_zero(lr):
    with pytest.raises(InputError, match="the update rule 'uniform' needs a learning rate above 0"):
        select("uniform").apply(tiny_model(), lr=lr)


def test_one_target_is_a_word():
    """PEFT's own list of what it changed; a string would be read letter by letter."""
    for given, expected in (("query", {"query"}), ("query, value", {"query", "value"})):
        body = tiny_model("bert")
        select("lora", {"targets": given}).apply(body, lr=1e-3)
        assert {name.split(".")[-4] for name, _ in body.named_parameters() if name.endswith("lora_A.default.weight")} == expected


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        ("unifrom", {}, UnknownName, "unknown update rule 'unifrom'; did you mean uniform"),
        ("lora", {"rnk": 4}, UnknownName, "unknown option of the update rule 'lora' 'rnk'; did you mean rank"),
        ("uniform", {"tau": 1e-3}, UnknownName, "unknown option of the update rule 'uniform' 'tau'"),
        ("lora+top-2", {}, InputError, "only 'equal-step' can be put on another rule: lora\\+equal-step"),
        ("standard+equal-step", {}, InputError, "equal steps need one learning rate: use 'equal-step' or another rule"),
        ("equal-step+equal-step", {}, InputError, "'equal-step' asked for twice"),
        ("top-0", {}, InputError, "'top-k': k=0 was asked for; give a whole number from 1$"),
        ("top-k", {"k": 2.5}, InputError, "k=2.5 was asked for; give a whole number from 1$"),
        ("lora", {"rank": 0}, InputError, "'lora': rank=0 was asked for; give a whole number from 1$"),
        ("lora", {"rank": 2.5}, InputError, "rank=2.5 was asked for"),
        ("lora", {"rank": True}, InputError, "rank=True was asked for"),
        ("lora", {"alpha": math.nan}, InputError, "alpha=nan was asked for; give a number above 0$"),
        ("lora", {"dropout": 1}, InputError, "dropout=1 was asked for; give a number from 0 and below 1$"),
        ("lora", {"targets": ()}, InputError, r"targets=\(\) was asked for; name one linear layer or more"),
        ("standard", {"decay": 1.5}, InputError, "decay=1.5 was asked for; give a number above 0 to 1$"),
        ("uniform", {"weight_decay": -1}, InputError, "weight_decay=-1 was asked for; give a number from 0$"),
        ("uniform", {"weight_decay": math.inf}, InputError, "weight_decay=inf was asked for"),
        ("equal-step", {"tau": True}, InputError, "tau=True was asked for; give a number above 0$"),
    ],
)
def test_unknown_rules_and_options_name_the_nearest(text, options, error, message):
    with pytest.raises(error, match=message):
        select(text, options)


def test_the_registry_names_every_rule():
    assert list(UPDATES) == ["standard", "uniform", "lora", "frozen-norm", "frozen-interior", "top-k", "bitfit", "equal-step"]
    assert all(select(name).name.startswith(name.removesuffix("k")) for name in UPDATES)
