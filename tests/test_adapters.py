"""Adapters of every kind on every family, several on one base, and what the base was pretrained with; PEFT's own loading is the oracle."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from tiny_models import TEXTS, adapted, save_adapter, save_model, save_sentence_transformer, tiny_model, tokenizer_for
from tunescope.activations import capture
from tunescope.comparison.diff import diff
from tunescope.errors import AdapterError, InputError, ModelError, UnknownName
from tunescope.models import Model, load_model, load_pair
from tunescope.models.acting import acting_weights
from tunescope.models.adapters import KINDS
from tunescope.models.families import FAMILIES
from tunescope.models.pretraining import CHECKPOINTS, OBJECTIVES, pretraining_of
from tunescope.models.quiet import quietly

# What each family calls its token embedding (one that merging can write to: encoder-decoders tie theirs) and a norm of its blocks.
PARTS = {
    "bert": ("word_embeddings", "LayerNorm"),
    "distilbert": ("word_embeddings", "sa_layer_norm"),
    "gpt2": ("wte", "ln_1"),
    "opt": ("embed_tokens", "self_attn_layer_norm"),
    "gpt_neox": ("embed_in", "input_layernorm"),
    "codegen": ("wte", "ln_1"),
    "mamba": ("embeddings", "norm"),
    "rwkv": ("embeddings", "ln1"),
    "llama": ("embed_tokens", "input_layernorm"),
    "t5": ("encoder.embed_tokens", "layer_norm"),
    "bart": ("encoder.embed_tokens", "self_attn_layer_norm"),
    "clip_text_model": ("token_embedding", "layer_norm1"),
}
MADE = {
    "lora": lambda t, e, n: peft.LoraConfig(r=2, target_modules=t),
    "rslora": lambda t, e, n: peft.LoraConfig(r=4, use_rslora=True, target_modules=t),
    "dora": lambda t, e, n: peft.LoraConfig(r=2, use_dora=True, target_modules=t),
    "lora and saved embeddings": lambda t, e, n: peft.LoraConfig(r=2, target_modules=t, modules_to_save=[e]),
    "lora and biases": lambda t, e, n: peft.LoraConfig(r=2, target_modules=t, bias="lora_only"),
    "adalora": lambda t, e, n: peft.AdaLoraConfig(init_r=3, target_r=2, total_step=10, target_modules=t),
    "ia3": lambda t, e, n: peft.IA3Config(target_modules=t, feedforward_modules=t[-1:]),
    "loha": lambda t, e, n: peft.LoHaConfig(r=2, target_modules=t),
    "lokr": lambda t, e, n: peft.LoKrConfig(r=2, target_modules=t),
    "oft": lambda t, e, n: peft.OFTConfig(r=2, oft_block_size=0, target_modules=t),
    "boft": lambda t, e, n: peft.BOFTConfig(boft_block_size=4, target_modules=t),
    "hra": lambda t, e, n: peft.HRAConfig(r=2, target_modules=t),
    "vera": lambda t, e, n: peft.VeraConfig(r=4, target_modules=t, save_projection=True),
    "vera without its projections": lambda t, e, n: peft.VeraConfig(r=4, target_modules=t, save_projection=False),
    "pvera": lambda t, e, n: peft.PveraConfig(r=4, target_modules=t, save_projection=True),
    "vblora": lambda t, e, n: peft.VBLoRAConfig(r=2, num_vectors=8, vector_length=4, topk=2, target_modules=t),
    "randlora": lambda t, e, n: peft.RandLoraConfig(r=2, randlora_alpha=1, target_modules=t),
    "fourierft": lambda t, e, n: peft.FourierFTConfig(n_frequency=10, scaling=1.0, target_modules=t),
    "waveft": lambda t, e, n: peft.WaveFTConfig(n_frequency=10, scaling=1.0, target_modules=t),
    "miss": lambda t, e, n: peft.MissConfig(r=2, target_modules=t),
    "c3a": lambda t, e, n: peft.C3AConfig(block_size=4, target_modules=t),
    "shira": lambda t, e, n: peft.ShiraConfig(r=2, target_modules=t),
    "road": lambda t, e, n: peft.RoadConfig(target_modules=t, group_size=4),
    "delora": lambda t, e, n: peft.DeloraConfig(r=2, delora_lambda=1, target_modules=t),
    "gralora": lambda t, e, n: peft.GraloraConfig(r=2, gralora_k=2, alpha=2, target_modules=t),
    "hira": lambda t, e, n: peft.HiraConfig(r=2, target_modules=t),
    "norms": lambda t, e, n: peft.LNTuningConfig(target_modules=[n]),
    "tokens": lambda t, e, n: peft.TrainableTokensConfig(token_indices=[5, 6], target_modules=[e]),
}
# Pairs that PEFT itself does not make; a folder that claims to be one is refused.
LINEAR_ONLY = {"loha", "lokr", "oft", "boft", "hra", "miss", "c3a", "shira", "road", "delora"}  # GPT-2's matrices are Conv1D
NOT_MADE = {("gpt2", kind) for kind in LINEAR_ONLY} | {("mamba", kind) for kind in ("vblora", "c3a", "road", "gralora")}  # 9 outputs
PROJECTED = {("t5", "vera without its projections"), ("bart", "vera without its projections")}  # they depend on the decoder's widths


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    return {family: save_model(tmp_path_factory.mktemp(family), family) for family in PARTS}


def rows(model: Model) -> torch.Tensor:
    found = capture(model, TEXTS)
    return torch.stack(list(found.layers.values()))


def targets_of(family: str) -> list[str]:
    entry = FAMILIES[family]
    return [name for name in entry.lora_targets if name not in entry.bypassed]


def trained(base: Path, config, *, seed: int = 1, noise: float = 0.1) -> PeftModel:
    """An adapter whose every trainable number has moved from where it started."""
    with quietly():
        torch.manual_seed(seed)
        model = get_peft_model(AutoModel.from_pretrained(base), copy.deepcopy(config))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(noise * torch.randn_like(parameter))
    return model.eval()


def forge(folder: Path, config, target: str) -> Path:
    """A folder that says it is an adapter PEFT cannot make."""
    folder.mkdir()
    config.save_pretrained(folder)
    save_file({f"base_model.model.{target}.made_up": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("family", PARTS)
def test_every_kind_on_every_family_loads_exactly_or_is_refused_by_name(family, kind, bases, tmp_path):
    """Off is bit for bit the plain base, on is what PEFT computes, and merged agrees with unmerged to float32 rounding."""
    base = bases[family]
    with quietly():
        config = MADE[kind](targets_of(family), *PARTS[family])
    if (family, kind) in NOT_MADE:
        with pytest.raises((TypeError, ValueError)), quietly():
            get_peft_model(AutoModel.from_pretrained(base), copy.deepcopy(config))
        target = next(name for name, _ in AutoModel.from_pretrained(base).named_modules() if name.endswith(targets_of(family)[-1]))
        config.target_modules = re.escape(target)
        with pytest.raises(AdapterError, match=f"the {config.peft_type.value} adapter '.*forged' cannot be put on '.*': .+"):
            load_pair(base, forge(tmp_path / "forged", config, target), device="cpu")
        return
    place = tmp_path / "adapter"
    with quietly():
        trained(base, config).save_pretrained(place)
    if (family, kind) in PROJECTED:
        with pytest.raises(AdapterError, match="its random projections were not saved, and they depend on .*decoder"):
            load_pair(base, place, device="cpu")
        return
    plain, (off, on) = load_model(base, device="cpu"), load_pair(base, place, device="cpu")
    assert torch.equal(rows(off), rows(plain))
    assert off.identity()["weights_sha256"] == plain.identity()["weights_sha256"]
    assert (off.module is on.module) == (kind != "lora and biases")
    found = rows(on)
    assert (found - rows(off)).abs().max() > 1e-3
    with quietly():
        theirs = PeftModel.from_pretrained(AutoModel.from_pretrained(base), place).eval()
        assert torch.equal(found, rows(load_model((theirs.get_base_model(), on.tokenizer))))
        merged = theirs.merge_and_unload()
    scale = float(found.abs().max())
    torch.testing.assert_close(rows(load_model((merged, on.tokenizer))), found, rtol=0, atol=2e-5 * max(1.0, scale))
    assert torch.equal(rows(off), rows(plain))


def test_the_table_above_tries_every_kind_that_is_read():
    with quietly():
        assert {MADE[kind](["a"], "b", "c").peft_type.value for kind in MADE} == set(KINDS)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), "is a PROMPT_TUNING adapter, which changes the prompt"),
        (peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), "is a PREFIX_TUNING adapter, which changes the prompt"),
        (peft.PolyConfig(target_modules=["q"]), r"is a POLY adapter, a kind that is not read here \(read: LORA, .*\); merge it"),
        (peft.OSFConfig(target_modules=["q"]), "is a OSF adapter, a kind that is not read here"),
    ],
    ids=lambda value: getattr(getattr(value, "peft_type", None), "value", None),
)
def test_other_kinds_are_refused_by_name(config, message, bases, tmp_path):
    with pytest.raises(AdapterError, match=message):
        load_pair(bases["bert"], forge(tmp_path / "forged", config, "encoder"), device="cpu")


# ---- a weight that the forward reads past the adapter


def test_mamba_reads_dt_proj_past_its_adapter(bases):
    """The trap: unmerged, such an adapter does nothing in transformers; merged it does."""
    model = trained(bases["mamba"], peft.LoraConfig(r=2, target_modules=["dt_proj"], init_lora_weights=False), noise=1.0)
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode(), quietly():
        off = AutoModel.from_pretrained(bases["mamba"]).eval()(input_ids=ids)[0]
        assert torch.equal(model(input_ids=ids)[0], off)
        assert (model.merge_and_unload()(input_ids=ids)[0] - off).abs().max() > 1e-3


@pytest.mark.parametrize("way", ["folder", "object"])
def test_an_adapter_that_is_not_heard_is_refused(way, bases, tmp_path):
    model = trained(bases["mamba"], peft.LoraConfig(r=2, target_modules=["in_proj", "dt_proj"]))
    model.save_pretrained(tmp_path / "adapter")
    source = tmp_path / "adapter" if way == "folder" else (model, tokenizer_for("mamba"))
    with pytest.raises(AdapterError, match=r"changes dt_proj, whose weight the forward of mamba reads directly, .* merge it \(merge_and_"):
        load_pair(bases["mamba"], source, device="cpu")


def test_an_adapter_on_dt_proj_that_training_never_reached_is_read(bases, tmp_path):
    """Its B stays zero, since no gradient passes: merged and unmerged are the same model."""
    model = trained(bases["mamba"], peft.LoraConfig(r=2, target_modules=["in_proj", "dt_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "dt_proj.lora_B" in name:
                parameter.zero_()
    model.save_pretrained(tmp_path / "adapter")
    off, on = load_pair(bases["mamba"], tmp_path / "adapter", device="cpu")
    assert (rows(on) - rows(off)).abs().max() > 1e-3


# ---- several adapters on one base


def two(base: Path, place: Path, *, names: tuple[str, str] = ("first", "second")) -> tuple[PeftModel, Path]:
    """A PeftModel with two LoRAs of different targets, and the folder PEFT saves both into."""
    configs = [peft.LoraConfig(r=2, target_modules=targets) for targets in (["query"], ["value", "dense"])]
    with quietly():
        torch.manual_seed(3)
        model = get_peft_model(AutoModel.from_pretrained(base), configs[0], adapter_name=names[0])
        model.add_adapter(names[1], configs[1])
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.copy_(0.5 * torch.randn_like(parameter))
        model.save_pretrained(place)
    return model.eval(), place


def test_two_adapters_are_compared_on_one_copy_of_their_base(bases, tmp_path):
    _, place = two(bases["bert"], tmp_path / "both")
    alone = [load_model(place / name, device="cpu") for name in ("first", "second")]
    first, second = load_pair(place / "first", place / "second", device="cpu")
    assert first.module is second.module
    for _ in range(2):  # switching back and forth changes nothing
        for side, expected in zip((first, second), alone, strict=True):
            assert torch.equal(rows(side), rows(expected))
            assert side.identity()["weights_sha256"] == expected.identity()["weights_sha256"]
            assert side.identity()["adapter"] == expected.identity()["adapter"]
    assert torch.equal(rows(first.without_adapter()), rows(load_model(bases["bert"], device="cpu")))
    texts = [f"{a} {b}" for a in ("the cat", "a dog", "bird", "house") for b in ("sat", "ran", "flew", "was")]
    profile = diff(place / "first", place / "second", texts, measures="procrustes", device="cpu").profile
    assert profile["procrustes"].iloc[0] == 0 < profile["procrustes"].iloc[1]


def test_the_weights_of_either_adapter_as_they_act_are_its_own(bases, tmp_path):
    """Oracle: PEFT's merge of each adapter alone."""
    _, place = two(bases["bert"], tmp_path / "both")
    for name, side in zip(("first", "second"), load_pair(place / "first", place / "second", device="cpu"), strict=True):
        with quietly():
            merged = PeftModel.from_pretrained(AutoModel.from_pretrained(bases["bert"]), place / name).merge_and_unload().state_dict()
        for key, weight in acting_weights(side).items():
            torch.testing.assert_close(weight.tensor(), merged[key], rtol=1e-5, atol=1e-6)


def test_two_adapters_of_other_kinds_or_bases_get_a_copy_each(bases, tmp_path):
    other = save_model(tmp_path / "other", "bert", seed=4)
    places = [save_adapter(tmp_path / "lora", bases["bert"]), tmp_path / "ia3", save_adapter(tmp_path / "elsewhere", other)]
    trained(bases["bert"], peft.IA3Config(target_modules=["key", "value"], feedforward_modules=[])).save_pretrained(places[1])
    for place in places[1:]:
        pair = load_pair(places[0], place, device="cpu")
        assert pair[0].module is not pair[1].module
        for side, alone in zip(pair, (places[0], place), strict=True):
            assert torch.equal(rows(side), rows(load_model(alone, device="cpu")))


def test_a_folder_of_several_adapters_asks_which(bases, tmp_path):
    _, place = two(bases["bert"], tmp_path / "both")
    with pytest.raises(ModelError, match=r"holds several adapters \(first, second\); give one of them, such as '.*both/first'"):
        load_model(place)
    with pytest.raises(UnknownName, match="unknown adapter in '.*both' 'secnd'; did you mean second"):
        load_model(place, adapter="secnd")
    assert torch.equal(rows(load_model(place, adapter="second", device="cpu")), rows(load_model(place / "second", device="cpu")))


def test_the_adapter_at_the_top_of_a_folder_is_the_default_one(bases, tmp_path):
    _, place = two(bases["bert"], tmp_path / "both", names=("default", "second"))
    top = load_model(place, device="cpu")
    assert any("holds other adapters too (second), which are not read" in line for line in top.warnings)
    assert torch.equal(rows(top), rows(load_model(place, adapter="default", device="cpu")))
    assert not torch.equal(rows(top), rows(load_model(place, adapter="second", device="cpu")))
    (place / "adapter_config.json").unlink()
    assert load_model(place, device="cpu").name == f"{place}/second"  # the only one left


def test_a_loaded_peft_model_is_read_by_adapter_and_left_as_it_was(bases, tmp_path):
    model, place = two(bases["bert"], tmp_path / "both")
    tokenizer = tokenizer_for("bert")
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    sides = [load_model((model, tokenizer), adapter=name) for name in ("first", "second")]
    expected = [rows(load_model(place / name, device="cpu")) for name in ("first", "second")]
    first, second = load_pair(*sides)
    assert (first.adapter["name"], second.adapter["name"]) == ("first", "second")
    for side, values in [(second, expected[1]), (first, expected[0]), (second, expected[1])]:
        assert torch.equal(rows(side), values)
    assert list(model.active_adapters) == ["first"]
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == trains
    assert torch.equal(rows(load_model((model, tokenizer))), expected[0])  # the active one
    assert torch.equal(rows(load_pair(None, sides[1])[0]), rows(load_model(bases["bert"], device="cpu")))
    model.base_model.set_adapter(["first", "second"])
    both = load_model((model, tokenizer))
    assert both.adapter["name"] == "first+second"
    assert not torch.equal(rows(both), expected[0])
    with pytest.raises(UnknownName, match="unknown adapter of .* 'third'"):
        load_model((model, tokenizer), adapter="third")
    with pytest.raises(InputError, match="adapter 'first' asked for, but a BertModel carries none"):
        load_model((tiny_model(), tokenizer), adapter="first")


def test_an_adapter_that_is_switched_off_is_not_taken_for_one_that_is_on(bases):
    model = adapted(AutoModel.from_pretrained(bases["bert"]))
    side = load_model((model, tokenizer_for("bert")))
    model.base_model.disable_adapter_layers()
    with pytest.raises(AdapterError, match=r"is switched off; switch it on again with base_model.enable_adapter_layers\(\)"):
        rows(side)


# ---- what the checkpoint was pretrained with


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("bert-base-uncased", "mlm+nsp"),
        ("google-bert/bert-base-uncased", "mlm+nsp"),
        ("roberta-base", "mlm"),
        ("distilbert-base-uncased", "distillation+mlm"),
        ("gpt2", "causal-lm"),
        ("facebook/opt-125m", "causal-lm"),
        ("EleutherAI/pythia-160m-deduped", "causal-lm"),
        ("Salesforce/codegen-350M-mono", "causal-lm"),
        ("state-spaces/mamba-130m-hf", "causal-lm"),
        ("RWKV/rwkv-4-169m-pile", "causal-lm"),
        ("intfloat/e5-base-v2", "contrastive"),
        ("sentence-transformers/all-MiniLM-L6-v2", "contrastive"),
        ("thenlper/gte-base", "contrastive"),
        ("BAAI/bge-base-en-v1.5", "contrastive"),
        ("openai/clip-vit-base-patch32", "contrastive-image-text"),
        ("/home/me/.cache/huggingface/hub/models--intfloat--e5-base-v2/snapshots/1c2", "contrastive"),
        ("someone/bert-base-uncased", "unknown"),  # another checkpoint under a known one's short name
        ("./gpt2-of-mine", "unknown"),
        (None, "unknown"),
    ],
)
def test_pretraining_belongs_to_the_checkpoint(name, objective):
    assert pretraining_of(name) == objective


def test_the_table_of_checkpoints_speaks_of_known_objectives():
    assert {part for objective in CHECKPOINTS.values() for part in objective.split("+")} <= set(OBJECTIVES)


def test_pretraining_is_read_off_the_config_and_can_be_declared(bases, tmp_path):
    place = save_model(tmp_path / "tuned")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"_name_or_path": "bert-base-uncased"}))
    assert load_model(place, device="cpu").identity()["pretraining"] == "mlm+nsp"
    assert load_model(bases["bert"], device="cpu").pretraining == "unknown"
    declared = load_model(bases["bert"], device="cpu", pretraining="distillation+mlm")
    assert declared.identity()["pretraining"] == "distillation+mlm"
    pair = load_pair(bases["bert"], place, device="cpu", pretraining="mlm")
    assert [side.pretraining for side in pair] == ["mlm", "mlm+nsp"]  # a tuned model of a known checkpoint keeps its own
    adapter = save_adapter(tmp_path / "adapter", bases["bert"])
    assert [side.pretraining for side in load_pair(None, adapter, device="cpu", pretraining="mlm")] == ["mlm", "mlm"]
    with pytest.raises(UnknownName, match="unknown pretraining objective 'mml'; did you mean mlm"):
        load_pair(None, adapter, pretraining="nsp+mml")


def test_a_sentence_transformer_is_not_what_its_body_started_from(tmp_path):
    place = save_sentence_transformer(tmp_path / "st")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"_name_or_path": "bert-base-uncased"}))
    assert load_model(place, device="cpu").pretraining == "unknown"


def test_diff_writes_the_declared_pretraining_down(bases, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", bases["bert"])
    texts = [f"{a} {b}" for a in ("the cat", "a dog", "bird") for b in ("sat", "ran", "flew", "was")]
    payload = diff(adapter, texts=texts, measures="procrustes", device="cpu", pretraining="contrastive").payload
    assert payload["base"]["pretraining"] == payload["tuned"]["pretraining"] == "contrastive"
    assert load_file(adapter / "adapter_model.safetensors")
