"""Activations of two dictionaries on the same tokens: against the definition of the unbiased HSIC, closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from tunescope.dictionaries import sparse_codes
from tunescope.dictionaries.alignment_row import ABOVE, NOTHING
from tunescope.dictionaries.coactivity import activation_cka, code_cka
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.firing import TopK
from tunescope.dictionaries.firing_overlap import firing_overlap
from tunescope.dictionaries.sparse_codes import codes_of
from tunescope.errors import AlignmentError, Degenerate, NotEnoughRows


def codes(n, latents, k, seed):
    rng = np.random.default_rng(seed)
    out = np.zeros((n, latents))
    for row in out:
        row[rng.choice(latents, k, replace=False)] = rng.exponential(size=k)
    return out


def song(x, y):
    """The unbiased HSIC of Gram matrices, as Song et al. write it (up to n(n − 3), which cancels)."""
    k, h = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(h, 0)
    n = len(k)
    return np.trace(k @ h) + k.sum() * h.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * k.sum(0) @ h.sum(0)


def debiased(x, y):
    return song(x, y) / np.sqrt(song(x, x) * song(y, y))


@pytest.mark.parametrize("products", [50_000_000, 400])
def test_cka_of_sparse_codes_is_that_of_the_definition(monkeypatch, products):
    monkeypatch.setattr(sparse_codes, "_PRODUCTS", products)
    x, y = codes(120, 40, 5, 0), codes(120, 30, 4, 1)
    y[:, :20] += x[:, :20]
    found = code_cka(x, csr_array(y))
    assert found.debiased.value == pytest.approx(debiased(x, y), abs=1e-9)
    centred = [side - side.mean(0) for side in (x, y)]
    cross = [np.linalg.norm(a.T @ b) ** 2 for a, b in ((centred[0], centred[1]), (centred[0], centred[0]), (centred[1], centred[1]))]
    assert found.biased == pytest.approx(cross[0] / np.sqrt(cross[1] * cross[2]), abs=1e-9)


def test_the_interval_leaves_groups_of_documents_out():
    x, y = codes(90, 20, 4, 0), codes(90, 20, 4, 0) + codes(90, 20, 2, 3)
    documents = torch.arange(9).repeat_interleave(10)  # nine documents: a group each
    found = code_cka(x, y, documents=documents).debiased
    without = np.array([debiased(x[documents.numpy() != one], y[documents.numpy() != one]) for one in range(9)])
    se = np.sqrt(8 / 9 * ((without - without.mean()) ** 2).sum())
    assert (found.value - found.low) / se == pytest.approx(2.306, abs=1e-3)  # t, 8 degrees of freedom


def test_shuffled_tokens_spread_as_the_closed_form_says():
    x, y = codes(60, 25, 4, 0), codes(60, 25, 4, 1)
    rng = np.random.default_rng(0)
    one = code_cka(x, y)
    draws = [debiased(x, y[rng.permutation(60)]) for _ in range(400)]
    assert np.mean(draws) == pytest.approx(0, abs=4 * one.debiased_sd / 20)
    assert np.std(draws) == pytest.approx(one.debiased_sd, rel=0.15)  # 400 draws: ±3.5% one standard error
    grams = [(side - side.mean(0)) @ (side - side.mean(0)).T for side in (x, y)]
    norm = np.linalg.norm(grams[0]) * np.linalg.norm(grams[1])
    orders = [rng.permutation(60) for _ in range(400)]
    biased = [(grams[0] * grams[1][order][:, order]).sum() / norm for order in orders]
    assert np.mean(biased) == pytest.approx(one.biased_floor[0], abs=4 * one.biased_floor[1] / 20)
    assert np.std(biased) == pytest.approx(one.biased_floor[1], rel=0.15)


def test_independent_data_look_alike_to_the_biased_cka_only():
    rng = np.random.default_rng(0)
    found = activation_cka(*(torch.from_numpy(rng.normal(size=(512, 3584)).astype(np.float32)) for _ in range(2)))
    assert found.biased == pytest.approx(0.875, abs=0.002)
    assert abs(found.debiased.value) < 4 * found.debiased_sd
    assert [row.verdict for row in found.rows()] == [NOTHING, NOTHING]


def test_the_same_features_in_another_order_are_one():
    x = codes(200, 50, 4, 0)
    found = code_cka(x, x[:, np.random.default_rng(0).permutation(50)])
    assert found.debiased.value == pytest.approx(1.0)
    assert found.rows("adapter with base")[0].verdict == ABOVE


def brute_overlap(x, y):
    on_x, on_y = x > 0, y > 0
    both = on_x.T.astype(int) @ on_y.astype(int)
    either = on_x.sum(0)[:, None] + on_y.sum(0)[None] - both
    return np.divide(both, either, out=np.zeros(both.shape), where=either > 0)


@pytest.mark.parametrize("products", [50_000_000, 300])
def test_firing_overlap_is_brute_force(monkeypatch, products):
    monkeypatch.setattr(sparse_codes, "_PRODUCTS", products)
    x, y = codes(150, 40, 3, 0), codes(150, 30, 3, 1)
    y[:, :10] = x[:, 5:15]
    y[:, 29] = 0  # a dead one
    table = brute_overlap(x, y)
    pairs = torch.stack([torch.arange(5, 15), torch.arange(10)], dim=1)
    found = firing_overlap(x, torch.from_numpy(y), pairs=pairs)
    assert found.nearest_a == pytest.approx(table.max(1).mean())
    assert found.nearest_b == pytest.approx(table.max(0)[:29].mean())
    assert found.pairs == pytest.approx(1.0)
    np.testing.assert_array_equal(found.partner[5:15], np.arange(10))
    np.testing.assert_allclose(found.overlap, table.max(1))
    assert found.live == (40, 29)
    assert [row.verdict for row in found.rows()] == [ABOVE, ABOVE, ABOVE]
    assert found.floor_a[0] > 0.05, "rare features meet by luck"


def test_unrelated_firing_is_not_above_shuffled_tokens():
    found = firing_overlap(codes(400, 60, 4, 0), codes(400, 60, 4, 1), draws=5)
    assert {row.verdict for row in found.rows()} == {NOTHING}


def test_codes_of_batches_are_the_dictionarys():
    rng = np.random.default_rng(0)
    decoder = torch.from_numpy(rng.normal(size=(20, 6)).astype(np.float32))
    dictionary = Dictionary(decoder.T.clone(), torch.zeros(20), decoder, torch.zeros(6), TopK(3))
    x = torch.from_numpy(rng.normal(size=(50, 6)).astype(np.float32))
    found = codes_of(dictionary, x.split(16))
    np.testing.assert_allclose(found.toarray(), dictionary.encode(x), atol=1e-6)
    assert found.nnz <= 150


def test_what_cannot_be_compared_is_said():
    with pytest.raises(AlignmentError, match="5 tokens and b on 6"):
        code_cka(codes(5, 4, 2, 0), codes(6, 4, 2, 0))
    with pytest.raises(NotEnoughRows, match="at least 5 tokens, got 4"):
        code_cka(codes(4, 4, 2, 0), codes(4, 4, 2, 0))
    with pytest.raises(Degenerate, match="does any of its features fire"):
        code_cka(codes(9, 4, 2, 0), np.zeros((9, 4)))
    with pytest.raises(Degenerate, match="no feature of b fires on any of 9 tokens"):
        firing_overlap(codes(9, 4, 2, 0), np.zeros((9, 4)))
