"""`diff` end to end on tiny models: what it says of models that are the same, altered in one block, deeper, wider, or of every family."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tunescope as ts
from tiny_models import CONFIGS, DECODERS, UNLISTED, WORDS, adapted, save_adapter, save_model, tiny_model, tiny_tokenizer, tokenizer_for
from tunescope.errors import AlignmentError, FormatError, InputError, ModelError, NotEnoughRows, OutputError, UnknownName
from tunescope.models.quiet import quietly

FAMILIES = [*CONFIGS, *UNLISTED]


def sentences(n: int = 40, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, size=draw.integers(3, 20))) for _ in range(n)]


def altered(model: torch.nn.Module, block: int, by: float = 0.3) -> torch.nn.Module:
    """A copy in which every matrix of one block is moved."""
    from tunescope.models.anatomy import read_anatomy

    moved = copy.deepcopy(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in read_anatomy(moved).block_modules(moved)[block - 1].parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return moved


@pytest.fixture(scope="module")
def bert() -> torch.nn.Module:
    return tiny_model("bert", num_hidden_layers=4)


@pytest.fixture(scope="module")
def moved(bert) -> ts.Comparison:
    return ts.diff((bert, tokenizer_for("bert")), (altered(bert, 3), tokenizer_for("bert")), sentences(), measures="all")


def test_identical_models_show_exactly_no_change(bert):
    c = ts.diff((bert, tokenizer_for("bert")), (copy.deepcopy(bert), tokenizer_for("bert")), sentences(), measures="all")
    assert set(c.profile["status"]) == {"untouched"}
    assert c.profile["identical"].all()
    for row in [*c.payload["layers"], *c.payload["sites"].values()]:
        assert {cell["change"] for cell in row["measures"].values()} == {0.0}
    assert np.diag(c.cross.to_numpy()).tolist() == [1.0] * 5
    assert c.headline.startswith("Nothing changed")
    assert c.payload["width"]["shares"] is None
    assert c.payload["width"]["reason"]


def test_the_noise_of_the_arithmetic_is_measured_and_small(moved):
    noise = [cell["noise"] for row in moved.payload["layers"] for name, cell in row["measures"].items() if name in ("cka", "procrustes")]
    assert all(0 <= value < 1e-4 for value in noise)


def test_one_altered_block_is_named_and_nothing_below_it_moves(moved):
    layers = moved.payload["layers"]
    assert [row["identical"] for row in layers] == [True, True, True, False, False]
    assert [row["measures"]["cka"]["change"] for row in layers[:3]] == [0.0] * 3
    assert all(row["measures"]["cka"]["change"] > 1e-6 for row in layers[3:])
    assert "The change starts at block 3, whose effect carries forward: everything before it is exactly unchanged." in moved.headline
    assert moved.payload["locality"]["cka"]["peak_depth"] in (0.75, 1.0)


def test_the_values_are_those_of_the_front_doors(bert, moved):
    """The same rows through transformers' own hidden states, pooled here, and `ts.<measure>`."""
    texts, tokenizer = sentences(), tokenizer_for("bert")
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    weights = batch["attention_mask"][..., None] / batch["attention_mask"].sum(1)[:, None, None]
    pooled = []
    for model in (bert, altered(bert, 3)):
        with torch.no_grad(), quietly():
            states = model(**batch, output_hidden_states=True).hidden_states
        pooled.append([(state * weights).sum(1) for state in states])
    for name in ("cka", "debiased_cka", "procrustes", "nps", "rsa", "linear_r2"):
        for layer in (3, 4):
            expected = getattr(ts, name)(pooled[0][layer], pooled[1][layer])
            assert moved.profile.loc[layer, name] == pytest.approx(expected, abs=1e-5), (name, layer)
    assert moved.cross.loc["block 1", "block 4"] == pytest.approx(ts.cka(pooled[0][1], pooled[1][4]), abs=1e-5)


def test_every_number_carries_its_floor_interval_and_meaning(moved):
    for row in moved.payload["layers"]:
        for name, cell in row["measures"].items():
            assert {"value", "change", "low", "high", "null", "null_sd"} <= cell.keys()
            assert cell["null"] is not None or cell["null_reason"], name
            if cell["value"] is not None:
                assert cell["low"] <= cell["value"] + 1e-12, name
                assert cell["value"] <= cell["high"] + 1e-12, name
    assert all(about["reference"] and about["title"] for about in moved.payload["measures"].values())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_goes_through(family):
    base = tiny_model(family)
    c = ts.diff((base, tokenizer_for(family)), (altered(base, 2), tokenizer_for(family)), sentences(24))
    assert [row["identical"] for row in c.payload["layers"]] == [True, True, False, False]
    assert c.payload["base"]["derived"] is (family in UNLISTED)
    assert not c.payload["sites"]["output"]["identical"]


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_batch_size_does_not_change_the_numbers(family):
    base = tiny_model(family)
    pair = (base, tokenizer_for(family)), (altered(base, 1), tokenizer_for(family))
    one, other = (ts.diff(*pair, sentences(), batch_size=size).profile for size in (3, 32))
    columns = [name for name in one.columns if name.endswith(("cka", "procrustes", "nps", "isotropy"))]
    np.testing.assert_allclose(one[columns].to_numpy(float), other[columns].to_numpy(float), atol=1e-5)


def test_the_order_of_the_texts_does_not_change_the_numbers(bert):
    pair = (bert, tokenizer_for("bert")), (altered(bert, 3), tokenizer_for("bert"))
    texts = sentences()
    one, other = (ts.diff(*pair, order).profile for order in (texts, texts[::-1]))
    columns = ["cka", "debiased_cka", "procrustes", "nps", "isotropy", "cka_low", "cka_null", "nps_null_sd"]
    np.testing.assert_allclose(one[columns].to_numpy(float), other[columns].to_numpy(float), atol=1e-5)


def test_an_adapter_shares_its_base_and_equals_the_merged_model(tmp_path):
    base = save_model(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    c = ts.diff(base, adapter, sentences())
    assert c.payload["tuned"]["adapter"]["rank"] == 2
    assert c.payload["base"]["adapter"] is None
    from transformers import AutoModel

    merged = adapted(AutoModel.from_pretrained(base)).merge_and_unload()
    same = ts.diff(base, (merged, tokenizer_for("bert")), sentences())
    np.testing.assert_allclose(c.profile["cka"], same.profile["cka"], atol=1e-5)
    alone = ts.diff(adapter, texts=sentences())  # base read from the adapter's own config
    assert alone.profile["cka"].tolist() == c.profile["cka"].tolist()


def test_models_of_another_depth_and_width_are_paired_by_depth():
    deep, shallow = tiny_model("bert", num_hidden_layers=4), tiny_model("bert", num_hidden_layers=2, hidden_size=8)
    c = ts.diff((deep, tokenizer_for("bert")), (shallow, tokenizer_for("bert")), sentences(), measures="all")
    assert [row["name"] for row in c.payload["layers"]] == ["embeddings", "block 1 (base block 2)", "block 2 (base block 4)"]
    assert c.cross.shape == (5, 3)
    assert any("relative depth" in warning for warning in c.warnings)
    assert any("16 features and tuned 8" in warning for warning in c.warnings)
    cell = c.payload["layers"][1]["measures"]["relative_drift"]
    assert cell["value"] is None
    assert "same features" in cell["reason"]
    assert c.payload["layers"][1]["measures"]["cka"]["value"] is not None
    json.dumps(c.payload, allow_nan=False)


def test_another_tokenizer_or_a_resized_vocabulary_is_said(bert):
    other = tiny_tokenizer(special=False)
    c = ts.diff((bert, tokenizer_for("bert")), (bert, other), sentences())
    assert any("tokenizers differ" in warning for warning in c.warnings)
    with pytest.raises(AlignmentError, match="token rows are not the same tokens"):
        ts.diff((bert, tokenizer_for("bert")), (bert, other), sentences(), pooling="none")
    bigger = copy.deepcopy(bert)
    with quietly():
        bigger.resize_token_embeddings(50)
    c = ts.diff((bert, tokenizer_for("bert")), (bigger, tokenizer_for("bert")), sentences())
    assert any("vocabulary was resized, 48 → 50" in warning for warning in c.warnings)
    assert c.headline.startswith("Nothing changed")


def test_constant_rows_have_no_geometry_and_that_is_said():
    """The [CLS] row of the embeddings is the same for every text."""
    base = tiny_model("bert")
    c = ts.diff((base, tokenizer_for("bert")), (altered(base, 1), tokenizer_for("bert")), sentences(), pooling="cls")
    assert c.payload["layers"][0]["identical"]
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.embeddings.LayerNorm.bias.add_(1)
    c = ts.diff((base, tokenizer_for("bert")), (tuned, tokenizer_for("bert")), sentences(), pooling="cls")
    assert c.payload["layers"][0]["measures"]["cka"]["value"] is None
    assert any("embeddings: all 40 rows of x are the same" in warning for warning in c.warnings)
    assert c.payload["cross"]["values"][0] == [None] * 4
    c.html()


def test_token_rows_take_texts_as_their_units(bert):
    pair = (bert, tokenizer_for("bert")), (altered(bert, 3), tokenizer_for("bert"))
    tokens = ts.diff(*pair, sentences(), pooling="none")
    assert tokens.payload["data"]["rows"] == tokens.payload["data"]["tokens"] > 300
    assert tokens.payload["data"]["n"] == 40
    cell, pooled = (c.payload["layers"][4]["measures"]["cka"] for c in (tokens, ts.diff(*pair, sentences())))
    # with 12 times the rows but the same texts, the interval must not shrink as if tokens were independent
    assert (cell["high"] - cell["low"]) > 0.3 * (pooled["high"] - pooled["low"])


def test_layers_and_measures_can_be_chosen(bert):
    pair = (bert, tokenizer_for("bert")), (altered(bert, 3), tokenizer_for("bert"))
    c = ts.diff(*pair, sentences(), layers=[0, 4], measures="nps")
    assert c.profile.index.tolist() == [0, 4]
    assert list(c.payload["measures"]) == ["cka", "nps"]
    with pytest.raises(InputError, match=r"layers 9 asked for; .* has 0 \(embeddings\) to 4"):
        ts.diff(*pair, sentences(), layers=[9])
    with pytest.raises(UnknownName, match="unknown measure 'npss'; did you mean nps"):
        ts.diff(*pair, sentences(), measures=["npss"])
    with pytest.raises(NotEnoughRows, match="nps needs at least 12 texts, got 5"):
        ts.diff(*pair, sentences(5))


def test_saved_and_loaded_is_the_same_comparison(moved, tmp_path):
    moved.save(tmp_path / "out", figures=False)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["comparison.json", "records.jsonl", "report.html"]
    assert ts.load(tmp_path / "out").payload == moved.payload
    from tunescope.records import read_records

    records = read_records(tmp_path / "out" / "records.jsonl")
    assert records == moved.records
    assert len(records) == 7 * len(moved.payload["measures"])
    moved.save(tmp_path / "out")  # an earlier result of ours is replaced


def test_a_folder_that_holds_something_else_is_refused(moved, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds something else \(thesis.tex\)"):
        moved.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="it is a file"):
        moved.save(tmp_path / "file")


def test_a_failed_save_leaves_nothing_behind(moved, tmp_path, monkeypatch):
    monkeypatch.setattr(ts.Comparison, "html", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        moved.save(tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_result_of_another_schema_is_refused(tmp_path):
    (tmp_path / "comparison.json").write_text('{"schema": "tunescope.comparison/99"}')
    with pytest.raises(FormatError, match="schema 'tunescope.comparison/99'; this version reads 'tunescope.comparison/1'"):
        ts.load(tmp_path)
    with pytest.raises(FormatError, match=r"no comparison.json in"):
        ts.load(tmp_path / "nowhere")


def test_the_notebook_view_is_the_page(moved):
    assert moved._repr_html_().startswith("<iframe srcdoc=")
    assert moved.headline in repr(moved)


def test_controls_stand_beside_the_tuned_model(bert):
    base = ts.load_model((bert, tokenizer_for("bert")))
    noise = ts.perturb(base, kind="gaussian", sigma=0.1)
    c = ts.diff(base, (altered(bert, 3), tokenizer_for("bert")), sentences(), controls={"noise": noise})
    (control,) = c.payload["controls"]
    assert control["name"] == "noise"
    assert [row["index"] for row in control["layers"]] == [0, 1, 2, 3, 4]
    assert all(row["measures"]["cka"]["change"] > 0 for row in control["layers"])


def test_a_list_of_controls_goes_by_the_names_of_its_models(bert):
    base = ts.load_model((bert, tokenizer_for("bert")))
    noise = [ts.perturb(base, kind="gaussian", sigma=sigma) for sigma in (0.1, 0.2)]
    c = ts.diff(base, (altered(bert, 3), tokenizer_for("bert")), sentences(), controls=iter(noise))
    assert [control["name"] for control in c.payload["controls"]] == ["gaussian noise, σ = 0.1", "gaussian noise, σ = 0.2"]


def test_controls_that_are_no_models_are_refused_before_any_work(bert):
    base = ts.load_model((bert, tokenizer_for("bert")), name="base")
    for controls, message in (
        (base, "controls are several models, and a Model was given; give the Models that ts.perturb"),
        (3, "a int was given"),
        (["./folder"], r"control './folder' is a str and no Model"),
        ({"noise": (bert, tokenizer_for("bert"))}, "control 'noise' is a tuple and no Model"),
        ([base, base], "two controls are called 'base'"),
    ):
        with pytest.raises(InputError, match=message):
            ts.diff("no such model", "nor this", "no such texts", controls=controls)


def test_sites_are_a_table_like_the_profile(moved):
    assert list(moved.sites.index) == ["final", "output"]
    assert set(moved.profile.columns) - set(moved.sites.columns) == {"name", "depth"}
    assert moved.sites.loc["output", "cka"] == moved.payload["sites"]["output"]["measures"]["cka"]["value"]
    assert list(ts.Comparison(moved.payload | {"sites": {}}).sites.columns) == ["status", "identical", "saturated"]


def test_the_same_weights_twice_are_warned_of_and_no_floor_is(bert):
    pair = (bert, tokenizer_for("bert"))
    c = ts.diff(pair, (copy.deepcopy(bert), tokenizer_for("bert")), sentences(), measures="all")
    assert any(warning.startswith("both sides have the same weights") for warning in c.warnings)
    assert not any("chance alone reads" in warning for warning in c.warnings)
    moved = ts.diff(pair, (altered(bert, 3), tokenizer_for("bert")), sentences(), measures="all")
    assert any("chance alone reads" in warning for warning in moved.warnings)
    assert not any("same weights" in warning for warning in moved.warnings)


def test_an_adapter_that_adds_zero_is_warned_of(tmp_path):
    """B = 0 is how PEFT begins a LoRA, so the first saved adapter of a run that never trained adds nothing."""
    from peft import LoraConfig, get_peft_model

    base = save_model(tmp_path / "base")
    with quietly():
        get_peft_model(tiny_model("bert"), LoraConfig(r=2, target_modules=["query"])).save_pretrained(tmp_path / "fresh")
    c = ts.diff(base, tmp_path / "fresh", sentences())
    assert any("the adapter changes nothing: was it trained?" in warning for warning in c.warnings)
    adapter = save_adapter(tmp_path / "adapter", base)
    for method in ("exact", "stream"):  # a stream keeps no rows to tell it by
        trained = ts.diff(base, adapter, sentences(), method=method)
        assert not any("changes nothing" in warning for warning in trained.warnings)


def test_a_fine_tune_saved_without_its_tokenizer_is_read_with_the_base_s(tmp_path):
    base = tiny_model("bert")
    save_model(tmp_path / "base", model=base)
    for name in ("tuned", "whole"):
        save_model(tmp_path / name, model=altered(base, 2))
    for file in tmp_path.glob("tuned/*token*"):
        file.unlink()
    c = ts.diff(tmp_path / "base", tmp_path / "tuned", sentences())
    assert any("tuned' holds no tokenizer files: its texts were cut into tokens by the base's" in warning for warning in c.warnings)
    whole = ts.diff(tmp_path / "base", tmp_path / "whole", sentences())
    np.testing.assert_array_equal(c.profile["cka"], whole.profile["cka"])
    with pytest.raises(ModelError, match=r"tuned' holds no tokenizer files; copy tokenizer\*\.json there from the base"):
        ts.load_model(tmp_path / "tuned")


STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K" / "hf"


@pytest.mark.skipif(not STORIES.is_dir(), reason="the trained tiny causal model is not here")
def test_a_really_trained_causal_model_against_a_copy_tuned_by_a_few_steps(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = [f"Once upon a time there was a {word} who wanted to find a {other}." for word in WORDS[:8] for other in WORDS[8:14]]
    with quietly():
        model, tokenizer = AutoModelForCausalLM.from_pretrained(STORIES), AutoTokenizer.from_pretrained(STORIES)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for text in texts[:6]:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.save_pretrained(tmp_path / "tuned")
        tokenizer.save_pretrained(tmp_path / "tuned")
    c = ts.diff(STORIES, tmp_path / "tuned", texts)
    changes = c.profile["cka_change"]
    assert (changes > 0).all()
    assert changes.iloc[-1] > changes.iloc[0]
    assert c.payload["base"]["family"] == "llama"
    assert not c.payload["base"]["derived"]
    assert "llama" in DECODERS


def test_layers_left_out_are_not_spoken_of(bert):
    pair = (bert, tokenizer_for("bert")), (altered(bert, 3), tokenizer_for("bert"))
    c = ts.diff(*pair, sentences(), layers=(i for i in (0, 3)))
    assert "1 of the 4 blocks (1 measured)" in c.headline
    assert "The change starts" not in c.headline
    assert c.payload["width"]["final_share"] is None
    assert "1 of 4 blocks were measured" in c.payload["width"]["reason"]
    assert "1 of 4 blocks were measured" in c.payload["published"]["reason"]


def test_layers_without_a_value_are_not_called_untouched():
    """Every text of a causal model begins with the same token, so its cls rows are all alike."""
    base = tiny_model("llama")
    tokenizer = tiny_tokenizer(pad=False)
    c = ts.diff((base, tokenizer), (altered(base, 2), tokenizer), sentences(), pooling="cls")
    assert "Almost nothing moved" not in c.headline
    assert "2 of 4 layers could not be measured" in c.headline
    assert any("use another pooling" in warning for warning in c.warnings)


def test_a_word_that_another_sample_could_change_is_warned_of(bert):
    base = tiny_model("bert")
    pair = (base, tokenizer_for("bert")), (altered(base, 1, by=0.03), tokenizer_for("bert"))
    c = ts.diff(*pair, sentences(14))
    cells = {row["name"]: row["measures"]["cka"] for row in c.payload["layers"]}
    spans = [name for name, cell in cells.items() if any(cell["low"] < cut <= cell["high"] for cut in (0.99, 0.87))]
    said = " ".join(warning for warning in c.warnings if "crosses a cut-off" in warning)
    assert spans
    assert all(name in said for name in spans)


@pytest.mark.parametrize("name", ["report.html", "figures/my_thesis.png"])
def test_files_named_like_ours_but_not_ours_are_kept(moved, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        moved.save(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_two_savers_take_turns_and_the_last_result_is_whole(moved, tmp_path):
    import threading

    other = ts.Comparison(moved.payload | {"headline": "another result entirely"})
    failures: list[Exception] = []

    def save(comparison: ts.Comparison) -> None:
        try:
            comparison.save(tmp_path / "out")
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    for _ in range(4):
        savers = [threading.Thread(target=save, args=(c,)) for c in (moved, other)]
        [saver.start() for saver in savers]
        [saver.join() for saver in savers]
        assert failures == []
        said = ts.load(tmp_path / "out").headline
        assert ("another result entirely" in (tmp_path / "out" / "report.html").read_text()) is (said == "another result entirely")
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["comparison.json", "records.jsonl", "report.html"]


def test_a_peft_model_that_also_trained_biases_needs_its_base():
    from tunescope.errors import AdapterError

    tuned = adapted(tiny_model("bert"), bias="all")
    with pytest.raises(AdapterError, match=r"also trains biases of the base \(bias='all'\)"):
        ts.diff(None, (tuned, tokenizer_for("bert")), sentences())
    c = ts.diff((tiny_model("bert"), tokenizer_for("bert")), (tuned, tokenizer_for("bert")), sentences())
    assert c.payload["tuned"]["adapter"]["kind"] == "LORA"
