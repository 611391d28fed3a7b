"""Deltas on disk: the very rows of the pass, shuffled reading that visits each once, crashes that cost a shard, and what is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tiny_models import TEXTS, WIDTH, save_adapter, save_model
from tunescope.dictionaries import delta_batches, delta_saving, load_deltas, save_deltas
from tunescope.dictionaries.delta_draft import Draft
from tunescope.dictionaries.delta_manifest import Layout
from tunescope.dictionaries.delta_pass import Calibration
from tunescope.dictionaries.shuffled import windowed_batches
from tunescope.errors import AlignmentError, FormatError, InputError, NotEnoughRows, OutputError, UnknownName
from tunescope.folders import draft_folder
from tunescope.models import load_model, load_several

LONG = [f"{a} {b} {c}" for a in TEXTS for b in TEXTS for c in TEXTS[:3]]
STORE = {"layers": [1, 3], "shard_rows": 256, "batch_size": 16}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("models")
    base = save_model(place / "base")
    for seed in (1, 2):
        save_adapter(place / f"adapter-{seed}", base, seed=seed)
    return place


@pytest.fixture(scope="module")
def sides(place):
    return load_several(place / "base", {"one": place / "adapter-1", "two": place / "adapter-2"}, device="cpu")


@pytest.fixture(scope="module")
def store(sides, tmp_path_factory):
    return save_deltas(*sides, LONG, tmp_path_factory.mktemp("stores") / "whole", **STORE, noise=True, base_rows=True)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_store_holds_the_rows_of_the_pass(sides, store):
    batches = list(delta_batches(*sides, LONG, layers=[1, 3], batch_size=16, noise=True))
    held = torch.cat([batch.held_out for batch in batches])
    for split, mine in (("train", ~held), ("held_out", held)):
        tokens = store.tokens(split)
        for field in ("document", "position", "token"):
            assert torch.equal(tokens[field], torch.cat([getattr(batch, field) for batch in batches])[mine])
        for layer in (1, 3):
            for name in ("one", "two", "noise", "base"):
                rows = store.rows(layer, name, split)
                parts = [batch.x[layer] if name == "base" else batch.deltas[name, layer] for batch in batches]
                expected = torch.cat(parts)[mine]
                assert torch.equal(torch.cat(list(rows.in_order())), expected)
                assert (rows.rows, rows.width) == expected.shape
                wide = expected.double().numpy()
                np.testing.assert_allclose(rows.mean.numpy(), wide.mean(0), rtol=1e-12, atol=1e-18)
                assert rows.rms == pytest.approx(np.sqrt(((wide - wide.mean(0)) ** 2).sum(1).mean() / WIDTH), rel=1e-9)
    assert not set(store.tokens("train")["document"].tolist()) & set(store.tokens("held_out")["document"].tolist())
    store.verify()


def test_the_manifest_says_what_is_there(store):
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert manifest["schema"] == "tunescope.deltas/1"
    assert manifest["dropped"]["kept"] == sum(manifest["rows"].values()) == sum(sum(each["rows"].values()) for each in manifest["shards"])
    assert [sum(each["rows"].values()) for each in manifest["shards"][:-1]] == [256] * (len(manifest["shards"]) - 1)
    assert manifest["dropped"]["read"] == manifest["tokens"]
    files = {file for each in manifest["shards"] for file in each["files"]} | {"manifest.json", "means.safetensors"}
    assert set(bytes_of(store.folder)) == files
    shard = load_file(store.folder / "one" / "layer_03.00001.safetensors")  # safetensors' own reader
    assert shard["train"].shape == (manifest["shards"][1]["rows"]["train"], WIDTH)
    assert set(shard) == {"train", "held_out", "train.sum", "held_out.sum"}


def test_norms_are_those_of_the_rows(store):
    table = store.norms("held_out")
    base = torch.cat(list(store.rows(3, "base", "held_out").in_order())).double().numpy()
    for name in ("one", "two"):
        delta = torch.cat(list(store.rows(3, name, "held_out").in_order())).double().numpy()
        lengths, found = np.linalg.norm(delta, axis=1), table[name, 3]
        assert found.rows == len(delta)
        assert found.norm == pytest.approx(lengths.mean())
        assert found.relative == pytest.approx(lengths.mean() / np.linalg.norm(base, axis=1).mean())
        assert found.constant == pytest.approx((delta.mean(0) ** 2).sum() / (lengths**2).mean())


def test_bfloat16_stores_the_float32_difference_rounded_once(sides, store, tmp_path):
    small = save_deltas(*sides, LONG, tmp_path / "small", **STORE, dtype="bfloat16")
    for split in ("train", "held_out"):
        exact, stored = (torch.cat(list(each.rows(3, "one", split).in_order())) for each in (store, small))
        assert torch.equal(stored, exact.bfloat16().float())
        assert float((stored - exact).double().square().mean() / exact.double().var()) < 1e-5
    assert small.rows(3, "one").mean.dtype == torch.float64


@pytest.mark.parametrize("window", [None, 1, 3])
def test_an_epoch_visits_every_row_once_in_an_order_of_its_own(store, window):
    rows = store.rows(1, "two", window=window)
    exact = torch.cat(list(rows.in_order()))
    batches = list(rows.batches(64, seed=3, epoch=0))
    assert all(batch.shape == (64, WIDTH) and batch.dtype == torch.float32 for batch in batches)
    assert len(batches) == rows.rows // 64
    every = torch.cat(list(rows.batches(1, seed=3, epoch=0)))
    assert torch.equal(torch.cat(batches), every[: len(batches) * 64])  # the order does not depend on the size of batches
    order = sorted(range(len(every)), key=lambda i: every[i].tolist())
    assert torch.equal(every[order], exact[sorted(range(len(exact)), key=lambda i: exact[i].tolist())])
    assert torch.equal(every, torch.cat(list(rows.batches(1, seed=3, epoch=0))))
    for seed, epoch in ((3, 1), (4, 0)):
        assert not torch.equal(every, torch.cat(list(rows.batches(1, seed=seed, epoch=epoch))))


@pytest.mark.parametrize("batch_size", [1, 7, 64, 300])
def test_skipping_gives_the_rest_of_the_epoch(store, batch_size):
    rows = store.rows(3, "one", window=2)
    whole = list(rows.batches(batch_size, seed=0, epoch=5))
    for skip in (0, 1, len(whole) // 2, len(whole) - 1, len(whole), len(whole) + 3):
        rest = list(rows.batches(batch_size, seed=0, epoch=5, skip=skip))
        assert len(rest) == max(len(whole) - skip, 0)
        assert all(torch.equal(one, two) for one, two in zip(rest, whole[skip:], strict=True))


def test_skipping_reads_nothing_before_its_window_and_each_block_once():
    sizes, read = [5, 0, 7, 6, 5, 7], []

    def block(number: int, out: torch.Tensor) -> None:
        read.append(number)
        out.copy_(torch.arange(len(out)).float()[:, None] + 100 * number)

    options = {"width": 1, "dtype": torch.float32, "window": 2, "batch_size": 4, "seed": 1, "epoch": 0}
    whole = list(windowed_batches(sizes, block, **options))
    assert sorted(read) == [0, 2, 3, 4, 5]
    assert len({float(value) for batch in whole for value in batch}) == 28
    first = list(read)
    read.clear()
    late = list(windowed_batches(sizes, block, **options, skip=5))
    assert torch.equal(torch.cat(late), torch.cat(whole[5:]))
    assert read == first[-len(read) :]
    assert len(read) < len(first)


def test_neighbours_of_the_pass_come_far_apart(store):
    """Within a window the order is a uniform permutation: documents of a batch are drawn from all of the window."""
    rows, tokens = store.rows(1, "one", window=100), store.tokens("train")["document"]
    exact = torch.cat(list(rows.in_order()))
    where = {tuple(row.tolist()): int(document) for row, document in zip(exact, tokens, strict=True)}
    batch = next(rows.batches(64, seed=0, epoch=0))
    assert len({where[tuple(row.tolist())] for row in batch}) > 30


def test_what_it_takes_in_memory_is_said(store):
    assert store.rows(1, "one", window=3).window_bytes <= 3 * 256 * WIDTH * 4
    assert store.rows(1, "one").window_bytes <= 256 * 2**20


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("moment", "count"), [("seal", 1), ("seal", 3), ("complete", 1), ("move_to", 1)])
def test_an_interrupted_store_is_finished_to_the_same_bytes(moment, count, after, sides, store, tmp_path, monkeypatch):
    """Stopped just before or after the first or third shard, the manifest, or the rename."""
    real, calls, ran = getattr(Draft, moment), [], []

    def stopped(draft, *args, **kwargs):
        calls.append(1)
        if after or len(calls) < count:
            real(draft, *args, **kwargs)
        if len(calls) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(Draft, moment, stopped)
    given, options = (*sides, LONG, tmp_path / "cut"), STORE | {"noise": True, "base_rows": True}
    with pytest.raises(KeyboardInterrupt):
        save_deltas(*given, **options)
    assert (tmp_path / "cut").exists() is (moment == "move_to" and after)
    monkeypatch.undo()
    save_deltas(*given, **options, progress=lambda done, total: ran.append((done, total)))
    assert bytes_of(tmp_path / "cut") == bytes_of(store.folder)
    assert not draft_folder(tmp_path / "cut").exists()
    left = {("seal", 1): 1.0, ("seal", 3): 0.9, ("complete", 1): 0.1, ("move_to", 1): 0.0}[moment, count]
    assert len(ran) <= left * len(range(0, len(LONG), 16)) + 1  # batches that were run again


def test_a_finished_store_is_returned_as_it_is(sides, store, monkeypatch):
    monkeypatch.setattr(delta_saving.DeltaPass, "calibrate", lambda self: pytest.fail("it ran again"))
    again = save_deltas(*sides, LONG, store.folder, **STORE, noise=True, base_rows=True)
    assert again.manifest == store.manifest


def test_stores_of_other_models_texts_or_readings_are_refused_by_name(place, sides, store, tmp_path):
    base, tuned = sides
    other = load_several(place / "base", {"one": place / "adapter-2", "two": place / "adapter-2"}, device="cpu")
    given = STORE | {"noise": True, "base_rows": True}
    cases = [
        ("tuned one: weights_sha256", (*other, LONG), given),
        ("texts: sha256", (*sides, LONG[1:]), given),
        ("layers", (*sides, LONG), given | {"layers": [1, 2]}),
        ("dtype", (*sides, LONG), given | {"dtype": "bfloat16"}),
        ("shard_rows", (*sides, LONG), given | {"shard_rows": 512}),
        ("kind", (*sides, LONG), given | {"kind": "patched"}),
        ("held_out", (*sides, LONG), given | {"held_out_share": 0.5}),
        ("streams", (*sides, LONG), STORE),
    ]
    for field, arguments, options in cases:
        with pytest.raises(OutputError, match=rf"holds other deltas: {field} .* there, .* asked for; name another folder") as raised:
            save_deltas(*arguments, store.folder, **options)
        assert "\n" not in str(raised.value)
    store.check_made_from(base, tuned, LONG)
    with pytest.raises(AlignmentError, match="were made from something else: tuned one: weights_sha256"):
        store.check_made_from(tuned=other[1])
    with pytest.raises(AlignmentError, match="were made from something else: texts: sha256"):
        store.check_made_from(texts=TEXTS)
    with pytest.raises(AlignmentError, match="were made from something else: base: weights_sha256"):
        store.check_made_from(load_model(save_model(tmp_path / "another", seed=7), device="cpu"))


def test_an_unfinished_store_of_other_deltas_is_refused(sides, tmp_path, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Draft, "complete", stop)
    with pytest.raises(KeyboardInterrupt):
        save_deltas(*sides, LONG, tmp_path / "cut", **STORE)
    monkeypatch.undo()
    with pytest.raises(OutputError, match=r"holds an unfinished store of other deltas: layers \[1, 3\] there, \[2\] asked for"):
        save_deltas(*sides, LONG, tmp_path / "cut", **STORE | {"layers": [2]})
    assert draft_folder(tmp_path / "cut").exists()


def test_the_size_is_said_before_anything_is_written_and_a_full_disk_refused(sides, store, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(Draft, "of", lambda *_: pytest.fail("something was written"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(OutputError, match=r"no room for the deltas in '.*': up to .* × 4 deltas .*: .* kB, 10\.0 kB are free") as full:
        save_deltas(*sides, LONG, tmp_path / "full", **STORE, announce=said.append)
    assert "\n" not in str(full.value)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    save_deltas(*sides, LONG, tmp_path / "there", **STORE, announce=said.append)
    (line,) = said
    rows = sum(load_deltas(tmp_path / "there").manifest["rows"].values())
    assert line == f"up to {rows:,} tokens × 4 deltas (64 numbers a token) in float32: {rows * (64 * 4 + 12) / 1e3:,.1f} kB"
    held = sum(len(content) for name, content in bytes_of(tmp_path / "there").items() if name.endswith(".safetensors"))
    assert held == pytest.approx(rows * (64 * 4 + 12), rel=0.1)  # headers and sums of small shards


def test_the_size_is_the_specifications():
    layout = Layout.of([("a", 20)], Calibration({20: 1.0}, {20: 3584}, 1), dtype="bfloat16", shard_rows=None)
    assert layout.bytes_of(10**6) == pytest.approx(7.2e9, rel=0.005)
    assert layout.shard_rows * 3584 * 2 <= 32 * 2**20


def test_damaged_shards_are_named(store, tmp_path):
    def copy(name: str) -> Path:
        return Path(shutil.copytree(store.folder, tmp_path / name))

    file = Path("two") / "layer_01.00002.safetensors"
    flipped = copy("flipped")
    content = bytearray((flipped / file).read_bytes())
    content[-20] ^= 1
    (flipped / file).write_bytes(content)
    opened = load_deltas(flipped)
    with pytest.raises(FormatError, match=r"shard '.*two/layer_01\.00002\.safetensors' is not what was written"):
        opened.verify()
    with pytest.raises(FormatError, match=r"shard '.*two/layer_01\.00002\.safetensors' is not what was written"):
        list(opened.rows(1, "two").batches(8, seed=0, epoch=0))
    assert len(list(opened.rows(3, "two").batches(8, seed=0, epoch=0))) == store.rows(3, "two").rows // 8
    cut = copy("cut")
    os.truncate(cut / file, 100)
    with pytest.raises(FormatError, match=r"shard '.*two/layer_01\.00002\.safetensors' holds 100 bytes of"):
        load_deltas(cut)
    gone = copy("gone")
    (gone / "tokens.00001.safetensors").unlink()
    with pytest.raises(FormatError, match=r"shard '.*tokens\.00001\.safetensors' is missing"):
        load_deltas(gone)
    later = copy("later")
    manifest = json.loads((later / "manifest.json").read_text())
    (later / "manifest.json").write_text(json.dumps(manifest | {"schema": "tunescope.deltas/9"}))
    with pytest.raises(FormatError, match=r"has schema 'tunescope.deltas/9'; this version reads 'tunescope.deltas/1'"):
        load_deltas(later)
    with pytest.raises(FormatError, match=r"no manifest.json in"):
        load_deltas(tmp_path)


def test_bad_input_is_refused_in_one_line(sides, store, tmp_path):
    for error, message, arguments in (
        (InputError, r"layer 2 asked for; '.*' holds 1, 3", (2, "one")),
        (UnknownName, r"unknown adapter in '.*' 'on'; did you mean one", (1, "on")),
        (UnknownName, "unknown split 'test'", (1, "one", "test")),
    ):
        with pytest.raises(error, match=message):
            store.rows(*arguments)
    with pytest.raises(InputError, match="window=0 asked for"):
        store.rows(1, "one", window=0)
    rows = store.rows(1, "one", "held_out")
    with pytest.raises(NotEnoughRows, match=r"rows are there and a batch of 100,000 was asked for"):
        list(rows.batches(100_000, seed=0, epoch=0))
    with pytest.raises(InputError, match="batch_size=0, skip=0 asked for"):
        list(rows.batches(0, seed=0, epoch=0))
    with pytest.raises(UnknownName, match="unknown dtype of a store 'float16'; did you mean"):
        save_deltas(*sides, TEXTS, tmp_path / "x", dtype="float16")
    with pytest.raises(InputError, match="shard_rows=0 asked for"):
        save_deltas(*sides, TEXTS, tmp_path / "x", shard_rows=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds something else \(notes.txt\)"):
        save_deltas(*sides, TEXTS, tmp_path / "full")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_local_deltas_are_stored_by_module(sides, tmp_path):
    name = "encoder.layer.1.attention.self.value"
    kept = save_deltas(*sides, TEXTS, tmp_path / "local", kind="local", layers=name, held_out_share=0)
    batches = list(delta_batches(*sides, TEXTS, kind="local", layers=name, held_out_share=0))
    assert torch.equal(torch.cat(list(kept.rows(name, "one").in_order())), torch.cat([batch.deltas["one", name] for batch in batches]))
    with pytest.raises(UnknownName, match=r"unknown module in '.*' 'encoder.layer.1.attention.self.key'; did you mean"):
        kept.rows("encoder.layer.1.attention.self.key", "one")


KILLED = """
import sys, time
import torch
torch.set_num_threads(1)
from tunescope.dictionaries import save_deltas
from tunescope.models import load_several
place, texts, out = sys.argv[1:]
sides = load_several(f"{place}/base", {"one": f"{place}/adapter-1", "two": f"{place}/adapter-2"}, device="cpu")
print("ready", flush=True)
save_deltas(*sides, texts, out, layers=[1, 3], shard_rows=256, batch_size=4, progress=lambda *_: time.sleep(0.01))
"""


@pytest.mark.slow
def test_killed_at_random_moments_it_resumes_to_identical_files(place, tmp_path):
    """kill -9 eight times: what is sealed only grows, and the shards and the manifest are those of an undisturbed run, byte for byte."""
    draw = random.Random(0)
    words = sorted({word for text in TEXTS for word in text.split()})
    (tmp_path / "texts.txt").write_text("".join(" ".join(draw.choices(words, k=draw.randint(3, 30))) + "\n" for _ in range(1500)))

    def start(out: str) -> subprocess.Popen:
        command = [sys.executable, "-c", KILLED, place, tmp_path / "texts.txt", tmp_path / out]
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
        with process.stdout as said:
            assert said.readline() == "ready\n"
        return process

    began = time.monotonic()
    assert start("whole").wait(300) == 0
    whole = time.monotonic() - began
    sealed = []
    for _ in range(8):
        process = start("cut")
        time.sleep(draw.uniform(0.02, 0.15) * whole)  # some fall into the sample, most into the pass
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL, "it was done before it was killed"
        sealed.append(len(list(draft_folder(tmp_path / "cut").glob("sealed.*.json"))))
    assert sealed == sorted(sealed)
    assert sealed[-1] > 0
    assert start("cut").wait(300) == 0
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")
