"""Planning: what `tunescope power` says of a stated effect, against the normal formula and the numbers it was given."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from example_payload import example
from test_cli import refused, run
from tunescope.errors import InputError
from tunescope.outcome import Outcome, plan, plans_from_result
from tunescope.stats import paired

Z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)


def row(**changes) -> dict:
    """An outcome as comparison.json has it, whose paired sd and detectable are those of 300 planted differences."""
    quantiles = stats.norm.ppf((np.arange(300) + 0.5) / 300)
    found = paired(np.zeros(300), quantiles / quantiles.std(ddof=1) * 0.25, margin=0.01)
    return Outcome.of(found, kind="retrieval", name="scifact", metric="nDCG@10", items="queries", main=True).row() | changes


@pytest.fixture
def saved(tmp_path):
    """Saves the example comparison with these outcomes; its folder."""

    def save(*outcomes: dict, **changes):
        (tmp_path / "comparison.json").write_text(json.dumps(example() | {"outcomes": list(outcomes)} | changes))
        return tmp_path

    return save


def test_assumptions_are_planned_by_the_formula_of_the_paired_t_test():
    found = plan(0.02, sd=0.25, n=300)
    assert found.needed == pytest.approx((Z * 0.25 / 0.02) ** 2 + 2, abs=1)  # the normal formula and its two items for the t
    assert found.detectable == pytest.approx(Z * 0.25 / math.sqrt(300), rel=0.005)
    assert plan(-0.02, sd=0.25) == plan(0.02, sd=0.25)
    assert plan(0.02, sd=0.25).detectable is None


def test_a_result_is_planned_from_its_main_outcomes():
    found = plans_from_result(example() | {"outcomes": [row(), row(metric="recall@10", main=False)]}, 0.01)
    (only,) = found.outcomes
    assert (only.name, only.metric, only.items, only.n) == ("scifact", "nDCG@10", "queries", 300)
    assert only.sd == pytest.approx(0.25)
    assert only.needed == pytest.approx((Z * 25) ** 2, abs=3)


def test_clusters_weigh_in_through_what_the_result_detects():
    """Items that come in tens alike detect √10 less, and ten times as many are needed."""
    plain, clustered = (
        plans_from_result(example() | {"outcomes": [row(detectable=d)]}, 0.01).outcomes[0]
        for d in (row()["detectable"], row()["detectable"] * math.sqrt(10))
    )
    assert clustered.needed == pytest.approx(10 * plain.needed, rel=0.01)
    assert clustered.detectable == pytest.approx(math.sqrt(10) * plain.detectable)


def test_intervals_of_the_geometry_shrink_with_the_root_of_the_texts():
    payload = example()
    widest = max((place["measures"]["cka"]["high"] - place["measures"]["cka"]["low"]) / 2
                 for place in [*payload["layers"], *payload["sites"].values()])  # fmt: skip
    found = plans_from_result(payload, widest / 3).texts
    assert (found.half_width, found.n) == (widest, payload["data"]["n"])
    assert found.needed == 9 * found.n


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sd": 0.0, "detectable": None}, "no item differs, so their spread is not known"),
        ({"sd": None, "detectable": None}, "its spread was not measured"),
        ({"sd": None, "detectable": None, "n": 1, "reason": "one query is judged"}, "one query is judged"),
    ],
)
def test_an_outcome_without_a_spread_has_no_plan(changes, reason):
    (only,) = plans_from_result(example() | {"outcomes": [row(**changes)]}, 0.01).outcomes
    assert (only.needed, only.detectable, only.reason) == (None, None, reason)


def test_nothing_to_plan_from_is_refused():
    with pytest.raises(InputError, match="no outcomes and its geometry no intervals"):
        plans_from_result({"outcomes": [], "layers": [], "sites": {}}, 0.01)


def test_the_command_reads_a_result(saved):
    code, printed, _ = run("power", saved(row()), "--effect", ".01")
    assert code == 0
    lines = printed.splitlines()
    assert lines[0].startswith("scifact, nDCG@10: a difference of .010 needs 4,9")
    assert lines[0].endswith("queries (80% power, two-sided 5% level; sd of the differences .250).")
    assert lines[1] == "  The 300 in hand detect .041 or more."
    assert lines[2].startswith("Linear CKA: ±.010 at final")


def test_the_command_takes_assumptions_and_prints_json():
    code, printed, _ = run("power", "--effect", ".02", "--sd", ".25", "--n", "300", "--json")
    found = json.loads(printed)
    assert code == 0
    assert found["texts"] is None
    assert found["outcomes"][0]["needed"] == plan(0.02, sd=0.25).needed
    assert run("power", "--effect", ".02", "--sd", ".25", "--power", ".9")[1].startswith("Paired items: a difference of .020 needs 1,6")


def test_geometry_alone_is_said(saved):
    code, printed, _ = run("power", saved(), "--effect", ".01")
    assert code == 0
    assert printed.startswith("Only geometry was measured here, nothing about function")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--effect", "0", "--sd", "1"], "effect 0 asked for"),
        (["--effect", ".1", "--sd", "-1"], "sd -1 given"),
        (["--effect", ".1", "--sd", "1", "--power", "80"], "power 80 asked for"),
        (["--effect", ".1", "--sd", "1", "--n", "1"], "n 1 given"),
        (["--effect", ".1", "--sd", "1", "--n", "0"], "n 0 given"),
        (["--sd", "1"], "no effect to plan for"),
        (["--effect", ".1"], "give either the folder of a comparison or --sd"),
        (["RESULT", "--effect", ".1", "--sd", "1"], "give either the folder of a comparison or --sd"),
        (["RESULT", "--effect", ".1", "--n", "9"], "--n goes with --sd"),
        (["RESULT", "--effect", "0"], "effect 0 asked for"),
        (["nowhere", "--effect", ".1"], "no comparison.json in 'nowhere'"),
    ],
)
def test_refusals_are_one_line(saved, monkeypatch, capsys, arguments, message):
    folder = saved(row())
    assert message in refused(monkeypatch, capsys, "power", *(folder if part == "RESULT" else part for part in arguments))
