"""Controls are of the size they say and leave the model alone."""

from __future__ import annotations

import re

import pytest
import torch

import tunescope as ts
from tiny_models import adapted, tiny_model, tokenizer_for
from tunescope.errors import InputError, UnknownName


@pytest.fixture
def pair():
    tokenizer = tokenizer_for("bert")
    return ts.load_pair(None, (adapted(tiny_model("bert")), tokenizer))


def changes(before, after) -> dict[str, torch.Tensor]:
    return {key: after[key] - before[key] for key in before if before[key].is_floating_point()}


def test_gaussian_noise_is_relative_to_each_weight(pair):
    base, _ = pair
    before = {key: value.clone() for key, value in base.tensors().items()}
    moved = ts.perturb(base, kind="gaussian", sigma=0.04, seed=3)
    assert all(torch.equal(base.tensors()[key], before[key]) for key in before)
    relative = torch.cat([(d / before[k]).flatten() for k, d in changes(before, moved.tensors()).items() if d.ndim >= 2])
    assert float(relative.std()) == pytest.approx(0.04, rel=0.05)  # thousands of weights: 1% spread
    assert all(not d.any() for d in changes(before, moved.tensors()).values() if d.ndim < 2)
    again = ts.perturb(base, kind="gaussian", sigma=0.04, seed=3)
    assert all(torch.equal(moved.tensors()[key], again.tensors()[key]) for key in before)


def test_random_rank_has_the_norm_and_rank_of_the_adapter(pair):
    base, tuned = pair
    moved = ts.perturb(base, kind="random-rank", like=tuned)
    found = changes(base.tensors(), moved.tensors())
    targets = {key for key in found if key.endswith(("query.weight", "value.weight"))}
    for key, update in found.items():
        if key not in targets:
            assert not update.any(), key
            continue
        layer = tuned.module.get_submodule(key.removesuffix(".weight"))
        wanted = layer.get_delta_weight("default").detach()
        assert float(update.norm()) == pytest.approx(float(wanted.norm()), rel=1e-4)
        assert int(torch.linalg.matrix_rank(update, rtol=1e-3)) == 2
        assert abs(float((update * wanted).sum() / (update.norm() * wanted.norm()))) < 0.5
    assert len(targets) == 6


def test_random_direction_matches_every_tensors_norm(pair):
    base, tuned = pair
    moved = ts.perturb(base, kind="random-direction", like=tuned)
    for key, update in changes(base.tensors(), moved.tensors()).items():
        layer = tuned.module.get_submodule(key.rpartition(".")[0]) if key.endswith(("query.weight", "value.weight")) else None
        wanted = float(layer.get_delta_weight("default").detach().norm()) if layer is not None else 0.0
        assert float(update.norm()) == pytest.approx(wanted, rel=1e-4, abs=1e-7)
    full = tiny_model("bert", seed=7)
    other = ts.load_model((full, tokenizer_for("bert")))
    plain = ts.load_model((tiny_model("bert"), tokenizer_for("bert")))
    moved = ts.perturb(plain, kind="random-direction", like=other)
    wanted, found = changes(plain.tensors(), other.tensors()), changes(plain.tensors(), moved.tensors())
    assert all(float(found[key].norm()) == pytest.approx(float(wanted[key].norm()), rel=1e-4) for key in wanted)


def test_what_is_missing_is_named(pair):
    base, tuned = pair
    with pytest.raises(UnknownName, match="unknown kind of perturbation 'gausian'; did you mean gaussian"):
        ts.perturb(base, kind="gausian", sigma=1)
    with pytest.raises(InputError, match="needs sigma above 0, got None"):
        ts.perturb(base, kind="gaussian")
    with pytest.raises(InputError, match="needs like="):
        ts.perturb(base, kind="random-rank")
    with pytest.raises(InputError, match="has none, use kind='random-direction'"):
        ts.perturb(base, kind="random-rank", like=base)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"modules_to_save": ["word_embeddings"]}])
def test_the_change_of_any_adapter_is_that_of_the_merged_model(options):
    peft = adapted(tiny_model("bert"), **options)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(0.1)
    base, tuned = ts.load_pair(None, (peft, tokenizer_for("bert")))
    found = changes(base.tensors(), ts.perturb(base, kind="random-direction", like=tuned).tensors())
    merged = peft.merge_and_unload()
    plain = tiny_model("bert").state_dict()
    for key, after in merged.state_dict().items():
        if key in found and plain[key].is_floating_point():
            assert float(found[key].norm()) == pytest.approx(float((after - plain[key]).norm()), rel=1e-3, abs=1e-6), key


def wide_pair(**options) -> tuple[ts.Model, ts.Model]:
    """A model with some ten thousand weights a matrix, and a LoRA of two ranks on it."""
    wide = tiny_model("bert", hidden_size=96, intermediate_size=192)
    peft = adapted(wide, target_modules=["query", "value", "dense"], rank_pattern={"dense": 5}, **options)
    return ts.load_pair(None, (peft, tokenizer_for("bert")))


def test_random_rank_is_of_the_trained_norm_and_rank_to_a_millionth():
    base, tuned = wide_pair()
    moved = ts.perturb(base, kind="random-rank", like=tuned, seed=4)
    checked = 0
    for key, update in changes(base.tensors(), moved.tensors()).items():
        layer = tuned.module.get_submodule(key.rpartition(".")[0])
        if not key.endswith(".weight") or not hasattr(layer, "lora_A"):
            assert not update.any(), key
            continue
        up, down = layer.lora_B["default"].weight.double(), layer.lora_A["default"].weight.double()
        wanted = (layer.scaling["default"] * up @ down).detach()
        assert float(update.double().norm()) == pytest.approx(float(wanted.norm()), rel=1e-6)
        found, trained = (torch.linalg.svdvals(matrix.double()) for matrix in (update, wanted))
        rank = layer.r["default"]
        assert rank == (5 if "dense" in key else 2) == int(torch.linalg.matrix_rank(wanted, rtol=1e-6))
        assert float(found[rank] / found[0]) < 1e-6, key
        assert float(found[rank - 1] / found[0]) > 1e-2, key
        assert float(trained[rank] / trained[0]) < 1e-6
        checked += 1
    assert checked == 3 * 5  # query, value and three dense a block


def test_random_direction_is_of_the_trained_norm_to_a_millionth():
    tokenizer = tokenizer_for("bert")
    base, tuned = (ts.load_model((tiny_model("bert", hidden_size=96, seed=seed), tokenizer)) for seed in (0, 7))
    found = changes(base.tensors(), ts.perturb(base, kind="random-direction", like=tuned, scale=0.5).tensors())
    for key, wanted in changes(base.tensors(), tuned.tensors()).items():
        assert float(found[key].double().norm()) == pytest.approx(float(wanted.double().norm()) / 2, rel=1e-6), key


def test_the_spread_of_gaussian_noise_is_sigma_within_a_hundredth():
    base = ts.load_model((tiny_model("bert", hidden_size=96, intermediate_size=192), tokenizer_for("bert")))
    moved = ts.perturb(base, kind="gaussian", sigma=0.04, seed=5).tensors()
    found = {key: d.double() for key, d in changes(base.tensors(), moved).items() if d.ndim > 1}
    relative = torch.cat([(d / base.tensors()[key].double()).flatten() for key, d in found.items()])
    assert len(relative) > 200_000  # whose sample deviation has a standard error of .16%
    assert float(relative.std()) == pytest.approx(0.04, rel=0.01)
    assert float(relative.mean()) == pytest.approx(0, abs=5 * 0.04 / len(relative) ** 0.5)


@pytest.mark.parametrize("kind", ["gaussian", "random-rank", "random-direction"])
def test_the_noise_of_a_layer_is_that_of_the_whole(pair, kind):
    base, tuned = pair
    asked = {"sigma": 0.05} if kind == "gaussian" else {"like": tuned}
    whole, alone = (ts.perturb(base, kind=kind, seed=2, layers=layers, **asked).tensors() for layers in (None, [0, 2]))
    for key, weight in base.tensors().items():
        inside = key.startswith(("encoder.layer.1.", "embeddings."))
        assert torch.equal(alone[key], whole[key] if inside else weight), key


def test_every_layer_may_have_its_own_sigma(pair):
    base, _ = pair
    moved = ts.perturb(base, kind="gaussian", sigma={1: 0.1, 3: 0.01}, seed=2)
    assert moved.name == "gaussian noise, σ = 0.1 in layer 1, 0.01 in layer 3"
    found = changes(base.tensors(), moved.tensors())
    for block, sigma in ((0, 0.1), (1, 0.0), (2, 0.01)):
        keys = [key for key, d in found.items() if key.startswith(f"encoder.layer.{block}.") and d.ndim == 2]
        relative = torch.cat([(found[key] / base.tensors()[key]).flatten() for key in keys])
        assert float(relative.std()) == pytest.approx(sigma, rel=0.1)  # 2,048 weights: a standard error of 1.6%


def test_an_adapter_that_is_on_is_part_of_what_is_moved(pair):
    base, tuned = pair
    moved = ts.perturb(tuned, kind="gaussian", sigma=1e-6)
    key = "encoder.layer.0.attention.self.query.weight"
    wanted = base.tensors()[key] + tuned.module.get_submodule(key.removesuffix(".weight")).get_delta_weight("default")
    torch.testing.assert_close(moved.tensors()[key], wanted, rtol=1e-5, atol=1e-6)
    assert tuned.adapter_on
    assert not moved.adapter_on


def test_what_rounding_to_a_narrow_format_does_to_an_update_is_said():
    base = ts.load_model((tiny_model("bert").to(torch.bfloat16), tokenizer_for("bert")))
    moved = ts.perturb(base, kind="gaussian", sigma=0.01)
    assert len(ts.perturb(base, kind="gaussian", sigma=0.01).warnings) == 2
    # a weight's own rounding is uniform within half of 2^-7 to 2^-8 of it: about .16% of it, and 16% of noise of 1%
    share = int(re.search(r"off by (\d+)% of its norm, because the weights are bfloat16", moved.warnings[1]).group(1))
    assert 10 < share < 25
    assert len(ts.perturb(base, kind="gaussian", sigma=0.5).warnings) == 1


def test_idle_and_impossible_arguments_are_refused(pair):
    base, tuned = pair
    with pytest.raises(InputError, match="kind='rounding'.* does nothing with layers, sigma; it takes bits"):
        ts.perturb(base, kind="rounding", bits=4, sigma=0.1, layers=[1])
    with pytest.raises(InputError, match="needs scale above 0, got -1"):
        ts.perturb(base, kind="random-rank", like=tuned, scale=-1)
    with pytest.raises(InputError, match="has the very weights of"):
        ts.perturb(base, kind="random-direction", like=base)
    with pytest.raises(InputError, match=r"layers=3 asked for; give a list of them, such as \[1, 2\]"):
        ts.perturb(base, kind="gaussian", sigma=0.1, layers=3)
    with pytest.raises(InputError, match="seed=1.5 was asked for; give a whole number from 0 to 4,294,967,295"):
        ts.perturb(base, kind="gaussian", sigma=0.1, seed=1.5)
    with pytest.raises(InputError, match="an amount must be a finite number, got True"):
        ts.perturb(base, kind="gaussian", sigma=True)
    with pytest.raises(InputError, match="no layers to move were named"):
        ts.perturb(base, kind="gaussian", sigma=0.1, layers=[])
