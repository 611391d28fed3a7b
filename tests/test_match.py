"""A search lands where the curve says, a target in distance is met by every draw, and two runs meet at one level."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tunescope as ts
from tiny_models import WORDS, adapted, save_model, tiny_model, tokenizer_for
from tunescope.errors import AlignmentError, InputError, NotEnoughRows, UnknownName
from tunescope.training.search import search


def sentences(n: int = 60) -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS, size=draw.integers(3, 20))) for _ in range(n)]


@pytest.fixture(scope="module")
def base() -> ts.Model:
    return ts.load_model((tiny_model("bert"), tokenizer_for("bert")), name="base")


CURVES = {
    "line": (lambda s: s, lambda t: t),
    "square": (lambda s: s * s, math.sqrt),
    "saturating": (lambda s: 1 - math.exp(-s), lambda t: -math.log(1 - t)),
    "steep": (lambda s: math.tanh(20 * s), lambda t: math.atanh(t) / 20),
}


@pytest.mark.parametrize("target", [0.003, 0.2, 0.9])
@pytest.mark.parametrize("start", [0.01, 1.0])
@pytest.mark.parametrize("curve", CURVES)
def test_the_search_inverts_a_known_curve(curve, start, target):
    value, inverse = CURVES[curve]
    found = search(value, target, start=start, most=64, tolerance=1e-9)
    assert found.found
    assert found.falls(1e-9) is None
    assert found.tried[-1][0] == pytest.approx(inverse(target), rel=1e-5)
    assert len(found.tried) <= 30


def test_the_search_says_when_it_did_not_arrive():
    below = search(lambda s: 0.5 * math.tanh(s), 0.6, start=1, most=8, tolerance=0.01)
    assert not below.found
    assert [size for size, _ in below.tried] == [1, 2, 4, 8]
    step = search(lambda s: float(s > 0.3), 0.5, start=1, most=8, tolerance=0.01)
    assert not step.found
    assert len(step.tried) == 40
    hump = search(lambda s: s if s < 0.6 else 1.1 - s if s < 1 else s, 0.4, start=0.5, most=8, tolerance=1e-6)
    assert hump.found
    assert hump.tried[-1][0] == pytest.approx(0.4, abs=1e-6)
    wavy = search(lambda s: {1: 0.3, 2: 0.1, 4: 0.9}.get(s, 0.2 * s), 0.5, start=1, most=8, tolerance=0.1)
    assert wavy.found
    assert wavy.falls(0.05) == (1, 2)


def like_of(kind: str, base: ts.Model) -> dict:
    if kind == "gaussian":
        return {}
    if kind == "random-rank":
        return {"like": ts.load_model((adapted(tiny_model("bert")), tokenizer_for("bert")))}
    return {"like": ts.load_model((tiny_model("bert", seed=7), tokenizer_for("bert")))}


@pytest.mark.parametrize(
    ("kind", "measure", "target", "at"),
    [
        ("gaussian", "nps", 0.48, "output"),
        ("gaussian", "cka", 0.9, 2),
        ("random-rank", "procrustes", 0.3, "output"),
        ("random-direction", "nps", 0.6, "final"),
        ("interpolate", "cka", 0.8, "output"),
    ],
)
def test_a_target_is_met_within_its_tolerance(base, kind, measure, target, at):
    """Judged by a comparison of its own: `diff` between the base and every model found."""
    texts = sentences()
    found = ts.perturb_to(base, texts, to={measure: target}, kind=kind, at=at, tolerance=0.01, **like_of(kind, base))
    assert len(found.models) == (1 if kind == "interpolate" else 3)
    for draw in found.draws:
        assert draw.value == pytest.approx(target, abs=0.01)
        c = ts.diff(base, draw.model, texts, measures=[measure])
        row = c.payload["sites"][at] if isinstance(at, str) else next(row for row in c.payload["layers"] if row["index"] == at)
        assert row["measures"][measure]["value"] == pytest.approx(draw.value, abs=1e-6)
    row = found.row()
    assert row["found"]["value"]["mean"] == pytest.approx(np.mean([draw.value for draw in found.draws]))
    if len(found.draws) > 1:
        assert row["found"]["parameter"]["sd"] == pytest.approx(np.std([draw.parameter for draw in found.draws], ddof=1))
        assert len({draw.model.identity()["weights_sha256"] for draw in found.draws}) == 3


def test_a_found_model_is_the_perturbation_of_its_parameter_and_seed(base):
    found = ts.perturb_to(base, sentences(), to="nps=.5", kind="gaussian", layers=[1, 2], tolerance=0.02, seed=5)
    assert [draw.seed for draw in found.draws] == [5, 6, 7]
    again = ts.perturb(base, kind="gaussian", sigma=found.draws[1].parameter, layers=[1, 2], seed=6)
    assert again.identity()["weights_sha256"] == found.models[1].identity()["weights_sha256"]
    assert "nps" in str(found)
    assert "for 0.5 ± 0.02" in str(found)
    assert "3 draws, mean ± sd; 60 texts" in str(found)
    assert repr(found) == f"<AtDistance: {found}>"
    assert len(repr(found.draws[0])) < 120  # no tree of modules


def test_targets_that_cannot_be_met_are_refused_in_a_line(base):
    texts = sentences(30)
    with pytest.raises(InputError, match=r"nps = 0.01 at output by gaussian cannot be reached: sigma up to 2.56 gives 0\.\d+ to 0\.\d+"):
        ts.perturb_to(base, texts, to="nps=.01", kind="gaussian")
    with pytest.raises(InputError, match=r"passed over in one step: the nearest to it within 1e-09 asked for is 0\.\d+ at sigma"):
        ts.perturb_to(base, texts, to="nps=.4801", kind="gaussian", tolerance=1e-9)
    with pytest.raises(InputError, match=r"nps = 1 asked for; an unmoved model has 1 .* so name a target below 1"):
        ts.perturb_to(base, texts, to="nps=1", kind="gaussian")
    with pytest.raises(InputError, match="isotropy says not how far a model moved"):
        ts.perturb_to(base, texts, to="isotropy=.1", kind="gaussian")
    with pytest.raises(UnknownName, match="unknown measure 'npz'"):
        ts.perturb_to(base, texts, to="npz=.1", kind="gaussian")
    with pytest.raises(InputError, match="give one measure and its value, such as nps=.48"):
        ts.perturb_to(base, texts, to="nps", kind="gaussian")
    with pytest.raises(InputError, match="2 draws asked for; a target takes 3 or more"):
        ts.perturb_to(base, texts, to="nps=.5", kind="gaussian", draws=2)
    with pytest.raises(InputError, match="'rounding' has none"):
        ts.perturb_to(base, texts, to="nps=.5", kind="rounding")
    with pytest.raises(UnknownName, match="unknown site 'outptu'"):
        ts.perturb_to(base, texts, to="nps=.5", kind="gaussian", at="outptu")
    with pytest.raises(NotEnoughRows):
        ts.perturb_to(base, texts[:6], to="nps=.5", kind="gaussian")


RISING = [(0, 1.0), (10, 0.8), (20, 0.6), (50, 0.3)]
DIPPING = [(0, 1.0), (1, 0.5), (3, 0.7), (5, 0.4)]  # meets .6 at .8, 2 and 3.666…


@pytest.mark.parametrize(("which", "at"), [("first", 0.8), ("last", 3 + 2 / 3), (0, 0.8), (1, 2.0), (2, 3 + 2 / 3)])
def test_two_runs_are_matched_where_their_lines_meet_the_level(which, at):
    a, b = ts.Trajectory.of([(0, 1.0), (10, 0.5)], name="a"), ts.Trajectory.of(DIPPING, name="b")
    found = ts.match(a, b, measure="nps", at=0.6, crossing=which if isinstance(which, str) else "first")
    assert found.a.at == pytest.approx(8)
    if isinstance(which, str):
        assert found.b.at == pytest.approx(at)
    else:
        found = ts.match(b, b, measure="nps", at=0.6, crossing=which)
        assert found.a.at == found.b.at == pytest.approx(at)
        assert found.mismatch == 0
    assert found.b.every == pytest.approx((0.8, 2, 3 + 2 / 3))
    assert "of 3 (0.8, 2, 3.667)" in str(found)


def test_what_remains_is_that_of_the_nearer_checkpoints():
    found = ts.match(ts.Trajectory.of(RISING, name="a"), ts.Trajectory.of(DIPPING, name="b"), measure="nps", at=0.58)
    assert (found.a.at, found.b.at) == pytest.approx((22, 0.84))
    assert (found.a.value, found.b.value) == (0.6, 0.5)
    assert (found.a.mismatch, found.b.mismatch, found.mismatch) == pytest.approx((0.02, -0.08, 0.1))
    assert found.row()["b"]["every"] == pytest.approx([0.84, 1.8, 3.8])
    assert str(found).startswith("two runs at nps = 0.58; the two nearer checkpoints (give base for models on the level) are 0.1 apart\n")
    told = "b: step 0.84, between its checkpoints at 0 and 1, crossing 1 of 3 (0.84, 1.8, 3.8); its nearer checkpoint is at 0.5, 0.08 below"
    assert told in str(found)
    assert found.row()["a"]["interpolated"] is False


@pytest.mark.parametrize(
    ("values", "level", "steps"),
    [
        ([1.0, 0.5, 0.5, 0.2], 0.5, [1]),  # a stretch on the level counts once
        ([1.0, 0.5, 1.0], 0.5, [1]),  # touched
        ([0.5, 1.0, 0.5], 0.5, [0, 2]),
        ([0.5, 0.5], 0.5, [0]),
        ([1.0, 0.0, 1.0, 0.0], 0.25, [0.75, 1.25, 2.75]),
        ([1.0, 0.5, 0.0, 0.5], 0.5, [1, 3]),
    ],
)
def test_crossings_are_each_counted_once(values, level, steps):
    run = ts.Trajectory.of(enumerate(values), name="run")
    assert [before.at + share * (after.at - before.at) for before, after, share in run.crossings(level)] == pytest.approx(steps)


def test_a_level_a_run_never_reaches_is_refused_with_its_range():
    a, b = ts.Trajectory.of(RISING, name="a"), ts.Trajectory.of(DIPPING, name="b", measure="nps")
    with pytest.raises(InputError, match=r"run 'b' never reaches nps = 0.35: its 4 checkpoints lie between 0.4 and 1; both reach 0.4 to 1"):
        ts.match(a, b, measure="nps", at=0.35)
    with pytest.raises(InputError, match=r"no level is reached by both"):
        ts.match(a, ts.Trajectory.of([(0, 0.2), (1, 0.1)], name="c"), measure="nps", at=0.5)
    with pytest.raises(InputError, match=r"crossing 3 of run 'b' asked for, which meets nps = 0.6 3 times \(at 0.8, 2, 3.667\)"):
        ts.match(b, b, measure="nps", at=0.6, crossing=3)
    with pytest.raises(AlignmentError, match="run 'b' was measured by nps, and cka is to be matched"):
        ts.match(a, b, measure="cka", at=0.6)
    with pytest.raises(InputError, match="has no model at step 10"):
        ts.match(a, a, measure="nps", at=0.7, base=ts.load_model((tiny_model("bert"), tokenizer_for("bert"))), texts=sentences())


@pytest.mark.parametrize("points", [[(0, 1.0)], [(0, 1.0), (0, 0.5)], [(0, 1.0), (1, float("nan"))]])
def test_a_trajectory_is_two_finite_points_in_order(points):
    with pytest.raises(InputError, match="run 'x' has"):
        ts.Trajectory.of(points, name="x")


def test_models_between_checkpoints_are_at_one_distance(base, tmp_path):
    """Two runs, one of models in memory and one of folders: the models found are read by `diff` at the level."""
    texts, tokenizer = sentences(), tokenizer_for("bert")
    far = ts.load_model((tiny_model("bert", seed=7), tokenizer))
    folder = save_model(tmp_path / "end", seed=9)
    runs = []
    for name, end in (("a", far), ("b", folder)):
        value = ts.diff(base, end, texts, measures=["cka"]).payload["sites"]["output"]["measures"]["cka"]["value"]
        runs.append(ts.Trajectory.of([(0, 1.0), (40, value, end)], name=name, measure="cka"))
    found = ts.match(*runs, measure="cka", at=0.85, base=base, texts=texts, tolerance=0.002)
    for crossing in (found.a, found.b):
        seen = ts.diff(base, crossing.model, texts, measures=["cka"]).payload["sites"]["output"]
        assert seen["measures"]["cka"]["value"] == pytest.approx(crossing.value, abs=1e-6)
        assert abs(crossing.mismatch) <= 0.002
        assert crossing.at == pytest.approx(40 * crossing.share)
    assert abs(found.mismatch) <= 0.004
    assert "interpolated model" in str(found)
    for shown in (found, found.a, found.b.before, found.a.after, *runs):  # one line, and no tree of modules
        assert len(repr(shown)) < 120
        assert "\n" not in repr(shown)
    assert repr(found) == f"<Match of a at {found.a.at:.4g} and b at {found.b.at:.4g}, cka = 0.85>"
    assert repr(runs[0]) == "<Trajectory of a by cka, 2 points from 0 to 40>"
