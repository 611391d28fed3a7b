"""Quality sums, spectra and shares of features: against scikit-learn, numpy and each figure computed anew without a document."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.explained_share import explained_shares
from tunescope.dictionaries.firing import TopK
from tunescope.dictionaries.quality import EDGES, QualitySums, improvement
from tunescope.dictionaries.spectrum import Spectrum, dimensions
from tunescope.dictionaries.token_scaling import to_constant_norm
from tunescope.errors import AlignmentError, Degenerate, InputError, NotEnoughRows
from tunescope.geometry import Moments


@pytest.fixture
def case():
    """600 rows (width 10) off the origin in 12 documents of uneven length, a dictionary of 30 latents, and its codes."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy((rng.normal(size=(600, 10)) + 2.0).astype(np.float32))
    decoder = torch.from_numpy(rng.normal(size=(30, 10)).astype(np.float32) / 3)
    dictionary = Dictionary(decoder.T.clone(), torch.full((30,), -0.2), decoder, x.mean(0) + 0.1, TopK(4))
    documents = torch.from_numpy(np.sort(rng.integers(0, 12, 600)) * 7)
    return dictionary, x, documents


def sums_of(dictionary, x, documents):
    return QualitySums.of_dictionary(dictionary, zip(x.split(97), documents.split(97), strict=True))


def r2_of(x, hat):
    return r2_score(x.double().numpy(), hat.double().numpy(), multioutput="variance_weighted")


def test_r2_is_scikit_learns(case):
    dictionary, x, documents = case
    quality = sums_of(dictionary, x, documents).compute()
    hat = dictionary.reconstruct(x)
    assert quality.r2.value == pytest.approx(r2_of(x, hat), abs=1e-9)
    assert quality.fvu.value == pytest.approx(1 - r2_of(x, hat), abs=1e-9)
    centred = (hat - (hat - x).double().mean(0)).double()
    assert quality.r2_centred.value == pytest.approx(r2_of(x.double(), centred), abs=1e-9)
    assert (quality.rows, quality.documents) == (600, 12)


def test_a_mean_error_counts_in_the_one_and_not_in_the_other():
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    quality = QualitySums.of(x, x + 3.0, documents=torch.arange(200)).compute()
    assert quality.r2.value < -5
    assert quality.r2_centred.value == pytest.approx(1.0, abs=1e-6)


def test_counts_of_active_features_are_numpys(case):
    dictionary, x, documents = case
    quality = sums_of(dictionary, x, documents).compute()
    on = dictionary.encode(x).numpy() > 0
    np.testing.assert_allclose(quality.density, on.mean(0))
    assert quality.l0.value == pytest.approx(on.sum(1).mean())
    assert quality.dead_share == pytest.approx((~on.any(0)).mean())
    fires = on.mean(0)[on.any(0)]
    assert quality.histogram == tuple(np.histogram(fires, EDGES)[0])
    assert sum(quality.histogram) == on.any(0).sum()


def test_the_constant_share_is_one_for_a_constant_vector_and_small_noise():
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)).double()
    for offset in (0.0, 1.0, 10.0):
        share = QualitySums.of(x + offset, x, documents=torch.arange(500)).compute().constant_share
        rows = (x + offset).numpy()
        assert share.value == pytest.approx((rows.mean(0) ** 2).sum() / (rows**2).sum(1).mean())
        assert share.low < share.value < share.high


@pytest.mark.parametrize("figure", ["r2", "r2_centred", "fvu", "l0"])
def test_intervals_are_the_jackknife_over_documents(case, figure):
    dictionary, x, documents = case
    found = getattr(sums_of(dictionary, x, documents).compute(), figure)
    without = []
    for one in documents.unique():
        kept = documents != one
        without.append(getattr(sums_of(dictionary, x[kept], documents[kept]).compute(), figure).value)
    g = len(without)
    reach = stats.t.ppf(0.975, g - 1) * np.sqrt((g - 1) / g * ((np.array(without) - np.mean(without)) ** 2).sum())
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach), abs=1e-9)


def test_sums_obey_the_laws_of_a_summary(case):
    dictionary, x, documents = case
    parts = [sums_of(dictionary, x[rows], documents[rows]) for rows in torch.randperm(600).split(250)]
    ways = [parts[0] + parts[1] + parts[2], parts[2] + (parts[1] + parts[0]), QualitySums.merged(parts), sums_of(dictionary, x, documents)]
    for way in ways[1:]:
        for name in ("document", "rows", "x", "xx", "e", "ee", "active", "fired"):
            np.testing.assert_allclose(getattr(way, name), getattr(ways[0], name), rtol=1e-6, atol=1e-4)  # float32 products in blocks
    with pytest.raises(InputError, match="no rows given"):
        QualitySums.merged([])


def test_one_document_has_figures_and_no_interval(case):
    dictionary, x, _ = case
    quality = sums_of(dictionary, x, torch.zeros(600, dtype=torch.long)).compute()
    assert quality.r2.low is None
    assert quality.l0.high is None


def test_a_dictionary_that_scales_tokens_is_reconstructed_as_it_is_used(case):
    from dataclasses import replace

    dictionary, x, documents = case
    scaled = replace(dictionary, scaling=to_constant_norm)
    assert sums_of(scaled, x, documents).compute().r2.value == pytest.approx(r2_of(x, scaled.reconstruct(x)), abs=1e-6)


def test_the_improvement_is_in_percent_on_the_same_rows(case):
    dictionary, x, documents = case
    own, other = QualitySums.of(x, x * 0.9, documents=documents), sums_of(dictionary, x, documents)
    found = improvement(own, other)
    error = float((x - dictionary.reconstruct(x)).double().square().sum())
    assert found.value == pytest.approx(100 * (1 - float((0.1 * x).double().square().sum()) / error), rel=1e-5)
    assert found.low < found.value < found.high
    with pytest.raises(AlignmentError, match="other held-out rows|different held-out rows"):
        improvement(own, QualitySums.of(x, x, documents=documents + 1))
    with pytest.raises(Degenerate, match="leaves no error"):
        improvement(own, QualitySums.of(x, x, documents=documents))


def test_a_zero_delta_has_no_share_to_explain():
    with pytest.raises(Degenerate, match="all 5 rows are the same"):
        QualitySums.of(torch.zeros(5, 3), torch.zeros(5, 3), documents=torch.arange(5)).compute()
    with pytest.raises(AlignmentError, match="must be of the same rows"):
        QualitySums.of(torch.zeros(5, 3), torch.zeros(5, 3), documents=torch.arange(4))


@pytest.mark.parametrize(("n", "d"), [(400, 12), (9, 30)])
def test_a_spectrum_is_numpys(n, d):
    x = np.random.default_rng(0).normal(size=(n, d)) * np.linspace(3, 0.1, d) + 5
    found = Spectrum.of(x)
    expected = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1][: min(n, d)].clip(0)
    np.testing.assert_allclose(found.values, expected, atol=1e-9)
    assert found.participation_ratio == pytest.approx(expected.sum() ** 2 / (expected**2).sum())
    ratios = PCA().fit(x).explained_variance_ratio_.cumsum()
    assert (found.dimensions(0.9), found.dimensions(0.99)) == tuple(int(np.searchsorted(ratios, share) + 1) for share in (0.9, 0.99))
    np.testing.assert_allclose(found.root.T @ found.root, np.cov(x.T, bias=True), atol=1e-9)


def test_a_spectrum_of_a_stream_is_that_of_its_rows():
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    parts = [Moments.of(part, part[:, :0]) for part in x.split(70)]
    np.testing.assert_allclose(Spectrum.of_moments(sum(parts[1:], parts[0])).values, Spectrum.of(x).values, rtol=1e-9)


@pytest.mark.parametrize("rank", [2, 4])
def test_a_delta_of_an_update_of_low_rank_has_no_more_dimensions(rank):
    rng = np.random.default_rng(0)
    update = rng.normal(size=(32, rank)) @ rng.normal(size=(rank, 24))
    found = dimensions(Spectrum.of(rng.normal(size=(500, 32)) @ update), name="Δ", rank=rank)
    assert found.dimensions_99 <= rank
    assert found.against_rank == pytest.approx(found.participation_ratio / rank)
    assert 0.3 < found.against_rank <= 1


def test_a_spectrum_of_nothing_is_refused():
    with pytest.raises(Degenerate, match="a zero delta has no dimensions"):
        Spectrum.of(torch.zeros(5, 3))
    with pytest.raises(NotEnoughRows):
        Spectrum.of(torch.zeros(1, 3))
    with pytest.raises(InputError, match="share of 0"):
        Spectrum.of(torch.randn(5, 3)).dimensions(0)


def test_a_features_share_is_what_the_error_grows_by_without_it(case):
    dictionary, x, _ = case
    codes = dictionary.encode(x)
    spread = float((x - x.mean(0)).double().square().sum())
    error = float((x - dictionary.decode(codes)).double().square().sum())
    found = explained_shares(dictionary, x.split(128))
    for latent in range(0, 30, 5):
        silenced = codes.clone()
        silenced[:, latent] = 0
        grown = float((x - dictionary.decode(silenced)).double().square().sum())
        assert float(found[latent]) == pytest.approx((grown - error) / spread, abs=1e-6)
    with pytest.raises(InputError, match="no rows"):
        explained_shares(dictionary, [])
