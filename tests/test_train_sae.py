"""Training autoencoders: gradients against autograd of plain formulas, choices against torch.topk, planted features, exact resumption."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from tunescope.dictionaries import sae_checkpoint
from tunescope.dictionaries.architectures import ARCHITECTURES, Weights
from tunescope.dictionaries.architectures.coded import REVIVAL, add_revival, coded_step
from tunescope.dictionaries.architectures.dense import Jump
from tunescope.dictionaries.architectures.selection import screen, top_of_batch, top_of_rows
from tunescope.dictionaries.delta_rows import ArrayRows
from tunescope.dictionaries.largest import largest
from tunescope.dictionaries.sparse_products import Places, gathered, read, summed, written
from tunescope.dictionaries.train_sae import train_sae
from tunescope.errors import ActivationError, FormatError, InputError, NotEnoughRows, OutputError, UnknownName

ROWS, D, N, K = 40, 24, 96, 5


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


@pytest.fixture
def weights() -> Weights:
    made = Weights.drawn(N, D, seed=3)
    made.bias += 0.1 * drawn(N, seed=4)
    made.offset += 0.2 * drawn(D, seed=5)
    made.encoder += 0.1 * drawn(N, D, seed=6)
    return made


def planted(latents: int, d: int, rows: int, active: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Known unit directions (latents, d), and rows that are sums of `active` of them with weights .5 to 1.5, and a little noise."""
    draw = np.random.default_rng((seed, 999))
    directions = draw.standard_normal((latents, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    codes = np.zeros((rows, latents))
    np.put_along_axis(codes, draw.random((rows, latents)).argsort(1)[:, :active], 0.5 + draw.random((rows, active)), 1)
    return torch.from_numpy(directions).float(), torch.from_numpy(codes @ directions + 0.01 * draw.standard_normal((rows, d))).float()


def recovered(decoder: torch.Tensor, directions: torch.Tensor) -> float:
    """Mean cosine of the best one-to-one matching, by scipy."""
    cosines = (torch.nn.functional.normalize(decoder, dim=1) @ directions.T).numpy()
    return float(cosines[linear_sum_assignment(-cosines)].mean())


@pytest.mark.parametrize(("n", "k"), [(6144, 32), (96, 5), (1000, 3), (64, 64), (512, 16)])
def test_the_largest_are_those_of_topk(n, k):
    x = drawn(50, n)
    found = x.gather(1, largest(x, k)).sort(dim=1).values
    assert torch.equal(found, x.topk(k, dim=1).values.sort(dim=1).values)


def test_sparse_products_are_those_of_the_full_matrices():
    generator = np.random.default_rng(1)
    mask = torch.from_numpy(generator.random((ROWS, N)) < 0.1)
    mask[3] = False  # a row where nothing fires
    places = Places(*mask.nonzero().T, ROWS, N)
    values = drawn(len(places.row), seed=2)
    codes = torch.zeros(ROWS, N).masked_scatter(mask, values)
    x, directions = drawn(ROWS, D, seed=3), drawn(N, D, seed=4)
    assert torch.allclose(written(places, values, directions), codes @ directions, atol=1e-5)
    assert torch.allclose(read(places, x, directions), (x @ directions.T)[mask], atol=1e-5)
    assert torch.allclose(gathered(places, values, x), codes.T @ x, atol=1e-5)
    assert torch.allclose(summed(places, values), codes.sum(0), atol=1e-6)


def test_the_choice_in_low_precision_keeps_the_top_k_of_float32(weights):
    centred = drawn(400, D, seed=7) - weights.offset
    exact = centred @ weights.encoder.T + weights.bias
    places, values = top_of_rows(weights, centred, screen(weights, centred), K)
    assert torch.allclose(values.view(400, K).sort(dim=1).values, exact.topk(K, dim=1).values.sort(dim=1).values, atol=1e-5)
    assert torch.allclose(exact[places.row, places.latent], values, atol=1e-5)


@pytest.mark.parametrize("last", [0.0, 0.7, 0.95, 2.0])
def test_the_choice_of_a_batch_is_the_top_of_all_its_pre_activations(weights, last):
    """`last`, of the true threshold: unknown, far below, near, far above. It only says where to look."""
    centred = drawn(400, D, seed=7) - weights.offset
    exact = centred @ weights.encoder.T + weights.bias
    best = exact.reshape(-1).topk(400 * K).values
    places, values = top_of_batch(weights, centred, screen(weights, centred), K, last * float(best[-1]))
    assert torch.allclose(values.sort().values, best.sort().values, atol=1e-5)
    assert (places.row.diff() >= 0).all()


def test_gradients_are_those_of_autograd_on_the_plain_formula(weights):
    x = drawn(ROWS, D, seed=8)
    exact = (x - weights.offset) @ weights.encoder.T + weights.bias
    chosen = exact.topk(K, dim=1).indices
    places = Places.of(chosen, N)
    step, _ = coded_step(weights, x, x - weights.offset, places, exact[places.row, places.latent])

    leaves = {name: value.clone().requires_grad_() for name, value in weights.parameters.items()}
    pre = (x - leaves["offset"]) @ leaves["encoder"].T + leaves["bias"]
    codes = torch.zeros(ROWS, N).scatter(1, chosen, pre.gather(1, chosen).relu())
    loss = (codes @ leaves["decoder"] + leaves["offset"] - x).square().mean()
    for (name, leaf), slope in zip(leaves.items(), torch.autograd.grad(loss, list(leaves.values())), strict=True):
        assert torch.allclose(step.gradients[name], slope, rtol=1e-4, atol=1e-7), name
        assert leaf.shape == slope.shape
    assert torch.equal(step.fired, (codes > 0).sum(0).float())


def test_revival_is_the_auxiliary_loss_of_the_dead(weights):
    x = drawn(ROWS, D, seed=8)
    error, dead = drawn(ROWS, D, seed=9), torch.arange(0, N, 3)
    gradients = {name: torch.zeros_like(value) for name, value in weights.parameters.items()}
    centred = x - weights.offset
    add_revival(gradients, weights, centred, screen(weights, centred).float(), error, dead)

    leaves = {name: value.clone().requires_grad_() for name, value in weights.parameters.items()}
    pre = ((x - weights.offset) @ leaves["encoder"].T + leaves["bias"])[:, dead]
    best = pre.topk(D // 2, dim=1)
    rebuilt = torch.zeros_like(pre).scatter(1, best.indices, best.values.relu()) @ leaves["decoder"][dead]
    loss = REVIVAL * (rebuilt + error).square().sum() / error.square().sum()
    slopes = torch.autograd.grad(loss, [leaves[name] for name in ("encoder", "bias", "decoder")])
    for name, slope in zip(("encoder", "bias", "decoder"), slopes, strict=True):
        assert torch.allclose(gradients[name], slope, rtol=1e-3, atol=1e-6), name


def test_a_threshold_learns_from_the_rectangle_around_it():
    """−(θ/ε) g and −(1/ε) g within half a bandwidth ε = .05 of θ, 0 outside (arXiv:2407.14435, eqs. 11 and 12)."""
    threshold = torch.tensor([0.5, 0.5, 0.5], requires_grad=True)
    pre = torch.tensor([[0.51, 0.7, 0.49]], requires_grad=True)
    codes, fires = Jump.apply(pre, threshold)
    assert codes[0].tolist() == pytest.approx([0.51, 0.7, 0.0])
    assert fires.tolist() == [[1, 1, 0]]
    (3 * codes.sum() + 2 * fires.sum()).backward()
    assert threshold.grad.tolist() == pytest.approx([-(0.5 * 3 + 2) / 0.05, 0, -(0.5 * 3 + 2) / 0.05])
    assert pre.grad.tolist() == [[3, 3, 0]]


@pytest.mark.parametrize(("directions", "d", "latents"), [(32, 64, 64), pytest.param(64, 64, 128, marks=pytest.mark.slow)])
def test_planted_directions_are_found(directions, d, latents):
    truth, x = planted(directions, d, 6000, 3, seed=1)
    for sae in train_sae(x, latents=latents, k=3, seeds=(1,), steps=1000, batch_size=512):
        assert recovered(sae.decoder, truth) >= 0.95
        assert float((sae.reconstruct(x) - x).square().sum() / (x - x.mean(0)).square().sum()) < 0.02


@pytest.mark.parametrize(
    "architecture", ["topk", "batchtopk", *(pytest.param(name, marks=pytest.mark.slow) for name in ("jumprelu", "standard"))]
)
def test_each_architecture_learns_and_fires_as_often_as_asked(architecture):
    _, x = planted(24, 32, 4000, 3, seed=2)
    x = 7 * x + drawn(32, seed=3)  # neither centred nor of unit size
    k = 6 if architecture == "standard" else 3  # L1 shrinks what it keeps, the more the fewer it keeps
    (sae,) = train_sae(x, latents=48, k=k, architecture=architecture, seeds=(0,), steps=800, batch_size=256)
    codes = sae.encode(x)
    unexplained = float((sae.reconstruct(x) - x).square().sum() / (x - x.mean(0)).square().sum())
    assert unexplained < {"standard": 0.4}.get(architecture, 0.1)
    assert unexplained == pytest.approx(sae.metadata["unexplained"], rel=0.3)
    assert float((codes > 0).sum(1).float().mean()) == pytest.approx(k, rel=0.15)
    assert torch.allclose(sae.decoder.norm(dim=1), torch.ones(48), atol=1e-6)


def test_a_fixed_l1_stays_and_fewer_fire_the_larger_it_is():
    _, x = planted(16, 24, 2000, 2, seed=3)
    asked = {"latents": 32, "k": 3, "architecture": "standard", "seeds": (0,), "steps": 300, "batch_size": 256}
    l0 = [train_sae(x, **asked, l1=l1)[0].metadata["l0"] for l1 in (0.003, 0.03, 0.3)]
    assert l0[0] > l0[1] > l0[2]


def test_side_by_side_is_as_alone():
    _, x = planted(16, 24, 2000, 2, seed=3)
    asked = {"latents": (24, 32), "k": (2, 3), "seeds": (0, 5), "steps": 30, "batch_size": 256}
    together = train_sae(x, **asked)
    assert [(sae.latents, sae.firing.k, sae.metadata["seed"]) for sae in together] == [
        (n, k, s) for n in (24, 32) for k in (2, 3) for s in (0, 5)
    ]
    (alone,) = train_sae(x, **asked | {"latents": 32, "k": 2, "seeds": (5,)})
    assert torch.equal(together[5].decoder, alone.decoder)
    assert torch.equal(together[5].w_enc, alone.w_enc)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_a_resumed_training_ends_at_the_very_weights(architecture, tmp_path, monkeypatch):
    monkeypatch.setattr(sae_checkpoint, "EVERY", 0.0)
    _, x = planted(16, 24, 1000, 2, seed=4)
    asked = {"latents": 32, "k": 3, "architecture": architecture, "seeds": (0, 1), "steps": 40, "batch_size": 128}
    whole = train_sae(x, **asked)

    def stop(done, total, figures):
        if done == 23:
            raise Stopped

    with pytest.raises(Stopped):
        train_sae(x, **asked, checkpoint=tmp_path / "sae.safetensors", progress=stop)
    seen = []
    resumed = train_sae(x, **asked, checkpoint=tmp_path / "sae.safetensors", progress=lambda done, total, figures: seen.append(done))
    assert seen == list(range(24, 41))
    for one, other in zip(whole, resumed, strict=True):
        for part in ("w_enc", "b_enc", "decoder", "b_dec"):
            assert torch.equal(getattr(one, part), getattr(other, part)), part
        assert one.metadata == other.metadata
    again = train_sae(x, **asked, checkpoint=tmp_path / "sae.safetensors", progress=lambda *_: pytest.fail("nothing is left to do"))
    assert torch.equal(again[0].decoder, whole[0].decoder)
    with pytest.raises(OutputError, match="steps 40 there, 41 asked for"):
        train_sae(x, **asked | {"steps": 41}, checkpoint=tmp_path / "sae.safetensors")
    with pytest.raises(OutputError, match="first_batch"):
        train_sae(x.flip(0), **asked, checkpoint=tmp_path / "sae.safetensors")
    (tmp_path / "sae.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(FormatError, match="cannot be read"):
        train_sae(x, **asked, checkpoint=tmp_path / "sae.safetensors")


@pytest.mark.slow
def test_rows_that_are_rebuilt_exactly_leave_finite_weights():
    """Two points, most latents dead: the auxiliary loss has nothing left to divide by."""
    x = torch.zeros(300, 8)
    x[:150, 0], x[150:, 0] = 1, -1
    for architecture in ("topk", "batchtopk"):
        (sae,) = train_sae(x, latents=16, k=2, architecture=architecture, seeds=(0,), steps=1500)
        assert sae.decoder.isfinite().all()
        assert sae.w_enc.isfinite().all()


def test_every_row_is_read_once_an_epoch_from_wherever_one_begins():
    rows = ArrayRows(torch.arange(20.0)[:, None])
    whole = [batch.flatten().tolist() for batch in rows.batches(6, seed=1, epoch=2)]
    assert len(whole) == 3
    assert len({value for batch in whole for value in batch}) == 18
    assert [batch.flatten().tolist() for batch in rows.batches(6, seed=1, epoch=2, skip=1)] == whole[1:]
    assert [batch.flatten().tolist() for batch in rows.batches(6, seed=1, epoch=3)] != whole


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"latents": 50}, NotEnoughRows, "50 latents asked of 40 rows"),
        ({"k": 0}, InputError, "k 0 asked for with 8 latents; it must be 1 to 8"),
        ({"k": 9}, InputError, "it must be 1 to 8"),
        ({"architecture": "topkk"}, UnknownName, "did you mean"),
        ({"l1": 0.1}, InputError, "l1=0.1 given for 'topk'"),
        ({"l1": 0.0, "architecture": "standard"}, InputError, "above 0"),
        ({"batch_size": 41}, InputError, "batch_size 41 asked for; it must be 1 to 40"),
        ({"steps": 0}, InputError, "steps 0 asked for"),
        ({"learning_rate": float("nan")}, InputError, "learning_rate nan"),
        ({"seeds": (-1,)}, InputError, "seed -1"),
        ({"seeds": ()}, InputError, "no autoencoder asked for"),
        ({"deltas": torch.zeros(40, 4)}, InputError, "a zero delta has no features"),
        ({"deltas": torch.zeros(40)}, InputError, r"shape \(40,\)"),
        ({"deltas": torch.full((40, 4), torch.nan)}, ActivationError, "row 0 of 40 has NaN"),
    ],
)
def test_what_cannot_be_trained_is_refused(change, error, words):
    asked = {"deltas": drawn(40, 4), "latents": 8, "k": 2, "steps": 1} | change
    with pytest.raises(error, match=words):
        train_sae(asked.pop("deltas"), **asked)
