"""A comparison of texts that go by, and one shared by several processes, against the same in one process with all rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tunescope as ts
from tiny_models import WORDS, save_model, tiny_model, tokenizer_for
from tunescope.comparison import streaming
from tunescope.errors import InputError, UnknownName

STREAMING = "cka,debiased_cka,procrustes,isotropy,linear_r2,relative_drift,change_rank"


def sentences(n: int, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, size=draw.integers(3, 20))) for _ in range(n)]


@pytest.fixture(scope="module")
def pair() -> tuple[ts.Model, ts.Model]:
    base = ts.load_model((tiny_model("bert"), tokenizer_for("bert")), name="base")
    return base, ts.perturb(base, kind="gaussian", sigma=0.2, name="tuned")


@pytest.fixture
def small_pieces(monkeypatch):
    """Sixteen texts at a time, which are whole batches, and twelve kept."""
    monkeypatch.setattr(streaming.stream, "__kwdefaults__", streaming.stream.__kwdefaults__ | {"chunk": 16, "kept": 40})


def cells(c: ts.Comparison) -> dict:
    rows = [(row["name"], row) for row in c.payload["layers"]] + list(c.payload["sites"].items())
    return {(where, name): cell for where, row in rows for name, cell in row["measures"].items()}


@pytest.mark.usefixtures("small_pieces")
def test_a_stream_of_texts_gives_the_values_of_all_rows(pair):
    """The forward pass pads texts with other neighbours: float32 rows differ in the seventh digit, values by 1e-5 at most."""
    texts = sentences(90)
    streamed, exact = (ts.diff(*pair, texts, method=method, measures=STREAMING) for method in ("stream", "exact"))
    assert cells(streamed).keys() == cells(exact).keys()
    for where, cell in cells(streamed).items():
        assert cell["value"] == pytest.approx(cells(exact)[where]["value"], rel=1e-4, abs=1e-5), where
    assert streamed.payload["data"]["method"] == "stream"
    assert streamed.payload["data"]["rows"] == 90
    assert streamed.payload["data"]["tokens"] == exact.payload["data"]["tokens"]
    assert streamed.payload["locality"]["cka"]["slope"] == pytest.approx(exact.payload["locality"]["cka"]["slope"], abs=1e-5)
    assert streamed.headline.split(";")[0] == exact.headline.split(";")[0]
    assert streamed.cross.empty
    assert any("values are of all 90, intervals from 40 of them" in said for said in streamed.warnings)


@pytest.mark.usefixtures("small_pieces")
def test_a_streamed_comparison_is_saved_shown_and_read_again(pair, tmp_path, capsys):
    c = ts.diff(*pair, sentences(60), method="stream")
    assert "nps" not in c.payload["measures"]
    assert any("nps, the map of layers, the standardised check and the most-moved texts need all rows" in said for said in c.warnings)
    c.save(tmp_path / "out", figures=True)
    c.show()
    assert "stream" in capsys.readouterr().out
    assert ts.load(tmp_path / "out").payload["data"] == c.payload["data"]


@pytest.mark.usefixtures("small_pieces")
def test_a_stream_of_equal_models_shows_exactly_no_change(pair):
    c = ts.diff(pair[0], pair[0], sentences(40), method="stream")
    assert all(row["identical"] for row in c.payload["layers"])
    assert c.headline.startswith("Nothing changed")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"measures": "cka,nps,rsa"}, "--method stream cannot give nps, rsa: all rows are needed at once"),
        ({"pooling": "none"}, "token rows"),
        ({"also_pooling": "cls"}, "further text sets and poolings need them"),
        ({"ruler": True}, "ruler needs them"),
    ],
)
def test_what_a_stream_cannot_give_is_refused_by_name(pair, asked, said):
    with pytest.raises(InputError, match=said):
        ts.diff(*pair, sentences(40), method="stream", **asked)


def test_a_method_nobody_knows_is_refused(pair):
    with pytest.raises(UnknownName, match="stream"):
        ts.diff(*pair, sentences(40), method="steam")


def test_auto_streams_when_the_rows_would_not_fit_and_nothing_asked_for_needs_them(pair, monkeypatch):
    texts = sentences(40)
    assert ts.diff(*pair, texts).payload["data"]["method"] == "exact"
    monkeypatch.setattr(streaming, "free_memory", lambda: 1000.0)
    assert ts.diff(*pair, texts).payload["data"]["method"] == "stream"
    assert ts.diff(*pair, texts, measures="cka,nps").payload["data"]["method"] == "exact"
    assert ts.diff(*pair, texts, ruler=True).payload["data"]["method"] == "exact"
    assert streaming.free_memory() == 1000.0


def run(folder: Path, processes: int, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tunescope", "diff", "base", "tuned", "--texts", "t.txt", "--batch-size", "8", *options]
    if processes > 1:
        command[1:2] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    environment = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folders(pair, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    for model in pair:
        save_model(folder / model.name, model=model.module)
    (folder / "t.txt").write_text("\n".join(sentences(70)), encoding="utf-8")
    return folder


EXACT = [pytest.param(processes, "exact", marks=pytest.mark.slow) for processes in (2, 4)]


@pytest.mark.parametrize(("processes", "method"), [*EXACT, (2, "stream")])
def test_several_processes_are_one(folders, processes, method):
    """Exact: batches are those of one process, so rows are its rows bit for bit, and only sums over blocks differ, by 1e-9. Stream: pieces
    differ, and with them the padding."""
    options = ("--method", method, "--measures", "cka,procrustes" if method == "stream" else "cka,procrustes,nps")
    for count, out in ((1, "alone"), (processes, "shared")):
        done = run(folders, count, *options, "--out", f"{out}-{processes}-{method}")
        assert done.returncode == 0, done.stderr
    alone, shared = (ts.load(folders / f"{out}-{processes}-{method}") for out in ("alone", "shared"))
    tolerance = 1e-9 if method == "exact" else 1e-5
    for where, cell in cells(shared).items():
        for key in ("value", "low", "high", "null"):
            if method == "exact" or key == "value":
                assert cell[key] == pytest.approx(cells(alone)[where][key], abs=tolerance), (where, key)
    if method == "exact":
        np.testing.assert_allclose(shared.cross, alone.cross, atol=1e-9)
        one, other = (json.dumps(c.payload["texts"]) for c in (alone, shared))
        assert one == other
    assert done.stdout.count("numbers ") == 1  # one process reports


def test_more_processes_than_batches_are_refused(pair):
    from tunescope.ranks import Ranks

    with pytest.raises(InputError, match="3 processes for 2 batches of 32 texts"):
        ts.capture(pair[0], sentences(40), ranks=Ranks(0, 3))
