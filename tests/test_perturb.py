"""Controls are of the size they say and leave the model alone."""

from __future__ import annotations

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
