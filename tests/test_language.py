"""Language-model loss: transformers' own loss, PEFT's own model and closed forms are the oracles."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from tiny_models import CONFIGS, DECODERS, RECURRENT, TEXTS, UNLISTED, save_adapter, save_model, tiny_model, tiny_tokenizer, tokenizer_for
from tunescope import language_loss, perturb
from tunescope.errors import ActivationError, AdapterError, InputError, ModelError, TextsError
from tunescope.models import load_model, load_pair
from tunescope.models.heads import LanguageHead, NoLanguageHead, language_head
from tunescope.models.quiet import quietly
from tunescope.outcome import token_losses
from tunescope.outcome.scored_tokens import scored_tokens, tokens_of
from tunescope.texts.masking import chosen_positions

STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K" / "hf"
FAMILIES = list(CONFIGS | UNLISTED | RECURRENT)
LONG = [text for text in TEXTS if " " in text]  # two words or more: a decoder without a first token has something to predict
LOSS = 1e-5  # nats: float32 sums in another order


def kind_of(family: str) -> str:
    return "lm" if family in (*DECODERS, *UNLISTED, *RECURRENT) else "mlm"


def with_head(family: str, **options) -> torch.nn.Module:
    """A tiny model with its language-model head; RWKV without the rescaling that rewrites its weights."""
    return tiny_model(family, head=kind_of(family), **({"rescale_every": 0} if family == "rwkv" else {}), **options)


def saved(folder: Path, family: str, **options) -> Path:
    return save_model(folder, family, model=with_head(family, **options))


def asked(tokenizer, text: str, *, masked: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """ids (1, t) as the model reads them, and labels (1, t) with −100 where nothing is predicted."""
    encoded = tokenizer(text, return_special_tokens_mask=True)
    ids, special = torch.tensor(encoded["input_ids"]), np.array(encoded["special_tokens_mask"], bool)
    if not masked:
        return ids[None], ids.masked_fill(torch.from_numpy(special), -100)[None]
    places = chosen_positions(text, ~special)
    labels = torch.full_like(ids, -100)
    labels[places] = ids[places]
    return ids.index_fill(0, torch.from_numpy(places), tokenizer.mask_token_id)[None], labels[None]


def theirs(model, tokenizer, texts, *, masked: bool) -> np.ndarray:
    """Mean losses per text by transformers' own loss function."""
    with torch.inference_mode(), quietly():
        pairs = [asked(tokenizer, text, masked=masked) for text in texts]
        return np.array([float(model(input_ids=ids, labels=labels).loss) for ids, labels in pairs])


def their_scores(model, tokenizer, text: str, *, masked: bool) -> torch.Tensor:
    """Log-probabilities (m, v) of the predicted tokens, float64."""
    ids, labels = asked(tokenizer, text, masked=masked)
    with torch.inference_mode(), quietly():
        scores = model(input_ids=ids).logits[0].double().log_softmax(-1)
    return scores[labels[0] != -100] if masked else scores[:-1][labels[0, 1:] != -100]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_kl_are_those_of_transformers(family, tied, tmp_path):
    """From folders, where the head is read alone, and from loaded models, whose own head is used."""
    masked, tokenizer = kind_of(family) == "mlm", tokenizer_for(family)
    models = [with_head(family, seed=seed, tie_word_embeddings=tied) for seed in (0, 1)]
    folders = [save_model(tmp_path / str(seed), family, model=model) for seed, model in enumerate(models)]
    expected = [theirs(model, tokenizer, LONG, masked=masked) for model in models]
    scores = [[their_scores(model, tokenizer, text, masked=masked) for text in LONG] for model in models]
    kl, reverse = ([float((p.exp() * (p - q)).sum(1).mean()) for p, q in zip(*pair, strict=True)] for pair in (scores, scores[::-1]))
    agree = [float((p.argmax(1) == q.argmax(1)).float().mean()) for p, q in zip(*scores, strict=True)]
    loaded = [replace(load_model(folder, device="cpu"), tokenizer=tokenizer) for folder in folders]  # Qwen's class makes others of it
    for sources in (loaded, [(model, tokenizer) for model in models]):
        found = language_loss(*sources, LONG).per_text
        np.testing.assert_allclose(found["base"], expected[0], rtol=0, atol=LOSS)
        np.testing.assert_allclose(found["tuned"], expected[1], rtol=0, atol=LOSS)
        np.testing.assert_allclose(found["kl"], kl, rtol=1e-4, atol=LOSS)
        np.testing.assert_allclose(found["kl_reverse"], reverse, rtol=1e-4, atol=LOSS)
        np.testing.assert_allclose(found["agreement"], agree, rtol=0, atol=1e-7)


@pytest.mark.skipif(not STORIES.exists(), reason="the shared tiny model is not here")
def test_loss_of_a_trained_model_is_that_of_transformers():
    texts = ["Once upon a time there was a little dog.", "Lily and Tom went to the park to play with a big red ball."]
    with quietly():
        model = AutoModelForCausalLM.from_pretrained(STORIES)
    base = load_model(STORIES, device="cpu")
    found = language_loss(base, perturb(base, kind="gaussian", sigma=0.16), texts)
    np.testing.assert_allclose(found.per_text["base"], theirs(model, base.tokenizer, texts, masked=False), rtol=0, atol=LOSS)
    assert found.detail["base_loss"] < 2  # it was trained on such texts


@pytest.mark.parametrize("family", ["bert", "gpt2", "rwkv"])
def test_padding_and_batch_size_change_nothing(family, tmp_path):
    sides = [saved(tmp_path / str(seed), family, seed=seed) for seed in (0, 1)]
    frames = [language_loss(*sides, LONG, device="cpu", batch_size=size).per_text for size in (1, 2, 16)]
    other = language_loss(*sides, LONG[::-1], device="cpu").per_text[::-1].reset_index(drop=True)
    for frame in (*frames[1:], other):
        for column in ("base", "tuned", "kl", "kl_reverse", "agreement"):
            np.testing.assert_allclose(frame[column], frames[0][column], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_a_model_does_not_diverge_from_itself(family, tmp_path):
    folder = saved(tmp_path, family)
    found = language_loss(folder, folder, LONG, device="cpu")
    assert found.per_text["kl"].max() <= 1e-7
    assert found.per_text["kl_reverse"].max() <= 1e-7
    assert (found.per_text["agreement"] == 1).all()
    assert found.outcomes[0].delta == 0


def test_scores_are_made_a_few_tokens_at_a_time(tmp_path, monkeypatch):
    """Never tokens × vocabulary: with room for 5 × 48 numbers no more than 5 tokens go through a head at once, with the same result."""
    sides = [saved(tmp_path / str(seed), "bert", seed=seed) for seed in (0, 1)]
    texts = [" ".join(TEXTS[2:6])] * 3 + LONG
    expected = language_loss(*sides, texts, device="cpu")
    seen, call = [], LanguageHead.__call__
    monkeypatch.setattr(token_losses, "_NUMBERS", 5 * 48)
    monkeypatch.setattr(LanguageHead, "__call__", lambda head, states: seen.append(len(states)) or call(head, states))
    found = language_loss(*sides, texts, device="cpu")
    assert (max(seen), sum(seen)) == (5, 2 * found.detail["tokens"])
    for column in ("base", "tuned", "kl"):
        np.testing.assert_allclose(found.per_text[column], expected.per_text[column], rtol=0, atol=1e-6)
    ranked = [[token["kl"] for token in result.detail["most_changed_tokens"]] for result in (found, expected)]
    np.testing.assert_allclose(*ranked, rtol=0, atol=1e-5)


def test_rows_say_loss_and_its_exponential(tmp_path):
    found = language_loss(*(saved(tmp_path / str(seed), "gpt2", seed=seed) for seed in (0, 1)), LONG, device="cpu", name="held-out")
    loss, perplexity = found.outcomes
    assert (loss.metric, loss.main, loss.higher_is_better, loss.items, loss.name) == ("loss", True, False, "texts", "held-out")
    assert loss.base == pytest.approx(found.per_text["base"].mean())
    assert perplexity.base == pytest.approx(math.exp(loss.base))
    assert perplexity.base + perplexity.high == pytest.approx(math.exp(loss.base + loss.high))
    weights = found.per_text["tokens"]
    assert found.detail["by_token"]["base_loss"] == pytest.approx(np.average(found.per_text["base"], weights=weights))
    assert found.detail["by_token"]["kl"] == pytest.approx(np.average(found.per_text["kl"], weights=weights))
    low, high = found.detail["kl_interval"]
    assert low < found.detail["kl"] < high
    assert found.detail["kl"] == pytest.approx(found.per_text["kl"].mean())
    json.dumps(found.detail, allow_nan=False)


def test_what_changed_is_found_in_context(tmp_path):
    """One word's embedding is moved: predictions before the word, and texts without it, stay; those after it change."""
    model, moved = with_head("llama", tie_word_embeddings=False), with_head("llama", tie_word_embeddings=False)
    word = tokenizer_for("llama").get_vocab()["dog"]
    with torch.no_grad():
        moved.model.embed_tokens.weight[word] += 3
    texts = [*LONG, "the dog sat on the mat and then the dog ran"]
    found = language_loss((model, tokenizer_for("llama")), (moved, tokenizer_for("llama")), texts)
    frame = found.per_text
    has = frame["text"].str.contains("dog") & (frame["text"].str.split("dog").str[1].str.strip() != "")
    assert (frame["kl"][has] > 1e-3).all()
    assert (frame["kl"][~has] == 0).all()
    changed = [token for token in found.detail["most_changed_tokens"] if token["kl"] > 0]
    assert changed
    for token in changed:
        assert "dog" in token["before"].split()
    first = changed[0]
    assert f"{first['before']} {first['token']} {first['after']}".split() == texts[int(first["text_id"].split()[1])].split()
    assert [token["kl"] for token in changed] == sorted((token["kl"] for token in changed), reverse=True)
    assert found.detail["most_changed_texts"][0]["delta"] == max(frame["delta"], key=abs)
    probability = [chance for word, chance in first["base_top"] if word == first["token"]]
    assert not probability or probability[0] == pytest.approx(math.exp(-first["base_loss"]), rel=1e-4)


# ---------------------------------------------------------------- adapters

HEADS = {
    "body only": ("llama", {"target_modules": ["q_proj", "v_proj"]}),
    "LoRA on the head": ("llama", {"target_modules": ["q_proj", "lm_head"]}),
    "DoRA on the head": ("llama", {"target_modules": ["q_proj", "lm_head"], "use_dora": True}),
    "a head saved whole": ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "embeddings": ("llama", {"target_modules": ["q_proj", "embed_tokens"]}),
    "masked": ("bert", {"target_modules": ["query", "value"]}),
    "masked, its transform": ("bert", {"target_modules": ["query", "cls.predictions.transform.dense"]}),
    "masked, its head saved whole": ("distilbert", {"target_modules": ["q_lin"], "modules_to_save": ["vocab_transform"]}),
}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("case", HEADS)
def test_an_adapter_is_heard_in_the_head_with_one_copy_of_the_body(case, tied, tmp_path):
    """PEFT's own model of the whole language model is the oracle, from a folder and loaded; the base side stays the base."""
    family, options = HEADS[case]
    masked, tokenizer = kind_of(family) == "mlm", tokenizer_for(family)
    loader = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    base = saved(tmp_path / "base", family, tie_word_embeddings=tied)
    place = moved_adapter(tmp_path / "adapter", loader, base, **options)
    with quietly():
        plain, peft = loader.from_pretrained(base).eval(), PeftModel.from_pretrained(loader.from_pretrained(base), place).eval()
    expected = [theirs(model, tokenizer, LONG, masked=masked) for model in (plain, peft)]
    assert np.abs(expected[1] - expected[0]).max() > 1e-3
    off, on = load_pair(base, place, device="cpu")
    assert off.module is on.module
    for pair in ((off, on), (None, (peft, tokenizer)), ((plain, tokenizer), place)):
        found = language_loss(*pair, LONG).per_text
        np.testing.assert_allclose(found["base"], expected[0], rtol=0, atol=LOSS)
        np.testing.assert_allclose(found["tuned"], expected[1], rtol=0, atol=LOSS)
    assert isinstance(peft.get_base_model().get_submodule(peft.get_base_model().base_model_prefix), type(off.module))
    if not tied:  # merging into tied embeddings would move the head too: another model
        with quietly():
            merged = peft.merge_and_unload()
        np.testing.assert_allclose(theirs(merged, tokenizer, LONG, masked=masked), found["tuned"], rtol=0, atol=5 * LOSS)


def moved_adapter(folder: Path, loader, base: Path, **options) -> Path:
    """An adapter of the whole language model whose every trainable number has moved."""
    with quietly():
        torch.manual_seed(1)
        model = get_peft_model(loader.from_pretrained(base), LoraConfig(r=2, lora_alpha=8, **options))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        model.save_pretrained(folder)
    return folder


def test_the_head_of_an_untouched_side_is_tied_and_not_copied(tmp_path):
    base = saved(tmp_path / "base", "llama", tie_word_embeddings=True)
    off, on = load_pair(base, save_adapter(tmp_path / "adapter", base, head="lm", target_modules=["q_proj"]), device="cpu")
    for side in (off, on):
        head = language_head(side)
        assert head.shell.lm_head.weight.data_ptr() == side.module.embed_tokens.weight.data_ptr()
        assert sum(parameter.numel() for parameter in head.shell.parameters()) == side.module.embed_tokens.weight.numel()


def test_tokens_trained_for_a_tied_head_are_refused(tmp_path):
    base = saved(tmp_path / "base", "llama", tie_word_embeddings=True)
    place = moved_adapter(tmp_path / "a", AutoModelForCausalLM, base, target_modules=["q_proj"], trainable_token_indices=[5, 6])
    with pytest.raises(AdapterError, match=r"trains tokens that the head of its base shares; merge it \(merge_and_unload\)"):
        language_loss(base, place, LONG, device="cpu")


def test_a_perturbed_copy_has_its_own_tied_head(tmp_path):
    """Noise on the embeddings is noise on the head that is tied to them, whether the base came from a folder or was loaded."""
    folder = saved(tmp_path, "llama", tie_word_embeddings=True)
    with quietly():
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = []
    for source in (folder, (model, tokenizer_for("llama"))):
        base = load_model(source, device="cpu")
        tuned = perturb(base, kind="gaussian", sigma=0.3)
        found.append(language_loss(base, tuned, LONG).per_text["tuned"])
    moved = with_head("llama", tie_word_embeddings=True)
    moved.model.load_state_dict(tuned.module.state_dict())
    for tuned_losses in found:
        np.testing.assert_allclose(tuned_losses, theirs(moved, tokenizer_for("llama"), LONG, masked=False), rtol=0, atol=LOSS)


def test_a_loaded_model_is_left_as_it_was():
    model = with_head("bert").train()
    before = {name: id(module) for name, module in model.named_modules()}
    language_loss((model, tokenizer_for("bert")), (with_head("bert", seed=1), tokenizer_for("bert")), LONG)
    assert {name: id(module) for name, module in model.named_modules()} == before
    assert all(module.training for module in model.modules())


# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(("family", "now", "once"), [("gpt_neox", "lm_head.", "embed_out."), ("bert", "Norm.weight", "Norm.gamma")])
def test_a_head_saved_under_its_old_name_is_found(family, now, once, tmp_path):
    folder = saved(tmp_path, family, tie_word_embeddings=False)
    expected = language_loss(folder, folder, LONG, device="cpu").per_text["base"]
    state = load_file(folder / "model.safetensors")
    old = {key.replace(now, once) if "encoder" not in key else key: value for key, value in state.items()}
    assert any(once in key for key in old)
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_array_equal(language_loss(folder, folder, LONG, device="cpu").per_text["base"], expected)


def test_a_head_in_shards_is_found(tmp_path):
    model = with_head("llama", tie_word_embeddings=False)
    with quietly():
        model.save_pretrained(tmp_path, max_shard_size="4KB")
        tokenizer_for("llama").save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    found = language_loss(tmp_path, tmp_path, LONG, device="cpu").per_text["base"]
    np.testing.assert_allclose(found, theirs(model, tokenizer_for("llama"), LONG, masked=False), rtol=0, atol=LOSS)


@pytest.mark.parametrize(("family", "lacking"), [("bert", "cls.predictions"), ("llama", "lm_head.weight"), ("distilbert", "vocab_")])
def test_a_body_without_its_head_is_refused_with_what_is_possible(family, lacking, tmp_path):
    whole, body = saved(tmp_path / "whole", family, tie_word_embeddings=False), tmp_path / "body"
    save_model(body, family, tie_word_embeddings=False)
    said = rf"body' has no language-model head: its checkpoint lacks {lacking}.*random weights.*; measure retrieval or probes, or give"
    with pytest.raises(NoLanguageHead, match=said):
        language_loss(body, whole, LONG, device="cpu")
    with pytest.raises(NoLanguageHead, match=said + r".*whole' has one, but its head on the tuned body would be a third model"):
        language_loss(whole, body, LONG, device="cpu")


def test_a_bare_body_whose_head_is_its_embeddings_has_a_head(tmp_path):
    model = with_head("gpt2")
    folder = save_model(tmp_path, "gpt2", model=model.transformer)
    found = language_loss(folder, (model.transformer, tokenizer_for("gpt2")), LONG, device="cpu").per_text
    np.testing.assert_allclose(found["base"], theirs(model, tokenizer_for("gpt2"), LONG, masked=False), rtol=0, atol=LOSS)
    np.testing.assert_array_equal(found["base"], found["tuned"])


@pytest.mark.parametrize("family", ["t5", "bart", "clip_text_model"])
def test_families_whose_read_part_has_no_head_are_refused(family, tmp_path):
    folder = save_model(tmp_path, family)
    with pytest.raises(NoLanguageHead, match="measure retrieval or probes"):
        language_loss(folder, folder, LONG, device="cpu")


def test_heads_of_two_kinds_are_refused(tmp_path):
    sides = [saved(tmp_path / family, family) for family in ("bert", "gpt2")]
    with pytest.raises(ModelError, match="bert' is a masked and '.*gpt2' a causal language model; their losses are of different tasks"):
        language_loss(*sides, LONG, device="cpu")


def test_a_causal_head_that_sees_ahead_is_refused(tmp_path):
    folder = saved(tmp_path, "gemma3_text", use_bidirectional_attention=True)
    with pytest.raises(ModelError, match="reads in both directions, so it sees the tokens that a causal loss asks for"):
        language_loss(folder, folder, LONG, device="cpu")


def test_a_damaged_head_is_an_error_and_not_a_number():
    model = with_head("llama", tie_word_embeddings=False)
    broken = with_head("llama", tie_word_embeddings=False)
    with torch.no_grad():
        broken.lm_head.weight[3] = torch.nan
    tokenizer = tokenizer_for("llama")
    with pytest.raises(ActivationError, match="the loss of 'LlamaForCausalLM' on text 2 is NaN or Inf"):
        language_loss((model, tokenizer), (broken, tokenizer), ["the cat sat", "a dog ran", LONG[2]])


# ---------------------------------------------------------------- tokens


def test_other_tokenizers_are_compared_in_bits_per_byte():
    """The tuned tokenizer puts special tokens around the text: other tokens, one more of them predicted."""
    base, tuned = with_head("gpt2"), with_head("gpt2", seed=1)
    found = language_loss((base, tokenizer_for("gpt2")), (tuned, tiny_tokenizer()), LONG)
    (row,) = found.outcomes
    assert (row.metric, row.main) == ("bits_per_byte", True)
    assert found.detail["unit"] == "bits per byte"
    assert found.detail["kl"] is None
    assert found.detail["most_changed_tokens"] == []
    assert any("cut the texts differently" in note for note in found.detail["notes"])
    words, size = np.array([len(text.split()) for text in LONG]), np.array([len(text) for text in LONG])
    for side, model, tokenizer in (("base", base, tokenizer_for("gpt2")), ("tuned", tuned, tiny_tokenizer())):
        bits = theirs(model, tokenizer, LONG, masked=False) * words / size / math.log(2)
        np.testing.assert_allclose(found.per_text[side], bits, rtol=0, atol=LOSS)
    assert row.margin == pytest.approx(0.01 * words.sum() / size.sum() / math.log(2))


def test_a_vocabulary_that_grew_is_compared_over_the_shared_tokens():
    base, tuned, tokenizer = with_head("gpt2"), with_head("gpt2", seed=1), tokenizer_for("gpt2")
    with quietly():
        tuned.resize_token_embeddings(50)
    found = language_loss((base, tokenizer), (tuned, tokenizer), LONG)
    p = torch.cat([their_scores(base, tokenizer, text, masked=False) for text in LONG])
    q = torch.cat([their_scores(tuned, tokenizer, text, masked=False) for text in LONG])[:, :48].log_softmax(-1)
    assert found.detail["by_token"]["kl"] == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-4)
    np.testing.assert_allclose(found.per_text["tuned"], theirs(tuned, tokenizer, LONG, masked=False), rtol=0, atol=LOSS)
    assert "vocabularies of 48 and 50 tokens: KL and agreement are over the first 48" in found.detail["notes"]


@pytest.mark.parametrize("special", [True, False], ids=["after [CLS]", "bare"])
@pytest.mark.parametrize("length", [4, 5, 7, 64])
def test_windows_predict_every_token_once(length, special, tmp_path):
    """Without a first token, all but the text's first; never more than max_length tokens are read at a time."""
    tokenizer = tiny_tokenizer(special=special)
    model = load_model((with_head("gpt2"), tokenizer))
    text = " ".join(TEXTS[2:6])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = scored_tokens(model, "causal", tokens_of(model, [text], ["1"]), [text], max_length=length, seed=0)
    assert found.ids[found.scored].tolist() == (ids if special else ids[1:])
    assert found.read.lengths.max() <= length
    assert found.cut == (length < 64)
    if special:
        assert (found.ids[found.read.offsets[:-1]] == tokenizer.cls_token_id).all()


def test_long_texts_are_read_in_windows_and_said_to_be():
    """Each window of a masked model is a text of its own, with the masks of the whole text."""
    model, tokenizer = with_head("bert"), tokenizer_for("bert")
    text = " ".join(TEXTS[2:6])
    found = language_loss((model, tokenizer), (model, tokenizer), [text, "the cat sat"], max_length=12)
    inner = tokenizer(text, add_special_tokens=False)["input_ids"]
    places = chosen_positions(text, np.array([False, *[True] * len(inner), False])) - 1
    total = 0.0
    for start in range(0, len(inner), 10):
        ids = torch.tensor([tokenizer.cls_token_id, *inner[start : start + 10], tokenizer.sep_token_id])
        here = torch.tensor([place - start + 1 for place in places if start <= place < start + 10], dtype=torch.long)
        with torch.inference_mode():
            scores = model(input_ids=ids.index_fill(0, here, tokenizer.mask_token_id)[None]).logits[0].log_softmax(-1)
        total -= float(scores[here, ids[here]].sum())
    assert found.per_text["base"][0] == pytest.approx(total / len(places), abs=LOSS)
    assert found.detail["windows"]["texts_cut"] == 1
    assert "1 texts are longer than 12 tokens: read in windows that do not see each other" in found.detail["notes"]


def test_texts_with_nothing_to_predict_are_left_out_and_counted(tmp_path):
    folder = saved(tmp_path, "gpt2")
    found = language_loss(folder, folder, ["sun", "the cat sat"], device="cpu")
    assert (found.detail["texts"], found.detail["left_out"]) == (1, 1)
    assert "1 of 2 texts have no token to predict: left out" in found.detail["notes"]
    with pytest.raises(TextsError, match="no token to predict in 1 texts"):
        language_loss(folder, folder, ["sun"], device="cpu")


def test_bad_requests_are_refused_by_name(tmp_path):
    model, tokenizer = with_head("bert"), tiny_tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(ModelError, match="has no mask token"):
        language_loss((model, tokenizer), (model, tokenizer), LONG)
    folder = saved(tmp_path, "gpt2")
    with pytest.raises(InputError, match="max_length 1 asked for; .* it must be at least 2"):
        language_loss(folder, folder, LONG, max_length=1, device="cpu")
    with pytest.raises(InputError, match="margin -1 asked for"):
        language_loss(folder, folder, LONG, margin=-1, device="cpu")
    with pytest.raises(InputError, match="batch_size 0"):
        language_loss(folder, folder, LONG, batch_size=0, device="cpu")


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize("m", [1, 3, 10, 100, 1000])
def test_masks_are_a_share_of_the_maskable_tokens(m):
    maskable = np.array([False, *[True] * m, False])
    places = chosen_positions("a text", maskable, seed=3)
    assert len(places) == max(1, round(0.15 * m))
    assert maskable[places].all()
    assert (np.diff(places) > 0).all()
    assert np.array_equal(places, chosen_positions("a text", maskable, seed=3))


def test_masks_depend_on_text_and_seed_and_fall_evenly():
    maskable = np.ones(40, bool)
    choices = [chosen_positions(f"text {number}", maskable, seed=number % 3) for number in range(3000)]
    assert len({tuple(choice) for choice in choices}) > 2990
    counts = np.bincount(np.concatenate(choices), minlength=40)
    expected = 3000 * 6 / 40
    # Σ (count − expected)² / (expected · (1 − 6/40)) · 39/40 is about χ² with 39 degrees of freedom: above 85 once in 40,000 draws
    assert ((counts - expected) ** 2 / (expected * (1 - 6 / 40))).sum() * 39 / 40 < 85


def test_nothing_maskable_is_nothing_masked():
    assert len(chosen_positions("", np.zeros(2, bool))) == 0
