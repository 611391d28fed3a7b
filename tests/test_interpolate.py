"""Part of the way to a tuned model is exactly that part, and its ends are the two models themselves."""

from __future__ import annotations

import pytest
import torch

import tunescope as ts
from tiny_models import TEXTS, adapted, save_adapter, save_model, tiny_model, tokenizer_for
from tunescope.errors import InputError, UnknownName
from tunescope.training.layer_amounts import part_of

KINDS = ("full", "lora", "merged", "dora", "gpt2 lora", "embedding lora")


def pair_of(kind: str) -> tuple[ts.Model, ts.Model]:
    family = "gpt2" if kind == "gpt2 lora" else "bert"
    tokenizer = tokenizer_for(family)
    if kind == "full":
        return tuple(ts.load_model((tiny_model(family, seed=seed), tokenizer)) for seed in (0, 7))
    options = {"dora": {"use_dora": True}, "gpt2 lora": {"target_modules": ["c_attn"], "fan_in_fan_out": True}}.get(kind, {})
    options |= {"target_modules": ["query", "word_embeddings"]} if kind == "embedding lora" else {}
    peft = adapted(tiny_model(family), **options)
    if kind == "merged":
        return ts.load_model((tiny_model(family), tokenizer)), ts.load_model((peft.merge_and_unload(), tokenizer))
    return ts.load_pair(None, (peft, tokenizer))


def weights(model: ts.Model) -> dict[str, torch.Tensor]:
    """The weights as they act, merged by PEFT itself."""
    if not model.adapter_on:
        return {key: value.clone() for key, value in model.tensors().items()}
    import copy

    module, peft = copy.deepcopy((model.module, model.peft))
    peft.merge_and_unload(adapter_names=list(model.adapters))
    return {key: value for key, value in module.state_dict().items() if not key.startswith("pooler.")}


def sha(model: ts.Model) -> str:
    return model.identity()["weights_sha256"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_are_the_models_themselves(kind):
    base, tuned = pair_of(kind)
    before = sha(base), sha(tuned)
    start, end = (ts.interpolate(base, tuned, alpha=alpha) for alpha in (0, 1))
    assert (sha(start), sha(end)) == before == (sha(base), sha(tuned))
    for model, expected in ((start, base), (end, tuned)):
        found, wanted = ts.capture(model, TEXTS), ts.capture(expected, TEXTS)
        assert all(torch.equal(found.layers[i], wanted.layers[i]) for i in wanted.layers)
        assert torch.equal(found.sites["output"], wanted.sites["output"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.5, 2.0, -1.0])
def test_between_and_beyond_every_weight_is_on_the_line(kind, alpha):
    base, tuned = pair_of(kind)
    moved = weights(ts.interpolate(base, tuned, alpha=alpha))
    before, after = weights(base), weights(tuned)
    assert any(not torch.equal(before[key], after[key]) for key in before)
    for key, weight in moved.items():
        if weight.is_floating_point():
            wanted = before[key].double() + alpha * (after[key].double() - before[key].double())
            torch.testing.assert_close(weight.double(), wanted, rtol=1e-5, atol=1e-5)  # two float32 merges of numbers of about 10


def test_a_lora_stays_one_and_other_adapters_are_merged():
    lora = ts.interpolate(*pair_of("lora"), alpha=0.5)
    assert lora.adapter_on
    assert lora.adapter["rank"] == 2
    assert "sha256" not in lora.adapter
    base, _ = pair_of("lora")
    assert all(torch.equal(base.tensors()[key], lora.tensors()[key]) for key in base.tensors())
    assert not ts.interpolate(*pair_of("dora"), alpha=0.5).adapter_on


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_layers_move_alone(kind):
    base, tuned = pair_of(kind)
    before, after = weights(base), weights(tuned)
    one = weights(ts.interpolate(base, tuned, alpha=1, layers=[2]))
    two = weights(ts.interpolate(base, tuned, alpha={2: 1.0, 3: 0.25}))
    for key in before:
        layer = int(key.split(".")[2]) + 1 if key.startswith("encoder.layer.") else None
        torch.testing.assert_close(one[key], after[key] if layer == 2 else before[key], rtol=1e-6, atol=1e-6)
        share = {2: 1.0, 3: 0.25}.get(layer, 0.0)
        torch.testing.assert_close(two[key], torch.lerp(before[key].float(), after[key].float(), share).to(two[key]), rtol=1e-5, atol=1e-5)
    rows, moved = ts.capture(base, TEXTS).layers, ts.capture(ts.interpolate(base, tuned, alpha=0.5, layers=[2]), TEXTS).layers
    assert [torch.equal(rows[i], moved[i]) for i in rows] == [True, True, False, False]


def test_all_parts_named_is_all_of_it():
    base, tuned = pair_of("full")
    assert sha(ts.interpolate(base, tuned, alpha=dict.fromkeys([0, 1, 2, 3, "rest"], 1.0))) == sha(tuned)
    assert sha(ts.interpolate(base, tuned, alpha=0, layers=[1])) == sha(base)


def test_parts_of_a_family():
    anatomy = ts.load_model((tiny_model("gpt2"), tokenizer_for("gpt2"))).anatomy
    names = {"wte.weight": 0, "wpe.weight": 0, "h.0.ln_1.weight": 1, "h.2.mlp.c_fc.weight": 3, "ln_f.weight": "rest"}
    assert {name: part_of(name, anatomy) for name in names} == names


def test_what_does_not_fit_is_said():
    base, tuned = pair_of("full")
    with pytest.raises(InputError, match=r"layers \[4\] asked for; .* has 0 \(embeddings\) to 3"):
        ts.interpolate(base, tuned, alpha=0.5, layers=[4])
    with pytest.raises(InputError, match="must be a finite number, got nan"):
        ts.interpolate(base, tuned, alpha=float("nan"))
    with pytest.raises(InputError, match="the mapping names the layers, leave layers out"):
        ts.interpolate(base, tuned, alpha={1: 0.5}, layers=[1])
    with pytest.raises(InputError, match=r"has no tensor .* of shape .* it must be tuned from"):
        ts.interpolate(base, ts.load_model((tiny_model("bert", hidden_size=8), tokenizer_for("bert"))), alpha=0.5)
    with pytest.raises(InputError, match="needs alpha, the share of the way to like"):
        ts.perturb(base, kind="interpolate", like=tuned)
    with pytest.raises(InputError, match="kind='gaussian'.* does nothing with alpha, like; it takes sigma, layers"):
        ts.perturb(base, kind="gaussian", sigma=0.1, alpha=0.5, like=tuned)
    with pytest.raises(UnknownName, match="did you mean interpolate"):
        ts.perturb(base, kind="interpolation", alpha=0.5)


def test_perturb_is_the_same_door(tmp_path):
    base_folder = save_model(tmp_path / "base")
    base, tuned = ts.load_pair(base_folder, save_adapter(tmp_path / "adapter", base_folder))
    assert sha(ts.perturb(base, kind="interpolate", like=tuned, alpha=0.3)) == sha(ts.interpolate(base, tuned, alpha=0.3))
    assert sha(ts.perturb(base, kind="interpolate", like=tuned, alpha=1)) == sha(tuned)
