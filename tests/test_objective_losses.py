"""Each loss against an implementation that is not ours, on the same batch. Tolerance 1e-5 relative throughout: both sides are float32."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import chi2_contingency, chisquare
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from tokenizers import processors
from transformers import AutoModelForCausalLM, BertForNextSentencePrediction

import tunescope as ts
from test_objectives import CHAT, ITEMS, LEFT, MASKED, TALK, WORDY, generator, model_of, pretraining_bert
from tiny_models import save_model, save_sentence_transformer, tiny_model, tiny_tokenizer, tokenizer_for
from tunescope.errors import ModelError, TextsError
from tunescope.models.quiet import quietly
from tunescope.training.objectives import (
    BarlowTwins,
    CausalLM,
    CausalSpan,
    Classify,
    Contrastive,
    InstructionTuning,
    Learner,
    MaskedLM,
    Mixture,
    NextSentence,
    Preserve,
    SimCSE,
    SpanDenoise,
)
from tunescope.training.objectives.spans import chosen_spans, length_probabilities, span_lengths

CLOSE = 1e-5
ANSWER = "{% generation %}{{ m.content }} [SEP]{% endgeneration %} "
OTHER = "{{ m.content }} [SEP] "
MARKED = "{% for m in messages %}{{ m.role }} {% if m.role == 'assistant' %}" + ANSWER + "{% else %}" + OTHER + "{% endif %}{% endfor %}"


def close(value, wanted):
    assert float(torch.as_tensor(value).detach()) == pytest.approx(float(torch.as_tensor(wanted).detach()), rel=CLOSE, abs=1e-7)


def learn(model, objective, **options):
    return Learner(model, objective, **options).requires_grad_(True)


def gradients(learner, value):
    learner.zero_grad()
    value.backward()
    return {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("objective", [MaskedLM(), SpanDenoise()], ids=lambda each: each.name)
@pytest.mark.parametrize("family", MASKED)
def test_masked_losses_are_those_of_transformers(family, objective):
    whole = tiny_model(family, head="mlm")
    learner = learn(ts.load_model((whole, tokenizer_for(family))), objective).eval()
    batch = learner.collate(WORDY, generator())
    rows = []
    learner.heads["language"].register_forward_pre_hook(lambda _head, arguments: rows.append(len(arguments[0])))
    wanted = whole(input_ids=batch["ids"], attention_mask=batch["mask"], labels=batch["targets"]).loss
    close(learner.loss(batch).value, wanted)
    assert rows == [int((batch["targets"] != -100).sum())], "the vocabulary head runs on the masked positions only"


@pytest.mark.parametrize("objective", [CausalLM(), CausalSpan(), InstructionTuning()], ids=lambda each: each.name)
@pytest.mark.parametrize("family", LEFT)
def test_causal_losses_are_those_of_transformers(family, objective):
    whole = tiny_model(family, head="lm", **({"rescale_every": 0} if family == "rwkv" else {}))
    tokenizer = tokenizer_for(family)
    tokenizer.chat_template = CHAT
    learner = learn(ts.load_model((whole, tokenizer)), objective).eval()
    batch = learner.collate(TALK if objective.name == "sft" else WORDY, generator())
    wanted = whole(input_ids=batch["ids"], attention_mask=batch["mask"], labels=batch["targets"]).loss
    close(learner.loss(batch).value, wanted)


def test_the_head_of_a_folder_is_the_folders(tmp_path):
    folder = save_model(tmp_path, "gpt2", head="lm")
    learner = learn(ts.load_model(str(folder)), CausalLM()).eval()
    batch = learner.collate(WORDY, generator())
    with quietly():
        whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    close(learner.loss(batch).value, whole(input_ids=batch["ids"], attention_mask=batch["mask"], labels=batch["targets"]).loss)


@pytest.mark.parametrize("source", ["loaded", "folder"])
def test_next_sentence_loss_is_that_of_transformers(source, tmp_path):
    whole = pretraining_bert()
    tokenizer = tokenizer_for("bert")
    pairs = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=pairs
    )
    save_model(tmp_path, "bert", model=whole)
    learner = learn(ts.load_model((whole, tokenizer) if source == "loaded" else str(tmp_path)), NextSentence()).eval()
    learner.reader.tokenizer._tokenizer.post_processor = tokenizer._tokenizer.post_processor
    batch = learner.collate(WORDY, generator())
    assert batch["segments"].any()
    with quietly():
        peer = BertForNextSentencePrediction.from_pretrained(tmp_path).eval()
    said = peer(input_ids=batch["ids"], attention_mask=batch["mask"], token_type_ids=batch["segments"], labels=batch["targets"])
    close(learner.loss(batch).value, said.loss)


def test_next_sentences_are_balanced_and_from_where_they_say():
    learner = learn(model_of("bert"), NextSentence())
    texts = ["the cat. sat on.", "a dog. ran under.", "red bird. flew over.", "old house. was blue."]
    firsts = {text.split(".")[0]: text.split(". ")[1] for text in texts}
    tokenizer, shares = learner.reader.tokenizer, []
    for seed in range(50):
        batch = learner.collate(texts, generator(seed))
        shares.append(int(batch["targets"].sum()))
        for ids, target, text in zip(batch["ids"], batch["targets"], texts, strict=True):
            _, first, second, *_ = tokenizer.decode(ids).replace("[CLS]", "[SEP]").split("[SEP]")
            own = firsts[text.split(".")[0]].rstrip(".").split() == second.replace("[UNK]", "").split()
            assert own == (target == 0), (first, second)
    assert set(shares) == {2}


def test_a_pooler_that_the_checkpoint_lacks_is_not_drawn(tmp_path):
    folder = save_model(tmp_path, "bert", head="mlm")
    with pytest.raises(ModelError, match="lacks cls.seq_relationship.weight.*would be random"):
        Learner(ts.load_model(str(folder)), NextSentence())


def rows_of(learner, batch, prefix=""):
    """Final states by the body itself, pooled by numpy: the mean over real tokens."""
    out = learner.body(input_ids=batch[f"{prefix}ids"], attention_mask=batch[f"{prefix}mask"])[0].detach().double().numpy()
    mask = batch[f"{prefix}mask"].numpy()[..., None]
    return (out * mask).sum(1) / mask.sum(1)


def two_rows(learner, batch, seed):
    """The two views that the objective meets after manual_seed(seed): one doubled batch in training mode."""
    doubled = {key: value.repeat(2, 1) for key, value in batch.items()}
    torch.manual_seed(seed)
    return np.split(rows_of(learner, doubled), 2)


def cosines(a, b):
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def test_simcse_is_its_closed_form():
    learner = learn(model_of("bert"), SimCSE(pooling="mean", temperature=0.05)).train()
    batch = learner.collate(WORDY, generator())
    one, two = two_rows(learner, batch, 3)
    wanted = -np.diag(log_softmax(cosines(one, two) / 0.05, axis=1)).mean()
    torch.manual_seed(3)
    loss = learner.loss(batch)
    close(loss.value, wanted)
    lengths = (np.linalg.norm(one, axis=1) + np.linalg.norm(two, axis=1)) / 2
    close(loss.said["view_distance"], (np.linalg.norm(one - two, axis=1) / lengths).mean())


def test_barlow_twins_is_its_closed_form():
    learner = learn(model_of("bert"), BarlowTwins(pooling="mean")).train()
    batch = learner.collate(WORDY, generator())
    one, two = two_rows(learner, batch, 3)
    a, b = ((rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5) for rows in (one, two))
    between = a.T @ b / len(a)
    wanted = sum((1 - between[i, j]) ** 2 if i == j else 0.0051 * between[i, j] ** 2 for i in range(16) for j in range(16))
    torch.manual_seed(3)
    loss = learner.loss(batch)
    close(loss.value, wanted)
    assert loss.items is None
    with torch.no_grad():
        peer = [torch.nn.BatchNorm1d(16, affine=False).double()(torch.from_numpy(rows)) for rows in (one, two)]
    assert np.allclose(peer[0].numpy(), a, atol=1e-6), "standardised as the published code's batch normalisation"


@pytest.mark.parametrize("negatives", [0, 2])
def test_contrastive_is_sentence_transformers_multiple_negatives(negatives):
    items = [(*pair, WORDY[place : place + negatives]) for place, pair in enumerate(ITEMS["pairs"][:4])] if negatives else ITEMS["pairs"]
    learner = learn(model_of("bert"), Contrastive(pooling="mean")).eval()
    batch = learner.collate(items, generator())
    queries, passages = (torch.from_numpy(rows_of(learner, batch, f"{side}_")) for side in ("query", "passage"))
    columns = [passages[: len(items)]]  # ours lie item by item after the passages, theirs column by column
    rest = passages[len(items) :].reshape(len(items), negatives, passages.shape[1])
    columns += [rest[:, column] for column in range(negatives)]
    peer = MultipleNegativesRankingLoss(model=None, scale=1 / 0.05)
    wanted = peer.compute_loss_from_embeddings([queries, *columns], labels=None)
    loss = learner.loss(batch)
    close(loss.value, wanted)
    close(loss.items.mean(), wanted)


@pytest.mark.parametrize(("negatives", "prompt", "chunk"), [(0, "", None), (2, "the ", None), (1, "", 2)])
def test_contrastive_on_texts_is_sentence_transformers_own_step(negatives, prompt, chunk, tmp_path):
    """Texts in, gradients out: tokens, pooling, prompts and loss of SentenceTransformer and MultipleNegativesRankingLoss."""
    folder = save_sentence_transformer(tmp_path)
    items = [(*pair, WORDY[place : place + negatives]) for place, pair in enumerate(ITEMS["pairs"][:4])]
    learner = learn(ts.load_model(str(folder)), Contrastive(query_prompt=prompt, passage_prompt="a ", chunk=chunk), max_length=12).eval()
    loss = learner.loss(learner.collate(items, generator())).value
    found = gradients(learner, loss)
    with quietly():
        peer = SentenceTransformer(str(folder), device="cpu").eval()
    columns = [[prompt + query for query, _, _ in items], ["a " + passage for _, passage, _ in items]]
    columns += [["a " + rest[column] for _, _, rest in items] for column in range(negatives)]
    wanted = MultipleNegativesRankingLoss(peer)([peer.preprocess(column) for column in columns], labels=None)
    wanted.backward()
    close(loss, wanted)
    theirs = {f"body.{name}": p.grad for name, p in peer[0].auto_model.named_parameters() if p.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        assert torch.allclose(found[name], gradient, rtol=CLOSE, atol=CLOSE * largest), name


def test_simcse_pools_as_the_folder_declares(tmp_path):
    declared = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    model = ts.load_model(str(save_sentence_transformer(tmp_path, pooling=declared)))
    assert Learner(model, SimCSE()).record()["resolved"]["pooling"] == "cls"
    assert Learner(model, SimCSE(pooling="mean")).record()["resolved"]["pooling"] == "mean"


def test_prompts_are_read_and_the_deployed_embedding_is_used(tmp_path):
    model = ts.load_model(str(save_sentence_transformer(tmp_path, dense=8)))
    learner = learn(model, Contrastive(query_prompt="the ")).eval()
    batch = learner.collate([("cat sat", "a dog"), ("sun", "the sea")], generator())
    assert learner.record()["resolved"]["pooling"] == "deployed"
    assert batch["query_ids"][0, 1] == learner.reader.tokenizer.convert_tokens_to_ids("the")
    assert gradients(learner, learner.loss(batch).value)["heads.output.0.linear.weight"].any(), "the dense layer learns too"


@pytest.mark.parametrize("chunk", [1, 2, 4])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_cached_gradients_are_the_plain_ones(family, chunk):
    items = [(*pair, ["sun"] if place % 2 else ["the sea", "a dog"]) for place, pair in enumerate(ITEMS["pairs"])]
    plain, cached = (learn(model_of(family), Contrastive(chunk=size)).eval() for size in (None, chunk))
    batch = plain.collate(items, generator())
    one, two = plain.loss(batch).value, cached.loss(batch).value
    close(two, one)
    wanted, found = gradients(plain, one), gradients(cached, two)
    assert wanted.keys() == found.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in wanted.items():  # a key bias has no gradient but rounding, so tolerance is against the largest of all
        assert torch.allclose(found[name], gradient, rtol=CLOSE, atol=1e-6 * largest), name


def test_cached_gradients_draw_dropout_once():
    """With dropout at work, the gradient of the recomputed chunks is the derivative of the value that was returned: central differences."""
    learner = learn(model_of("bert"), Contrastive(chunk=2)).train()
    batch = learner.collate(ITEMS["pairs"], generator())
    weight = learner.body.get_parameter(f"{learner.model.anatomy.blocks}.0.attention.output.dense.bias")

    def value():
        torch.manual_seed(1)
        return learner.loss(batch).value

    gradient = next(grad for name, grad in gradients(learner, value()).items() if name.endswith("0.attention.output.dense.bias"))
    with torch.no_grad():
        step = 0.01 * gradient / gradient.norm()
        up = weight.add_(step) is weight and float(value())
        down = weight.sub_(2 * step) is weight and float(value())
        weight.add_(step)
    assert (up - down) / 0.02 == pytest.approx(float(gradient.norm()), rel=1e-2)  # second-order term of a step of .01


def test_classification_is_softmax_regression_on_the_pooled_row():
    learner = learn(model_of("bert"), Classify(classes=3, pooling="mean"), seed=2).eval()
    items = [(text, place % 3) for place, text in enumerate(WORDY)]
    batch = learner.collate(items, generator())
    head = learner.heads["classes"]
    logits = rows_of(learner, batch) @ head.weight.detach().double().numpy().T + head.bias.detach().double().numpy()
    close(learner.loss(batch).value, -log_softmax(logits, axis=1)[np.arange(len(items)), [label for _, label in items]].mean())
    assert learner.record()["resolved"]["head"] == "random"


def test_sft_learns_the_answers_and_their_end_only():
    tokenizer = tokenizer_for("gpt2")
    tokenizer.chat_template = CHAT
    learner = learn(ts.load_model((tiny_model("gpt2", head="lm"), tokenizer)), InstructionTuning())
    batch = learner.collate(TALK, generator())
    asked = [tokenizer.decode(row[row != -100]) for row in batch["targets"]]
    assert asked == ["on the mat [SEP]", "it was a new day and then night [SEP]", "bird [SEP]"]
    read = tokenizer.decode(batch["ids"][1][batch["mask"][1] == 1])
    assert read == "[UNK] sun [SEP] [UNK] it was a new day and then night [SEP] [UNK] a [SEP]"
    peer = tokenizer.apply_chat_template(TALK, chat_template=MARKED, return_dict=True, return_assistant_tokens_mask=True)
    for ids, marks, row, targets in zip(peer["input_ids"], peer["assistant_masks"], batch["ids"], batch["targets"], strict=True):
        assert ids == row[: len(ids)].tolist()
        assert [bool(mark) for mark in marks] == (targets[: len(ids)] != -100).tolist(), "transformers' own marks of the answers"
    with pytest.raises(TextsError, match="no conversation of a batch has a token of an answer"):
        learner.collate([[{"role": "user", "content": "the cat"}]], generator())


def test_a_template_that_rewrites_answered_turns_is_refused():
    tokenizer = tokenizer_for("gpt2")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% if loop.last %} day{% endif %} {% endfor %}"
    learner = learn(ts.load_model((tiny_model("gpt2", head="lm"), tokenizer)), InstructionTuning())
    with pytest.raises(TextsError, match="writes turn 2 otherwise once others follow"):
        learner.collate([TALK[1]], generator())


def test_a_mixture_is_the_weighted_sum():
    model = model_of("bert")
    parts, weights = (MaskedLM(), NextSentence(), Contrastive()), (1.0, 0.5, 2.0)
    learner = learn(model, Mixture(parts, weights)).eval()
    items = list(zip(WORDY, WORDY, ITEMS["pairs"], strict=False))
    batch = learner.collate(items, generator())
    value = learner.loss(batch).value
    found = gradients(learner, value)
    alone = [learn(model, part).eval() for part in parts]
    values = [each.loss(batch[str(number)]).value for number, each in enumerate(alone)]
    close(value, sum(w * float(v.detach()) for w, v in zip(weights, values, strict=True)))
    table = "body.embeddings.word_embeddings.weight"
    wanted = sum(w * gradients(each, v)[table] for w, each, v in zip(weights, alone, values, strict=True))
    assert torch.allclose(found[table], wanted, rtol=CLOSE, atol=1e-6)


@pytest.mark.parametrize("kind", ["kl", "features"])
@pytest.mark.parametrize(("family", "inner"), [("bert", MaskedLM()), ("gpt2", CausalLM()), ("bert", SimCSE()), ("rwkv", CausalLM())])
def test_preservation_is_zero_at_the_start_and_grows(family, inner, kind):
    changes = {"rescale_every": 0} if family == "rwkv" else {}
    whole = tiny_model(family, head="mlm" if family == "bert" else "lm", **changes)
    learner = learn(ts.load_model((whole, tokenizer_for(family))), Preserve(inner, kind=kind, weight=3.0)).train()
    batch = learner.collate(list(zip(WORDY, reversed(WORDY), strict=True)), generator())
    torch.manual_seed(0)
    start = learner.loss(batch)
    assert float(start.said["distance_from_start"]) == pytest.approx(0.0, abs=1e-6)
    close(start.value, start.said["objective"])
    with torch.no_grad():
        for parameter in learner.body.parameters():
            parameter.mul_(1.1)
    torch.manual_seed(0)
    moved = learner.loss(batch)
    assert float(moved.said["distance_from_start"]) > 1e-4
    close(moved.value, moved.said["objective"] + 3.0 * moved.said["distance_from_start"])
    assert all(not parameter.requires_grad for parameter in learner._start[0].body.parameters())
    assert not any("_start" in name for name in learner.state_dict())


def test_the_divergence_is_that_of_scipy():
    whole, tokenizer = tiny_model("gpt2", head="lm"), tokenizer_for("gpt2")
    before = whole(**(enc := tokenizer(WORDY, return_tensors="pt", padding=True, return_token_type_ids=False))).logits.detach().double()
    learner = learn(ts.load_model((whole, tokenizer)), Preserve(CausalLM())).eval()
    batch = learner.collate(list(zip(WORDY, WORDY, strict=True)), generator())
    with torch.no_grad():
        learner.body.wte.weight.add_(0.1 * torch.randn_like(learner.body.wte.weight, generator=None))
    after = whole(**enc).logits.detach().double()
    p, q = (log_softmax(each.numpy(), axis=-1)[:, :-1][enc["attention_mask"][:, 1:].numpy() == 1] for each in (before, after))
    close(learner.loss(batch).said["distance_from_start"], (np.exp(p) * (p - q)).sum(1).mean())


# --- which tokens and spans are asked for ---


def test_span_lengths_are_the_truncated_geometric_of_the_paper():
    """Over 1e5 spans: the mean within 1% of Σ ℓ p(1−p)^(ℓ−1) / Σ p(1−p)^(ℓ−1) = 3.797 (the paper's 3.8), the histogram by χ²."""
    weights = np.array([0.2 * 0.8 ** (length - 1) for length in range(1, 11)])
    mean = float((np.arange(1, 11) * weights).sum() / weights.sum())
    assert mean == pytest.approx(1 / 0.2 - 10 * 0.8**10 / (1 - 0.8**10), rel=1e-12)
    assert mean == pytest.approx(3.8, abs=0.005)
    drawn = span_lengths(100_000, generator(1)).numpy()
    assert drawn.mean() == pytest.approx(mean, rel=0.01)
    counts = np.bincount(drawn, minlength=11)[1:]
    assert chisquare(counts, 100_000 * weights / weights.sum()).pvalue > 1e-3
    assert np.allclose(length_probabilities().numpy(), weights / weights.sum())


@pytest.fixture(scope="module")
def masked_spans():
    """1e5 spans of texts of 512 tokens in words of one to three tokens: (words, groups) text by text."""
    g, texts, spans = generator(5), [], 0
    while spans < 100_000:
        sizes = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 400, replacement=True, generator=g) + 1
        words = torch.repeat_interleave(torch.arange(400), sizes)[:512].expand(32, -1)
        groups = chosen_spans(words, torch.ones_like(words, dtype=torch.bool), 0.15, g)
        spans += int(groups.max()) + 1
        texts.append((words, groups))
    return texts


def test_spans_keep_their_budget_and_are_of_whole_words(masked_spans):
    chosen, total = 0, 0
    for words, groups in masked_spans:
        hit = groups >= 0
        chosen, total = chosen + int(hit.sum()), total + hit.numel()
        assert int(hit.sum(1).max()) <= math.ceil(0.15 * 512)
        within = words[:, 1:] == words[:, :-1]
        assert torch.equal(groups[:, 1:][within], groups[:, :-1][within]), "a word is of one span, or of none"
        lengths = torch.zeros(int(groups.max()) + 1)
        starts = torch.ones_like(hit)
        starts[:, 1:] = ~within
        lengths.index_add_(0, groups[hit], starts[hit].float())
        assert int(lengths.min()) >= 1
        places = groups[hit]
        assert int((places[1:] != places[:-1]).sum()) + 1 == len(lengths), "a span is in one piece"
        assert torch.equal(groups[:, 1:][hit[:, 1:] & hit[:, :-1]], groups[:, :-1][hit[:, 1:] & hit[:, :-1]]), "spans that touch are one"
    assert chosen / total == pytest.approx(0.15, rel=0.01)


def spanbert_masks(texts: int, length: int, budget: int, rng: np.random.Generator) -> np.ndarray:
    """Which of `length` words of each text SpanBERT hides: from an anchor that is not hidden yet, ℓ words on, until the budget is spent."""
    weights = 0.2 * 0.8 ** np.arange(10)
    hidden = np.zeros((texts, length), dtype=bool)
    for row in hidden:
        room = budget
        while room:
            anchor, words = rng.integers(length), rng.choice(10, p=weights / weights.sum()) + 1
            for place in range(anchor, 0 if row[anchor] else min(anchor + words, length)):
                if room and not row[place]:
                    row[place], room = True, room - 1
    return hidden


def run_lengths(hidden: np.ndarray) -> np.ndarray:
    """How many hidden words stand in a row, every time some do."""
    edges = np.diff(np.pad(hidden.astype(int), ((0, 0), (1, 1))), axis=1)
    return np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]


def test_masks_have_the_statistics_of_spanbert():
    """Over 1e5 spans of words of one token: how long they are and how much they hide, within 1% of SpanBERT's procedure written anew.

    The mean of 1e5 lengths of spread 3 has a standard error of .25%. The histograms are compared by χ².
    """
    texts, length, budget = 5200, 512, round(0.15 * 512)
    wanted = run_lengths(spanbert_masks(texts, length, budget, np.random.default_rng(0)))
    words = torch.arange(length).expand(texts, -1)
    groups = chosen_spans(words, torch.ones_like(words, dtype=torch.bool), 0.15, generator(1))
    found = np.bincount(groups[groups >= 0].numpy())
    assert len(wanted) > 100_000
    assert len(found) == pytest.approx(len(wanted), rel=0.01)
    assert found.mean() == pytest.approx(wanted.mean(), rel=0.01)
    assert float((groups >= 0).float().mean()) == budget / length
    table = np.stack([np.bincount(np.minimum(each, 20), minlength=21)[1:] for each in (found, wanted)])
    assert chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("objective", [MaskedLM(), SpanDenoise(), CausalSpan()], ids=lambda each: each.name)
def test_tokens_are_hidden_as_80_10_10(objective):
    """Over 1e6 groups (tokens, or spans) the shares are within 1% of .8 .1 .1; random tokens are uniform over those not special."""
    family = "gpt2" if objective.name == "causal-span" else "bert"
    learner = learn(model_of(family), objective)
    tokenizer = learner.reader.tokenizer
    mask, special = tokenizer.mask_token_id, set(tokenizer.all_special_ids)
    g = generator(2)
    from tunescope.training.objectives.masked import hidden

    others = len(learner.reader.ordinary)
    width = 1 if objective.name == "mlm" else 2
    shape = (5000, 200 * width)
    ids = learner.reader.ordinary[torch.randint(others, shape, generator=g)]
    groups = torch.arange(1_000_000).repeat_interleave(width).reshape(shape)
    batch = hidden(ids, torch.ones_like(ids), groups, learner.reader, g)
    masked = (batch["ids"] == mask).float()
    changed = ((batch["ids"] != mask) & (batch["ids"] != ids)).float()
    assert float(masked.mean()) == pytest.approx(0.8, rel=0.01)
    random = float(changed.mean()) * others / (others - 1)  # one in so many is drawn as the token it replaces
    assert random == pytest.approx(0.1, rel=0.01)  # 1e6 draws: a standard error of .3%
    assert 1 - float(masked.mean()) - random == pytest.approx(0.1, rel=0.01)
    if width == 2:
        assert torch.equal(masked[:, 0::2], masked[:, 1::2]), "one draw a span"
    replaced = batch["ids"][changed.bool()]
    assert not special & set(replaced.tolist())
    counts = np.bincount(replaced.numpy(), minlength=48)[learner.reader.ordinary.numpy()]
    assert chisquare(counts).pvalue > 1e-3


def test_masked_share_of_every_text_is_fifteen_percent():
    learner = learn(model_of("bert"), MaskedLM())
    texts = ["the cat sat on the mat and a dog ran under it " * 5, "sun", "a dog"]
    batch = learner.collate(texts, generator())
    asked = (batch["targets"] != -100).sum(1).tolist()
    assert asked == [round(0.15 * 60), 1, 1]
    special = torch.isin(batch["targets"], torch.tensor([0, 2, 3]))
    assert not special.any(), "special tokens are never asked for"


def test_words_are_the_tokenizers_or_stand_between_spaces():
    """A tokenizer that splits nothing before its pieces takes a text for one word; then the spaces tell."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[MASK]", "a", "b", " ", " a", " b"]
    backend = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, [(" ", "a"), (" ", "b")], unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", mask_token="[MASK]", unk_token="[UNK]")
    learner = learn(ts.load_model((tiny_model("gpt2", head="lm"), tokenizer)), CausalLM())
    assert learner.reader.read(["ab ba b"]).words.tolist() == [[0, 0, 1, 1, 2]]
    own = learn(ts.load_model((tiny_model("bert"), tiny_tokenizer())), SimCSE())
    assert own.reader.read(["the cat sat"]).words.tolist() == [[-1, 0, 1, 2, -1]]
