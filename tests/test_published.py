"""The published axis: which blocks are read, the printed slopes and widths through the code of a user's run, and the place among them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tunescope import reference
from tunescope.comparison.published import published
from tunescope.errors import InputError, UnknownName
from tunescope.geometry.published import NOMINAL_DEPTHS, at_nominal_depths, blocks_read, mean_shares, published_profile

# Printed in the depth study for BERT-base under the standard rule, Procrustes.
BERT_SLOPES = {"MLM": 0.265, "NSP": 1.163, "SpanDenoise": 0.233, "SimCSE": 0.546, "BarlowTwins": 0.638}
BLOCKS = {"CodeGen-350M": 20, "BERT-large": 24, "GPT-2 medium": 24, "Mamba-130m": 24}  # the others have 12
BERT, LARGE = "BERT-base", "BERT-large"
LINE = [0.1, 0.2, 0.3]


def of_blocks(run: reference.PublishedRun) -> list[float]:
    """A published curve as a model's: what was printed at the blocks it was read at, in between a value that must not be read."""
    blocks = BLOCKS.get(run.model, 12)
    curve = [99.0] * blocks
    for depth, change in zip(run.depths, run.changes, strict=True):
        curve[round(depth * blocks) - 1] = change
    return curve


def rows(*, embeddings: float | None = 0.0, **curves: list[float | None]) -> list[dict]:
    """Layer rows of a comparison whose blocks changed so under each measure."""
    made = list(zip(*curves.values(), strict=True))
    cells = [dict(zip(curves, ({"change": change} for change in changes), strict=True)) for changes in made]
    first = [{"index": 0, "measures": {name: {"change": embeddings} for name in curves}}]
    return first + [{"index": index, "measures": cell} for index, cell in enumerate(cells, start=1)]


def run_of(measure: str, model: str, objective: str, condition: str = "Std") -> reference.PublishedRun:
    (found,) = [run for run in reference.runs(measure) if (run.model, run.objective, run.condition) == (model, objective, condition)]
    return found


def test_the_tables_ship_as_printed():
    assert {name: len(reference.table(name)) for name in reference.TABLES} == {
        "anchor_robustness": 7, "bert_mlm_trajectory": 7, "depth_profiles": 2940, "distilbert_imdb": 7, "drift_conditions": 9,
        "objective_distance": 38, "width_profiles": 63,
    }  # fmt: skip
    assert len(reference.runs("procrustes")) == len(reference.runs("cka")) == 210
    assert {run.depths for run in reference.runs("procrustes")} == {NOMINAL_DEPTHS}
    assert {run.condition for run in reference.runs("cka")} == set(reference.CONDITIONS)
    assert sum(run.condition == reference.EQUAL_STEP for run in reference.runs("cka")) == 20
    table = reference.table("depth_profiles")
    assert [run.changes[3] for run in reference.runs("procrustes")] == table.query("metric == 'procrustes' and depth == .6").value.tolist()


@pytest.mark.parametrize("ask", [reference.table, reference.runs])
def test_an_unknown_table_is_refused_by_name(ask):
    with pytest.raises(UnknownName, match="unknown published (table|measure) 'width_profile'"):
        ask("width_profile")


@pytest.mark.parametrize("blocks", [12, 16, 20, 22, 24, 28, 32, 33, 36, 40, 48, 80])
def test_a_block_read_is_the_nearest_to_its_depth(blocks):
    """Python's round agrees wherever there is no half; the published models, of 12, 20 and 24 blocks, have none."""
    read = blocks_read(blocks)
    assert all(abs(index - depth * blocks) <= 0.5 + 1e-9 for index, depth in zip(read, NOMINAL_DEPTHS, strict=True))
    whole = [depth * blocks for depth in NOMINAL_DEPTHS]
    assert [i for i, w in zip(read, whole, strict=True) if abs(w % 1 - 0.5) > 1e-9] == [round(w) for w in whole if abs(w % 1 - 0.5) > 1e-9]
    assert blocks not in (12, 20, 24) or read == [round(w) for w in whole]


def test_a_half_goes_towards_the_output():
    assert blocks_read(18)[1] == 5, ".25 of 18 is 4.5"
    assert blocks_read(14)[1] == 4, ".25 of 14 is 3.5"


@pytest.mark.parametrize("blocks", range(2, 12))
def test_a_straight_line_stays_one_below_twelve_blocks(blocks):
    """Change 3·depth + .2 at every place, embeddings too: the seven values are the line's, its slope is 3."""
    line = [3 * index / blocks + 0.2 for index in range(blocks + 1)]
    found = published_profile(line[1:], embeddings=line[0])
    assert found.values == pytest.approx([3 * depth + 0.2 for depth in NOMINAL_DEPTHS], abs=1e-12)
    assert found.slope == pytest.approx(3, abs=1e-12)


def test_interpolation_lies_between_neighbouring_blocks():
    """Six blocks changed by i²: depth .40 is 2.4 blocks in, so 4 + .4·(9 − 4); .10 is .6 of the way from the embeddings to block 1."""
    squares = [float(index**2) for index in range(1, 7)]
    found = published_profile(squares, embeddings=0.0)
    assert found.values == pytest.approx([0.6, 2.5, 6.0, 13.2, 20.5, 29.4, 36.0], abs=1e-12)
    assert published_profile(squares).values == pytest.approx([1.0, *found.values[1:]], abs=1e-12), "no embeddings: block 1 holds"


@pytest.mark.parametrize("few", [[], [0.3]])
def test_one_block_has_no_published_axis(few):
    with pytest.raises(InputError, match=f"needs at least 2 blocks; this curve has {len(few)}"):
        published_profile(few)


@pytest.mark.parametrize(("objective", "slope"), BERT_SLOPES.items())
def test_the_pinned_slopes(objective, slope):
    """Printed to three decimals, from curves printed to three: ±.001."""
    assert published_profile(of_blocks(run_of("procrustes", BERT, objective))).slope == pytest.approx(slope, abs=1e-3)


@pytest.mark.parametrize("measure", ["procrustes", "cka"])
def test_every_published_curve_through_the_code_of_a_run(measure):
    """All 210, put at the blocks of their model: values as printed, slope as polyfit, rank slope as scipy."""
    for run in reference.runs(measure):
        found = published_profile(of_blocks(run), embeddings=99.0)
        assert found.values == run.changes
        assert found.slope == pytest.approx(np.polyfit(run.depths, run.changes, 1)[0], abs=1e-12)
        assert found.rank_slope == pytest.approx(stats.spearmanr(run.depths, run.changes).statistic, abs=1e-12)


def test_the_width_table():
    """Each run of the five rules as shares of its own 1 − CKA, then the mean over a model's runs. Curves and table have three decimals, and
    Pythia's small totals carry theirs to .0021."""
    for model, printed in reference.widths().items():
        usual = [run for run in reference.runs("cka") if run.model == model and run.condition != reference.EQUAL_STEP]
        assert mean_shares([published_profile(of_blocks(run)) for run in usual]) == pytest.approx(printed, abs=2.5e-3), model


def test_without_a_changed_run_there_is_no_width():
    with pytest.raises(InputError, match="no run changed"):
        mean_shares([at_nominal_depths([0.0] * 7)])


def test_a_published_run_is_placed_at_itself():
    """BERT-large NSP compared anew with its own numbers: rank counted by numpy, nearest itself at distance 0."""
    own = {measure: run_of(measure, LARGE, "NSP", "LoRA") for measure in ("procrustes", "cka")}
    found = published(rows(**{name: of_blocks(run) for name, run in own.items()}), {}, 24)
    for name, run in own.items():
        slopes = np.array([np.polyfit(other.depths, other.changes, 1)[0] for other in reference.runs(name)])
        mine = np.polyfit(run.depths, run.changes, 1)[0]
        place = found["nearest"]["slope"][name]
        assert found["measures"][name]["values"] == list(run.changes)
        assert (place["rank"], place["of"]) == (1 + np.sum(slopes > mine + 1e-12), 211)
        assert place["runs"][0] == {"model": LARGE, "objective": "NSP", "condition": "LoRA", "value": pytest.approx(mine)}
        assert [row["value"] for row in place["runs"]] == pytest.approx(slopes[np.argsort(abs(slopes - mine), kind="stable")[:3]])
    shares = np.array([np.array(other.changes) / sum(other.changes) for other in reference.runs("cka")])
    final = own["cka"].changes[-1] / sum(own["cka"].changes)
    assert found["width"]["final_share"] == pytest.approx(final, abs=1e-12)
    assert found["nearest"]["final_share"]["rank"] == 1 + np.sum(shares[:, -1] > final + 1e-12)
    assert sum(len(model["runs"]) for model in found["among"]) == 210
    assert {model["model"]: model["shares"] for model in found["among"]} == {
        model: pytest.approx(list(printed), abs=2.5e-3) for model, printed in reference.widths().items()
    }
    assert not found["interpolated"]
    assert "Read at blocks 2, 6, 10, 14, 18, 22, 24 of 24" in found["note"]


def test_only_the_measures_the_study_published_are_placed():
    curve = [0.1 * index for index in range(1, 7)]
    found = published(rows(nps=curve, cka=curve), {}, 6)
    assert set(found["measures"]) == {"nps", "cka"}
    assert set(found["nearest"]["slope"]) == {"cka"}
    assert found["interpolated"]
    assert "6 blocks, fewer than 12" in found["note"]


@pytest.mark.parametrize(("final", "normed"), [(0.3, False), (0.2, True)])
def test_a_final_norm_is_named_where_there_is_one(final, normed):
    found = published(rows(cka=LINE), {"final": {"measures": {"cka": {"change": final}}}}, 3)
    assert ("before the final norm" in found["note"]) is normed


@pytest.mark.parametrize(
    ("layers", "depth", "reason"),
    [
        (rows(cka=[0.1]), 1, "fewer than 2 blocks"),
        ([], 0, "fewer than 2 blocks"),
        (rows(cka=LINE), 6, "3 of 6 blocks were measured"),
        (rows(cka=[0.1, None, 0.3]), 3, "no measure has a change at every block"),
        (rows(nps=LINE), 3, "neither Procrustes nor CKA was measured"),
        (rows(cka=[0.0] * 3, procrustes=[0.0] * 3), 3, "nothing changed"),
    ],
)
def test_what_cannot_be_placed_says_why(layers, depth, reason):
    found = published(layers, {}, depth)
    assert found["nearest"] is None
    assert found["among"] is None
    assert reason in found["reason"]


def test_procrustes_alone_has_slopes_and_no_width():
    found = published(rows(procrustes=LINE), {}, 3)
    assert found["width"] == {"shares": None, "final_share": None, "reason": "CKA was not measured at every block"}
    assert found["nearest"]["final_share"] is None
    assert found["nearest"]["slope"]["procrustes"]["of"] == 211
