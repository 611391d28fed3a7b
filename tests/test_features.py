"""`ts.features` from models to its folder: what is exactly known is exact, and an interruption changes nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

import tunescope as ts
from tiny_models import VOCABULARY, WORDS, save_adapter, save_model
from tunescope.comparison.features import FeatureComparison
from tunescope.errors import InputError, NotEnoughRows, OutputError, UnknownName

ASKED = {"layers": [1, 2], "latents": 48, "k": 3, "steps": 30, "batch_size": 8, "max_length": 32}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny Llama and two adapters of ranks 2 and 4 with weights drawn at random, as folders."""
    home = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    save_model(home / "base", "llama", model=LlamaModel(config))
    for rank in (2, 4):
        save_adapter(home / f"rank{rank}", home / "base", r=rank, target_modules=["q_proj", "down_proj"], seed=rank)
    return home


@pytest.fixture(scope="module")
def texts():
    draw = random.Random(0)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randint(6, 20))) for _ in range(120)]


@pytest.fixture(scope="module")
def found(models, texts, tmp_path_factory) -> FeatureComparison:
    tuned = {"two": models / "rank2", "four": models / "rank4"}
    return ts.features(models / "base", tuned, texts, out=tmp_path_factory.mktemp("out") / "features", **ASKED)


def places(rows) -> set:
    return {(row["layer"], row["name"]) for row in rows}


ALL = {(layer, name) for layer in (1, 2) for name in ("two", "four")}


def test_every_place_has_its_rows_and_every_row_its_floor(found):
    payload = found.payload
    assert payload["schema"] == "tunescope.features/1"
    assert json.loads((found.folder / "features.json").read_text()) == json.loads(json.dumps(payload))
    for section in ("quality", "alignment", "verdicts", "dictionaries"):
        assert places(payload[section]) == ALL, section
    for row in payload["alignment"]:
        assert row["floor"] is not None
        assert row["floor_of"] or row["comparison"].startswith("improvement")
        assert row["verdict"] or row["comparison"].startswith("improvement")
    matched = [row for row in payload["alignment"] if row["comparison"] == "one_to_one_cosine"]
    assert all(row["ceiling"] is not None for row in matched)  # two seeds
    assert {row["verdict"] for row in payload["verdicts"]} <= {"new", "reused", "partly reused", "nothing above its floor", "undecided"}
    tables = [(row["layer"], row["name"], row["comparison"]) for row in payload["tables"]]
    assert (1, None, "adapter_by_adapter") in tables
    assert (None, "two", "layer_by_layer") in tables


def test_what_was_not_tuned_is_exactly_zero_and_controls_stand_in_the_table(found):
    controls = {(row["control"], row["layer"], row["name"]): row for row in found.payload["controls"]}
    for layer in (1, 2):
        assert controls["zero", layer, None]["largest"] == 0.0
        assert controls["noise", layer, None]["largest"] < 1e-4
        for name in ("two", "four"):
            assert controls["random", layer, name]["relative"] > 0
            assert controls["shuffled", layer, name]["floor"] is not None
    norms = {(row["layer"], row["name"]): row for row in found.payload["norms"]}
    assert norms[1, "two"]["rank"] == 2
    assert norms[2, "four"]["relative"] > 0


def test_quality_is_that_of_the_dictionary_that_was_kept(found):
    """R² recomputed here in float64, from the dictionary on disk and the stored deltas."""
    store = ts.load_deltas(found.folder / "deltas")
    for row in found.payload["quality"]:
        x = torch.cat(list(store.rows(row["layer"], row["name"], "held_out").in_order())).double()
        rebuilt = found.dictionary(row["layer"], row["name"], seed=row["seed"]).reconstruct(x.float()).double()
        r2 = 1 - (x - rebuilt).square().sum() / (x - x.mean(0)).square().sum()
        assert row["r2"]["value"] == pytest.approx(float(r2), abs=1e-5)
        assert row["rows"] == len(x)


def test_features_are_read_one_by_one(found):
    card = json.loads((found.folder / "features" / "four-layer-2.json").read_text())
    assert card["latents"] == 48
    strongest = card["features"][0]
    assert strongest["contexts"][0]["activation"] == pytest.approx(strongest["max"], rel=1e-5)
    assert len(strongest["nearest"]) == 3


def test_pages_are_written_and_name_one_another(found):
    pages = {entry.name for entry in found.folder.glob("*.html")}
    assert pages == {"report.html"} | {f"features-{name}-layer-{layer}.html" for layer, name in ALL}
    report = (found.folder / "report.html").read_text(encoding="utf-8")
    assert all(page in report for page in pages - {"report.html"})


def test_a_random_models_body_has_no_behaviour_to_recover_and_says_so(found):
    assert found.payload["recovered"] is None
    assert any("behaviour recovered is not measured" in said for said in found.warnings)


def test_the_same_call_returns_what_is_there_and_another_is_refused(found, models, texts):
    tuned = {"two": models / "rank2", "four": models / "rank4"}
    again = ts.features(models / "base", tuned, texts, out=found.folder, resume=True, **ASKED)
    assert again.payload == json.loads(json.dumps(found.payload))
    with pytest.raises(OutputError, match="finished comparison of features; go on with it"):
        ts.features(models / "base", tuned, texts, out=found.folder, **ASKED)
    with pytest.raises(OutputError, match="texts .* there, .* asked for"):
        ts.features(models / "base", tuned, texts[:60], out=found.folder, resume=True, **ASKED)
    with pytest.raises(OutputError, match="store_dtype 'float32' there, 'bfloat16' asked for"):
        ts.features(models / "base", tuned, texts, out=found.folder, resume=True, store_dtype="bfloat16", **ASKED)
    with pytest.raises(OutputError, match="steps 30 there, 31 asked for"):
        ts.features(models / "base", tuned, texts, out=found.folder, resume=True, **ASKED | {"steps": 31})


def test_the_bases_own_dictionary_may_be_given(found, models, texts, tmp_path):
    """One trained on the base's own rows and saved as SAELens saves it; of another layer it is refused by name."""
    base_rows = ts.load_deltas(found.folder / "deltas").rows(2, "base", "train")
    (sae,) = ts.train_sae(base_rows, latents=48, k=3, seeds=(0,), steps=30)
    ts.save_dictionary(sae, tmp_path / "base-sae", hook_name="blocks.1.hook_resid_post")
    asked = ASKED | {"layers": 2, "controls": (), "seeds": (0,), "dictionary": tmp_path / "base-sae"}
    given = ts.features(models / "base", models / "rank2", texts, out=tmp_path / "given", **asked)
    assert places(given.payload["verdicts"]) == {(2, "rank2")}
    with pytest.raises(InputError, match="of layer 2 .* and layer 1 was asked for"):
        ts.features(models / "base", models / "rank2", texts, out=tmp_path / "wrong", **asked | {"layers": 1})
    deltas = found.folder / "dictionaries" / "two" / "layer-2" / "seed-0"
    with pytest.raises(InputError, match="trained on the deltas of 'two', not on the base"):
        ts.features(models / "base", models / "rank2", texts, out=tmp_path / "wrong", **asked | {"dictionary": deltas})
    (narrow,) = ts.train_sae(base_rows.batches(64, seed=0, epoch=0).__next__()[:, :10], latents=12, k=2, seeds=(0,), steps=2)
    with pytest.raises(InputError, match="reads activations of width 10, layer 2 of the base has"):
        ts.features(models / "base", models / "rank2", texts, out=tmp_path / "wrong", **asked | {"dictionary": narrow})
    assert not (tmp_path / "wrong").exists(), "said before the models are run"


def test_no_two_dictionaries_begin_at_the_same_weights(found):
    """Of one start, two trainings of a few steps are alike whatever they were trained on, and the cosine to the base reads too high."""
    starts = {}
    for name in ("base", "two", "four"):
        for layer in (1, 2):
            for place in (found.folder / "dictionaries" / name / f"layer-{layer}").iterdir():
                starts[name, layer, place.name] = ts.read_dictionary(place).metadata["start"]
    assert len(starts) == 2 * (2 + 2 + 1), "the base's own is kept too"
    assert len(set(starts.values())) == len(starts)


@pytest.fixture(scope="module")
def partly(models, texts, tmp_path_factory):
    """Three adapters: of both blocks, of the last alone, and one whose update is 0."""
    home = tmp_path_factory.mktemp("partly")
    save_adapter(home / "last", models / "base", r=2, target_modules=["layers.1.self_attn.q_proj"], seed=3)
    save_adapter(home / "idle", models / "base", r=2, target_modules=["q_proj"], lora_alpha=0)
    tuned = {"both": models / "rank2", "last": home / "last", "idle": home / "idle"}
    return ts.features(models / "base", tuned, texts, out=home / "features", **ASKED)


def test_the_base_dictionary_is_measured_on_the_bases_own_activations(found):
    store = ts.load_deltas(found.folder / "deltas")
    for row in found.payload["base_quality"]:
        x = torch.cat(list(store.rows(row["layer"], "base", "held_out").in_order())).double()
        base = ts.read_dictionary(found.folder / "dictionaries" / "base" / f"layer-{row['layer']}" / "seed-0")
        left = (x - base.reconstruct(x.float()).double()).square().sum()
        assert row["r2"]["value"] == pytest.approx(1 - float(left / (x - x.mean(0)).square().sum()), abs=1e-5)
        weak = [flag for flag in found.payload["flags"] if flag["flag"] == "weak_base_dictionary" and flag["layer"] == row["layer"]]
        assert bool(weak) == (row["r2"]["value"] < 0.5)


def test_where_one_of_several_changed_nothing_it_is_shown_and_the_others_are_compared(partly):
    payload = partly.payload
    verdicts = {(row["layer"], row["name"]): row["verdict"] for row in payload["verdicts"]}
    unmoved = {(1, "last"), (1, "idle"), (2, "idle")}
    assert {place for place, word in verdicts.items() if word == "nothing changed"} == unmoved
    for section in ("quality", "alignment", "dictionaries", "pages"):
        assert places(payload[section]) == set(verdicts) - unmoved
    assert {(row["layer"], row["name"]): row["norm"] == 0 for row in payload["norms"] if row["name"] in ("both", "last", "idle")} == {
        place: place in unmoved for place in verdicts
    }
    pairs = {row["sides"] for row in payload["tables"] if row["layer"] == 2}
    assert any("both" in sides and "last" in sides for sides in pairs)
    assert not any("idle" in sides for sides in pairs)
    page = (partly.folder / "report.html").read_text(encoding="utf-8")
    assert "changed nothing at layers 1 and 2" in page
    assert "0 comparisons" not in page


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"layers": 3}, InputError, "layer 3 asked for"),
        ({"layers": []}, InputError, "no layer asked for"),
        ({"architecture": "top"}, UnknownName, "did you mean topk"),
        ({"controls": ("zeros",)}, UnknownName, "did you mean zero"),
        ({"seeds": (1, 1)}, InputError, "none twice"),
        ({"latents": 100_000}, NotEnoughRows, "100,000 latents asked of"),
        ({"kind": "local"}, InputError, "local deltas are of modules"),
        ({"kind": "foo"}, UnknownName, "unknown kind of delta 'foo'"),
        ({"latents": 8, "k": 9}, InputError, "k 9 asked for with 8 latents"),
        ({"steps": 0}, InputError, "steps 0 asked for"),
        ({"layers": 0}, InputError, "the delta of 'rank2' at layer 0 is the same at every token"),
        ({"held_out_share": 0.0}, NotEnoughRows, "0 of 20 documents would be held out"),
        ({"dictionary": {2: "x"}, "layers": 1}, InputError, "a dictionary of layer 2 was given"),
    ],
)
def test_what_cannot_be_compared_is_refused(models, texts, tmp_path, change, error, words):
    with pytest.raises(error, match=words):
        ts.features(models / "base", models / "rank2", texts[:20], out=tmp_path / "out", **ASKED | change)
    if "latents" not in change and change.get("layers") != 0:  # these are known from the deltas alone
        assert not (tmp_path / "out").exists(), "a mended call is not told of an unfinished one"


def test_a_folder_with_something_else_is_left_alone(models, texts, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        ts.features(models / "base", models / "rank2", texts, out=tmp_path, **ASKED)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_it_ends_the_same(models, tmp_path):
    """Three kills of `tunescope features` at random moments: features.json and dictionaries are byte for byte those of a whole run."""
    draw = random.Random(1)
    (tmp_path / "texts.txt").write_text("\n".join(" ".join(draw.choice(WORDS) for _ in range(20)) for _ in range(300)))
    command = [sys.executable, "-m", "tunescope", "features", str(models / "base"), str(models / "rank4"), "--layer", "2", "--resume"]
    command += ["--texts", str(tmp_path / "texts.txt"), "--latents", "48", "--k", "3", "--steps", "400", "--batch-size", "8"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True, env=environment)
    took = time.monotonic() - started
    killed = 0
    for _ in range(8):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([*command, "--out", str(tmp_path / "part")], env=environment, **quiet)
        time.sleep(draw.uniform(0.3, 0.9) * took)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        if killed == 3:
            break
    assert killed >= 1
    subprocess.run([*command, "--out", str(tmp_path / "part")], check=True, capture_output=True, env=environment)
    whole, part = (json.loads((tmp_path / name / "features.json").read_text()) for name in ("whole", "part"))
    for payload in (whole, part):
        payload.pop("created")
    assert whole == part
    for row in whole["dictionaries"]:
        for file in ("sae_weights.safetensors", "cfg.json"):
            assert (tmp_path / "whole" / row["folder"] / file).read_bytes() == (tmp_path / "part" / row["folder"] / file).read_bytes()
