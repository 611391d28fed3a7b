"""Plans: what they come to, counted by hand or by the printed table, and what is refused before anything runs."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest

from tunescope.errors import FormatError, InputError, ModelError, TunescopeError, UnknownName
from tunescope.models.families import FAMILIES
from tunescope.reference import table
from tunescope.study import known
from tunescope.study.controlled import controlled, difference
from tunescope.study.estimate import OVERHEAD, estimate, run_cost
from tunescope.study.expand import expand
from tunescope.study.hypotheses import hypothesis_of
from tunescope.study.local_content import LocalContent
from tunescope.study.plan import BUNDLED, bundled_text, parse_plan, read_plan
from tunescope.study.recorded import check_hypotheses
from tunescope.study.run_spec import Model

PLAN = """
name = "small"
seeds = [0, 1]

[sources.docs]
place = "python-docs"
[sources.sets]
place = "texts.txt"
[sources.twins]
place = "pairs.tsv"

[models.tiny-bert.pretrain]
family = "bert"
config = { hidden_size = 32, num_hidden_layers = 4, num_attention_heads = 2, intermediate_size = 64 }
texts = "docs"
objective = "mlm"
steps = 10

[models.tiny-neox.pretrain]
family = "gpt_neox"
config = { hidden_size = 32, num_hidden_layers = 4, num_attention_heads = 2, intermediate_size = 64 }
texts = "docs"
objective = "causal-lm"
steps = 10

[objectives]
mlm = { texts = "docs" }
causal-lm = { texts = "docs" }
simcse = { texts = "docs" }

[updates]
uniform = {}
lora = { options = { rank = 4 } }

[changes]
noise = { kind = "gaussian", amounts = { sigma = 0.1 } }
random = { kind = "random-direction", like = "mlm uniform" }

[schedule]
steps = 5

[measure]
texts = ["docs"]
measures = ["cka", "nps"]

[[runs]]
models = ["tiny-bert"]
objectives = ["mlm", "simcse"]
updates = ["uniform", "lora"]

[[runs]]
kind = "perturb"
models = ["tiny-bert"]
changes = ["noise", "random"]
"""
HYPOTHESIS = """
[[hypotheses]]
name = "it moves"
says = "Training moves it."
on = { measure = "cka", condition = "mlm uniform" }
supported = { above = 0.0 }
predicted = "supported"
"""


def plan_of(text, folder=Path(), **swaps):
    for old, new in swaps.items():
        text = text.replace(old, new)
    return parse_plan(text, origin="small.toml", folder=folder)


def changed(old, new, text=PLAN):
    assert old in text
    return text.replace(old, new)


def lenient(name):
    plan = read_plan(name)
    return plan, expand(plan, content=LocalContent(plan.folder, lenient=True))


def test_products_are_counted_and_named():
    specs = expand(plan_of(PLAN))
    assert len(specs) == 2 * 2 * 2 + 2 * 2
    assert Counter(spec.condition for spec in specs) == dict.fromkeys(
        ("mlm uniform", "mlm lora", "simcse uniform", "simcse lora", "noise", "random"), 2
    )
    assert len({spec.hash for spec in specs}) == len(specs)


def test_a_control_is_like_the_run_of_its_model_and_seed():
    specs = {(spec.condition, spec.seed): spec for spec in expand(plan_of(PLAN))}
    for seed in (0, 1):
        assert specs["random", seed].needs == (specs["mlm uniform", seed].hash,)
        assert specs["noise", seed].needs == ()


def test_names_are_not_part_of_a_run():
    renamed = PLAN.replace("tiny-bert", "little-bert").replace("[sources.docs]", "[sources.paper]").replace('"docs"', '"paper"')
    assert {spec.hash for spec in expand(plan_of(renamed))} == {spec.hash for spec in expand(plan_of(PLAN))}


@pytest.mark.parametrize(
    ("old", "new"), [("steps = 5\n", "steps = 6\n"), ("rank = 4", "rank = 8"), ('"cka", "nps"', '"cka"'), ("steps = 10", "steps = 11")]
)
def test_what_decides_the_numbers_is(old, new):
    before, after = ({spec.hash for spec in expand(plan_of(text))} for text in (PLAN, changed(old, new)))
    assert before != after


def test_corpora_views_and_anchors_are_axes(tmp_path):
    (tmp_path / "texts.txt").write_text("one text\nanother text\n")
    block = """
[[runs]]
models = ["tiny-neox"]
objectives = ["simcse"]
updates = ["uniform"]
corpora = ["docs", "sets"]
views = ["native", "forced"]
anchors = [["docs"], ["sets"], ["docs", "sets"]]
exclude = [{ corpus = "sets", views = "native" }, { seed = [1], anchors = ["docs", "sets"] }]
"""
    specs = [spec for spec in expand(plan_of(PLAN + block, tmp_path)) if spec.model.name == "tiny-neox"]
    # 2 corpora × 2 views × 3 anchor sets × 2 seeds; without 1 × 1 × 3 × 2, and of seed 1 without the last anchor sets of the other three
    assert len(specs) == 24 - 6 - 3
    assert "simcse uniform sets forced views docs+sets" in {spec.condition for spec in specs}
    assert {spec.objective.settings["views"] for spec in specs} == {"native", "forced"}


def test_changed_data_are_another_run_and_moved_data_the_same(tmp_path):
    text = PLAN.replace('place = "python-docs"', 'place = "texts.txt"')
    hashes = []
    for folder, content in (("a", "one\ntwo\n"), ("b", "one\ntwo\n"), ("c", "one\nthree\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "texts.txt").write_text(content)
        hashes.append([spec.hash for spec in expand(plan_of(text, tmp_path / folder))])
    assert hashes[0] == hashes[1]
    assert not set(hashes[0]) & set(hashes[2])


@pytest.mark.parametrize(
    ("name", "content"), [("l.csv", "text,kind\none,a\n"), ("l.jsonl", '{"text": "one", "kind": "a"}\n'), ("l.tsv", "text\tkind\none\ta\n")]
)
def test_a_column_of_classes_is_looked_for_in_the_file(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    text = changed('[measure]\n', '[measure]\nlabels = ["sets"]\n').replace('place = "texts.txt"', f'place = "{name}"\nlabels = "kind"')
    assert expand(plan_of(text, tmp_path))
    with pytest.raises(UnknownName, match="unknown column of labels of sources.sets 'kid'; did you mean kind"):
        expand(plan_of(text.replace('labels = "kind"', 'labels = "kid"'), tmp_path))


def test_the_distance_of_conversations_is_refused(tmp_path):
    (tmp_path / "texts.txt").write_text("one\n")
    block = '\n[[runs]]\nmodels = ["tiny-neox"]\nobjectives = ["sft"]\nupdates = ["uniform"]\nmeasure = { distances = true }\n'
    text = changed("[objectives]\n", '[objectives]\nsft = { texts = "sets" }\n') + block
    assert expand(plan_of(text.replace("distances = true", ""), tmp_path))
    with pytest.raises(InputError, match="the distance of sft is not measured"):
        expand(plan_of(text, tmp_path))


def test_a_prompt_that_nothing_would_use_is_refused(tmp_path):
    (tmp_path / "texts.txt").write_text("one\n")
    text = changed('[measure]\n', '[measure]\nlm = ["sets"]\n').replace('place = "texts.txt"', 'place = "texts.txt"\nprompt = "query: "')
    with pytest.raises(InputError, match="sources.sets has a prompt, which lm puts before nothing"):
        expand(plan_of(text, tmp_path))


def hashes(text, folder):
    return {spec.hash for spec in expand(plan_of(text, folder))}


def test_splits_of_one_collection_are_other_runs(tmp_path):
    (tmp_path / "beir").mkdir()
    (tmp_path / "beir" / "queries.jsonl").write_text("{}")
    text = changed('[measure]\n', '[measure]\nretrieval = ["search"]\n') + '\n[sources.search]\nplace = "beir:test"\n'
    assert not hashes(text, tmp_path) & hashes(text.replace("beir:test", "beir:dev"), tmp_path)


FEATURES = """
[[runs]]
kind = "features"
models = ["tiny-neox"]
objectives = ["causal-lm"]
updates = ["lora"]
measure = { options = { layers = [1], dictionary = { 1 = "own" } } }
"""


def test_a_dictionary_is_named_by_what_lies_at_its_place(tmp_path):
    found = []
    for folder, content in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / folder / "own").mkdir(parents=True)
        (tmp_path / folder / "own" / "cfg.json").write_text(content)
        found.append(hashes(PLAN + FEATURES, tmp_path / folder))
    assert found[0] == found[1]
    assert len(found[0] - found[2]) == 2, "the two runs of features"
    with pytest.raises(InputError, match=r"runs\[3\].measure.options.dictionary: no such dictionary 'own'"):
        expand(plan_of(PLAN + FEATURES, tmp_path))


@pytest.mark.parametrize("name", ["chat_template.jinja", "qwen.tiktoken"])
def test_a_model_is_its_template_and_its_vocabulary_too(name, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    found = set()
    for content in ("one", "two"):
        (tmp_path / name).write_text(content)
        found.add(LocalContent(tmp_path).model(Model("m", str(tmp_path))).sha256)
    assert len(found) == 2


def test_the_plan_in_the_documentation_is_one():
    text = (Path(__file__).parent.parent / "docs" / "plans.md").read_text(encoding="utf-8")
    whole = next(block.partition("```")[0] for block in text.split("```toml\n") if 'name = "noise-or-tuning"' in block)
    assert [spec.condition for spec in expand(plan_of(whole))] == ["simcse lora"] * 2 + ["noise"] * 2


def test_a_rule_overrides_the_block_and_the_block_the_plan():
    text = changed("uniform = {}", "uniform = { schedule = { epochs = 2, lr = 1e-3 } }")
    text = changed('updates = ["uniform", "lora"]\n', 'updates = ["uniform", "lora"]\nschedule = { batch_size = 8, lr = 1e-2 }\n', text)
    schedules = {spec.update.name: spec.schedule for spec in expand(plan_of(text)) if spec.update}
    assert schedules == {"uniform": {"batch_size": 8, "lr": 1e-3, "epochs": 2}, "lora": {"steps": 5, "batch_size": 8, "lr": 1e-2}}


# old text, new text, error, words of the message
REFUSED = [
    ("seeds = [0, 1]", "seed = [0, 1]", "unknown key 'seed'; did you mean seeds"),
    ('objectives = ["mlm", "simcse"]', 'objectivs = ["mlm"]', "runs[1]: unknown key 'objectivs'; did you mean objectives"),
    ('objectives = ["mlm", "simcse"]', 'objectives = ["mml"]', "unknown objective of runs[1] 'mml'; did you mean mlm"),
    ('mlm = { texts = "docs" }', 'mlm = { objective = "mml", texts = "docs" }', "objective of objectives.mlm 'mml'; did you mean mlm"),
    ('models = ["tiny-bert"]\nobj', 'models = ["tiny-brt"]\nobj', "unknown model of runs[1] 'tiny-brt'; did you mean tiny-bert"),
    ('mlm = { texts = "docs" }', 'mlm = { texts = "dosc" }', "unknown source of objectives.mlm.texts 'dosc'; did you mean docs"),
    ('[measure]\ntexts = ["docs"]', '[measure]\ntexts = ["doks"]', "unknown source of measure.texts 'doks'; did you mean docs"),
    ('"cka", "nps"', '"cka", "nsp"', "unknown measure of measure 'nsp'; did you mean nps"),
    ("uniform = {}", 'uniform = { update = "unifrom" }', "unknown update rule of updates.uniform 'unifrom'; did you mean uniform"),
    ("rank = 4", "rank = 0", "updates.lora.options: rank = 0 found; give a whole number from 1"),
    ("rank = 4", "rank = 2.5", "updates.lora.options: rank = 2.5 found; give a whole number from 1"),
    ("rank = 4", "dropout = 1", "updates.lora.options: dropout = 1 found; give a number from 0 to 1"),
    ("rank = 4", "alpha = -1", "updates.lora.options: alpha = -1 found; give a number above 0"),
    ("rank = 4", "rnk = 4", "unknown option of updates.lora 'rnk'; did you mean rank"),
    ("steps = 5\n", "stpes = 5\n", "unknown key of schedule 'stpes'; did you mean steps"),
    ("steps = 5\n", "steps = 5\nepochs = 1\n", "steps and epochs are both given"),
    ('kind = "gaussian"', 'kind = "gausian"', "unknown kind of perturbation of changes.noise 'gausian'; did you mean gaussian"),
    ("sigma = 0.1", "sigma = -0.1", "changes.noise.amounts: sigma = -0.1 found; give a number above 0"),
    ("sigma = 0.1", "alpha = 0.1", "unknown amount of changes.noise 'alpha'"),
    (', like = "mlm uniform"', "", "random-direction copies the size of another condition's update"),
    ('like = "mlm uniform"', 'like = "mlm unifrom"', "unknown condition before"),
    ('kind = "perturb"', 'kind = "pertrub"', "unknown kind of runs[2] 'pertrub'; did you mean perturb"),
    ('[measure]\n', '[measure]\noptions = { layers = [9] }\n', "runs[1].measure.options: layer 9 asked for, and the model has 4 blocks"),
    ('[measure]\n', '[measure]\noptions = { layers = [-1] }\n', "layers = [-1] found; give whole numbers from 0"),
    ('[measure]\n', '[measure]\noptions = { dtype = "float17" }\n', "did you mean float16"),
    ('[measure]\n', '[measure]\noptions = { method = "zzz" }\n', "known: auto, exact, stream"),
    ("seeds = [0, 1]", "seeds = [-1]", "seeds"),
    ("hidden_size = 32", "hidden_size = 33", "hidden_size = 33 is no multiple of num_attention_heads = 2"),
    ("hidden_size = 32", "hidden_size = 0", "models.tiny-bert.pretrain.config: hidden_size = 0 found; give a whole number from 1"),
    ("hidden_size = 32", "max_position_embeddings = 32", "max_length = 64 asked for, and max_position_embeddings = 32"),
    ('family = "bert"', 'family = "brt"', "unknown family of models.tiny-bert 'brt'; did you mean bert"),
    ('family = "bert"', 'family = "gpt2"', "mlm reads both sides of a token, and 'tiny-bert' reads to the left only"),
    ('models = ["tiny-bert"]\nobj', 'models = ["tiny-neox"]\nobj', "runs[1]: mlm reads both sides of a token, and 'tiny-neox'"),
    ('objectives = ["mlm", "simcse"]', 'objectives = ["causal-lm"]', "causal-lm asks for the next token, and 'tiny-bert' reads in both"),
    ('simcse = { texts = "docs" }', 'simcse = { objective = "nsp", texts = "docs" }', "nsp needs the next-sentence head"),
    ('simcse = { texts = "docs" }', 'simcse = { objective = "contrastive", texts = "docs" }', "contrastive needs pairs"),
    ('simcse = { texts = "docs" }', 'simcse = { objective = "classify", texts = "docs" }', "classify needs classes"),
    ('simcse = { texts = "docs" }', 'simcse = { texts = "docs", settings = { veiws = "forced" } }', "did you mean views"),
    ('simcse = { texts = "docs" }', 'simcse = { texts = "docs", settings = { views = "force" } }', "did you mean forced"),
    ("uniform = {}", 'uniform = { update = "equal-step" }', "equal-step needs the size of its steps"),
    ("uniform = {}", 'uniform = { update = "top-5" }', "'top-5' trains the last 5 blocks, and 'tiny-bert' has 4"),
    ('mlm = { texts = "docs" }', 'mlm = { texts = "sets" }', "sources.sets: no such file 'texts.txt'"),
    ("steps = 5\n", 'steps = "five"\nlr = 1\n[oops', "not TOML"),
    ('name = "small"', 'name = "small"\nplan = "tunescope.plan/2"', "schema 'tunescope.plan/2' found"),
    ('updates = ["uniform", "lora"]', 'updates = ["uniform", "lora"]\ncondition = "one"', "condition 'one' names several"),
    ('updates = ["uniform", "lora"]', "updates = []", "runs of kind 'tune' need updates"),
    ('[models.tiny-bert.pretrain]', '[models.x]\nplace = "./nothing"\n[models.tiny-bert.pretrain]', "models.x: no such folder './nothing'"),
    ('[models.tiny-bert.pretrain]', '[models.x]\nplace = "package:minilmm"\n[models.tiny-bert.pretrain]', "did you mean package:minilm"),
    ('[measure]\n', '[measure]\noptions = { poling = "mean" }\n', "did you mean pooling"),
    ("steps = 5\n", 'steps = 5\nlr = "fast"\n', "schedule: lr = 'fast' found; give a number above 0"),
    ("steps = 5\n", "steps = 5\nlr = -1\n", "schedule: lr = -1 found; give a number above 0"),
    ("steps = 5\n", "steps = 0\n", "schedule: steps = 0 found; give a whole number from 1"),
    ("steps = 5\n", "epochs = 0\n", "schedule: epochs = 0 found; give a number above 0"),
    ("steps = 5\n", 'steps = 5\nprecision = "fp9"\n', "unknown precision of schedule 'fp9'"),
    ("steps = 5\n", 'steps = 5\nschedule = "cosin"\n', "did you mean cosine"),
    ("steps = 5\n", "steps = 5\ncheckpoints = [6]\n", "runs[1]: a checkpoint at step 6 asked for, and the run has 5"),
    ("steps = 5\n", "steps = 5\ncheckpoints = [0.5]\n", "runs[1]: a checkpoint at step 0.5 asked for"),
    ("steps = 5\n", "epochs = 2\ncheckpoints = [2.5]\n", "runs[1]: a checkpoint at epoch 2.5 asked for, and the run has 2"),
    ("steps = 5\n", "epochs = 1\ncheckpoints = [2]\n", "runs[1]: a checkpoint at epoch 2 asked for, and the run has 1"),
    ("steps = 5\n", "", "runs[1]: how long it is to be trained is not said; give epochs or steps"),
    ("uniform = {}", "uniform = { schedule = { lr = 0 } }", "updates.uniform.schedule: lr = 0 found"),
    ('[measure]\ntexts = ["docs"]', '[measure]\ntexts = ["docs", "docs"]', "runs[1].measure.texts: 'docs' is named twice"),
    ('[measure]\n', '[measure]\nlm = ["docs", "docs"]\n', "runs[1].measure.lm: 'docs' is named twice"),
    ('"cka", "nps"', '"cka", "cka"', "runs[1].measure.measures: 'cka' is named twice"),
    ('[measure]\n', '[measure]\noptions = { pooling = "meen" }\n', "did you mean mean"),
    ('[measure]\n', '[measure]\nlabels = ["docs"]\n', "sources.docs has texts only, and labels need a column of classes"),
    ("amounts = { sigma = 0.1 }", 'to = "npss=.7"', "unknown measure of changes.noise.to 'npss'; did you mean nps"),
    ("amounts = { sigma = 0.1 }", 'to = "nps=far"', "to = 'nps=far' asked for; give one measure and its value"),
    ("amounts = { sigma = 0.1 }", 'to = "isotropy=.7"', "unknown measure of changes.noise.to 'isotropy'"),
    ('updates = ["uniform", "lora"]', 'updates = ["uniform", "lora"]\nexclude = [{ update = "lore" }]', "'lore'; did you mean lora"),
    ('updates = ["uniform", "lora"]', 'updates = ["uniform", "lora"]\nexclude = [{ model = ["tiny-brt"] }]', "did you mean tiny-bert"),
    ('place = "texts.txt"', 'place = "hf:some/set"\nrevision = "abc"', "sources.sets: revision = 'abc' found"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "words"), REFUSED)
def test_what_cannot_be_is_refused_in_one_line_before_anything_runs(old, new, words):
    with pytest.raises(TunescopeError) as caught:
        expand(plan_of(changed(old, new)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "small.toml" in str(caught.value) or "sources.sets" in str(caught.value)


def test_runs_of_one_name_are_refused():
    again = '\n[[runs]]\nmodels = ["tiny-bert"]\nobjectives = ["mlm"]\nupdates = ["lora"]\nschedule = { lr = 1e-3 }\n'
    with pytest.raises(InputError, match="'mlm lora' of tiny-bert seed 0 is planned twice"):
        expand(plan_of(PLAN + again))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('measure = "cka"', 'measure = "procrustes"', "unknown measure of hypothesis 'it moves' among those the plan records 'procrustes'"),
        ('condition = "mlm uniform"', 'condition = "mlm unifrm"', "did you mean mlm uniform"),
        ('measure = "cka"', 'subject = "outcome", task = "docs", measure = "accuracy"', "judged by none"),
        ('measure = "cka"', 'subject = "distance", measure = "procrustes"', "set measure.distances = true"),
        ('measure = "cka"', 'subject = "features", measure = "l0"', "none of the runs it names is of kind 'features'"),
        ('measure = "cka"', 'subject = "geomtry", measure = "cka"', "did you mean geometry"),
        ('measure = "cka"', 'measure = "cka", texts = "dogs"', "unknown texts of hypothesis 'it moves' 'dogs'; did you mean docs"),
        ('measure = "cka"', 'measure = "cka", at = 3', "only the end is measured"),
        ('measure = "cka"', 'measure = "cka", number = "slop"', "did you mean slope"),
        ("above = 0.0", "above = 0.0, at_most = -1.0", "turn the bounds round"),
        ("above = 0.0", "above = 0.0, at_least = 1.0", "one lower bound"),
        ("above = 0.0 }", "above = 0.0 }\nfalsified = { below = 0.1 }", "a value can be both"),
        ("above = 0.0", "above = nan", "a bound must be a finite number"),
        ("above = 0.0", "above = 0.0, at_most = inf", "a bound must be a finite number"),
        ('measure = "cka"', 'measure = "cka", layer = 99', "is about layer 99, and the models it names have 0 to 4"),
        ('measure = "cka"', 'measure = "cka", where = "block 5"', "is about layer 5, and the models it names have 0 to 4"),
        ('measure = "cka"', 'measure = "cka", where = "outptu"', "did you mean output"),
        ('measure = "cka"', 'measure = "cka", where = "block 3", layer = 2', "give one of them"),
        ('measure = "cka"', 'measure = "cka", number = "slope", layer = 2', "a slope is of geometry, over all blocks"),
        ('measure = "cka"', 'subject = "distance", measure = "cosine", number = "slope"', "a slope is of geometry"),
        ('measure = "cka"', 'subject = "outcome", measure = "loss", where = "block 2"', "asked for by layer, not by where"),
        ('measure = "cka"', 'measure = "cka", side = "tuned"', "side = 'tuned' is of an outcome"),
        ('measure = "cka"', 'subject = "outcome", measure = "loss", side = "tunde"', "did you mean tuned"),
        ('measure = "cka"', 'subject = "outcome", measure = "loss", side = "base"', "the base has no change"),
        ('measure = "cka", condition = "mlm uniform"', 'subject = "cost", measure = "sigm"', "did you mean sigma"),
        ('measure = "cka"', 'subject = "cost", measure = "sigma"', "none of the runs it names is of kind 'perturb'"),
        ("uniform\" }\n", 'uniform" }\nminus = { measure = "cka", update = "lora" }\n', "minus has of seed 0 'mlm lora' of"),
        (
            'uniform" }\nsupported = { above = 0.0 }',
            'uniform" }\nminus = { measure = "cka", condition = "mlm lora" }\nsupported = { within = "base interval" }',
            "a difference of two numbers has no base interval",
        ),
    ],
)
def test_a_hypothesis_on_what_is_not_recorded_is_refused(old, new, words):
    expand(plan_of(PLAN + HYPOTHESIS))
    with pytest.raises(InputError) as caught:
        expand(plan_of(PLAN + changed(old, new, HYPOTHESIS)))
    assert words in str(caught.value)


ONE_SEED = """
[[runs]]
models = ["tiny-neox"]
objectives = ["causal-lm"]
updates = ["uniform"]
seeds = [0]
"""


def test_a_difference_needs_the_same_seeds_on_both_sides():
    minus = 'uniform" }\nminus = { measure = "cka", model = "tiny-neox", condition = "causal-lm uniform" }\n'
    text = PLAN + ONE_SEED + changed('uniform" }\n', minus, HYPOTHESIS)
    with pytest.raises(InputError, match="on has seeds 0, 1, minus 0; give both the same"):
        expand(plan_of(text))
    assert expand(plan_of(text.replace("seeds = [0]", "seeds = [0, 1]")))


def test_an_epoch_of_a_run_in_steps_is_refused():
    text = changed('[measure]\n', '[measure]\nat = "checkpoints"\n') + changed('"cka", c', '"cka", at = 0.5, c', HYPOTHESIS)
    with pytest.raises(InputError, match="is about epoch 0.5, and 'mlm uniform' of tiny-bert is given in steps"):
        expand(plan_of(text))
    assert expand(plan_of(text.replace("steps = 5\n", "epochs = 1\ncheckpoints = [0.5]\n")))


@pytest.mark.parametrize(
    ("on", "words"),
    [
        ({"measure": "delta_nrm", "task": "tuned", "layer": 4}, "did you mean delta_norm"),
        ({"measure": "delta_norm", "layer": 4}, "name layer and task"),
        ({"measure": "delta_norm", "task": "tuned"}, "name layer and task"),
        ({"measure": "delta_norm", "task": "tuned", "layer": 3}, "features are recorded at 2, 4"),
    ],
)
def test_a_number_of_features_has_a_task_and_a_layer_that_is_read(on, words):
    _, specs = lenient("tiny-lora-features")
    asked = {"name": "it", "says": "So.", "on": {"subject": "features", **on}, "supported": {"above": 0.0}, "predicted": "supported"}
    with pytest.raises(InputError, match=words):
        check_hypotheses([hypothesis_of(asked)], specs)


def test_two_conditions_are_controlled_only_when_one_declared_field_differs():
    specs = expand(plan_of(PLAN))
    one, other = ("tiny-bert", "mlm uniform"), ("tiny-bert", "simcse uniform")
    assert [str(each) for each in controlled(one, other, "objective.objective", specs).differences] == ["objective.objective: mlm | simcse"]
    assert controlled(one, other, "objective.objective", specs).controlled
    assert not controlled(one, other, "update.update", specs).controlled
    rules = controlled(one, ("tiny-bert", "mlm lora"), "update.update", specs)
    assert [each.field for each in rules.differences] == ["update.options.rank", "update.update"]
    assert not rules.controlled
    assert not controlled(one, one, "seed", specs).controlled, "nothing differs, so nothing was controlled for"


def test_the_word_is_refused_where_more_differs():
    claim = """
[[controlled]]
one = {{ model = "tiny-bert", condition = "mlm uniform" }}
other = {{ model = "tiny-bert", condition = "{}" }}
field = "{}"
"""
    expand(plan_of(PLAN + claim.format("simcse uniform", "objective.objective")))
    with pytest.raises(InputError, match="not controlled: they differ in update.options.rank.*may not be called controlled"):
        expand(plan_of(PLAN + claim.format("mlm lora", "update.update")))
    with pytest.raises(UnknownName, match="did you mean mlm lora"):
        expand(plan_of(PLAN + claim.format("mlm lura", "update.update")))


def test_the_difference_of_a_spec_to_itself_is_nothing():
    specs = expand(plan_of(PLAN))
    assert [each.field for each in difference(specs[0], specs[1])] == ["seed"]
    assert difference(specs[0], replace(specs[0], condition="another name", regime="another")) == ()


# Table 4 of the depth study: runs a model.
PUBLISHED = {
    "BERT-base": 37, "RoBERTa-base": 20, "BERT-large": 25, "Pythia-160m": 32, "OPT-125m": 24, "GPT-2 medium": 24, "CodeGen-350M": 24,
    "Mamba-130m": 20, "RWKV-4-169m": 20, "OPT-1.3B": 3, "Pythia-1.4B": 3, "OPT-2.7B": 2, "Pythia-2.8B": 2, "OPT-6.7B": 2, "Pythia-6.9B": 2,
}  # fmt: skip


def test_depth_has_the_240_runs_of_the_published_table():
    _, specs = lenient("depth")
    assert Counter(spec.model.name for spec in specs) == PUBLISHED
    assert len(specs) == 240
    small = [spec for spec in specs if PUBLISHED[spec.model.name] > 3]
    assert len(small) == 226


def test_depth_has_every_cell_of_the_published_profiles():
    _, specs = lenient("depth")
    printed = table("depth_profiles")
    cells = set(zip(printed["model"], printed["objective"], printed["condition"], strict=True))
    planned = {(spec.model.name, spec.objective.name, spec.update.name) for spec in specs if spec.seed == 42}
    assert cells == {cell for cell in planned if PUBLISHED[cell[0]] > 3}
    assert len(cells) == 210


def test_drift_has_the_published_conditions():
    _, specs = lenient("drift")
    e5 = Counter(spec.condition for spec in specs if spec.model.name == "e5")
    published = ("contrastive lora", "contrastive full", "mlm lora", "mlm-wikipedia lora", "gaussian-16", "random-rank")
    assert {name: e5[name] for name in published} == dict.fromkeys(published, 3)
    tuned = [spec for spec in specs if spec.kind == "tune"]
    assert {tuple(spec.schedule["checkpoints"]) for spec in tuned} == {(1, 3, 5, 10, 20)}
    assert {(spec.schedule["epochs"], spec.schedule["schedule"]) for spec in tuned} == {(50, "cosine")}


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_plan_can_be(name):
    plan, specs = lenient(name)
    assert plan.name == name
    assert specs
    assert estimate(plan, specs).unknown == 0
    text = bundled_text(name)
    assert "/work" not in text
    assert "/home" not in text
    hub = [model for model in tomllib.loads(text)["models"].values() if "/" in model.get("place", "")]
    assert all("revision" in model for model in hub)


@pytest.mark.parametrize("name", [name for name in BUNDLED if name.startswith("tiny")])
def test_tiny_plans_need_nothing_but_the_package(name):
    plan, specs = lenient(name)
    content = LocalContent(plan.folder, lenient=True)
    expand(plan, content=content)
    assert not content.missing
    assert all(model.pretrain or model.place == "package:minilm" for model in plan.models.values())
    assert {source.place for source in plan.sources.values()} <= {"python-docs", "python-docstrings"}


def test_the_block_type_ablation_differs_in_the_block_type_alone():
    _, specs = lenient("tiny-depth")
    field = "model.pretrain.config.use_parallel_residual"
    for condition in ("causal-lm equal-step", "simcse equal-step"):
        found = controlled(("neox-parallel", condition), ("neox-sequential", condition), field, specs)
        assert [(each.field, each.one, each.other) for each in found.differences] == [(field, True, False)]
    assert {spec.objective.settings["views"] for spec in specs if spec.objective.name == "simcse"} == {"forced"}


def test_an_estimate_is_what_its_rules_say():
    plan = plan_of(PLAN)
    spec = next(spec for spec in expand(plan) if spec.condition == "mlm uniform")
    parameters = 4 * (4 * 32**2 + 2 * 32 * 64) + 1024 * 32
    training = 6 * parameters * 5 * 32 * 128 * 0.5
    reading = 2 * 2 * parameters * 1200 * 256 * 0.5
    assert run_cost(plan, spec, tflops=2.0).seconds == pytest.approx((training + reading) / 2e12 + OVERHEAD)
    assert run_cost(plan, spec).memory == pytest.approx(20 * parameters + 68 * 32 * 128 * 4 * 32 + 8 * 32 * 128 * 1024 * 0.15)
    assert run_cost(plan, spec).disk == 3 * 4 * parameters


def test_what_nobody_said_is_counted_and_not_guessed(tmp_path):
    text = changed("steps = 5\n", "epochs = 1\n").replace('mlm = { texts = "docs" }', 'mlm = { texts = "sets" }')
    plan = plan_of(text, tmp_path)
    specs = expand(plan, content=LocalContent(tmp_path, lenient=True))
    assert estimate(plan, specs).unknown == 4, "both rules and seeds of the objective whose file is not here"
    (tmp_path / "texts.txt").write_text("text\n" * 64)
    assert estimate(plan, specs).unknown == 0


def tells_distance(name):
    from tunescope.training.distance_read import directed

    try:
        return directed(name) is not None
    except InputError:
        return False


def test_known_names_are_those_of_the_registries():
    from tunescope.activations.pooling import POOLINGS
    from tunescope.comparison.diff import METHODS
    from tunescope.geometry.measures import MEASURES
    from tunescope.models.load import DTYPES
    from tunescope.outcome.ranking import METRICS
    from tunescope.training.gradient_distances import DISTANCES
    from tunescope.training.objectives import OBJECTIVES
    from tunescope.training.objectives.views import VIEWS
    from tunescope.training.perturb import TAKES
    from tunescope.training.run.spec import PRECISIONS, SCHEDULES, Schedule
    from tunescope.training.updates import UPDATES

    made_of_others = {"mixture", "preserve"}
    plain = {name: kind for name, kind in OBJECTIVES.items() if name not in made_of_others}
    assert {name: (kind.needs, tuple(each.name for each in fields(kind))) for name, kind in plain.items()} == {
        name: ((each.needs,), each.settings) for name, each in known.OBJECTIVES.items()
    }
    assert {name: {each.name for each in fields(kind)} for name, kind in UPDATES.items()} == {
        name: set(options) for name, options in known.UPDATES.items()
    }
    ranges = {name: number for rule in UPDATES.values() for name, number in rule.numbers.items()}
    assert {
        name: (each.whole, each.above if each.least is None else each.least, each.least is not None,
               next((end for end in (each.most, each.below) if end is not None), float("inf")))
        for name, each in ranges.items()
    } == known.OPTION_RANGES  # fmt: skip
    assert TAKES == known.CHANGES
    assert tuple(MEASURES) == known.MEASURES
    assert (METHODS, tuple(DTYPES)) == (known.METHODS, known.PRECISIONS)
    assert METRICS == known.RETRIEVAL
    assert set(VIEWS) == set(known.VIEWS)
    assert tuple(DISTANCES) == known.DISTANCES
    assert (SCHEDULES, PRECISIONS, tuple(POOLINGS)) == (known.SCHEDULES, known.PRECISIONS, known.POOLINGS)
    assert {name for name in MEASURES if tells_distance(name)} == set(known.TARGETS)
    assert {each for takes in TAKES.values() for each in takes} - {"like", "layers"} == set(known.AMOUNTS)
    assert {each.name for each in fields(Schedule)} | {"checkpoints", "max_length"} == set(known.SCHEDULE)
    assert {name for name, each in known.OBJECTIVES.items() if each.reads == known.LEFT} == {"causal-lm", "causal-span", "sft"}


def test_options_are_arguments_of_the_calls_they_go_to():
    import inspect

    import tunescope as ts

    assert set(known.DIFF_OPTIONS) <= set(inspect.signature(ts.diff).parameters)
    assert set(known.FEATURE_OPTIONS) <= set(inspect.signature(ts.features).parameters)


def test_families_of_bundled_models_are_known():
    families = {family for name in BUNDLED for family in read_plan(name).families.values()}
    assert families <= FAMILIES.keys()


def test_a_local_model_is_asked_what_it_is(tmp_path):
    (tmp_path / "here").mkdir()
    text = changed("[models.tiny-bert.pretrain]", '[models.here]\nplace = "here"\n[models.tiny-bert.pretrain]')
    with pytest.raises(ModelError, match="the folder .*here' holds no model"):
        plan_of(text, tmp_path)
    (tmp_path / "here" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    block = '\n[[runs]]\nmodels = ["here"]\nobjectives = ["mlm"]\nupdates = ["uniform"]\n'
    with pytest.raises(InputError, match="'here' reads to the left only"):
        expand(plan_of(text + block, tmp_path))


@pytest.mark.parametrize("command", [["plan", "tiny-depth"], ["plan", "depth", "--json"], ["register", "--help"], ["verdict", "--help"]])
def test_planning_loads_no_torch(command, tmp_path):
    program = f"""
import sys
sys.argv = {["tunescope", "study", *command]!r}
from tunescope.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "240" in done.stdout or "28 runs" in done.stdout or "Usage" in done.stdout


def test_an_impossible_plan_exits_with_status_2_and_one_line(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(changed('objectives = ["mlm", "simcse"]', 'objectives = ["causal-lm"]'))
    for command in (["plan", str(path)], ["register", str(path), "--out", "out"], ["run", str(path), "--out", "out"]):
        done = subprocess.run(
            [sys.executable, "-m", "tunescope", "study", *command], capture_output=True, text=True, timeout=60, cwd=tmp_path
        )
        assert done.returncode == 2
        assert done.stderr.startswith("tunescope: ")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_a_bundled_plan_can_be_taken_and_changed(tmp_path):
    from typer.testing import CliRunner

    from tunescope.cli import app

    path = tmp_path / "mine.toml"
    assert CliRunner().invoke(app, ["study", "plan", "drift", "--write", str(path)]).exit_code == 0
    assert path.read_text() == bundled_text("drift")
    with pytest.raises(UnknownName, match="did you mean drift"):
        read_plan("drit")
    with pytest.raises((FormatError, ModelError, InputError)):
        read_plan(tmp_path / "none.toml")
