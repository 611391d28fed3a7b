"""Loading: every way of naming a model, one copy for base and adapter, and a clear line for everything refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from tiny_models import (
    CONFIGS,
    LAYERS,
    TEXTS,
    WIDTH,
    adapted,
    save_adapter,
    save_model,
    save_sentence_transformer,
    tiny_model,
    tiny_tokenizer,
)
from tunescope.activations import capture
from tunescope.errors import ActivationError, AdapterError, DeviceError, InputError, ModelError, UnknownName, UnsafeWeights
from tunescope.models import Model, load_model, load_pair
from tunescope.models.anatomy import FAMILIES, text_body
from tunescope.models.lengths import position_limit
from tunescope.models.quiet import quietly


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("base"), model=tiny_model(head="mlm"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, base) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapter"), base)


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_model(tmp_path / "model")


def body_of(folder: Path) -> torch.nn.Module:
    """The body as transformers itself loads it."""
    with quietly():
        return AutoModel.from_pretrained(folder)


def rows(model: Model) -> torch.Tensor:
    found = capture(model, TEXTS)
    return torch.stack(list(found.layers.values()))


def rewrite(path: Path, change) -> None:
    """Change the tensors of a safetensors file."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def doubled(word: str):
    """A change that doubles the tensors whose name holds `word`."""
    return lambda tensors: tensors.update({key: 2 * value for key, value in tensors.items() if word in key})


# ---- sources


def test_a_folder_is_the_body_without_its_task_head(base):
    model = load_model(base, device="cpu")
    assert type(model.module).__name__ == "BertModel"
    assert (model.name, model.anatomy.family, model.anatomy.n_layers, model.anatomy.width) == (str(base), "bert", LAYERS, WIDTH)
    assert not model.module.training
    assert model.warnings == []
    with torch.inference_mode(), quietly():
        expected = AutoModel.from_pretrained(base).eval()(**model.tokenizer("the cat", return_tensors="pt")).last_hidden_state[0]
    torch.testing.assert_close(capture(model, ["the cat"], pooling="none").sites["final"], expected, rtol=1e-5, atol=1e-5)


def test_loading_is_silent_and_leaves_settings_and_random_state_alone(base, adapter, capfd):
    level, filters, state = logging.getLogger("transformers").level, list(warnings.filters), torch.random.get_rng_state()
    load_pair(base, adapter, device="cpu")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("transformers").level == level
    assert warnings.filters == filters
    assert torch.equal(torch.random.get_rng_state(), state)


def test_loaded_objects_are_taken_as_they_are():
    module, tokenizer = tiny_model(head="lm", family="gpt2").train(), tiny_tokenizer(special=False)
    model = load_model((module, tokenizer), name="mine")
    assert model.module is module.transformer
    assert model.name == "mine"
    assert load_model(model) is model
    assert load_model(model, name="other").module is model.module
    assert module.training


def test_a_name_that_is_a_bare_module_or_no_model_is_refused():
    with pytest.raises(ModelError, match="a BertModel was given without its tokenizer; give"):
        load_model(tiny_model())
    with pytest.raises(ModelError, match="cannot read a model from a int; give"):
        load_model(7)


def test_half_precision_and_names(base):
    model = load_model(base, device="cpu", dtype="bfloat16", name="half")
    assert model.dtype == torch.bfloat16
    assert model.identity()["dtype"] == "bfloat16"
    with pytest.raises(UnknownName, match="unknown dtype 'float8'; did you mean float"):
        load_model(base, dtype="float8")


def test_a_device_that_is_not_here(base, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceError, match="no such device: 'cuda' asked for, this machine has cpu"):
        load_model(base, device="cuda")


@pytest.mark.parametrize("family", ["roberta", "mpnet", "xlm-roberta"])
def test_positions_start_after_the_padding_row(family):
    assert CONFIGS[family]["max_position_embeddings"] == 66
    assert position_limit(tiny_model(family)) == 64
    assert position_limit(tiny_model("bert")) == 66
    model = load_model((tiny_model(family), tiny_tokenizer(pad_id=1)))
    assert capture(model, ["the " * 500]).tokens.tolist() == [64]
    with pytest.raises(InputError, match="max_length 65 asked for; .* takes 3 to 64 tokens"):
        capture(model, TEXTS, max_length=65)


def test_the_table_of_families_names_real_parts():
    for family in set(CONFIGS) & set(FAMILIES):
        body = text_body(tiny_model(family))
        entry = FAMILIES[family]
        assert len(body.get_submodule(entry.blocks)) == LAYERS
        for path in (*entry.embeddings, *([entry.final_norm] if entry.final_norm else [])):
            assert isinstance(body.get_submodule(path), torch.nn.Module)
        linear = {name.rsplit(".", 1)[-1] for name, part in body.named_modules() if hasattr(part, "weight")}
        assert set(entry.lora_targets) <= linear, family


def test_the_encoder_of_an_encoder_decoder_is_read(tmp_path):
    options = {"d_model": 16, "num_layers": 3, "num_heads": 2, "d_ff": 32, "d_kv": 8, "vocab_size": 48, "decoder_start_token_id": 0}
    place = tmp_path / "t5"
    with quietly():
        tiny_model("t5", **options).save_pretrained(place)
        tiny_tokenizer().save_pretrained(place)
    model = load_model(place, device="cpu")
    assert not model.anatomy.derived
    assert model.anatomy.n_layers == 3
    assert any("its encoder is read" in line for line in model.warnings)
    assert len(capture(model, TEXTS).layers) == 4


def test_sentence_transformers_prompts_and_length_are_declared(tmp_path):
    settings = {"prompts": {"query": "ask "}, "default_prompt_name": "query"}
    model = load_model(save_sentence_transformer(tmp_path / "st", dense=5, settings=settings), device="cpu")
    assert (model.output.prompt, model.max_length, model.output.pooling) == ("ask ", 12, ("mean",))
    found = capture(model, TEXTS)
    assert found.sites["output"].shape == (len(TEXTS), 5)
    torch.testing.assert_close(found.sites["output"].norm(dim=1), torch.ones(len(TEXTS)))
    assert model.identity()["output"]["layers"] == ["Dense", "Normalize"]


def test_sentence_transformers_modules_we_cannot_follow_are_said(tmp_path):
    place = save_sentence_transformer(tmp_path / "st")
    modules = json.loads((place / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.LSTM"
    (place / "modules.json").write_text(json.dumps(modules))
    model = load_model(place, device="cpu")
    assert not model.output.declared
    assert any("not ones we can follow (LSTM)" in line for line in model.warnings)


# ---- identity


def test_identity_is_the_weights_and_not_the_file_or_the_way_in(base, tmp_path):
    model = load_model(base, device="cpu")
    identity = model.identity()
    assert json.loads(json.dumps(identity)) == identity
    again = load_model((body_of(base), model.tokenizer)).identity()
    assert again["weights_sha256"] == identity["weights_sha256"]
    assert again["tokenizer_sha256"] == identity["tokenizer_sha256"]
    with torch.no_grad():
        other = load_model(base, device="cpu")
        other.blocks[2].output.dense.bias[3] += 1e-6
    assert other.identity()["weights_sha256"] != identity["weights_sha256"]


def test_the_hash_is_sha256_over_names_and_bytes(base):
    """Oracle: the same definition written with numpy."""
    model = load_model(base, device="cpu")
    total, count = hashlib.sha256(), 0
    for name, tensor in sorted(model.module.state_dict().items()):
        if name.startswith("pooler."):
            continue
        shape = tuple(tensor.shape)
        total.update(hashlib.sha256(f"{name}|{tensor.dtype}|{shape}|".encode() + np.asarray(tensor).tobytes()).digest())
        count += tensor.numel()
    assert model.identity()["weights_sha256"] == total.hexdigest()
    assert model.identity()["parameters"] == count


# ---- adapters


def test_base_and_adapter_share_one_copy_and_off_is_exactly_the_base(base, adapter):
    plain = load_model(base, device="cpu")
    off, on = load_pair(base, adapter, device="cpu")
    assert off.module is on.module
    for _ in range(2):  # switching back and forth changes nothing
        assert torch.equal(rows(off), rows(plain))
        assert (rows(on) - rows(off))[1:].abs().max() > 1e-2
        assert torch.equal(rows(on)[0], rows(off)[0])
    assert off.identity()["weights_sha256"] == plain.identity()["weights_sha256"]
    assert on.identity()["weights_sha256"] != plain.identity()["weights_sha256"]
    assert off.identity()["adapter"] is None
    assert on.identity()["adapter"]["rank"] == 2
    assert (off.name, on.name) == (str(base), str(adapter))


def test_merged_and_unmerged_agree(base, adapter, tmp_path):
    with quietly():
        merged = PeftModel.from_pretrained(AutoModel.from_pretrained(base), adapter).merge_and_unload()
        save_model(tmp_path / "merged", model=merged)
    _, unmerged = load_pair(base, adapter, device="cpu")
    torch.testing.assert_close(rows(unmerged), rows(load_model(tmp_path / "merged", device="cpu")), rtol=1e-5, atol=1e-5)


def test_the_base_is_read_from_the_adapter(base, adapter):
    off, on = load_pair(None, adapter, device="cpu")
    assert off.name == str(base)
    assert torch.equal(rows(on), rows(load_model(adapter, device="cpu")))


@pytest.mark.parametrize(
    ("family", "head", "targets"),
    [
        ("bert", "mlm", ["query", "value", "dense"]),
        ("gpt2", "lm", ["c_attn", "c_fc"]),
        ("llama", "lm", ["q_proj", "v_proj"]),
        ("opt", "lm", ["q_proj", "fc1"]),
        ("gpt_neox", "lm", ["query_key_value"]),
        ("llama", "lm", "all-linear"),
        ("qwen3", "lm", r".*layers\.[12]\.self_attn\.q_proj"),
    ],
)
def test_an_adapter_trained_with_a_task_head_fits_the_bare_body(tmp_path, family, head, targets):
    """Oracle: PEFT's own loading onto the model with the head."""
    place = save_model(tmp_path / "base", family, model=tiny_model(family, head=head))
    trained = save_adapter(tmp_path / "adapter", place, head=head, target_modules=targets)
    off, on = load_pair(place, trained, device="cpu")
    text = "the cat sat on the mat"
    loader = {"mlm": AutoModelForMaskedLM, "lm": AutoModelForCausalLM}[head]
    with quietly(), torch.inference_mode():
        whole = PeftModel.from_pretrained(loader.from_pretrained(place), trained).eval()
        expected = whole.get_base_model().base_model(**on.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    found = capture(on, [text], pooling="none").sites["final"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (found - capture(off, [text], pooling="none").sites["final"]).abs().max() > 1e-3


def test_what_an_adapter_does_outside_the_body_is_said(tmp_path):
    place = save_model(tmp_path / "base", "llama", model=tiny_model("llama", head="lm"))
    trained = save_adapter(tmp_path / "adapter", place, head="lm", target_modules=["q_proj", "lm_head"])
    _, on = load_pair(place, trained, device="cpu")
    assert any("also changes lm_head, outside the body" in line for line in on.warnings)


def test_a_per_layer_rank_and_saved_modules_arrive(tmp_path, base):
    options = {"rank_pattern": {"encoder.layer.1.attention.self.query": 4}, "modules_to_save": ["word_embeddings"], "use_dora": True}
    trained = save_adapter(tmp_path / "adapter", base, **options)
    rewrite(trained / "adapter_model.safetensors", doubled("word_embeddings"))
    off, on = load_pair(base, trained, device="cpu")
    assert off.module is on.module
    assert torch.equal(rows(off), rows(load_model(base, device="cpu")))
    assert (rows(on) - rows(off))[0].abs().max() > 1e-3
    assert off.identity()["weights_sha256"] == load_model(base, device="cpu").identity()["weights_sha256"]


def test_an_adapter_that_trains_base_biases_gets_its_own_copy(tmp_path, base):
    model = body_of(base)
    trained = save_adapter(tmp_path / "adapter", base, model=model, bias="all")
    rewrite(trained / "adapter_model.safetensors", doubled("bias"))
    off, on = load_pair(base, trained, device="cpu")
    assert off.module is not on.module
    assert torch.equal(rows(off), rows(load_model(base, device="cpu")))
    assert not torch.equal(rows(off), rows(on))


def test_a_loaded_base_is_not_touched_by_an_adapter(base, adapter):
    module = body_of(base)
    names = set(module.state_dict())
    off, on = load_pair((module, tiny_tokenizer()), adapter, device="cpu")
    assert set(module.state_dict()) == names
    assert off.module is not module or off.peft is None
    assert not torch.equal(rows(off), rows(on))


def test_a_peft_model_is_its_own_base_with_the_adapter_off(base):
    plain = load_model(base, device="cpu")
    peft = adapted(body_of(base)).train()
    trains = {name: parameter.requires_grad for name, parameter in peft.named_parameters()}
    for source in (None, (peft.get_base_model(), plain.tokenizer), (peft, plain.tokenizer)):
        off, on = load_pair(source, (peft, plain.tokenizer))
        assert off.module is on.module
        assert torch.equal(rows(off), rows(plain))
        assert not torch.equal(rows(on), rows(plain))
    assert {name: parameter.requires_grad for name, parameter in peft.named_parameters()} == trains
    assert peft.training
    peft.merge_adapter()
    with pytest.raises(AdapterError, match=r"merged into its base, which is therefore gone; call unmerge_adapter\(\) first"):
        rows(load_pair(None, (peft, plain.tokenizer))[0])


def test_an_adapter_as_base_and_another_as_tuned(base, adapter, tmp_path):
    other = save_adapter(tmp_path / "other", base, seed=9)
    first, second = load_pair(adapter, other, device="cpu")
    assert torch.equal(rows(first), rows(load_model(adapter, device="cpu")))
    assert torch.equal(rows(second), rows(load_model(other, device="cpu")))
    with pytest.raises(AdapterError, match="carries an adapter already; give the plain base, or merge that adapter first"):
        load_pair(load_model(adapter, device="cpu"), other, device="cpu")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hidden_size": 32}, r".*lora_A.weight is 2 x 16, the base takes 2 x 32; it was made for '.*', give that base"),
        ({"num_hidden_layers": 2}, r"the base has no .*layer.2.*"),
        ({"num_hidden_layers": 4}, r"it has nothing for the base's encoder.layer.3.attention.self.query"),
    ],
)
def test_an_adapter_of_another_base_is_refused(tmp_path, adapter, changes, problem):
    other = save_model(tmp_path / "other", **changes)
    with pytest.raises(AdapterError, match=f"the adapter '.*' does not fit the base '.*': {problem}"):
        load_pair(other, adapter, device="cpu")


def test_an_adapter_of_another_family_is_refused(tmp_path, adapter):
    with pytest.raises(AdapterError, match="the base has none of its targets, such as encoder.layer.0"):
        load_pair(save_model(tmp_path / "gpt2", "gpt2"), adapter, device="cpu")


def test_a_base_of_another_name_is_warned_of(tmp_path, base, adapter):
    _, on = load_pair(save_model(tmp_path / "twin", seed=4), adapter, device="cpu")
    assert any("as its base; " in line and "fits by name and shape" in line for line in on.warnings)
    assert load_pair(base, adapter, device="cpu")[1].warnings == []


def test_adapters_that_cannot_be_switched_off_are_refused(adapter, base, tmp_path):
    changed = tmp_path / "changed"
    for field, value, message in [
        ("init_lora_weights", "pissa", "was started with 'pissa', which rewrites the base's weights"),
        ("peft_type", "PROMPT_TUNING", "is a PROMPT_TUNING adapter, which changes the prompt and not the blocks"),
        ("peft_type", "NOVEL", "cannot read .*adapter_config.json"),
        ("base_model_name_or_path", None, "does not name its base in adapter_config.json; give the base model too"),
    ]:
        changed.mkdir(exist_ok=True)
        for path in adapter.iterdir():
            (changed / path.name).write_bytes(path.read_bytes())
        config = json.loads((changed / "adapter_config.json").read_text()) | {field: value}
        if value == "PROMPT_TUNING":
            config = {"peft_type": value, "base_model_name_or_path": str(base), "num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}
        (changed / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(AdapterError, match=message):
            load_pair(None, changed, device="cpu")


def test_a_pair_without_a_base(folder):
    with pytest.raises(InputError, match="one model given, '.*', and it is no adapter that names its base; give two, the base first"):
        load_pair(None, folder)
    with pytest.raises(InputError, match="carries no adapter to switch off; give the base model too"):
        load_pair(None, (tiny_model(), tiny_tokenizer()))


def test_a_sentence_transformers_folder_of_an_adapter_declares_its_own_output(tmp_path, base, adapter):
    place = save_sentence_transformer(tmp_path / "st", pooling={"pooling_mode_cls_token": True})
    for name in ("model.safetensors", "config.json"):
        (place / name).unlink()
    for path in adapter.glob("adapter_*"):
        (place / path.name).write_bytes(path.read_bytes())
    off, on = load_pair(None, place, device="cpu")
    assert (off.output.declared, on.output.declared, on.output.pooling, on.max_length) == (False, True, ("cls",), 12)
    assert off.name == str(base)


def test_nan_in_an_adapter_names_it(tmp_path, base):
    trained = save_adapter(tmp_path / "adapter", base)
    rewrite(trained / "adapter_model.safetensors", lambda tensors: next(iter(tensors.values())).fill_(float("inf")))
    with pytest.raises(ActivationError, match="the weights of '.*adapter' hold Inf in encoder.layer.0.attention.self.query.lora_A"):
        load_pair(base, trained, device="cpu")


# ---- refusals


def test_folders_that_are_no_models(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"is not a model folder: no config.json, .* or modules.json in it \(found: nothing\)"):
        load_model(tmp_path / "empty")
    for missing in ("./nowhere", tmp_path / "nowhere", "a/b/c"):
        with pytest.raises(ModelError, match="no such folder: '.*nowhere'|no such folder: 'a/b/c'"):
            load_model(missing)
    with pytest.raises(ModelError, match="is a file; give the folder that holds config.json and model.safetensors"):
        load_model(folder / "config.json")
    with pytest.raises(InputError, match=r"a revision \('main'\) belongs to a hub id"):
        load_model(folder, revision="main")


def test_a_hub_that_cannot_be_reached(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="'nobody/nothing-9' is no folder here, and the hub could not give it .*check the name"):
        load_model("nobody/nothing-9")
    with pytest.raises(ModelError, match="no such folder: 'not a name!', and it is not a hub id either"):
        load_model("not a name!")


def test_pickles_are_refused_with_a_recipe_that_works(folder, tmp_path, adapter):
    expected = rows(load_model(folder, device="cpu"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsafeWeights, match="only as pytorch_model.bin: a pickle, which can run code when it is opened") as refusal:
        load_model(folder)
    recipe = str(refusal.value).split('python -c "')[1].rstrip('"')
    with contextlib.chdir(folder):
        exec(recipe)  # noqa: S102
    assert torch.equal(rows(load_model(folder, device="cpu")), expected)
    pickled = tmp_path / "adapter"
    pickled.mkdir()
    (pickled / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    torch.save({}, pickled / "adapter_model.bin")
    with pytest.raises(UnsafeWeights, match="only as adapter_model.bin"):
        load_model(pickled)


def test_damaged_weights_name_the_file(folder):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-100], whole[:4], b"", b"\xff" * 200):
        weights.write_bytes(damaged)
        with pytest.raises(ModelError, match="cannot read the weights of '.*': .*model.safetensors is cut off or corrupt .*; fetch or"):
            load_model(folder)
    weights.unlink()
    with pytest.raises(ModelError, match="no weights in '.*': looked for model.safetensors or model.safetensors.index.json"):
        load_model(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(ModelError, match="are incomplete: .* lacks model-1.safetensors"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot read .*config.json as JSON"):
        load_model(folder)


def test_weights_the_checkpoint_does_not_hold_are_not_made_up(folder):
    rewrite(folder / "model.safetensors", lambda tensors: [tensors.pop(key) for key in list(tensors) if key.startswith("pooler.")])
    assert load_model(folder, device="cpu").warnings == []  # no site reads the pooler
    rewrite(folder / "model.safetensors", lambda tensors: tensors.pop("encoder.layer.1.output.dense.weight"))
    with pytest.raises(ModelError, match="lacks 1 weights of BertModel, such as encoder.layer.1.output.dense.weight: they"):
        load_model(folder, device="cpu")


def test_a_config_that_does_not_fit_its_weights(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(ModelError, match="cannot load '.*': .*; check that its config.json and weights belong together"):
        load_model(folder, device="cpu")
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    assert any("holds more blocks than the 2 its config.json asks for" in line for line in load_model(folder, device="cpu").warnings)
    (folder / "config.json").write_text(json.dumps({"model_type": "novel", "auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(ModelError, match="runs code of its own from its folder; read that code, then pass --trust-remote-code"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "novel"}))
    with pytest.raises(ModelError, match="cannot read .*config.json of '.*'"):
        load_model(folder)


def test_nan_in_weights_names_model_and_tensor(folder):
    def poison(tensors):
        tensors["encoder.layer.1.output.dense.bias"][2] = float("nan")

    rewrite(folder / "model.safetensors", poison)
    with pytest.raises(ActivationError, match="the weights of '.*model' hold NaN in encoder.layer.1.output.dense.bias"):
        load_model(folder, device="cpu")


def test_a_missing_or_broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot load the tokenizer of '.*': .*save it there with tokenizer.save_pretrained"):
        load_model(folder, device="cpu")


def test_models_without_a_list_of_blocks_are_refused():
    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

    with pytest.raises(ModelError, match="cannot find the blocks of Flat .*no list of two or more blocks of one class; known"):
        load_model((Flat(), tiny_tokenizer()))
