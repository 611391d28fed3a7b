"""Known disturbances are what they say, and a model moved by a known amount is read as moved by that amount."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tunescope as ts
from tiny_models import WORDS, tiny_model, tokenizer_for
from tunescope.errors import InputError
from tunescope.training.disturb import rounded


def sentences(n: int = 60) -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS, size=draw.integers(3, 20))) for _ in range(n)]


@pytest.fixture(scope="module")
def base() -> ts.Model:
    return ts.load_model((tiny_model("bert"), tokenizer_for("bert")), name="base")


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rounding_is_to_the_nearest_of_an_even_grid(bits):
    """Per row and group of 128: the largest weight is kept, every other moves by half a step at most, and lands on a whole step."""
    weight = torch.randn(5, 300, generator=torch.Generator().manual_seed(0))
    found = rounded(weight, bits)
    for start in (0, 128, 256):
        before, after = weight[:, start : start + 128].numpy(), found[:, start : start + 128].numpy()
        step = np.abs(before).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
        np.testing.assert_allclose(after, step * np.round(before / step), atol=1e-6)  # float32 rounding of the scale
        assert np.abs(after - before).max() <= step.max() / 2 + 1e-6


def test_rounding_touches_the_matrices_of_the_blocks_alone(base):
    before, after = base.tensors(), ts.perturb(base, kind="rounding", bits=4).tensors()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key, weight in before.items() if key.startswith("encoder.layer.") and weight.ndim == 2}


def test_rounding_groups_the_inputs_of_a_transposed_layer():
    """GPT-2 keeps its matrices as (inputs, outputs): each output has its scale, as it has in every other family."""
    model = ts.load_model((tiny_model("gpt2"), tokenizer_for("gpt2")))
    weight = model.module.h[0].attn.c_attn.weight
    moved = ts.perturb(model, kind="rounding", bits=3).module.h[0].attn.c_attn.weight
    np.testing.assert_array_equal(moved.detach().T, rounded(weight.T, 3))
    assert all(len(column.unique()) <= 7 for column in moved.detach().T)


@pytest.mark.parametrize("bits", [None, 1, 16])
def test_other_numbers_of_bits_are_refused(base, bits):
    with pytest.raises(InputError, match=rf"rounds to 2 to 8 bits, got {bits or 0}"):
        ts.perturb(base, kind="rounding", bits=bits)


def test_dropout_left_on_drops_at_its_rate_and_leaves_the_model_alone(base):
    moved = ts.perturb(base, kind="dropout", seed=1)
    module = moved.module.embeddings.dropout
    ones = torch.ones(200, 500)
    dropped = module(ones)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.1, abs=0.005)  # five standard errors of 100,000 draws
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert isinstance(base.module.embeddings.dropout, torch.nn.Dropout)
    texts = sentences(12)
    one, two = (ts.capture(ts.perturb(base, kind="dropout", seed=1), texts).layers[3] for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.allclose(one, ts.capture(base, texts).layers[3])


def test_a_model_without_dropout_is_told_so():
    model = ts.load_model((tiny_model("llama"), tokenizer_for("llama")), name="dry")
    with pytest.raises(InputError, match="every rate of 'dry' is 0"):
        ts.perturb(model, kind="dropout")
    c = ts.diff(model, ts.perturb(model, kind="gaussian", sigma=0.05), sentences(20), ruler=True)
    assert [mark["kind"] for mark in c.payload["ruler"]["marks"]] == ["gaussian"] * 7 + ["rounding"] * 2
    assert "every rate of 'dry' is 0" in c.payload["ruler"]["left_out"][0]


@pytest.mark.parametrize("sigma", [0.03, 0.1])
def test_noise_of_a_known_size_is_read_as_that_size(base, sigma):
    """One draw of noise against another of the same σ, on a model of a few thousand weights: they differ by a sixth at most."""
    c = ts.diff(base, ts.perturb(base, kind="gaussian", sigma=sigma, seed=7), sentences(), ruler=True)
    readings = {reading["measure"]: reading for reading in c.payload["ruler"]["readings"]}
    for name in ("procrustes", "cka"):
        assert readings[name]["sigma"] == pytest.approx(sigma, rel=0.35), name
        assert readings[name]["bound"] is None
    assert f"gaussian weight noise of σ = {readings['procrustes']['sigma']:.2g}" in c.payload["ruler"]["said"]


def test_the_marks_are_the_numbers_of_a_comparison_of_their_own(base):
    """The ruler's row of a disturbance is what `diff` says of that disturbance on the same texts."""
    texts = sentences()
    ruler = ts.diff(base, ts.perturb(base, kind="gaussian", sigma=0.1, seed=7), texts, ruler=True).payload["ruler"]
    mark = next(mark for mark in ruler["marks"] if mark.get("bits") == 4)
    alone = ts.diff(base, ts.perturb(base, kind="rounding", bits=4), texts).payload
    for row, expected in zip(mark["layers"], alone["layers"], strict=True):
        for name, cell in row["measures"].items():
            assert cell["change"] == pytest.approx(expected["measures"][name]["change"], abs=1e-9), name
    times = next(reading for reading in ruler["readings"] if reading["measure"] == "procrustes")["times"]["rounding to 4 bits"]
    tuned, rounding = (found["sites"]["output"]["procrustes"]["change"] for found in (ruler["tuned"], mark))
    assert times == pytest.approx(tuned / rounding)


def test_an_unmoved_model_and_one_off_the_ruler_are_said_to_be_so(base):
    texts = sentences(20)
    assert ts.diff(base, base, texts, ruler=True).payload["ruler"]["said"] == "The deployed embeddings did not move."
    far = ts.diff(base, ts.perturb(base, kind="gaussian", sigma=2.0), texts, ruler=True).payload["ruler"]
    assert "further than gaussian weight noise of σ = 0.32" in far["said"]


def test_token_rows_have_no_ruler(base):
    with pytest.raises(InputError, match="the ruler compares pooled texts"):
        ts.diff(base, base, sentences(20), pooling="none", ruler=True)
