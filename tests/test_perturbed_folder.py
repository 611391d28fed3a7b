"""A saved control is the control in memory: the same weights, tokens and embeddings, whatever the base came from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM
from typer.testing import CliRunner

import tunescope as ts
from tiny_models import (
    TEXTS,
    WORDS,
    adapted,
    save_adapter,
    save_model,
    save_sentence_transformer,
    tiny_model,
    tokenizer_for,
)
from tunescope.cli import app
from tunescope.errors import InputError, ModelError, OutputError
from tunescope.models.quiet import quietly
from tunescope.training.model_folder import write_model
from tunescope.training.perturbed_folder import check_perturbed_folder, save_perturbed


def written(model: ts.Model, folder: Path) -> Path:
    folder.mkdir()
    write_model(model, folder)
    return folder


def check_same(model: ts.Model, folder: Path) -> ts.Model:
    """Loaded again it has the hashes and the rows of the model in memory."""
    again = ts.load_model(folder)
    one, two = model.identity(), again.identity()
    for name in ("weights_sha256", "tokenizer_sha256", "output", "family", "layers", "width"):
        assert one[name] == two[name], name
    assert (again.max_length, again.lowercase) == (model.max_length, model.lowercase)
    found, wanted = ts.capture(again, TEXTS), ts.capture(model, TEXTS)
    assert torch.equal(found.sites["output"], wanted.sites["output"])
    return again


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "gpt2", "gpt_neox", "llama", "mamba", "rwkv", "t5", "clip"])
def test_every_family_comes_back_as_it_was_in_memory(family, tmp_path):
    base = ts.load_model(save_model(tmp_path / "base", family))
    moved = ts.perturb(base, kind="gaussian", sigma=0.1, seed=1)
    again = check_same(moved, written(moved, tmp_path / "moved"))
    assert again.identity()["weights_sha256"] != base.identity()["weights_sha256"]
    configs = [(tmp_path / name / "config.json").read_text() for name in ("base", "moved")]
    assert configs[0].replace('"dtype": "float32",', "").split() == configs[1].replace('"dtype": "float32",', "").split()


@pytest.mark.parametrize(("family", "head"), [("bert", "mlm"), ("gpt2", "lm"), ("llama", "lm")])
def test_a_task_head_comes_along_tied_or_not(family, head, tmp_path):
    base = ts.load_model(save_model(tmp_path / "base", family, head=head))
    moved = ts.perturb(base, kind="gaussian", sigma=0.1)
    again = check_same(moved, written(moved, tmp_path / "moved"))
    found = ts.language_loss(moved, again, TEXTS).per_text
    assert found["base"].tolist() == found["tuned"].tolist()
    assert found["base"].tolist() != ts.language_loss(base, moved, TEXTS).per_text["base"].tolist()


def test_the_head_is_transformers_own(tmp_path):
    base = ts.load_model(save_model(tmp_path / "base", "bert", head="mlm"))
    written(ts.perturb(base, kind="gaussian", sigma=0.1, layers=[1]), tmp_path / "moved")
    with quietly():
        one, two = (AutoModelForMaskedLM.from_pretrained(tmp_path / name).state_dict() for name in ("base", "moved"))
    changed = {key for key in one if not torch.equal(one[key], two[key])}
    assert changed == {key for key in one if key.startswith("bert.encoder.layer.0.") and one[key].ndim == 2}


def test_a_checkpoint_without_a_pooler_gets_none(tmp_path):
    """AutoModel makes a random pooler up; it must not end up in the folder."""
    file = save_model(tmp_path / "base") / "model.safetensors"
    weights = load_file(file)
    kept = {key: value for key, value in weights.items() if not key.startswith("pooler.")}
    assert len(kept) == len(weights) - 2
    save_file(kept, file, {"format": "pt"})
    written(ts.perturb(ts.load_model(tmp_path / "base"), kind="gaussian", sigma=0.1), tmp_path / "moved")
    assert load_file(tmp_path / "moved" / "model.safetensors").keys() == kept.keys()


@pytest.mark.parametrize("dense", [None, 8])
def test_sentence_transformers_modules_are_kept(dense, tmp_path):
    settings = {"prompts": {"query": "the "}, "default_prompt_name": "query"}
    folder = save_sentence_transformer(tmp_path / "base", pooling={"pooling_mode_cls_token": True}, dense=dense, settings=settings)
    moved = ts.perturb(ts.load_model(folder), kind="gaussian", sigma=0.1)
    check_same(moved, written(moved, tmp_path / "moved"))
    for name in ("modules.json", "1_Pooling/config.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        assert (tmp_path / "moved" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_a_loaded_sentence_transformer_is_written_as_one(tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    with quietly():
        source = sentence_transformers.SentenceTransformer(str(save_sentence_transformer(tmp_path / "base", dense=8)), device="cpu")
    moved = ts.perturb(ts.load_model(source), kind="gaussian", sigma=0.1)
    folder = written(moved, tmp_path / "moved")
    check_same(moved, folder)
    with quietly():
        again = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(again, ts.capture(moved, TEXTS).sites["output"], atol=1e-6)  # their batches and ours pad differently


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("default", [None, "query"])
def test_a_loaded_sentence_transformers_prompts_and_similarity_are_written(default, tmp_path):
    """What sentence-transformers itself writes of it, and reads back."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    prompts = {"query": "the cat ", "passage": "it was "}
    with quietly():
        folder = str(save_sentence_transformer(tmp_path / "base", dense=8))
        options = {"prompts": prompts, "default_prompt_name": default, "similarity_fn_name": "dot", "device": "cpu"}
        source = sentence_transformers.SentenceTransformer(folder, **options)
        source.save(str(tmp_path / "theirs"))
    moved = ts.perturb(ts.load_model(source), kind="gaussian", sigma=0.1)
    check_same(moved, written(moved, tmp_path / "moved"))
    file = "config_sentence_transformers.json"
    theirs, ours = (json.loads((tmp_path / name / file).read_text(encoding="utf-8")) for name in ("theirs", "moved"))
    assert ours == {key: theirs[key] for key in ("prompts", "default_prompt_name", "similarity_fn_name")}
    assert prompts.items() <= ours["prompts"].items()
    with quietly():
        again = sentence_transformers.SentenceTransformer(str(tmp_path / "moved"), device="cpu")
        named = again.encode(TEXTS, prompt_name="passage")
    assert (again.prompts, again.default_prompt_name, again.similarity_fn_name) == (source.prompts, default, "dot")
    wanted = ts.capture(moved, TEXTS, prompt=prompts["passage"]).sites["output"]
    np.testing.assert_allclose(named, wanted, atol=1e-6)  # their batches and ours pad differently
    by_hand = replace(moved, output=replace(moved.output, prompt="the sun "))
    assert check_same(by_hand, written(by_hand, tmp_path / "by hand")).output.prompt == "the sun "


@pytest.mark.parametrize("head", ["", "mlm"])
def test_a_model_in_memory_is_written_with_its_head(head, tmp_path):
    base = ts.load_model((tiny_model("bert", head=head), tokenizer_for("bert")))
    moved = ts.perturb(base, kind="gaussian", sigma=0.1)
    check_same(moved, written(moved, tmp_path / "moved"))
    held = load_file(tmp_path / "moved" / "model.safetensors")
    assert any(key.startswith("cls.") for key in held) == bool(head)


@pytest.mark.parametrize("kind", ["random-rank", "random-direction"])
def test_updates_of_an_adapters_size_are_written_as_whole_models(kind, tmp_path):
    base, tuned = ts.load_pair(save_model(tmp_path / "base"), save_adapter(tmp_path / "adapter", tmp_path / "base"))
    moved = ts.perturb(base, kind=kind, like=tuned)
    check_same(moved, written(moved, tmp_path / "moved"))
    in_memory = ts.load_pair(None, (adapted(tiny_model("bert", head="mlm")), tokenizer_for("bert")))
    moved = ts.perturb(in_memory[0], kind=kind, like=in_memory[1])
    check_same(moved, written(moved, tmp_path / "of memory"))


@pytest.mark.parametrize(("head", "alpha"), [("", 0.5), ("mlm", 0.5), ("", 1.0), ("", 3.0)])
def test_part_of_a_lora_is_written_as_that_lora(head, alpha, tmp_path):
    save_model(tmp_path / "base", head=head)
    save_adapter(tmp_path / "adapter", tmp_path / "base", head=head)
    base, tuned = ts.load_pair(tmp_path / "base", tmp_path / "adapter")
    moved = ts.interpolate(base, tuned, alpha=alpha)
    folder = written(moved, tmp_path / "moved")
    check_same(moved, folder)
    assert (folder / "adapter_config.json").read_bytes() == (tmp_path / "adapter" / "adapter_config.json").read_bytes()
    before, after = (load_file(place / "adapter_model.safetensors") for place in (tmp_path / "adapter", folder))
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(after[key], value * alpha if "lora_B" in key else value), key


def test_part_of_a_lora_in_memory_is_written_too(tmp_path):
    folder = save_model(tmp_path / "base")
    peft = adapted(tiny_model("bert"))
    base, tuned = ts.load_pair(None, (peft, tokenizer_for("bert")))
    moved = ts.interpolate(base, tuned, alpha=0.5)
    again = ts.load_pair(folder, written(moved, tmp_path / "moved"))[1]
    assert again.identity()["weights_sha256"] == moved.identity()["weights_sha256"]


def test_what_cannot_be_saved_is_refused(tmp_path):
    base = ts.load_model(save_model(tmp_path / "base"))
    with pytest.raises(InputError, match="differs in dropout alone, which no weights hold"):
        write_model(ts.perturb(base, kind="dropout"), tmp_path)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"architectures": ["OwnModel"]}))
    with pytest.raises(ModelError, match="is a OwnModel by its config.json, which transformers lacks"):
        write_model(ts.perturb(base, kind="rounding", bits=4), tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    base = ts.load_model((tiny_model("bert"), tokenizer_for("bert")))
    out = tmp_path / "out"
    save_perturbed({0: base, 1: base}, out, record={}, sizes={0: {}, 1: {}})
    assert {path.name for path in out.iterdir()} == {"seed-0", "seed-1", "perturbation.json"}
    check_perturbed_folder(out)
    save_perturbed({0: base}, out, record={}, sizes={0: {}})
    assert not (out / "seed-0").exists()
    assert set(json.loads((out / "perturbation.json").read_text())["files"]) == {path.name for path in out.iterdir()}
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds something else \(notes.txt\); name another folder"):
        save_perturbed({0: base}, out, record={}, sizes={0: {}})
    with pytest.raises(OutputError, match="holds something else"):
        check_perturbed_folder(save_model(tmp_path / "model"))


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    base = ts.load_model((tiny_model("bert"), tokenizer_for("bert")))
    out = tmp_path / "deep" / "out"
    broken = ts.perturb(base, kind="dropout")
    with pytest.raises(InputError):
        save_perturbed({0: base, 1: broken}, out, record={}, sizes={0: {}, 1: {}})
    assert list(tmp_path.iterdir()) == []
    save_perturbed({0: base}, out, record={}, sizes={0: {}})
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError):
        save_perturbed({0: base, 1: broken}, out, record={}, sizes={0: {}, 1: {}})
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


# The command.


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path, Path]:
    base = save_sentence_transformer(tmp_path / "base")
    draw = np.random.default_rng(0)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(" ".join(draw.choice(WORDS, size=draw.integers(3, 12))) for _ in range(60)), encoding="utf-8")
    return base, save_adapter(tmp_path / "adapter", base), texts


def command(*words: object):
    return CliRunner().invoke(app, ["perturb", *map(str, words)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("--kind gaussian --sigma .04 --seed 3", {"kind": "gaussian", "sigma": 0.04, "seed": 3}),
        ("--kind gaussian --sigma .04 --layers 1-2", {"kind": "gaussian", "sigma": 0.04, "layers": [1, 2]}),
        ("--kind random-rank --like ADAPTER --seed 1", {"kind": "random-rank", "seed": 1}),
        ("--kind random-direction --like ADAPTER --scale 2", {"kind": "random-direction", "scale": 2.0}),
        ("--kind interpolate --tuned ADAPTER --alpha .5", {"kind": "interpolate", "alpha": 0.5}),
        ("--kind rounding --bits 4", {"kind": "rounding", "bits": 4}),
    ],
)
def test_the_command_writes_what_the_call_returns(folders, tmp_path, words, asked):
    base, adapter, texts = folders
    out = tmp_path / "out"
    done = command(base, *words.replace("ADAPTER", str(adapter)).split(), "--out", out)
    assert done.exit_code == 0, done.output
    assert f"compare  tunescope diff {base} {out}" in done.stdout
    one, two = ts.load_pair(base, adapter)
    moved = ts.perturb(one, **asked, **({"like": two} if "ADAPTER" in words else {}))
    record = json.loads((out / "perturbation.json").read_text())
    assert record["schema"] == "tunescope.perturbation/1"
    assert record["base"]["weights_sha256"] == one.identity()["weights_sha256"]
    (entry,) = record["models"]
    assert entry["weights_sha256"] == moved.identity()["weights_sha256"]
    assert {**entry, "kind": record["kind"], "layers": record["layers"]}.items() >= asked.items()
    saved, held = (ts.diff(base if side is out else one, side, str(texts)).payload for side in (out, moved))
    for place in ("layers", "sites"):
        assert saved[place] == held[place]


def test_to_writes_a_model_a_draw(folders, tmp_path):
    base, _, texts = folders
    out = tmp_path / "out"
    done = command(base, "--kind", "gaussian", "--to", "nps=.5", "--texts", texts, "--out", out, "--seed", 4, "--tolerance", 0.02)
    assert done.exit_code == 0, done.output
    record = json.loads((out / "perturbation.json").read_text())
    assert [entry["folder"] for entry in record["models"]] == ["seed-4", "seed-5", "seed-6"]
    assert "3 draws, mean ± sd; 60 texts" in done.stdout
    for entry, draw in zip(record["models"], record["to"]["draws"], strict=True):
        value = ts.diff(base, out / entry["folder"], str(texts)).payload["sites"]["output"]["measures"]["nps"]["value"]
        assert value == pytest.approx(draw["value"], abs=1e-9)
        assert value == pytest.approx(0.5, abs=0.02)
        assert entry["sigma"] == draw["parameter"]
        assert json.loads((out / entry["folder"] / "perturbation.json").read_text())["models"][0]["seed"] == entry["seed"]


def test_the_command_refuses_in_a_line(folders, tmp_path):
    base, adapter, texts = folders
    out = tmp_path / "out"
    for words, said in (
        (["--kind", "dropout"], "changes no weights, so there is no model to write"),
        (["--kind", "gaussian", "--to", "nps=.5", "--sigma", ".1"], "--sigma and --to were both given"),
        (["--kind", "interpolate", "--like", adapter, "--alpha", ".5", "--draws", "2"], "which draws nothing"),
        (["--kind", "gaussian"], "needs sigma above 0, got None"),
    ):
        with pytest.raises(InputError, match=said):
            command(base, *words, "--out", out)
        assert not out.exists()
    with pytest.raises(OutputError, match="holds something else"):
        command(base, "--kind", "gaussian", "--sigma", ".1", "--out", base)
