"""Re-coding with a frozen decoder, and the verdicts read off it: against scikit-learn, scipy and deltas whose features are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from sklearn.decomposition import PCA
from sklearn.linear_model import orthogonal_mp
from torch.nn.functional import normalize

from tunescope.dictionaries import train_sae
from tunescope.dictionaries.alignment_row import NOTHING
from tunescope.dictionaries.chance_dictionaries import norm_matched_noise
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.firing import TopK
from tunescope.dictionaries.quality import QualitySums
from tunescope.dictionaries.recoding import recode
from tunescope.dictionaries.reconstruction import WAYS, reconstruct
from tunescope.dictionaries.reuse import NEW, PARTLY, REUSED, UNDECIDED, artefact, reuse
from tunescope.dictionaries.spectrum import Spectrum
from tunescope.errors import AlignmentError, InputError


def drawn(n, d, seed):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def dense(found, latents):
    return torch.zeros(len(found.latent), latents).scatter_add(1, found.latent, found.value).double().numpy()


@pytest.mark.parametrize("block", [4_000_000, 1])
@pytest.mark.parametrize(("d", "n", "k"), [(32, 128, 6), (16, 12, 5)])
def test_pursuit_of_either_sign_is_scikit_learns(monkeypatch, d, n, k, block):
    monkeypatch.setattr("tunescope.dictionaries.recoding._CELLS", block)
    monkeypatch.setattr("tunescope.dictionaries.recoding._LEAST", 16)
    atoms, x = normalize(drawn(n, d, 0), dim=1), drawn(50, d, 1)
    expected = orthogonal_mp(atoms.double().numpy().T, x.double().numpy().T, n_nonzero_coefs=k).T
    found = recode(x, 3 * atoms, active=k, nonnegative=False)
    np.testing.assert_allclose(dense(found, n), expected, atol=1e-5)  # float32 correlations
    np.testing.assert_allclose(found.reconstruction, expected @ atoms.double().numpy(), atol=1e-5)
    assert found.l0 == k


@pytest.mark.parametrize(("d", "n"), [(12, 30), (20, 15)])
def test_non_negative_least_squares_is_scipys(d, n):
    atoms, x = normalize(drawn(n, d, 0), dim=1), drawn(40, d, 1)
    expected = np.stack([nnls(atoms.double().numpy().T, row)[0] for row in x.double().numpy()])
    found = recode(x, atoms, active=None)
    np.testing.assert_allclose(found.reconstruction, expected @ atoms.double().numpy(), atol=2e-5)
    np.testing.assert_allclose(dense(found, n), expected, atol=2e-3)  # float32, and the coefficients of nearly dependent features


@pytest.mark.parametrize("k", [1, 4, 8])
def test_a_non_negative_pursuit_is_the_best_on_the_features_it_chose(k):
    atoms, x = normalize(drawn(60, 16, 0), dim=1), drawn(80, 16, 1)
    found = recode(x, atoms, active=k)
    assert float(found.value.min()) >= 0
    assert int((found.value != 0).sum(1).max()) <= k
    left = (x - found.reconstruction).double().square().sum(1)
    for row in range(0, 80, 9):
        chosen = atoms[found.latent[row][found.value[row] > 0]].double().numpy()
        assert float(left[row]) == pytest.approx(nnls(chosen.T, x[row].double().numpy())[1] ** 2, abs=1e-4)


def test_more_features_never_leave_more():
    atoms, x = drawn(60, 16, 0), drawn(80, 16, 1)
    left = torch.stack([(x - recode(x, atoms, active=k).reconstruction).square().sum(1) for k in (1, 2, 4, 8, 16)])
    assert float((left[1:] - left[:-1]).max()) < 1e-4


@pytest.mark.parametrize("nonnegative", [True, False])
def test_sparse_codes_of_known_features_are_found_again(nonnegative):
    # orthonormal features: any pursuit is exact
    atoms = torch.linalg.qr(drawn(24, 24, 0)).Q
    rng = np.random.default_rng(1)
    code = torch.from_numpy((rng.random((100, 24)) * (rng.random((100, 24)) < 0.2)).astype(np.float32))
    offset = torch.arange(24.0) / 24
    found = recode(code @ atoms + offset, atoms, active=15, nonnegative=nonnegative, offset=offset)
    np.testing.assert_allclose(dense(found, 24), code, atol=1e-4)
    assert found.l0 == pytest.approx(float((code != 0).sum(1).double().mean()), abs=0.05)  # features below 1e-5 of a row are left out


def test_two_features_that_are_the_same_are_one():
    atoms = normalize(drawn(1, 8, 0), dim=1).repeat(5, 1)
    found = recode(atoms[:2] * 3, atoms, active=3)
    np.testing.assert_allclose(found.reconstruction, atoms[:2] * 3, atol=1e-5)
    assert torch.isfinite(found.value).all()


def test_a_row_of_zeros_needs_no_feature():
    assert recode(torch.zeros(3, 8), drawn(5, 8, 0), active=2).l0 == 0


def test_what_cannot_be_recoded_is_said():
    with pytest.raises(InputError, match="9 active features asked of a dictionary of 5"):
        recode(drawn(3, 8, 0), drawn(5, 8, 0), active=9)
    with pytest.raises(InputError, match="name a number"):
        recode(drawn(3, 8, 0), drawn(5, 8, 0), active=None, nonnegative=False)
    with pytest.raises(AlignmentError, match="width 8 compared with one of width 7"):
        recode(drawn(3, 8, 0), drawn(5, 7, 0), active=1)


D, K, SCALE = 48, 4, 0.1


def rows_of(features, n, seed, *, k=K):
    """n rows, each of k features of uneven strength."""
    rng = np.random.default_rng(seed)
    code = np.zeros((n, len(features)), dtype=np.float32)
    for row in code:
        row[rng.choice(len(features), k, replace=False)] = rng.uniform(0.5, 1.5, size=k)
    return torch.from_numpy(code) @ features


def autoencoder(features, centre, *, k=K, noise=0.0, seed=0):
    """What training on rows of these features gives, features known to `noise`."""
    known = normalize(features + noise * normalize(drawn(*features.shape, seed), dim=1), dim=1)
    return Dictionary(known.T.contiguous(), torch.zeros(len(known)), known, centre, TopK(k))


def world(made_of, *, seed=0):
    """A base dictionary of activations far off the origin, and deltas, a tenth as large, of its own features, of others, or of both."""
    base = normalize(drawn(64, D, 1), dim=1)
    others = normalize(drawn(32, D, 2), dim=1)
    activations = rows_of(base, 2000, 3) + 2 * normalize(drawn(1, D, 4), dim=1)
    features = {"base": base[:32], "others": others, "both": torch.cat([base[:16], others[:16]])}[made_of]
    train, held = (SCALE * rows_of(features, n, seed + i, k=3) for i, n in ((5, 2000), (6, 400)))
    return {
        "x": held,
        "documents": torch.arange(400) // 20,
        "adapter": autoencoder(features, train.mean(0) * 0, k=3, noise=0.05),
        "pretrained": autoencoder(base, activations.mean(0)),
        "delta": Spectrum.of(train),
        "base": Spectrum.of(activations),
    }


@pytest.mark.parametrize(("made_of", "verdict"), [("base", REUSED), ("others", NEW), ("both", PARTLY)])
def test_the_verdict_is_what_the_deltas_are_made_of(made_of, verdict):
    found = reconstruct(**world(made_of))
    assert found.active == 3
    assert found.reuse.verdict == verdict, found.reuse
    assert found.reuse.share.low < found.reuse.share.value < found.reuse.share.high
    row = next(row for row in found.rows() if row.comparison == "reused_share")
    assert row.verdict == verdict
    assert "re-coded" in row.note


def test_the_artefact_is_flagged_and_only_where_it_is_one():
    found = reconstruct(**world("base"))
    assert found.fvu("pretrained").value > 50
    assert found.fvu("pretrained_recoded").value < 0.05
    assert found.improvement["applied"].value > 99
    assert found.improvement["recoded"].value < 0
    assert "no evidence of new features" in found.artefact.words
    assert reconstruct(**world("others")).artefact is None


def test_the_published_case_is_flagged():
    flag = artefact(99, 0.01, 0.34, 0.5)
    assert "leaves 99 of the variance unexplained and the adapter's .34, an improvement of 99.7%" in flag.words
    assert "leave .01" in flag.words
    assert artefact(0.5, 0.4, 0.3, 0.5) is None, "an honest advantage"
    assert artefact(0.2, 0.1, 0.3, 0.5) is None, "no advantage"
    assert artefact(5.0, 0.0, 0.3, 0.5) is not None, "nothing left at all"
    assert artefact(0.82, 0.74, 0.73, 0.8) is None, "neither way of reading is good"
    assert artefact(99, 0.02, 0.001, 0.5) is not None, "a better adapter's dictionary does not excuse the bad figure"
    assert artefact(190, 0.572, 0.647, 0.583) is None, "re-coded, the features are no better than chance"


def test_each_way_has_its_row_with_floor_and_ceiling():
    found = reconstruct(**world("base"))
    rows = {row.sides: row for row in found.rows() if row.comparison == "unexplained_share"}
    assert list(rows) == list(WAYS.values())
    assert rows[WAYS["mean_only"]].value == pytest.approx(1, abs=0.05)
    train, x = (SCALE * rows_of(normalize(drawn(64, D, 1), dim=1)[:32], n, seed, k=3).double().numpy() for n, seed in ((2000, 5), (400, 6)))
    pca = PCA(3).fit(train)
    left = x - pca.inverse_transform(pca.transform(x))
    assert rows[WAYS["pca"]].value == pytest.approx((left**2).sum() / ((x - x.mean(0)) ** 2).sum(), abs=1e-4)
    assert {row.floor for row in rows.values()} == {found.fvu("random_recoded").value}
    assert {row.ceiling for row in rows.values()} == {found.fvu("adapter_recoded").value}
    assert rows[WAYS["pretrained"]].verdict == NOTHING


def test_isotropic_noise_is_nothing_above_its_floor():
    case = world("base")
    train, held = drawn(2000, D, 8), drawn(400, D, 9)
    case |= {"x": held, "delta": Spectrum.of(train), "adapter": autoencoder(normalize(drawn(32, D, 10), dim=1), torch.zeros(D), k=3)}
    found = reconstruct(**case)
    assert found.reuse.verdict == NOTHING
    assert "random directions drawn like Δ" in found.reuse.words
    explained = 1 - found.fvu("adapter").value
    assert reconstruct(**case, noise_r2=explained + 0.01).reuse.verdict == NOTHING


def shares(**values):
    return {name: (value, np.full(5, value) + np.linspace(-1e-3, 1e-3, 5)) for name, value in values.items()}


@pytest.mark.parametrize(
    ("adapter", "pretrained", "random", "noise", "verdict"),
    [
        (0.1, 0.1, 0.9, 0.2, REUSED),
        (0.1, 0.05, 0.9, 0.2, REUSED),
        (0.1, 0.27, 0.9, 0.2, PARTLY),  # 79%
        (0.1, 0.75, 0.9, 0.2, NEW),  # 19%
        (0.1, 1.2, 0.9, 0.2, NEW),
        (0.1, 0.1, 0.13, 0.2, UNDECIDED),  # random directions do as well
        (0.78, 0.9, 0.95, 0.2, NOTHING),  # noise leaves .80
        (0.0, 0.0, 0.0, None, UNDECIDED),  # fewer dimensions than active features: everything fits
        (0.85, 0.9, 0.95, None, NOTHING),
    ],
)
def test_the_rule(adapter, pretrained, random, noise, verdict):
    fvu = shares(adapter=adapter, adapter_recoded=adapter, pretrained_recoded=pretrained, random_recoded=random)
    assert reuse(fvu | shares(random_in_delta_recoded=min(random, 0.88)), noise_r2=noise).verdict == verdict


def test_an_interval_from_new_to_reused_decides_nothing():
    fvu = shares(adapter=0.1, adapter_recoded=0.1, pretrained_recoded=0.5, random_recoded=0.9, random_in_delta_recoded=0.9)
    fvu["pretrained_recoded"] = (0.5, np.array([0.1, 0.9, 0.3, 0.7, 0.5]))
    assert reuse(fvu).verdict == UNDECIDED


def test_an_r2_that_documents_do_not_tell_from_noise_decides_nothing():
    fvu = shares(adapter=0.7, adapter_recoded=0.1, pretrained_recoded=0.8, random_recoded=0.9, random_in_delta_recoded=0.9)
    assert reuse(fvu, noise_r2=0.1).verdict == NEW
    fvu["adapter"] = (0.7, np.array([0.4, 1.0, 0.6, 0.8, 0.7]))  # R² .3, from −.26 to .86
    found = reuse(fvu, noise_r2=0.1)
    assert found.verdict == UNDECIDED
    assert "too few documents" in found.words
    assert reuse(fvu).verdict == NEW  # nothing was trained on noise to compare with


@pytest.mark.slow
@pytest.mark.parametrize(("made_of", "verdict"), [("base", REUSED), ("others", NEW), ("noise", NOTHING)])
def test_trained_autoencoders_give_the_verdict_too(made_of, verdict):
    case = world("base" if made_of == "noise" else made_of)
    features = normalize(drawn(64, D, 1), dim=1)[:32] if made_of == "base" else normalize(drawn(32, D, 2), dim=1)
    train = drawn(6000, D, 8) if made_of == "noise" else SCALE * rows_of(features, 6000, 5, k=3)
    if made_of == "noise":
        case["x"] = drawn(400, D, 9)
    noise = norm_matched_noise(train, mean=train.double().mean(0))
    adapter, of_noise = (train_sae(rows, latents=64, k=3, seeds=(0,), steps=1500, learning_rate=3e-3)[0] for rows in (train, noise))
    r2 = QualitySums.of(noise[:400], of_noise.reconstruct(noise[:400]), documents=torch.arange(400)).compute().r2.value
    found = reconstruct(**case | {"adapter": adapter, "delta": Spectrum.of(train)}, noise_r2=r2)
    assert found.reuse.verdict == verdict
    assert (found.artefact is not None) == (made_of == "base")
