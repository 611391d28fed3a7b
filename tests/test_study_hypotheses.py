"""Registered hypotheses: verdicts on rows made by hand, sets of alternatives, the seal, and what is said of departures from it."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tunescope.cli import app
from tunescope.errors import FormatError, InputError, OutputError
from tunescope.study.alternatives import warnings_of
from tunescope.study.deviations import deviations
from tunescope.study.expand import expand
from tunescope.study.folder import StudyFolder
from tunescope.study.hypotheses import Region, hypothesis_of
from tunescope.study.judged import judge
from tunescope.study.ledger import frame
from tunescope.study.ledger_lines import lines
from tunescope.study.plan import parse_plan, read_plan
from tunescope.study.plan_tables import HypothesisTable
from tunescope.study.registered import read_registration, register, registered_rows
from tunescope.study.row import Row
from tunescope.study.run_spec import spec_of
from tunescope.study.verdicts import FALSIFIED, INVALID, NOT_EVALUABLE, SUPPORTED, verdict, verdicts

NDCG = {"subject": "outcome", "measure": "ndcg@10", "task": "msmarco", "condition": "mlm"}
CORPUS = {
    "A": {"at_most": -0.05},
    "B": {"within": "base interval"},
    "C": {"at_least": -0.05, "at_most": -0.01},
}
WINDOW = {"measure": "nps", "least": 0.28, "most": 0.36}


def made(supported, *, name="it", on=NDCG, **more):
    return hypothesis_of({"name": name, "says": "So it is.", "on": on, "supported": supported, "predicted": "supported", **more})


def outcome(change, *, seed=0, reach=0.02, condition="mlm", step=10, **more):
    """A run's row as a study writes it: low and high are of the change."""
    row = Row("study", f"{condition}-{seed}", "tune", "e5", "outcome", "ndcg@10", 0.4 + change, condition=condition, seed=seed,
              side="tuned", task="msmarco", change=change, low=change - reach, high=change + reach, where="output")  # fmt: skip
    return replace(row, **{"step": step, "epoch": step / 10, **more})


def nps(value, *, seed=0, condition="mlm", step=10, where="output"):
    return Row("study", f"{condition}-{seed}", "tune", "e5", "geometry", "nps", value, condition=condition, seed=seed, texts="anchors",
               where=where, change=1 - value, step=step, epoch=step / 10)  # fmt: skip


def curve(changes, *, run="mlm-0", seed=0, condition="mlm"):
    depths = [layer / (len(changes) - 1) for layer in range(len(changes))]
    return [
        Row("study", run, "tune", "e5", "geometry", "cka", 1 - change, condition=condition, seed=seed, texts="anchors",
            where=f"block {layer}", layer=layer, depth=depth, change=change, step=10)
        for layer, (depth, change) in enumerate(zip(depths, changes, strict=True))
    ]  # fmt: skip


# The published outcome: −10.2 pp on MS MARCO over three seeds, and NFCorpus of BERT at NPS .836, outside the window.
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((-0.110, -0.102, -0.094), {"A": SUPPORTED, "B": FALSIFIED, "C": FALSIFIED}),
        ((-0.030, -0.031, -0.029), {"A": FALSIFIED, "B": FALSIFIED, "C": SUPPORTED}),
        ((-0.015, -0.015, -0.015), {"A": FALSIFIED, "B": SUPPORTED, "C": SUPPORTED}),
        ((0.001, -0.002, 0.004), {"A": FALSIFIED, "B": SUPPORTED, "C": FALSIFIED}),
        ((0.050, 0.051, 0.049), {"A": FALSIFIED, "B": FALSIFIED, "C": FALSIFIED}),
        ((-0.05, -0.05, -0.05), {"A": SUPPORTED, "B": FALSIFIED, "C": SUPPORTED}),
    ],
)
def test_the_corpus_control_is_judged_by_its_thresholds(changes, expected):
    rows = frame([outcome(change, seed=seed) for seed, change in enumerate(changes)])
    found = verdicts([made(region, name=name) for name, region in CORPUS.items()], rows)
    assert {each.name: each.state for each in found} == expected
    assert {round(each.value, 12) for each in found} == {round(float(np.mean(changes)), 12)}


@pytest.mark.parametrize(
    ("value", "state"), [(0.321, SUPPORTED), (0.28, SUPPORTED), (0.36, SUPPORTED), (0.836, INVALID), (0.2799, INVALID)]
)
def test_outside_its_window_a_hypothesis_was_not_tested(value, state):
    rows = frame([outcome(-0.06), nps(value), nps(0.5, where="block 1")])
    found = verdict(made({"at_most": -0.05}, window=WINDOW), rows)
    assert (found.state, found.window) == (state, pytest.approx(value))
    assert ("outside the window 0.28 to 0.36" in found.why) == (state == INVALID)


def test_the_mean_over_seeds_or_each_of_them():
    rows = frame([outcome(-0.09, seed=0), outcome(-0.02, seed=1)])
    assert verdict(made({"at_most": -0.05}), rows).state == SUPPORTED, "the mean is −.055"
    assert verdict(made({"at_most": -0.05}, over="each"), rows).state == FALSIFIED


def test_between_threshold_and_criterion_nothing_is_decided():
    asked = made({"at_most": -0.05}, falsified={"above": -0.01})
    states = [verdict(asked, frame([outcome(change)])).state for change in (-0.05, -0.03, -0.01, -0.0099)]
    assert states == [SUPPORTED, NOT_EVALUABLE, NOT_EVALUABLE, FALSIFIED]


def test_differences_are_taken_seed_by_seed():
    rows = [outcome(-0.1 + seed / 100, seed=seed) for seed in range(3)]
    rows += [outcome(-0.02 * seed, seed=seed, condition="contrastive") for seed in range(3)]
    found = verdict(made({"at_most": 0.0}, minus={**NDCG, "condition": "contrastive"}), frame(rows))
    assert [number.value for number in found.numbers] == pytest.approx([-0.1, -0.07, -0.04])
    assert found.state == SUPPORTED
    fewer = verdict(made({"at_most": 0.0}, minus={**NDCG, "condition": "contrastive"}), frame(rows[:-1]))
    assert fewer.state == NOT_EVALUABLE
    assert "same seeds" in fewer.why


def test_a_slope_is_the_least_squares_line_over_blocks():
    changes = [0.5, 0.1, 0.15, 0.4, 0.3]
    rows = frame(curve(changes))
    found = verdict(made({"above": 0.0}, on={"measure": "cka", "number": "slope", "condition": "mlm"}), rows)
    assert found.value == pytest.approx(np.polyfit([0.25, 0.5, 0.75, 1.0], changes[1:], 1)[0]), "the embeddings are no block"


def test_the_end_is_the_last_checkpoint_and_an_epoch_is_its_own():
    rows = frame([outcome(change, step=step) for step, change in ((10, -0.01), (30, -0.03), (50, -0.06))])
    assert verdict(made({"at_most": -0.05}), rows).value == pytest.approx(-0.06)
    assert verdict(made({"at_most": -0.05}, on=NDCG | {"at": 3.0}), rows).value == pytest.approx(-0.03)
    assert verdict(made({"at_most": -0.05}, on=NDCG | {"at": 4.0}), rows).state == NOT_EVALUABLE


def test_an_epoch_is_the_checkpoint_whose_step_it_was_rounded_to():
    rows = [replace(nps(1 - step / 100), step=step, epoch=step / 13) for step in (3, 6, 13)]  # .25 of 13 steps is step 3, .5 step 6
    on = {"measure": "nps", "condition": "mlm"}
    found = [verdict(made({"above": 0}, on=on | {"at": at}), frame(rows)).value for at in (0.25, 0.5, 1.0)]
    assert found == pytest.approx([0.03, 0.06, 0.13])
    assert verdict(made({"above": 0}, on=on | {"at": 0.75}), frame(rows)).state == NOT_EVALUABLE


def test_an_outcome_is_of_the_output_unless_a_layer_is_named():
    rows = frame([outcome(-0.06), *(outcome(-layer / 100, where=None, layer=layer) for layer in range(4))])
    assert verdict(made({"at_most": -0.05}), rows).value == pytest.approx(-0.06)
    found = verdict(made({"at_most": 0.0}, on=NDCG | {"layer": 3}, minus=NDCG | {"layer": 1}), rows)
    assert found.value == pytest.approx(-0.02)
    assert "minus that of layer 1, is -0.02" in found.why


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no row of the ledger has it"),
        ([outcome(-0.06), outcome(-0.06, texts="more")], "2 rows a run, which differ in texts"),
        ([replace(outcome(-0.06), change=None)], "has no change"),
    ],
)
def test_without_one_number_a_run_there_is_no_verdict(rows, words):
    found = verdict(made({"at_most": -0.05}), frame(rows))
    assert (found.state, found.value) == (NOT_EVALUABLE, None)
    assert words in found.why


def test_a_registered_run_without_rows_leaves_no_verdict():
    asked, rows = made({"at_most": -0.05}), frame([outcome(-0.06, seed=0), outcome(-0.07, seed=1)])
    planned = {asked.on: {f"mlm-{seed}": f"mlm of e5 seed {seed}" for seed in (0, 1, 2)}}
    found = verdict(asked, rows, planned=planned)
    assert found.state == NOT_EVALUABLE
    assert "1 of 3 registered runs have no such row (mlm of e5 seed 2)" in found.why


def test_a_registered_run_is_not_stood_in_for_by_another_of_the_same_model_and_seed():
    on = {"measure": "nps", "model": "e5"}
    asked = hypothesis_of({"name": "h", "says": "s", "predicted": "p", "over": "each", "on": on, "supported": {"at_least": 0}})
    rows = frame([nps(0.8), nps(0.9, seed=1)])
    planned = {asked.on: {f"{rule}-{seed}": f"{rule} of e5 seed {seed}" for rule in ("mlm", "lora") for seed in (0, 1)}}
    assert verdict(asked, rows).state == SUPPORTED
    found = verdict(asked, rows, planned=planned)
    assert found.state == NOT_EVALUABLE
    assert "2 of 4 registered runs" in found.why


def test_two_runs_of_one_name_are_no_seeds():
    rows = frame([outcome(-0.06), replace(outcome(-0.20), run="mlm-of-an-earlier-plan")])
    found = verdict(made({"at_most": -0.05}), rows)
    assert found.state == NOT_EVALUABLE
    assert "two runs are called 'mlm' of e5 seed 0" in found.why


def test_a_value_that_supports_and_falsifies_decides_nothing():
    rows = frame([outcome(-0.055, reach=0.065)])
    found = verdict(made({"within": "base interval"}, falsified={"at_most": -0.05}), rows)
    assert found.state == NOT_EVALUABLE
    assert "one must decide" in found.why


def test_a_curve_with_a_block_refused_has_no_slope():
    rows = curve([0.0, 0.1, 0.2, 0.3])
    rows[2] = replace(rows[2], change=None)
    on = {"measure": "cka", "number": "slope"}
    asked = hypothesis_of({"name": "h", "says": "s", "predicted": "p", "on": on, "supported": {"above": 0}})
    found = verdict(asked, frame(rows))
    assert found.state == NOT_EVALUABLE
    assert "no change at block 2" in found.why


def test_the_end_is_the_runs_own_and_not_the_last_row_that_is_left():
    rows = frame([nps(0.9, step=5), outcome(-0.06, step=10), nps(0.5, step=10, where="final")])
    asked = hypothesis_of({"name": "h", "says": "s", "predicted": "p", "on": {"measure": "nps"}, "supported": {"at_least": 0}})
    assert verdict(asked, rows).state == NOT_EVALUABLE


def test_what_minus_and_the_window_leave_out_is_that_of_on():
    plan = tomllib.loads('''
    name = "h"
    says = "s"
    predicted = "p"
    on = { subject = "outcome", measure = "ndcg@10", task = "t", data = "a", at = 1.0, condition = "mlm" }
    minus = { measure = "ndcg@10", condition = "contrastive" }
    supported = { above = 0.0 }
    window = { measure = "nps", texts = "docs", least = 0.2, most = 0.4 }
    ''')
    found = hypothesis_of(HypothesisTable.model_validate(plan).model_dump(exclude_unset=True))
    assert (found.minus.subject, found.minus.at, found.minus.task) == ("outcome", 1.0, "t")
    assert (found.window.on.subject, found.window.on.at, found.window.on.data) == ("geometry", 1.0, "a")


def test_verdicts_do_not_depend_on_the_order_of_rows_nor_change_them():
    rows = frame([outcome(-0.03 * seed, seed=seed) for seed in range(4)] + [nps(0.3, seed=seed) for seed in range(4)])
    before, asked = rows.copy(), made({"at_most": -0.05}, window=WINDOW)
    shuffled = rows.sample(frac=1, random_state=0)
    assert verdict(asked, rows) == verdict(asked, shuffled)
    assert rows.equals(before)


def test_a_hypothesis_comes_back_from_what_describes_it():
    for hypothesis in read_plan("drift").hypotheses + read_plan("tiny-depth").hypotheses:
        assert hypothesis_of(json.loads(json.dumps(hypothesis.describe()))) == hypothesis


@pytest.mark.parametrize(
    ("region", "inside", "outside"),
    [
        (Region(low=0.0), (0.0, 1.0), (-1e-9,)),
        (Region(low=0.0, low_open=True), (1e-9,), (0.0,)),
        (Region(high=1.0), (1.0, -9.0), (1.1,)),
        (Region(0.0, 1.0, high_open=True), (0.0, 0.5), (1.0, -0.1)),
    ],
)
def test_ends_belong_to_a_region_or_not(region, inside, outside):
    assert all(map(region.holds, inside))
    assert not any(map(region.holds, outside))


def alternatives(**regions):
    return warnings_of(made(region, name=name, set="control") for name, region in regions.items())


def test_alternatives_that_part_the_line_leave_nothing_to_say():
    assert alternatives(less={"below": -0.05}, some={"at_least": -0.05, "below": 0.0}, none={"at_least": 0.0}) == ()


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ({"a": {"at_most": 0.0}, "b": {"at_least": 0.0}}, ["'a' and 'b' both hold at 0"]),
        ({"a": {"below": 0.0}, "b": {"above": 0.0}}, ["none holds at 0"]),
        ({"a": {"at_most": 1.0}, "b": {"at_least": 0.5}}, ["'a' and 'b' both hold between 0.5 and 1"]),
        ({"a": {"at_most": -1.0}, "b": {"at_least": 1.0}}, ["none holds between -1 and 1"]),
        ({"a": {"at_most": -1.0}, "b": {"at_least": -1.0, "at_most": 2.0}}, ["'a' and 'b' both hold at -1", "none holds above 2"]),
    ],
)
def test_overlaps_and_gaps_are_named_with_their_ends(regions, said):
    assert list(alternatives(**regions)) == [f"set 'control': {line}" for line in said]


def test_the_published_set_overlaps_and_leaves_gaps():
    said = "\n".join(warnings_of(read_plan("drift").hypotheses))
    assert "'A, objective-driven' and 'C, mixed' both hold at -0.05" in said
    assert "none holds above the base interval's end above no change" in said
    assert "none holds between -0.01 and the base interval's end below no change, where the base interval ends before 0.01" in said
    assert "'B, corpus-driven' and 'C, mixed' both hold" in said
    assert "'A, objective-driven' and 'B, corpus-driven' both hold" in said


@pytest.mark.parametrize("width", [0.004, 0.02, 0.06])
def test_what_is_said_of_the_base_interval_is_so_at_every_width(width):
    """Oracle: every value of a grid, held against the three regions as numbers."""
    holding = {
        "A": lambda value: value <= -0.05, "B": lambda value: abs(value) <= width, "C": lambda value: -0.05 <= value <= -0.01,
    }  # fmt: skip
    counts = {sum(holds(value) for holds in holding.values()) for value in np.linspace(-0.1, 0.1, 2001).round(6)}
    assert counts >= {0, 1, 2}
    between = [value for value in np.linspace(-0.0099, 0, 100) if not any(holds(value) for holds in holding.values())]
    (said,) = (line for line in alternatives(**CORPUS) if "none holds between" in line)
    assert said.endswith("between -0.01 and the base interval's end below no change, where the base interval ends before 0.01")
    assert bool(between) == (width < 0.01)


def test_alternatives_must_be_about_one_number():
    other = made({"at_least": 0.0}, name="b", on=NDCG | {"task": "nfcorpus"}, set="control")
    assert "not about the same number" in warnings_of([made({"below": 0.0}, name="a", set="control"), other])[0]
    assert "has no alternative" in warnings_of([other])[0]


PLAN = """
name = "small"
seeds = [0, 1]
[sources.docs]
place = "python-docs"
[models.tiny.pretrain]
family = "bert"
config = { hidden_size = 16, num_hidden_layers = 2, num_attention_heads = 2, intermediate_size = 32 }
texts = "docs"
objective = "mlm"
steps = 2
[objectives]
mlm = { texts = "docs" }
simcse = { texts = "docs" }
[updates]
uniform = {}
[schedule]
steps = 2
[measure]
texts = ["docs"]
measures = ["nps"]
[[runs]]
models = ["tiny"]
objectives = ["mlm", "simcse"]
updates = ["uniform"]
[[hypotheses]]
name = "it stays"
says = "Half of the neighbours stay."
on = { measure = "nps", number = "value", condition = "mlm uniform" }
supported = { at_least = 0.5 }
predicted = "supported"
"""
NOON = datetime(2026, 5, 12, 12, 0, tzinfo=UTC)


@pytest.fixture
def sealed(tmp_path):
    """A plan, its runs and the folder it is sealed in."""
    plan = parse_plan(PLAN, origin="small.toml")
    specs = expand(plan)
    folder = StudyFolder.at(tmp_path / "study")
    return plan, specs, folder, register(plan, specs, folder, now=NOON)


def rows_of(specs, value=0.7, **more):
    from tunescope.identity import versions

    told = ", ".join(f"{name} {version}" for name, version in versions().items())
    return [
        Row("small", spec.hash, spec.kind, spec.model.name, "geometry", "nps", value, condition=spec.condition, seed=spec.seed,
            texts="docs", where="output", change=1 - value, step=2, versions=told, **more)
        for spec in specs
    ]  # fmt: skip


def write(folder, rows):
    (folder.place / "ledger").make_folder()
    for run in {row.run for row in rows}:
        folder.rows_of(run).write(lines([row for row in rows if row.run == run]))


def test_a_seal_is_read_back_as_it_was_made(sealed):
    plan, specs, folder, found = sealed
    assert read_registration(folder) == found
    assert found.sealed == "2026-05-12T12:00:00+00:00"
    assert list(found.runs) == [spec.hash for spec in specs]
    assert (Path(folder.url) / "plan.toml").read_text() == plan.text
    later = register(plan, specs, StudyFolder.at(Path(folder.url).parent / "other"), now=NOON.replace(hour=13))
    assert later.hash != found.hash, "the time is sealed too"


def test_a_seal_is_made_once_and_before_the_first_run(sealed, tmp_path):
    plan, specs, folder, _ = sealed
    with pytest.raises(OutputError, match="was sealed at 2026-05-12.*a plan is sealed once"):
        register(plan, specs, folder)
    begun = StudyFolder.at(tmp_path / "begun")
    write(begun, rows_of(specs[:2]))
    with pytest.raises(OutputError, match="2 runs have begun.*what is stated after the first number is no prediction"):
        register(plan, specs, begun)
    assert read_registration(begun) is None


@pytest.mark.parametrize(
    ("old", "new"), [('"at_least": 0.5', '"at_least": 0.1'), ("2026-05-12T12", "2025-05-12T12"), ('"seed": 1', '"seed": 3')]
)
def test_a_seal_that_was_changed_is_refused(sealed, old, new):
    path = Path(sealed[2].url) / "registration.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(FormatError, match="changed after it was sealed"):
        read_registration(sealed[2])
    path.write_text(text.replace("registration/1", "registration/2"))
    with pytest.raises(FormatError, match="registration/2' found"):
        read_registration(sealed[2])


def test_what_ran_as_registered_departs_in_nothing(sealed):
    plan, specs, folder, found = sealed
    write(folder, rows_of(specs))
    judged = judge(folder.url)
    assert judged.deviations == ()
    assert [each.state for each in judged.verdicts] == [SUPPORTED]
    assert deviations(found, frame(rows_of(specs)), plan=plan, specs=specs) == ()


def test_missing_extra_and_changed_runs_are_told_and_only_registered_ones_are_judged(sealed):
    plan, specs, folder, found = sealed
    other = expand(parse_plan(PLAN.replace("[schedule]\nsteps = 2", "[schedule]\nsteps = 3").replace("seeds = [0, 1]", "seeds = [0, 5]")))
    by_name = {(spec.condition, spec.seed): spec for spec in (*other, *specs)}  # the registered ones where both have one
    ran = [by_name["mlm uniform", 1], next(s for s in other if (s.condition, s.seed) == ("mlm uniform", 0)), by_name["mlm uniform", 5]]
    rows = frame(rows_of(ran, value=0.1))
    told = deviations(found, rows)
    assert told == (
        "1 run ran by another spec than the registered one: 'mlm uniform' of tiny seed 0",
        "2 runs were registered and have no rows: 'simcse uniform' of tiny seed 0, 'simcse uniform' of tiny seed 1",
        "1 run was never registered and is not judged: 'mlm uniform' of tiny seed 5",
    )
    kept = registered_rows(found, rows)
    assert set(kept["run"]) == {by_name["mlm uniform", 1].hash}
    assert verdicts(found.hypotheses, kept, planned=found.planned())[0].state == NOT_EVALUABLE


def test_a_changed_plan_is_told_field_by_field(sealed):
    _, specs, folder, found = sealed
    text = PLAN.replace("[schedule]\nsteps = 2", "[schedule]\nsteps = 9").replace("at_least = 0.5", "at_least = 0.2")
    text = text.replace('["mlm", "simcse"]', '["mlm"]') + PLAN[PLAN.index("[[hypotheses]]") :].replace("it stays", "it moves")
    plan = parse_plan(text)
    told = deviations(found, frame(rows_of(specs)), plan=plan, specs=expand(plan))
    assert told == (
        "the hypothesis 'it moves' was added to the plan after it was sealed; it is not judged",
        "the hypothesis 'it stays' was changed after it was sealed (supported.at_least, 0.5 → 0.2); it is judged as it was sealed",
        "2 runs were changed in the plan after it was sealed: 'mlm uniform' of tiny seed 0, 'mlm uniform' of tiny seed 1",
        "changed in 2 runs: schedule.steps, 2 → 9",
        "2 runs were taken out of the plan: 'simcse uniform' of tiny seed 0, 'simcse uniform' of tiny seed 1",
    )
    comment = parse_plan(f"# only a comment\n{PLAN}")
    assert deviations(found, frame(rows_of(specs)), plan=comment, specs=expand(comment)) == (
        "the plan's text was changed after it was sealed, and neither a run nor a hypothesis of it",
    )


def test_a_registered_hypothesis_asks_numbers_of_the_runs_that_record_them(tmp_path):
    text = PLAN.replace('[[hypotheses]]\nname = "it stays"', NOISE)
    plan = parse_plan(text, origin="small.toml")
    specs = expand(plan)
    found = register(plan, specs, StudyFolder.at(tmp_path / "study"), now=NOON)
    own = {spec.hash for spec in specs if spec.kind == "perturb"}
    assert len(own) == 2
    assert [set(runs) for on, runs in found.planned().items() if on.subject == "cost"] == [own]
    for spec in specs:
        assert spec_of(json.loads(json.dumps(spec.describe()))).hash == spec.hash


NOISE = """
[changes]
noise = { kind = "gaussian", amounts = { sigma = 0.1 } }
[[runs]]
kind = "perturb"
models = ["tiny"]
changes = ["noise"]
[[hypotheses]]
name = "of noise"
says = "It has its size."
on = { subject = "cost", measure = "sigma" }
supported = { above = 0.0 }
predicted = "supported"
[[hypotheses]]
name = "it stays"
"""


def test_other_versions_are_told(sealed):
    _, specs, _, found = sealed
    rows = frame([replace(row, versions=row.versions.replace("numpy ", "numpy 0")) for row in rows_of(specs)])
    (line,) = deviations(found, rows)
    assert line.startswith("4 runs were made with other versions than were sealed: numpy")


def test_without_a_registration_verdicts_are_exploratory(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(PLAN)
    folder = StudyFolder.at(tmp_path / "study")
    write(folder, rows_of(expand(read_plan(path))))
    with pytest.raises(InputError, match="nothing was registered in .* give the plan"):
        judge(folder.url)
    judged = judge(folder.url, path)
    assert judged.deviations == ("nothing was registered before the runs: the verdicts are exploratory",)
    assert [each.state for each in judged.verdicts] == [SUPPORTED]


def test_the_command_prints_deviations_first(tmp_path):
    from typer.testing import CliRunner

    path, out = tmp_path / "small.toml", tmp_path / "study"
    path.write_text(PLAN)
    runner = CliRunner()
    done = runner.invoke(app, ["study", "register", str(path), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "sealed   small: 4 runs, 1 hypothesis, at" in done.output
    folder = StudyFolder.at(out)
    write(folder, rows_of(expand(read_plan(path))[:2]))
    path.write_text(PLAN.replace("at_least = 0.5", "at_least = 0.9"))
    done = runner.invoke(app, ["study", "verdict", str(out), "--plan", str(path)])
    assert done.exit_code == 0, done.output
    kinds = [line.split()[0] for line in done.output.splitlines() if not line.startswith(" ")]
    assert kinds == ["study", "deviation", "deviation", "SUPPORTED"]
    described = json.loads(runner.invoke(app, ["study", "verdict", str(out), "--plan", str(path), "--json"]).output)
    assert [len(described["deviations"]), described["verdicts"][0]["state"]] == [2, SUPPORTED]
