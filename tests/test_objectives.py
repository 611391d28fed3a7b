"""Every family under every objective: a finite loss with gradients, the same alone as in a padded batch, or a refusal that says why."""

from __future__ import annotations

import dataclasses
import functools
import json

import pytest
import torch
from transformers import Trainer, TrainingArguments

import tunescope as ts
from tiny_models import CLIP, CONFIGS, DECODERS, ENCODERS, EVERY, RECURRENT, TEXTS, UNLISTED, save_model, tiny_model, tokenizer_for
from tunescope.errors import InputError, ModelError, TextsError, TunescopeError, UnknownName
from tunescope.models.quiet import quietly
from tunescope.training.objectives import OBJECTIVES, Learner, MaskedLM, Mixture, Preserve, SimCSE, fit_head, make_objective

CHAT = "{% for m in messages %}{{ m.role }} {{ m.content }} [SEP] {% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
TALK = [
    [{"role": "user", "content": "the cat sat"}, {"role": "assistant", "content": "on the mat"}],
    [
        {"role": "user", "content": "sun"},
        {"role": "assistant", "content": "it was a new day and then night"},
        {"role": "user", "content": "a"},
    ],
    [{"role": "user", "content": "dog and cat"}, {"role": "assistant", "content": "bird"}],
]
WORDY = [text for text in TEXTS if " " in text]
ITEMS = {
    "texts": WORDY,
    "pairs": [(a, b) for a, b in zip(WORDY, WORDY[1:], strict=False)],
    "labels": [(text, place % 2) for place, text in enumerate(WORDY)],
    "conversations": TALK,
}
COMPOSED = {
    "preserve": {"objective": SimCSE(), "kind": "features"},
    "mixture": {"parts": (SimCSE(), OBJECTIVES["contrastive"]()), "weights": (1.0, 0.5)},
}
MASKED = ("bert", "roberta", "xlm-roberta", "mpnet", "electra", "distilbert")
LEFT = (*DECODERS, *RECURRENT, *UNLISTED)  # read to the left, and have a causal head
NEEDS = {"mlm": MASKED, "span-denoise": MASKED, "causal-lm": LEFT, "causal-span": LEFT, "sft": LEFT, "nsp": ("bert",)}
WHY = {
    "mlm": "reads to the left only|is the encoder of an encoder-decoder|no language-model head",
    "span-denoise": "reads to the left only|is the encoder of an encoder-decoder|no language-model head",
    "causal-lm": "reads in both directions|no language-model head",
    "causal-span": "reads in both directions|no language-model head",
    "sft": "reads in both directions|no language-model head",
    "nsp": "needs BERT's pretrained next-sentence head",
}


def objective_of(name):
    return make_objective(name, COMPOSED.get(name))


def items_for(objective):
    columns = [ITEMS[need] for need in objective.needs]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=False))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@functools.cache
def model_of(family):
    """A tiny model with its own head where its family has one; BERT with both of its pretraining heads."""
    tokenizer = tokenizer_for(family)
    tokenizer.chat_template = CHAT
    if family == "bert":
        return ts.load_model((pretraining_bert(), tokenizer))
    head = "mlm" if family in MASKED else "lm" if family in LEFT else ""
    return ts.load_model((tiny_model(family, head=head), tokenizer))


def pretraining_bert(**changes):
    from transformers import BertForPreTraining

    from tiny_models import tiny_config

    with quietly():
        torch.manual_seed(0)
        model = BertForPreTraining(tiny_config("bert", **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def learner_of(family, objective):
    learner = Learner(model_of(family), objective)
    learner.requires_grad_(True)
    learner.zero_grad()
    return learner


@pytest.mark.parametrize("family", EVERY)
def test_every_family_learns_or_is_refused_with_the_reason(family):
    for name in OBJECTIVES:
        objective = objective_of(name)
        if family not in NEEDS.get(name, EVERY):
            with pytest.raises(ModelError, match=WHY[name]) as refused:
                Learner(model_of(family), objective)
            assert "\n" not in str(refused.value)
            assert ";" in str(refused.value), "a refusal says what to do"
            continue
        learner = learner_of(family, objective).train()
        batch = learner.collate(items_for(objective), generator())
        torch.manual_seed(0)
        loss = learner.loss(batch)
        assert loss.value.ndim == 0, name
        assert torch.isfinite(loss.value), name
        loss.value.backward()
        reached = {path for path, p in learner.model.module.named_parameters() if p.grad is not None and p.grad.any()}
        assert any(path.startswith(f"{learner.model.anatomy.blocks}.") for path in reached), f"{name}: no gradient in any block"
        assert all(torch.isfinite(p.grad).all() for p in learner.parameters() if p.grad is not None), name
        if loss.items is not None:
            mean = (loss.items * loss.weights).sum() / loss.weights.sum()
            assert torch.allclose(mean, loss.value, rtol=1e-5), name
        if "view_distance" in loss.said:
            assert loss.said["view_distance"] > 1e-3, f"{name}: both views are one"
        assert json.loads(json.dumps(learner.record()))["name"] == name


# The loss of an item does not depend on its neighbours' lengths: alone it has no padding, in the batch it has. 1e-5 relative, float32.
@pytest.mark.parametrize("family", [*MASKED, "gpt2", "opt", "gpt_neox", "llama", "mistral", "gemma2", "mamba", "rwkv", "bloom", "clip"])
def test_padding_changes_nothing(family):
    for name in ("mlm", "span-denoise", "causal-lm", "causal-span", "sft", "classify"):
        if family not in NEEDS.get(name, EVERY):
            continue
        objective = objective_of(name)
        learner = learner_of(family, objective).eval()
        batch = learner.collate(items_for(objective), generator())
        together = learner.loss(batch).items
        for place, length in enumerate(batch["mask"].sum(1).tolist()):
            own = {key: value[place : place + 1] for key, value in batch.items()}
            alone = {key: value if value.ndim == 1 else value[:, :length] for key, value in own.items()}
            if name != "classify" and not (alone["targets"] != -100).any():
                continue
            value = float(learner.loss(alone).value.detach())
            assert value == pytest.approx(float(together[place].detach()), rel=1e-5, abs=1e-6), (name, place)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_batch_is_a_function_of_the_generators_state(name):
    objective = objective_of(name)
    family = "gpt2" if name in ("causal-lm", "causal-span", "sft") else "bert"
    learner = learner_of(family, objective)

    def flat(batch):
        return [leaf for value in batch.values() for leaf in (flat(value) if isinstance(value, dict) else [value])]

    one, two = (flat(learner.collate(items_for(objective), generator(3))) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    if name in ("mlm", "span-denoise", "causal-span", "nsp"):
        other = flat(learner.collate(items_for(objective), generator(4)))
        assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(one, other, strict=True)), "masking is dynamic"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_are_frozen_and_describe_themselves(name):
    objective = objective_of(name)
    assert OBJECTIVES[name].name == name
    assert objective == objective_of(name)
    field = dataclasses.fields(objective)[0].name if dataclasses.fields(objective) else "name"
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(objective, field, 1)
    described = json.loads(json.dumps(objective.describe()))
    assert described["name"] == name
    assert set(described) == {"name", *(each.name for each in dataclasses.fields(objective))}


def test_names_and_settings_that_nobody_knows():
    with pytest.raises(UnknownName, match="unknown objective 'simsce'; did you mean simcse"):
        make_objective("simsce")
    with pytest.raises(UnknownName, match="unknown objective 'clm'; did you mean causal-lm"):
        make_objective("clm")
    with pytest.raises(UnknownName, match="setting of simcse 'temprature'"):
        make_objective("simcse", {"temprature": 1})
    with pytest.raises(InputError, match="mixture needs parts"):
        make_objective("mixture")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mlm", {"share": 1.5}, "share=1.5 of the tokens was asked for"),
        ("mlm", {"head": "new"}, "head='new' was asked for; known: own, random, fitted"),
        ("mlm", {"share": "x"}, "share='x' of the tokens was asked for"),
        ("mlm", {"share": None}, "share=None of the tokens was asked for"),
        ("simcse", {"temperature": 0}, "temperature=0 was asked for; give a number above 0"),
        ("simcse", {"temperature": True}, "temperature=True was asked for"),
        ("simcse", {"pooling": "max"}, "known: auto, cls, mean, last"),
        ("contrastive", {"chunk": 0}, "chunk=0 texts at a time"),
        ("classify", {"classes": 1}, "give a whole number from 2"),
        ("mixture", {"parts": (SimCSE(),), "weights": (1.0,)}, "give two or more, a weight each"),
        ("mixture", {"parts": (SimCSE(), MaskedLM()), "weights": (1.0, -1.0)}, "give numbers above 0"),
        ("mixture", {"parts": (SimCSE(), MaskedLM()), "weights": (1.0, "2")}, "give numbers above 0"),
        ("preserve", {"objective": SimCSE(), "kind": "l2"}, "known: kl, features"),
    ],
)
def test_settings_that_cannot_be(name, settings, message):
    with pytest.raises(InputError, match=message):
        make_objective(name, settings)


@pytest.mark.parametrize(
    ("name", "items", "error", "message"),
    [
        ("simcse", ["the cat"], InputError, "compares the items of a batch, and this one has 1"),
        ("mlm", ["the cat", ""], TextsError, "has no tokens to train on"),
        ("mlm", ["the cat", 3], TextsError, "is a int, not a string: 3"),
        ("nsp", ["the cat sat", "sun"], TextsError, "'sun' has fewer than two words"),
        ("contrastive", ["the cat", "a dog"], TextsError, r"an item is \(query, passage\)"),
        ("classify", [("the cat", 0), ("a dog", 2)], TextsError, "class from 0 to 1"),
        ("mixture", [("a dog", ("a", "b"), 1)], InputError, "a tuple of 2 entries, for"),
    ],
)
def test_items_that_cannot_be(name, items, error, message):
    learner = learner_of("bert", objective_of(name))
    with pytest.raises(error, match=message):
        learner.collate(items, generator())


def test_a_bare_encoder_asks_for_its_head_and_a_drawn_one_is_named():
    bare = ts.load_model((tiny_model("bert"), tokenizer_for("bert")))
    with pytest.raises(ModelError, match="head='random' or head='fitted'"):
        Learner(bare, MaskedLM())
    learner = Learner(bare, MaskedLM(head="random"), seed=5)
    assert learner.record()["resolved"]["head"] == "random"
    assert learner.record()["head_seed"] == 5
    again = Learner(bare, MaskedLM(head="random"), seed=5)
    other = Learner(bare, MaskedLM(head="random"), seed=6)
    weights = [dict(each.heads.named_parameters()) for each in (learner, again, other)]
    drawn = "language.shell.cls.predictions.transform.dense.weight"
    assert torch.equal(weights[0][drawn], weights[1][drawn])
    assert not torch.equal(weights[0][drawn], weights[2][drawn])
    assert float(weights[0][drawn].detach().std()) == pytest.approx(0.02, rel=0.15)  # BERT's own spread; 256 draws: 4% standard error
    table = bare.module.get_input_embeddings().weight
    assert learner.heads["language"].shell.cls.predictions.decoder.weight is table, "what BERT ties stays tied"


@pytest.mark.parametrize("source", ["loaded", "folder"])
def test_tied_weights_are_one_parameter(source, tmp_path):
    """The gradient of the embeddings is that of transformers' own loss, in which the head's part flows into them."""
    whole = tiny_model("bert", head="mlm")
    source = (whole, tokenizer_for("bert")) if source == "loaded" else str(save_model(tmp_path, "bert", model=whole))
    learner = Learner(ts.load_model(source), MaskedLM()).requires_grad_(True).eval()
    batch = learner.collate(WORDY, generator())
    learner.loss(batch).value.backward()
    found = learner.body.get_input_embeddings().weight.grad.clone()
    whole.zero_grad()
    whole(input_ids=batch["ids"], attention_mask=batch["mask"], labels=batch["targets"]).loss.backward()
    assert torch.allclose(found, whole.get_input_embeddings().weight.grad, atol=1e-6)
    assert len({id(p) for p in learner.parameters()}) == len({p.data_ptr() for p in learner.parameters()})


def test_a_fitted_head_is_fitted_first_and_leaves_the_body_alone():
    learner = Learner(ts.load_model((tiny_model("bert"), tokenizer_for("bert"))), MaskedLM(head="fitted"))
    batch = learner.collate(WORDY, generator())
    with pytest.raises(InputError, match="before its head was fitted"):
        learner(batch)
    before = {key: value.clone() for key, value in learner.body.state_dict().items()}
    wanted = [parameter.requires_grad for parameter in learner.parameters()]
    losses = fit_head(learner, [batch] * 30, rate=1e-2)
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(before[key], value) for key, value in learner.body.state_dict().items())
    assert wanted == [parameter.requires_grad for parameter in learner.parameters()]
    assert learner.record()["head_fitted_steps"] == 30
    assert torch.isfinite(learner(batch)["loss"])


def test_views_of_a_model_without_dropout():
    llama = model_of("llama")
    with pytest.raises(InputError, match="both views would be one and the same"):
        Learner(llama, SimCSE(views="native"))
    torch.manual_seed(0)
    published = learner_of("llama", SimCSE(views="as-published")).train()
    batch = published.collate(WORDY, generator())
    assert float(published.loss(batch).said["view_distance"]) == 0.0
    assert "both views are the same" in published.record()["resolved"]["warning"]
    assert learner_of("llama", SimCSE()).record()["resolved"]["views"] == "forced"
    assert learner_of("bert", SimCSE()).record()["resolved"]["views"] == "native"
    assert learner_of("mamba", SimCSE()).record()["resolved"]["pooling"] == "last"


def test_forced_views_drop_a_tenth_of_the_embeddings_output():
    from tunescope.training.objectives.views import two_views

    learner = learner_of("llama", SimCSE()).train()
    seen = []
    handle = learner.body.layers[0].register_forward_pre_hook(lambda _m, arguments: seen.append(arguments[0]))
    batch = learner.collate(WORDY * 20, generator())
    torch.manual_seed(0)
    two_views(learner, batch, views="forced", pooling="last")
    handle.remove()
    real = seen[0][batch["mask"].repeat(2, 1).bool()]
    assert float((real == 0).float().mean()) == pytest.approx(0.1, abs=0.005)  # 36,000 draws: 0.0016 standard error
    learner.eval()
    one, two, said = two_views(learner, batch, views="forced", pooling="last")
    assert torch.equal(one, two)
    assert float(said["view_distance"]) == 0.0


def test_forced_views_are_the_same_when_blocks_are_recomputed():
    """Activation checkpointing runs the blocks again in the backward pass, when the forced dropout is long over."""
    learner = learner_of("llama", SimCSE()).train()
    batch, found = learner.collate(WORDY, generator()), []
    for switch in ("activation_checkpointing_enable", "activation_checkpointing_disable"):
        getattr(learner.body, switch)()
        learner.zero_grad()
        torch.manual_seed(0)
        learner.loss(batch).value.backward()
        found.append([parameter.grad.clone() for parameter in learner.parameters() if parameter.grad is not None])
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(*found, strict=True))


def test_watched_passes_give_the_gradient_of_each_item():
    """By central differences: moving one item's states by ± its gradient moves the loss by twice that gradient's squared length."""
    learner = learner_of("bert", objective_of("contrastive")).eval()
    batch = learner.collate(ITEMS["pairs"], generator())
    with learner.watching() as passes:
        learner.loss(batch).value.backward()
    assert [each.rows.tolist() for each in passes] == [list(range(len(ITEMS["pairs"])))] * 2
    gradient, step, moved = passes[0].states.grad[1], 0.03, []
    for sign in (1, -1):
        first = iter((True, False))

        def move(_module, _arguments, output, sign=sign, first=first):
            states = (output[0] if isinstance(output, tuple) else output).clone()
            if next(first):
                states[1] += sign * step * gradient
            return (states, *output[1:]) if isinstance(output, tuple) else states

        handle = learner.model.blocks[-1].register_forward_hook(move)
        with torch.no_grad():
            moved.append(float(learner.loss(batch).value))
        handle.remove()
    assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(float(gradient.square().sum()), rel=5e-3)  # float32 losses: 1e-7 over a step


def test_a_trainer_takes_a_learner(tmp_path):
    """Three steps of transformers.Trainer are three steps of the same optimizer by hand."""

    class Items(torch.utils.data.Dataset):
        def __len__(self):
            return len(WORDY)

        def __getitem__(self, place):
            return WORDY[place]

    def learner():
        model = tiny_model("gpt2", head="lm", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        return Learner(ts.load_model((model, tokenizer_for("gpt2"))), objective_of("causal-lm")).requires_grad_(True).train()

    trained, by_hand = learner(), learner()
    options = TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=6, learning_rate=1e-1, lr_scheduler_type="constant",
        optim="sgd", weight_decay=0.0, max_grad_norm=0.0, report_to=[], save_strategy="no", disable_tqdm=True,
        remove_unused_columns=False, use_cpu=True,
    )  # fmt: skip
    collator = lambda items: {"batch": trained.collate(sorted(items), generator())}  # noqa: E731
    with quietly():
        Trainer(model=trained, args=options, train_dataset=Items(), data_collator=collator).train()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=1e-1)
    for _ in range(3):
        optimizer.zero_grad()
        by_hand.loss(by_hand.collate(sorted(WORDY), generator())).value.backward()
        optimizer.step()
    for one, two in zip(trained.body.parameters(), by_hand.body.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-5)


def test_a_slow_tokenizer_and_other_refusals():
    model = model_of("gpt2")
    bare = dataclasses.replace(model, tokenizer=tokenizer_for("gpt2"))
    with pytest.raises(ModelError, match="has none; set tokenizer.chat_template"):
        Learner(bare, objective_of("sft"))
    bare.tokenizer.mask_token = None
    with pytest.raises(ModelError, match="neither; set one"):
        Learner(bare, objective_of("causal-span"))
    bare.tokenizer.eos_token = "[SEP]"
    assert Learner(bare, objective_of("causal-span")).record()["resolved"] == {"mask_token": "[SEP]"}
    with pytest.raises(InputError, match="use kind='features'"):
        Learner(model_of("bert"), Preserve(MaskedLM(head="random")))
    with pytest.raises(InputError, match="ask for different ones: own, random"):
        Learner(model_of("bert"), Mixture((MaskedLM(), MaskedLM(head="random")), (1.0, 1.0)))
    with pytest.raises(TunescopeError, match="does not say which words"):
        Learner(dataclasses.replace(model, tokenizer=object()), objective_of("simcse"))
    assert {*CONFIGS, *UNLISTED, *RECURRENT, *ENCODERS, *CLIP} == set(EVERY)
