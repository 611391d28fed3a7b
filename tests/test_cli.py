"""The command line as a person meets it: what it prints, what it writes, how it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from test_comparison import altered, sentences
from tiny_models import save_adapter, save_model, tiny_model
from tunescope.cli import app, main

TUNESCOPE = Path(sys.executable).parent / "tunescope"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with base/, tuned/, adapter/ and texts.txt."""
    folder = tmp_path_factory.mktemp("models")
    base = tiny_model("bert")
    save_model(folder / "base", model=base)
    save_model(folder / "tuned", model=altered(base, 2))
    save_adapter(folder / "adapter", folder / "base")
    (folder / "texts.txt").write_text("\n".join(sentences()) + "\n")
    (folder / "texts.csv").write_text("id,sentence,label\n" + "".join(f"{i},{s},x\n" for i, s in enumerate(sentences())))
    return folder


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def refused(monkeypatch, capsys, *arguments: object) -> str:
    """The one line on stderr of a refused command, which must exit with 2 and print nothing else but which stage had begun."""
    monkeypatch.setattr(sys, "argv", ["tunescope", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert said.out == ""
    lines = [line for line in said.err.splitlines(keepends=True) if not line.endswith(" …\n")]
    assert len(lines) == 1, said.err
    assert said.err.endswith(lines[0])
    return lines[0]


def test_where_no_bar_can_be_watched_every_stage_is_a_line(place, tmp_path):
    """One as it begins, none with --json."""
    asked = ("diff", place / "base", place / "tuned", "--texts", place / "texts.txt", "--out", tmp_path / "out")
    _, _, said = run(*asked)
    stages = [line for line in said.splitlines() if line.endswith(" …")]
    assert len(stages) == len(set(stages)) >= 2
    assert stages[0] == "reading texts with base …"
    assert not [line for line in run(*asked, "--json")[2].splitlines() if line.endswith(" …")]


def test_a_setting_that_nobody_has_is_told_with_those_there_are(place, monkeypatch, capsys, tmp_path):
    asked = ("tune", place / "base", "--objective", "causal-lm", "--texts", place / "texts.txt", "--out", tmp_path / "run")
    said = refused(monkeypatch, capsys, *asked, "--set", "rnk=4")
    assert "unknown setting of causal-lm by lora 'rnk'; did you mean rank? known: alpha, dropout, rank, targets, weight_decay" in said
    assert not (tmp_path / "run").exists()


def test_perturb_says_where_the_model_is(place, tmp_path):
    asked = ("perturb", place / "base", "--kind", "gaussian", "--sigma", ".05", "--out", tmp_path / "moved")
    assert f"model    {tmp_path / 'moved'}\n" in run(*asked)[1]


def test_diff_prints_a_table_and_writes_the_result(place, tmp_path):
    code, printed, _ = run("diff", place / "base", place / "tuned", "--texts", place / "texts.txt", "--out", tmp_path / "out", "--figures")
    assert code == 0
    assert "The change starts at block 2" in " ".join(printed.split())
    assert max(len(line) for line in printed.splitlines() if "report " not in line and "numbers " not in line) <= 80
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["comparison.json", "figures", "records.jsonl", "report.html"]
    assert (tmp_path / "out" / "figures" / "cross_layer.png").read_bytes()[:4] == b"\x89PNG"


def test_an_adapter_alone_and_a_table_as_json(place, tmp_path):
    chosen = ("-m", "nps", "--layers", "0,2-3", "--json")
    code, printed, _ = run("diff", place / "adapter", "-t", place / "texts.csv", "-o", tmp_path / "out", *chosen)
    assert code == 0
    payload = json.loads(printed)
    assert payload == json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [row["index"] for row in payload["layers"]] == [0, 2, 3]
    assert payload["data"]["n"] == 40


def test_an_earlier_result_is_replaced(place, tmp_path):
    for sample in (20, 30):
        arguments = ("diff", place / "base", place / "tuned", "-t", place / "texts.txt", "-o", tmp_path / "o", "--sample", sample)
        assert run(*arguments)[0] == 0
    payload = json.loads((tmp_path / "o" / "comparison.json").read_text())
    assert (payload["data"]["n"], payload["data"]["sampled_from"]) == (30, 40)


def test_version_and_unknown_options():
    from tunescope import __version__

    assert run("--version") == (0, f"tunescope {__version__}\n", "")
    code, _, said = run("diff", "a", "b", "--nope")
    assert code == 2
    assert "No such option" in said


def _empty(folder: Path) -> None:
    (folder / "empty.txt").write_text("\n\n")
    (folder / "few.txt").write_text("a cat\na dog\n")
    (folder / "latin.txt").write_bytes("ein Märchen\n".encode("latin-1") * 20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base", "tuned", "-t", "missing.txt"], "missing.txt"),
        (["base", "tuned", "-t", "empty.txt"], "no texts in it"),
        (["base", "tuned", "-t", "few.txt"], "nps needs at least 12 texts, got 2"),
        (["base", "tuned", "-t", "latin.txt"], "UTF-8"),
        (["base", "tuned", "-t", "texts.csv", "--column", "sentense"], "did you mean sentence"),
        (["base", "tuned", "-t", "texts.txt", "-m", "ckaa"], "unknown measure 'ckaa'; did you mean cka"),
        (["base", "tuned", "-t", "texts.txt", "-m", "list"], "unknown measure 'list'; known: all, cca, change_rank, cka"),
        (["base", "tuned", "-t", "texts.txt", "--layers", "2..3"], "--layers 2..3 asked for"),
        (["base", "tuned", "-t", "texts.txt", "--layers", "99"], "layers 99 asked for"),
        (["base", "tuned", "-t", "texts.txt", "--pooling", "max"], "unknown pooling 'max'; known: cls, last, mean, none"),
        (["base", "tuned", "-t", "texts.txt", "--device", "cuda:9"], "no such device: 'cuda:9' asked for"),
        (["base", "tuned", "-t", "texts.txt", "--dtype", "int3"], "unknown dtype 'int3'"),
        (["base", "tuned", "-t", "texts.txt", "-o", "base"], "holds something else"),
        (["base", "nowhere/at/all", "-t", "texts.txt"], "nowhere/at/all"),
        (["wide", "adapter", "-t", "texts.txt"], "does not fit the base"),
        (["base", "cut", "-t", "texts.txt"], "model.safetensors"),
        (["base", "nan", "-t", "texts.txt"], "NaN"),
        (["base", "-t", "texts.txt"], "give two, the base first"),
        (["base", "tuned", "-t", "texts.txt", "--layers", "3-1"], "--layers 3-1 asked for"),
        (["base", "tuned", "-t", "texts.txt", "--max-length", "2"], "max_length 2 asked for"),
        (["base", "tuned", "-t", "texts.txt", "-m", ""], "no measures asked for"),
    ],
)
def test_bad_input_is_one_line_status_2_and_nothing_written(place, tmp_path, monkeypatch, capsys, arguments, message):
    _empty(place)
    if "wide" in arguments and not (place / "wide").exists():
        save_model(place / "wide", model=tiny_model("bert", hidden_size=8))
    if "cut" in arguments and not (place / "cut").exists():
        whole = save_model(place / "cut") / "model.safetensors"
        whole.write_bytes(whole.read_bytes()[:-100])
    if "nan" in arguments and not (place / "nan").exists():
        broken = tiny_model("bert")
        with torch.no_grad():
            broken.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
        save_model(place / "nan", model=broken)
    monkeypatch.chdir(place)
    before = sorted(str(p) for p in place.rglob("*"))
    said = refused(monkeypatch, capsys, "diff", *arguments, *([] if "-o" in arguments else ["-o", tmp_path / "out"]))
    assert message in said
    assert not (tmp_path / "out").exists()
    assert sorted(str(p) for p in place.rglob("*")) == before


def test_nan_in_activations_names_model_layer_and_text(place, tmp_path, monkeypatch, capsys):
    huge = tiny_model("bert")
    with torch.no_grad():
        huge.encoder.layer[1].output.LayerNorm.weight.fill_(3e38)
    save_model(tmp_path / "huge", model=huge)
    said = refused(monkeypatch, capsys, "diff", place / "base", tmp_path / "huge", "-t", place / "texts.txt", "-o", tmp_path / "out")
    assert "huge" in said
    assert "block 2" in said
    assert "line 1" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    out = tmp_path / "locked" / "out"
    said = refused(monkeypatch, capsys, "diff", place / "base", place / "tuned", "-t", place / "texts.txt", "-o", out)
    assert "no permission" in said


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc here")
@pytest.mark.parametrize("command", ["diff", "capture"])
def test_a_place_where_nothing_can_be_made_is_found_out_before_any_work(monkeypatch, capsys, command):
    """Even root makes no folder in /proc, whatever its permissions say; a model that is not there would be the next error."""
    said = refused(monkeypatch, capsys, command, "nowhere/at/all", *(["nowhere"] if command == "diff" else []), "-o", "/proc/xx/out")
    assert "cannot write to '/proc/xx/out'" in said


def test_trying_a_folder_leaves_nothing_behind(tmp_path):
    from tunescope.comparison.folder import check_folder

    for out in (tmp_path / "a" / "b", tmp_path):
        check_folder(out)
        assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_so_and_leaves_nothing(place, tmp_path):
    (tmp_path / "many.txt").write_text("\n".join(sentences(200_000)) + "\n")
    command = [TUNESCOPE, "diff", place / "base", place / "tuned", "-t", tmp_path / "many.txt", "-o", tmp_path / "out"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert "200,000 texts" in process.stderr.readline()  # the estimate: everything is loaded, and the pass begins
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; nothing was written" in said
    assert "Traceback" not in said + out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many.txt"]


def test_probe_audit_prints_a_table_and_writes_json(place, tmp_path):
    """Two kinds of sentence: 60 of each, so that a probe can tell them apart or not; the table and the file say the same."""
    rows = [f'"{text}",{"ab"[i % 2]}' for i, text in enumerate(sentences(120))]
    (tmp_path / "t.csv").write_text("text,kind\n" + "\n".join(rows) + "\n")
    command = ["probe-audit", place / "base", "-t", tmp_path / "t.csv", "--labels", "kind", "-o", tmp_path / "audit.json"]
    code, printed, said = run(*command)
    assert code == 0, said
    assert "swing" in printed
    assert "standardised" in printed
    payload = json.loads((tmp_path / "audit.json").read_text())
    assert payload["train"] + payload["test"] == 120
    assert sum(payload["share"].values()) == pytest.approx(payload["swing"])
    assert json.loads(run(*command, "--json")[1]) == payload


def test_probe_audit_refuses_a_column_that_is_not_there(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "t.csv").write_text("text,kind\na cat,x\na dog,y\n")
    assert "did you mean kind" in refused(monkeypatch, capsys, "probe-audit", place / "base", "-t", tmp_path / "t.csv", "--labels", "kinds")


def test_an_interrupt_that_was_dropped_on_its_way_is_sent_again(tmp_path, monkeypatch):
    """The first is raised in a destructor, where Python drops it; the second ends the work."""
    program = f"""
import os, signal, sys, time
from pathlib import Path
import tunescope.cli.run as run
run.LOST = 0.3
sys.unraisablehook = lambda dropped: None
class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
with run.interruptible(Path({str(tmp_path / "out")!r})):
    deaf = Deaf()
    del deaf
    time.sleep(20)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=15)
    assert (done.returncode, "interrupted; nothing was written" in done.stderr) == (130, True)
