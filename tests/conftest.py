"""Every test runs offline and on one thread, and the shapes in the signatures of `tunescope.geometry` are checked as its functions run."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)
# Before anything imports it: a wrong shape is then an error. The tower lets an int stand for a float, as typing does.
install_import_hook("tunescope.geometry", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


@pytest.fixture
def related():
    """A maker of two (n, d) and (n, e) float64 arrays of related rows: off the origin, uneven spectrum, never degenerate."""

    def make(n=60, d=12, e=None, *, seed=0, noise=0.7):
        rng = np.random.default_rng(seed)
        e = d if e is None else e
        x = rng.normal(size=(n, d)) * np.linspace(2, 0.5, d) + rng.normal(size=d)
        shared = np.eye(d, e) if d == e else rng.normal(size=(d, e)) / np.sqrt(d)
        y = x @ shared + noise * rng.normal(size=(n, e)) * np.linspace(1.5, 0.5, e)
        return torch.from_numpy(x), torch.from_numpy(y)

    return make


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A Chromium for the tests of one file."""
    from chromium import started

    yield from started(tmp_path_factory.mktemp("profile"))
