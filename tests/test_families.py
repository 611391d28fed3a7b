"""Every family from a tiny random config: what transformers itself returns is the oracle, and each family's trap is shown and avoided."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from tiny_models import (
    CLIP,
    CONFIGS,
    ENCODERS,
    EVERY,
    LAYERS,
    RECURRENT,
    TEXTS,
    UNLISTED,
    WIDTH,
    save_model,
    tiny_config,
    tiny_model,
    tokenizer_for,
)
from tunescope.activations import SITES, capture
from tunescope.comparison.diff import diff
from tunescope.errors import ModelError
from tunescope.models import Model, load_model, load_pair
from tunescope.models.families import FAMILIES
from tunescope.models.quiet import quietly

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32 through three blocks, in other batches
NEW = ["codegen", "mamba", "rwkv", "clip", "t5", "bart"]
KNOWN = [family for family in EVERY if family not in UNLISTED]
MANY = [f"{a} {b} {c}" for a in ("the cat", "a dog", "bird") for b in ("sat on", "ran", "flew over") for c in ("mat", "tree", "sea")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder of each family that is loaded from one."""
    return {family: save_model(tmp_path_factory.mktemp(family), family) for family in NEW}


def tiny(family: str, **options) -> Model:
    return load_model((tiny_model(family, **options), tokenizer_for(family)))


def alter(model: Model, block: int) -> Model:
    """Every weight of one block (from 1) a little larger."""
    with torch.no_grad():
        for parameter in model.blocks[block - 1].parameters():
            parameter.mul_(1.5).add_(0.05)
    return model


# ---- all of them


@pytest.mark.parametrize("family", KNOWN)
def test_below_an_altered_block_nothing_moves_and_above_it_everything_does(family):
    base, tuned = tiny(family), alter(tiny(family), 2)
    assert not base.anatomy.derived
    before, after = capture(base, TEXTS), capture(tuned, TEXTS)
    assert list(before.layers) == [0, 1, 2, 3]
    assert all(torch.equal(before.layers[index], after.layers[index]) for index in (0, 1))
    for place in (before.layers[2] - after.layers[2], before.layers[3] - after.layers[3], before.sites["final"] - after.sites["final"]):
        assert place.abs().amax(dim=1).min() > 1e-3


@pytest.mark.parametrize("family", NEW)
def test_diff_reads_the_altered_block_off_every_new_family(family, folders):
    base, tuned = load_model(folders[family], device="cpu"), alter(load_model(folders[family], device="cpu"), 2)
    profile = diff(base, tuned, MANY, measures="procrustes").profile
    assert profile["identical"].tolist() == [True, True, False, False]
    assert profile["procrustes"].tolist()[:2] == [0, 0]
    assert profile["procrustes"].min() == 0 < 1e-3 < profile["procrustes"].tolist()[2]


@pytest.mark.parametrize("family", [*RECURRENT, *ENCODERS, *CLIP, "codegen"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padding_and_neighbours_do_not_matter(family, pooling):
    model = tiny(family)
    alone, together = (capture(model, TEXTS, batch_size=size, pooling=pooling) for size in (1, 7))
    for index in alone.layers:
        torch.testing.assert_close(together.layers[index], alone.layers[index], **CLOSE)
    for site in SITES:
        torch.testing.assert_close(together.sites[site], alone.sites[site], **CLOSE)


@pytest.mark.parametrize("family", [*ENCODERS, "clip_text_model"])
def test_rows_are_the_hidden_states_of_the_encoder(family):
    model, whole = tiny(family), tiny_model(family)
    found, ids = capture(model, TEXTS, pooling="none"), model.tokenizer(TEXTS[0], return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        out = (whole.get_encoder() if family in ENCODERS else whole)(**ids, output_hidden_states=True)
    own = found.groups == 0
    for index in range(LAYERS):  # transformers' last hidden state is after the final norm, ours before it
        torch.testing.assert_close(found.layers[index][own], out.hidden_states[index][0], **CLOSE)
    torch.testing.assert_close(found.sites["final"][own], out.last_hidden_state[0], **CLOSE)
    norm = model.anatomy.final_norm
    with torch.inference_mode():
        after = model.module.get_submodule(norm)(found.layers[LAYERS]) if norm else found.layers[LAYERS]
    torch.testing.assert_close(found.sites["final"], after, **CLOSE)


@pytest.mark.parametrize(
    ("families", "kind"),
    [
        (["gpt_neox", "codegen"], "parallel"),
        (["bert", "gpt2", "opt", "llama", "mamba", "rwkv", "t5", "bart", "clip_text_model"], "sequential"),
        (["bloom"], "unknown"),
    ],
)
def test_the_block_type_is_known(families, kind):
    for family in families:
        assert tiny(family).identity()["block"] == kind
    if kind == "parallel":
        assert tiny("gpt_neox", use_parallel_residual=False).identity()["block"] == "sequential"


def test_parallel_means_that_mlp_and_attention_read_the_same_state():
    """Oracle: silence the attention and see whether the MLP's input moves."""
    for family in ("gpt_neox", "codegen", "gpt2", "llama"):
        model = tiny(family)
        block, seen = model.blocks[1], []
        handle = block.mlp.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0].clone()))
        capture(model, TEXTS[:1])
        attention = next(part for name, part in block.named_children() if name in ("attention", "attn", "self_attn"))
        silence = attention.register_forward_hook(lambda module, args, out: (torch.zeros_like(out[0]), *out[1:]))
        capture(model, TEXTS[:1])
        handle.remove(), silence.remove()
        assert torch.equal(*seen) == (model.anatomy.block_type == "parallel"), family


@pytest.mark.parametrize("family", KNOWN)
def test_the_table_names_real_parts_and_targets(family):
    model = tiny(family)
    entry, body = FAMILIES[model.anatomy.family], model.module
    assert model.anatomy.n_layers == LAYERS
    assert model.anatomy.embeddings
    assert all(isinstance(body.get_submodule(path), torch.nn.Module) for path in model.anatomy.embeddings)
    assert model.anatomy.final_norm == entry.final_norm
    inside = {name.rsplit(".", 1)[-1] for name, part in body.get_submodule(model.anatomy.blocks).named_modules() if hasattr(part, "weight")}
    assert set(entry.lora_targets) <= inside


# ---- RWKV


def rwkv(**options) -> torch.nn.Module:
    return tiny_model("rwkv", rescale_every=2, **options)


def test_rwkv_really_halves_its_weights_in_transformers():
    """The trap itself: without our guard a forward in evaluation mode changes the bytes of the weights."""
    module = rwkv()
    before = module.blocks[2].attention.output.weight.clone()
    with torch.inference_mode():
        module(input_ids=torch.tensor([[5, 6]]))
    assert torch.equal(module.blocks[2].attention.output.weight, before / 2)


@pytest.mark.parametrize("way", ["folder", "object"])
def test_a_forward_leaves_the_weights_of_rwkv_as_they_are(way, tmp_path):
    module = rwkv()
    source = save_model(tmp_path / "rwkv", "rwkv", model=module) if way == "folder" else (module, tokenizer_for("rwkv"))
    model = load_model(source)
    before = model.identity()["weights_sha256"]
    found = capture(model, TEXTS, pooling="none")
    assert model.identity()["weights_sha256"] == before
    assert (module.config.rescale_every, module.layers_are_rescaled) == (2, False)
    ids = model.tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    states = rwkv().train()(input_ids=ids, output_hidden_states=True).hidden_states  # no dropout; in training nothing is rescaled
    own = found.groups == 0
    torch.testing.assert_close(found.layers[0][own], module.embeddings(ids)[0], **CLOSE)  # what enters block 1, which they leave out
    torch.testing.assert_close(found.layers[3][own], states[2][0], **CLOSE)
    torch.testing.assert_close(found.sites["final"][own], states[3][0], **CLOSE)


def test_the_caller_s_rwkv_still_rescales_afterwards():
    module, other = rwkv(), rwkv()
    capture(load_model((module, tokenizer_for("rwkv"))), TEXTS)
    with torch.inference_mode():
        assert torch.equal(module(input_ids=torch.tensor([[5, 6]]))[0], other(input_ids=torch.tensor([[5, 6]]))[0])


def test_an_rwkv_that_has_run_already_is_refused():
    module = rwkv()
    model = load_model((module, tokenizer_for("rwkv")))
    with torch.inference_mode():
        module(input_ids=torch.tensor([[5, 6]]))
    message = r"an RWKV that has run in evaluation mode, which divided its output weights in place \(rescale_every=2\); give its folder"
    with pytest.raises(ModelError, match=message):
        load_model((module, tokenizer_for("rwkv")))
    with pytest.raises(ModelError, match=message):
        capture(model, TEXTS)


# ---- CLIP


@pytest.mark.parametrize("kind", ["clip", "clip_text_model"])
@pytest.mark.parametrize("way", ["folder", "object"])
def test_the_output_of_clip_is_its_projected_vector(kind, way, tmp_path):
    """Oracle: what transformers projects, at unit length as CLIP's own similarity takes it."""
    whole = tiny_model("clip") if kind == "clip" else CLIPTextModelWithProjection(tiny_config(kind)).eval()
    tokenizer = tokenizer_for(kind)
    model = load_model(save_model(tmp_path / "clip", kind, model=whole) if way == "folder" else (whole, tokenizer), device="cpu")
    found = capture(model, TEXTS, batch_size=3)
    for row, text in enumerate(TEXTS):
        ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        with torch.inference_mode():
            vector = whole.get_text_features(**ids).pooler_output[0] if kind == "clip" else whole(**ids).text_embeds[0]
        torch.testing.assert_close(found.sites["output"][row], vector / vector.norm(), **CLOSE)
    said = model.identity()["output"]
    assert (said["declared"], said["pooling"], said["layers"]) == (True, ["eos"], ["Projection", "Normalize"])
    assert (model.anatomy.family, model.anatomy.n_layers, len(found.layers)) == ("clip_text_model", LAYERS, LAYERS + 1)
    assert found.layers[1].shape[1] == WIDTH
    assert found.sites["output"].shape[1] == 8


def test_the_end_of_text_is_found_and_not_the_last_token():
    """A bare text tower deploys the state at its first end-of-text token, wherever the text goes on."""
    module, tokenizer = tiny_model("clip_text_model"), tokenizer_for("clip_text_model")
    model = load_model((module, tokenizer))
    text = "the cat [SEP] sat on"
    with torch.inference_mode():
        expected = module(**tokenizer(text, return_tensors="pt", return_token_type_ids=False))
    found = capture(model, [text]).sites["output"]
    torch.testing.assert_close(found, expected.pooler_output, **CLOSE)
    assert not torch.allclose(found, expected.last_hidden_state[:, -1], atol=1e-2)
    assert model.identity()["output"] == {"declared": True, "pooling": ["eos"], "layers": [], "weights_sha256": None, "prompt": ""}


# ---- encoder-decoders


def test_an_encoder_decoder_is_read_by_its_encoder(folders):
    model = load_model(folders["bart"], device="cpu")
    assert type(model.module).__name__ == "BartEncoder"
    assert any("its encoder is read, its decoder is not" in line for line in model.warnings)


def test_an_encoder_saved_alone_is_the_same_encoder(tmp_path, folders):
    with quietly():
        alone = save_model(tmp_path / "alone", "t5", model=T5EncoderModel.from_pretrained(folders["t5"]))
    whole, found = load_model(folders["t5"], device="cpu"), load_model(alone, device="cpu")
    assert found.identity()["weights_sha256"] == whole.identity()["weights_sha256"]
    loaded = load_model((T5EncoderModel.from_pretrained(alone), found.tokenizer))
    for model in (found, loaded):
        assert torch.equal(capture(model, TEXTS).layers[3], capture(whole, TEXTS).layers[3])


# ---- what is refused


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "vit"}, "is a ViTModel, which reads images, not texts; give a model that reads texts"),
        ({"model_type": "clip_vision_model"}, "is a CLIPVisionModel, which reads images"),
        ({"model_type": "wav2vec2"}, "is a Wav2Vec2Model, which reads audio"),
        ({"model_type": "whisper"}, "is a WhisperModel, which reads audio"),
        ({"model_type": "time_series_transformer"}, "is a TimeSeriesTransformerModel, which reads time series"),
        ({"_class_name": "UNet2DConditionModel"}, "is a UNet2DConditionModel of the diffusers library, which makes images or audio"),
    ],
)
def test_models_that_read_no_texts_are_refused_by_name(tmp_path, config, message):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path)


def test_a_diffusion_pipeline_is_refused_by_name(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ModelError, match="is a StableDiffusionPipeline of the diffusers library, .* the text_encoder folder of a pipeline"):
        load_model(tmp_path)


def test_an_object_that_reads_no_texts_is_refused_by_name():
    vision = tiny_model("clip").vision_model
    with pytest.raises(ModelError, match="is a CLIPVisionModel, which reads images, not texts"):
        load_model((vision, tokenizer_for("clip")))


def test_the_language_model_of_a_model_of_text_and_images_is_read(tmp_path):
    text = {"model_type": "qwen2"} | CONFIGS["qwen2"]
    vision = CLIP["clip"]["vision_config"] | {"model_type": "clip_vision_model", "num_hidden_layers": 5}
    whole = tiny_model("llava", text_config=text, vision_config=vision, image_token_id=7)
    model = load_model((whole, tokenizer_for("qwen2")))
    assert (model.anatomy.family, model.anatomy.n_layers) == ("qwen2", LAYERS)
    assert len(capture(model, TEXTS).layers) == LAYERS + 1


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, r"is quantised by gptq, which needs \w+: pip install optimum gptqmodel, or give"),
        ({"quant_method": "awq", "bits": 4}, "is quantised by awq, which needs gptqmodel: pip install gptqmodel, or give"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "is quantised by bitsandbytes, which needs bitsandbytes: pip install"),
        ({"load_in_8bit": True}, "is quantised by bitsandbytes, which needs bitsandbytes: pip install bitsandbytes, or give"),
        ({"quant_method": "novel"}, r"is quantised by 'novel', which is not read here \(read: bitsandbytes, .*\); give the checkpoint it"),
    ],
)
def test_a_quantised_base_without_its_library_is_refused_by_name(tmp_path, monkeypatch, declared, message):
    monkeypatch.setattr("tunescope.models.quantised.find_spec", lambda name: None)
    place = save_model(tmp_path / "model")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"quantization_config": declared}))
    with pytest.raises(ModelError, match=message):
        load_pair(place, place)


def test_four_bit_weights_are_not_repacked_by_a_forward():
    """bitsandbytes' Linear4bit rewrites its bytes on CPUs that support it; a stand-in with its switch shows that it is off in a forward."""
    seen, module = [], tiny_model()
    dense = module.encoder.layer[1].output.dense
    dense.support_avx512bf16_for_cpu = True
    dense.register_forward_pre_hook(lambda part, args: seen.append(part.support_avx512bf16_for_cpu))
    capture(load_model((module, tokenizer_for("bert"))), TEXTS)
    assert seen == [False]
    assert dense.support_avx512bf16_for_cpu
