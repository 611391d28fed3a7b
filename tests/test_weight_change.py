"""Weights: planted updates of known norm and rank, adapters against their merged models, frozen parts, tied and resized tables."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, TrainableTokensConfig, get_peft_model
from torch import nn
from typer.testing import CliRunner

import tunescope as ts
from example_payload import example
from test_comparison import altered, sentences
from tiny_models import LAYERS, adapted, save_adapter, save_model, tiny_model, tokenizer_for
from tunescope.cli import app
from tunescope.comparison.weight_profile import RANK_WORK, weight_profile
from tunescope.errors import InputError, ModelError
from tunescope.geometry.weight_change import low_rank_change, weight_change
from tunescope.models import Model, load_model, load_pair
from tunescope.models.quiet import quietly
from tunescope.report import render
from tunescope.report.numbers import one_decimal, two_digits


def numpy_ranks(update: np.ndarray) -> tuple[float, float]:
    """Stable and effective rank by numpy's SVD, as their papers define them."""
    singular = np.linalg.svd(update, compute_uv=False)
    share = singular[singular > 0] / singular.sum()
    return float((update**2).sum() / singular[0] ** 2), float(np.exp(-(share * np.log(share)).sum()))


def planted(shape: tuple[int, int], rank: int, norm: float, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Random float32 weights of that norm's own scale, and a float64 update of that rank and Frobenius norm."""
    rng = np.random.default_rng(seed)
    update = rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))
    return torch.from_numpy(rng.normal(size=shape)).float(), update * (norm / np.linalg.norm(update))


def loaded(module: nn.Module, family: str = "bert") -> Model:
    return load_model((module, tokenizer_for(family)))


def rows(found: dict, key: str = "blocks") -> dict[str, dict]:
    return {row["name"]: row for row in found[key]}


# ---- one tensor


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (300, 320), (640, 270)], ids=str)  # SVD below 256 a side, Gram above
@pytest.mark.parametrize("rank", [1, 5, None])
def test_norms_and_ranks_are_those_of_the_planted_update(shape, rank):
    rank = rank or min(shape)
    before, update = planted(shape, rank, norm=0.05 * np.sqrt(np.prod(shape)))
    after = (before.double() + torch.from_numpy(update)).float()
    found = weight_change(before, after)
    stable, effective = numpy_ranks(update)
    assert found.relative == pytest.approx(np.linalg.norm(update) / np.linalg.norm(before.numpy().astype(float)), rel=1e-6)
    assert found.stable_rank == pytest.approx(stable, rel=1e-5)  # the weights are float32: 6e-8 of W is 1e-6 of an update of W/20
    assert found.effective_rank == pytest.approx(effective, rel=1e-3 if rank == min(shape) else 1e-5)
    assert not found.frozen


def test_equal_singular_values_count_as_many_and_one_as_one():
    """Closed form: an orthogonal update of n columns has both ranks n, an outer product both 1."""
    eye = torch.eye(30, dtype=torch.float64)[:, :7]
    zero = torch.zeros_like(eye)
    found = weight_change(zero + 1, zero + 1 + eye)
    assert (found.stable_rank, found.effective_rank) == (pytest.approx(7), pytest.approx(7))
    found = weight_change(zero + 1, zero + 1 + torch.outer(eye[:, 0], eye[:7, 1]))
    assert (found.stable_rank, found.effective_rank) == (pytest.approx(1), pytest.approx(1))


def test_tensors_read_in_pieces_are_read_whole(monkeypatch):
    from tunescope.geometry import weight_change as module

    before, update = planted((300, 290), 4, norm=3.0)
    after = before + torch.from_numpy(update).float()
    whole = weight_change(before, after)
    monkeypatch.setattr(module, "PIECE", 7 * 290)
    cut = weight_change(before, after)
    assert cut.update == pytest.approx(whole.update, rel=1e-12)
    assert cut.stable_rank == pytest.approx(whole.stable_rank, rel=1e-9)
    assert cut.effective_rank == pytest.approx(whole.effective_rank, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_rounding_of_a_half_precision_checkpoint_is_no_rank(dtype):
    """Rank 3 stored in half precision, kept so or read as float32: an SVD of the rounded difference has full rank."""
    before, update = planted((200, 160), 3, norm=0.5 * np.sqrt(200 * 160))
    after = (before.double() + torch.from_numpy(update)).to(dtype)
    for held in (after, after.float()):
        found = weight_change(before.to(dtype).to(held.dtype), held)
        assert found.effective_rank == pytest.approx(numpy_ranks(update)[1], rel=0.01)
    rounded = weight_change(before, before.to(dtype).float())
    assert rounded.effective_rank is None
    assert "rounding" in rounded.rank_reason


def test_frozen_is_exact_and_one_last_bit_is_not_frozen():
    before = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))
    assert weight_change(before, before.clone()).frozen
    after = before.clone()
    after[3, 4] = torch.nextafter(after[3, 4], torch.tensor(9.0))
    found = weight_change(before, after)
    assert not found.frozen
    assert found.update == pytest.approx(float((after.double() - before.double()).norm()), rel=1e-12)


def test_a_dead_tensor_has_no_relative_change_and_shapes_must_agree():
    assert weight_change(torch.zeros(4, 3), torch.ones(4, 3)).relative is None
    with pytest.raises(InputError, match=r"shape \(3, 4\) cannot be the tuned form of one of shape \(4, 3\)"):
        weight_change(torch.zeros(4, 3), torch.zeros(3, 4))
    with pytest.raises(InputError, match="do not fit a tensor of"):
        low_rank_change(torch.zeros(4, 3), torch.zeros(4, 2), torch.zeros(2, 4))


@pytest.mark.parametrize("rank", [1, 4, 30])  # 30: more than the matrix has columns
def test_factors_give_what_their_product_gives(rank):
    rng = np.random.default_rng(rank)
    left, right, before = rng.normal(size=(40, rank)), rng.normal(size=(rank, 20)), rng.normal(size=(40, 20))
    found = low_rank_change(*map(torch.from_numpy, (before, left, right)))
    stable, effective = numpy_ranks(left @ right)
    assert found.relative == pytest.approx(np.linalg.norm(left @ right) / np.linalg.norm(before), rel=1e-12)
    assert (found.stable_rank, found.effective_rank) == (pytest.approx(stable, rel=1e-9), pytest.approx(effective, rel=1e-9))
    assert low_rank_change(torch.from_numpy(before), torch.zeros(40, 2), torch.ones(2, 20)).frozen


# ---- adapters

KINDS = {
    "lora": LoraConfig(r=2, lora_alpha=8, target_modules=["query", "value"]),
    "rslora, embeddings": LoraConfig(r=3, use_rslora=True, target_modules=["word_embeddings", "dense"]),
    "lora with a bias": LoraConfig(r=2, lora_bias=True, target_modules=["query"]),
    "dora": LoraConfig(r=2, use_dora=True, target_modules=["query", "dense"]),
    "modules to save": LoraConfig(r=2, target_modules=["query"], modules_to_save=["word_embeddings"]),
    "ia3": IA3Config(target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]),
    "trainable tokens": TrainableTokensConfig(target_modules=["word_embeddings"], token_indices=[3, 5]),
}


def with_adapter(kind: str, module: nn.Module) -> nn.Module:
    """`module` with a random adapter that really changes it."""
    with quietly():
        torch.manual_seed(3)
        peft = get_peft_model(module, copy.deepcopy(KINDS[kind])).eval()
        with torch.no_grad():
            for parameter in peft.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn_like(parameter))
    return peft


def agree(found: dict, wanted: dict) -> None:
    """Both profiles say the same to 1e-6. Ranks of a merged float32 model carry its rounding, relative to a smaller update."""
    assert [row["name"] for row in found["matrices"]] == [row["name"] for row in wanted["matrices"]]
    assert found["slope"] == pytest.approx(wanted["slope"], abs=1e-6)
    for key in ("blocks", "matrices"):
        for one, two in zip(found[key], wanted[key], strict=True):
            assert one["frozen"] == two["frozen"], one["name"]
            assert one["relative_change"] == pytest.approx(two["relative_change"], abs=1e-6), one["name"]
            for rank in ("stable_rank", "effective_rank"):
                assert one[rank] == (two[rank] and pytest.approx(two[rank], rel=1e-5)), one["name"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [True, False], ids=["one copy of the base", "two copies"])
def test_an_adapter_reads_as_its_merged_model(kind, shared):
    peft = with_adapter(kind, tiny_model("bert"))
    base, tuned = load_pair(None if shared else loaded(tiny_model("bert")), (peft, tokenizer_for("bert")))
    before = {name: tensor.clone() for name, tensor in tuned.tensors().items()}
    found = weight_profile(base, tuned)
    assert all(torch.equal(before[name], tensor) for name, tensor in tuned.tensors().items())  # nothing was merged in place
    assert any(not row["frozen"] for row in found["blocks"])
    with quietly():
        merged = peft.merge_and_unload()
    agree(found, weight_profile(loaded(tiny_model("bert")), loaded(merged)))


def test_gpt2s_transposed_layers_and_two_adapters_at_once():
    peft = adapted(tiny_model("gpt2"), target_modules=["c_attn"], fan_in_fan_out=True)
    with quietly():
        peft.add_adapter("second", LoraConfig(r=1, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True))
        with torch.no_grad():
            for name, parameter in peft.named_parameters():
                if "second" in name:
                    parameter.copy_(0.5 * torch.randn_like(parameter))
        peft.base_model.set_adapter(["default", "second"])
    base, tuned = load_pair(None, (peft, tokenizer_for("gpt2")))
    found = weight_profile(base, tuned)
    merged = weight_profile(loaded(tiny_model("gpt2"), "gpt2"), loaded(peft.merge_and_unload(), "gpt2"))
    agree(found, merged)
    assert {row["name"].split(".")[-2] for row in found["matrices"] if not row["frozen"]} == {"c_attn", "c_fc"}


# ---- pairs


def test_only_what_was_trained_is_unfrozen_and_the_numbers_are_numpys():
    base = tiny_model("bert")
    tuned = altered(base, 2)
    with torch.no_grad():
        tuned.encoder.layer[2].output.dense.bias[0] += 0.5  # one number of one vector
    found = weight_profile(loaded(base), loaded(tuned))
    assert {name: row["frozen"] for name, row in rows(found).items()} == {
        "embeddings": True, "block 1": True, "block 2": False, "block 3": False,
    }  # fmt: skip
    one, two = (dict(model.encoder.layer[1].named_parameters()) for model in (base, tuned))
    flat = [np.concatenate([tensor.detach().double().numpy().ravel() for tensor in side.values()]) for side in (one, two)]
    row = rows(found)["block 2"]
    assert row["relative_change"] == pytest.approx(np.linalg.norm(flat[1] - flat[0]) / np.linalg.norm(flat[0]), rel=1e-9)
    most = row["most_changed"].removeprefix("encoder.layer.1.")
    stable, effective = numpy_ranks((two[most].detach().double() - one[most].detach().double()).numpy())
    assert row["stable_rank"] == pytest.approx(stable, rel=1e-5)
    assert row["effective_rank"] == pytest.approx(effective, rel=1e-5)
    assert rows(found)["block 3"]["most_changed"] is None
    changes = [rows(found)[f"block {index}"]["relative_change"] for index in range(1, LAYERS + 1)]
    assert found["slope"] == pytest.approx(np.polyfit(np.arange(1, LAYERS + 1) / LAYERS, changes, 1)[0], rel=1e-9)


def test_gaussian_noise_of_sigma_moves_every_matrix_by_sigma():
    """|ΔW|² = Σ σ²w²g²: its root is σ|W| within 3 sd = 3σ√(Σw⁴/2)/|W| of each matrix."""
    sigma, base = 0.05, loaded(tiny_model("bert", hidden_size=32, intermediate_size=64))
    found = rows(weight_profile(base, ts.perturb(base, kind="gaussian", sigma=sigma)), "matrices")
    for name, tensor in base.tensors().items():
        if name in found:
            weights = tensor.double().numpy()
            sd = np.sqrt((weights**4).sum() / 2) / (weights**2).sum()
            assert found[name]["relative_change"] == pytest.approx(sigma, rel=4 * sd), name
    assert len(found) == LAYERS * 6 + 3


def test_representation_change_per_unit_of_weight_change_is_the_quotient_and_nothing_where_frozen():
    base = tiny_model("bert")
    found = weight_profile(loaded(base), loaded(altered(base, 2)), changes={0: 0.0, 1: 0.0, 2: 0.4, 3: None})
    two = rows(found)["block 2"]
    assert two["change_per_weight_change"] == pytest.approx(0.4 / two["relative_change"])
    assert [rows(found)[name]["change_per_weight_change"] for name in ("embeddings", "block 1", "block 3")] == [None] * 3


def test_tied_tensors_count_once_and_untied_ones_twice():
    base = tiny_model("bert")
    base.encoder.layer[1].output.dense.weight = base.encoder.layer[0].output.dense.weight
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.encoder.layer[0].output.dense.weight.mul_(1.1)
    names = [row["name"] for row in weight_profile(loaded(base), loaded(tuned))["matrices"]]
    assert len(names) == LAYERS * 6 + 3 - 1
    tuned.encoder.layer[1].output.dense.weight = nn.Parameter(tuned.encoder.layer[1].output.dense.weight.detach() * 2)
    assert len(weight_profile(loaded(base), loaded(tuned))["matrices"]) == len(names) + 1


def test_a_resized_vocabulary_is_compared_in_its_common_rows():
    base, tuned = tiny_model("bert"), tiny_model("bert")
    with quietly():
        tuned.resize_token_embeddings(60)
    found = weight_profile(loaded(base), loaded(tuned))
    table = rows(found, "matrices")["embeddings.word_embeddings.weight"]
    assert (table["rows_compared"], table["frozen"]) == (48, True)
    assert found["notes"] == [
        "embeddings.word_embeddings.weight has 48 rows in the base and 60 in the tuned model: the first 48 of both were compared"
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"num_hidden_layers": 2}, "base has 3 blocks and tuned 2"), ({"hidden_size": 32}, "base has 16 features and tuned 32")],
)
def test_models_of_another_shape_have_no_profile_and_the_reason_is_given(changes, said):
    base, tuned = loaded(tiny_model("bert")), loaded(tiny_model("bert", **changes))
    found = weight_profile(base, tuned)
    assert found["reason"].startswith(said)
    assert (found["blocks"], found["matrices"], found["slope"]) == ([], [], None)
    with pytest.raises(ModelError, match=f"no weight profile: {said}"):
        ts.weight_profile(base, tuned)


def test_ranks_are_left_out_by_cost_and_never_for_an_adapters_factors():
    base = tiny_model("bert")
    row = rows(weight_profile(loaded(base), loaded(altered(base, 2)), work=0.0))["block 2"]
    assert (row["stable_rank"], row["effective_rank"]) == (None, None)
    assert "--weights-only" in row["reason"]
    assert row["relative_change"] > 0
    pair = load_pair(None, (adapted(tiny_model("bert")), tokenizer_for("bert")))
    assert rows(weight_profile(*pair, work=0.0))["block 2"]["stable_rank"] > 0
    assert RANK_WORK > 0


# ---- what people meet


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    base = tiny_model("bert")
    save_model(folder / "base", model=base)
    save_model(folder / "tuned", model=altered(base, 2))
    save_model(folder / "short", model=tiny_model("bert", num_hidden_layers=2))
    save_adapter(folder / "adapter", folder / "base")
    return folder


def test_names_folders_and_adapters_give_tables(place):
    full, adapter = ts.weight_profile(place / "base", place / "tuned", device="cpu"), ts.weight_profile(place / "adapter", device="cpu")
    assert full.blocks["frozen"].to_dict() == {"embeddings": True, "block 1": True, "block 2": False, "block 3": True}
    assert set(adapter.matrices.query("not frozen")["block"]) == {1, 2, 3}
    assert adapter.matrices.loc["encoder.layer.0.attention.self.query.weight", "stable_rank"] <= 2
    assert "1 of 4 parts changed" in repr(full)
    assert full.slope == full.payload["weights"]["slope"]


def test_a_comparison_carries_the_profile_and_its_own_change_per_unit(place):
    found = ts.diff(place / "base", place / "tuned", sentences(), device="cpu").payload
    row = rows(found["weights"])["block 2"]
    change = found["layers"][2]["measures"]["cka"]["change"]
    assert row["representation_change"] == change
    assert row["change_per_weight_change"] == pytest.approx(change / row["relative_change"])


def run(*arguments: object):
    return CliRunner().invoke(app, ["diff", *map(str, arguments), "--device", "cpu", "--weights-only"])


def test_weights_only_prints_a_table_and_writes_weights_json(place, tmp_path):
    done = run(place / "base", place / "tuned", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    lines = {line.split()[0] + line.split()[1]: line for line in done.stdout.splitlines() if line.startswith(("block", "embeddings"))}
    assert lines["block1"].endswith("frozen")
    assert "frozen" not in lines["block2"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["weights.json"]
    payload = json.loads((tmp_path / "out" / "weights.json").read_text())
    assert payload["schema"] == "tunescope.weights/1"
    assert len(payload["weights"]["blocks"]) == LAYERS + 1
    again = run(place / "base", place / "adapter", "-o", tmp_path / "out", "--json")  # ours, so it is replaced
    assert json.loads(again.stdout)["tuned"]["adapter"]["rank"] == 2


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["base", "short"], ModelError, "no weight profile: base has 3 blocks and tuned 2"),
        (["base", "tuned", "--sample", "5", "--measures", "cka"], InputError, "so --sample, --measures means nothing beside it"),
    ],
)
def test_what_weights_only_cannot_do_is_said(place, tmp_path, arguments, kind, said):
    done = run(*(place / word if word in ("base", "tuned", "short") else word for word in arguments), "-o", tmp_path / "out")
    assert isinstance(done.exception, kind)
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(place):
    done = run(place / "base", place / "tuned", "-o", place)
    assert "holds something else" in str(done.exception)


def test_the_page_flags_frozen_blocks_and_gives_both_slopes(place):
    page = ts.diff(place / "base", place / "tuned", sentences(), device="cpu").html()
    section = page[page.index("Where the weights were moved") :]
    assert section.count('<span class="word untouched">frozen</span>') == 3
    assert 'data-chart="weight_change"' in section
    assert 'data-chart="representation_change"' in section
    assert "bit-identical: embeddings, block 1, block 3" in section


def test_a_page_without_a_profile_says_why_or_says_nothing():
    payload = example()
    payload["weights"] = {"blocks": [], "matrices": [], "slope": None, "rank_slope": None, "notes": [], "reason": "<b>another</b> depth"}
    page = render(payload)
    assert "The weights were not compared: &lt;b&gt;another&lt;/b&gt; depth." in page
    del payload["weights"]
    assert "Where the weights were moved" not in render(payload)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (1.0, "1"), (0.25, ".250"), (0.0995, ".100"), (0.034, ".034"), (0.00999, ".010"), (-0.00041, "−.00041"),
     (0.0000449, ".000045"), (2.5e-7, "2.5e−7"), (1e-5, ".000010"), (None, "–")],
)  # fmt: skip
def test_small_amounts_keep_two_digits(value, said):
    assert two_digits(value) == said


def test_a_rank_is_whole_only_when_it_is():
    assert [one_decimal(value) for value in (8.0, 7.96, 1234.56, None)] == ["8", "8.0", "1,234.6", "–"]
