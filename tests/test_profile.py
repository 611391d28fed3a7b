"""The depth curve: numbers of closed-form curves, and the published tables of the two studies."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tunescope.geometry.profile import REWRITTEN, STATUS_RULE, UNTOUCHED, Locality, locality, status, width

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the published tables are not beside this checkout")

NOMINAL = [0.10, 0.25, 0.40, 0.60, 0.75, 0.90, 1.00]


def published(name: str) -> list[dict[str, str]]:
    with open(REFERENCE / name, encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- locality


def test_a_line_has_its_slope():
    found = locality(NOMINAL, [0.3 * depth + 0.2 for depth in NOMINAL])
    assert found.slope == pytest.approx(0.3, abs=1e-12)
    assert found.rank_slope == pytest.approx(1, abs=1e-12)
    assert found.peak_depth == 1.0
    assert found.monotone


def test_a_falling_line_has_a_negative_slope():
    found = locality(NOMINAL, [1 - depth for depth in NOMINAL])
    assert found.slope == pytest.approx(-1, abs=1e-12)
    assert (found.rank_slope, found.peak_depth, found.monotone) == (pytest.approx(-1), 0.10, False)


def test_a_hump_has_no_slope_but_a_peak():
    """Up and down again: both slopes are 0 by symmetry, and only the peak and `monotone` tell it from a flat curve."""
    found = locality([0.2, 0.4, 0.6, 0.8, 1.0], [0.1, 0.2, 0.3, 0.2, 0.1])
    assert found.slope == pytest.approx(0, abs=1e-12)
    assert found.rank_slope == pytest.approx(0, abs=1e-12)
    assert found.peak_depth == 0.6
    assert not found.monotone


def test_slopes_are_least_squares_and_spearman():
    changes = np.random.default_rng(0).normal(size=7).tolist()
    found = locality(NOMINAL, changes)
    assert found.slope == pytest.approx(np.polyfit(NOMINAL, changes, 1)[0], rel=1e-9)
    assert found.rank_slope == pytest.approx(stats.spearmanr(NOMINAL, changes).statistic, rel=1e-9)


def test_a_flat_curve_has_slope_zero_and_nothing_else():
    assert locality(NOMINAL, [0.0] * 7) == Locality(0.0, None, None, True)


def test_a_plateau_is_monotone():
    assert locality([0.25, 0.5, 0.75, 1.0], [0.1, 0.1, 0.4, 0.4]).monotone


def test_one_block_or_none_has_no_slope():
    assert locality([1.0], [0.4]) == Locality(None, None, 1.0, True)
    assert locality([], []) == Locality(None, None, None, True)


GRADIENTS = {"MLM": 0.265, "NSP": 1.163, "SpanDenoise": 0.233, "SimCSE": 0.546, "BarlowTwins": 0.638}


@needs_reference
@pytest.mark.parametrize(("objective", "slope"), GRADIENTS.items(), ids=GRADIENTS)
def test_the_published_locality_gradients(objective, slope):
    asked = {"model": "BERT-base", "condition": "Std", "metric": "procrustes", "objective": objective}
    curve = [row for row in published("depth_profiles.csv") if asked.items() <= row.items()]
    found = locality([float(row["depth"]) for row in curve], [float(row["value"]) for row in curve])
    assert found.slope == pytest.approx(slope, abs=5e-4)  # published to three digits


# ---------------------------------------------------------------- width


def test_shares_sum_to_one():
    shares, reason = width([1.0, 1.0, 2.0])
    assert shares == [0.25, 0.25, 0.5]
    assert reason is None


def test_no_change_has_no_shares():
    assert width([0.0, 0.0]) == (None, "no block changed, so there are no shares")


@needs_reference
def test_the_published_width_table():
    """Each run's 1 − CKA to sum 1, then the mean over the runs of a model (equal-step runs apart): the table, to its .002."""
    runs = defaultdict(dict)
    for row in published("depth_profiles.csv"):
        if row["metric"] == "cka_change" and row["condition"] != "EqStep":
            runs[row["model"], row["objective"], row["condition"]][row["depth"]] = float(row["value"])
    shares = defaultdict(list)
    for (model, _, _), curve in runs.items():
        for depth, share in zip(curve, width(list(curve.values()))[0], strict=True):
            shares[model, depth].append(share)
    table = published("width_profiles.csv")
    assert len(table) == 63
    for row in table:
        assert np.mean(shares[row["model"], row["depth"]]) == pytest.approx(float(row["share"]), abs=0.0021), row


# ---------------------------------------------------------------- status


@needs_reference
@pytest.mark.parametrize("layer", range(7))
def test_the_published_words_for_distilberts_layers(layer):
    row = published("distilbert_imdb.csv")[layer]
    assert status(float(row["cka"]), noise=None, saturated=False) == row["status"]


@pytest.mark.parametrize(
    ("cka", "noise", "saturated", "expected"),
    [
        (1.0, None, False, "untouched"),
        (0.99, None, False, "untouched"),
        (0.9899, None, False, "refined"),
        (0.87, None, False, "refined"),
        (0.8699, None, False, "rewritten"),
        (0.98, 0.03, False, "untouched"),  # the same model twice differs by more
        (0.98, 0.01, False, "refined"),
        (0.80, 0.30, False, "untouched"),
        (0.95, 0.01, True, "rewritten"),  # no closer than shuffled rows, whatever the cut-off says
        (0.95, 0.10, True, "untouched"),
    ],
)
def test_a_word_comes_from_cut_offs_noise_and_floor(cka, noise, saturated, expected):
    assert status(cka, noise=noise, saturated=saturated) == expected


def test_the_rule_states_its_own_cut_offs():
    assert f"{UNTOUCHED:.2f}" in STATUS_RULE
    assert f"{REWRITTEN:.2f}" in STATUS_RULE
