"""tunescope study run and status as a person meets them, on the toy study. Oracle: what each run computes by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import duckdb
import pytest
from typer.testing import CliRunner

import toy_study
from toy_drivers import computed, environment, recorded
from toy_study import spec, specs
from tunescope.cli import app, main


@pytest.fixture
def planned(monkeypatch):
    """Says which runs a plan has, and makes their work the toy's."""
    monkeypatch.setattr("tunescope.study.work.work", toy_study.work)

    def plan(*given, name="toy"):
        monkeypatch.setattr("tunescope.study.plan.read_plan", lambda path: SimpleNamespace(name=name, hypotheses=()))
        monkeypatch.setattr("tunescope.study.expand.expand", lambda plan: given)
        return given

    return plan


def study(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["study", *map(str, arguments)], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def refused(monkeypatch, capsys, *arguments: object) -> str:
    """The one line on stderr of a refused command."""
    monkeypatch.setattr(sys, "argv", ["tunescope", "study", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert (stop.value.code, said.out, said.err.count("\n")) == (2, "", 1), said.err
    return said.err


def test_a_study_is_run_told_and_not_run_again(planned, tmp_path):
    given = planned(*specs(2))
    code, out, err = study("run", "toy.toml", "--out", tmp_path)
    assert code == 0
    assert out == f"study    toy: 3 done\nrows     {tmp_path}/ledger.parquet\nnext     tunescope study report {tmp_path}\n"
    assert err.splitlines()[-1] == "done     control toy seed 0, 3 of 3"
    assert recorded(tmp_path) == computed(given)
    assert duckdb.sql(f"select count(*) from '{tmp_path}/ledger.parquet'").fetchall() == [(27,)]
    assert study("run", "toy.toml", "--out", tmp_path)[2] == "3 of 3 runs are done already\n"
    assert study("status", tmp_path)[:2] == (0, "study    toy: 3 done\n")


def test_failed_runs_are_told_with_what_to_do_and_the_others_are_done(planned, tmp_path):
    well, _ = planned(spec("well"), spec("always", fail="always"))
    code, out, err = study("run", "toy.toml", "--out", tmp_path, "--workers", 2, "--cpus", 1)
    assert code == 1
    assert "study    toy: 1 done, 1 failed\nfailed   always toy seed 0: ValueError: loss is nan at step 0\n" in out
    assert err.endswith(
        f"tunescope: 1 of 2 runs failed; where each was raised is in {tmp_path}/states; the same command tries them again\n"
    )
    assert err.count("again    always") == 1
    assert recorded(tmp_path) == computed((well,))
    assert study("status", tmp_path)[0] == 1


def test_json_is_all_there_is_on_stdout_whatever_libraries_print(planned, monkeypatch, tmp_path):
    def talking(given, folder, tell):
        sys.stdout.write("loss 0.3\n")
        return toy_study.work(given, folder, tell)

    planned(*specs(1))
    monkeypatch.setattr("tunescope.study.work.work", talking)
    _, out, _ = study("run", "toy.toml", "--out", tmp_path, "--json")
    assert json.loads(out)["counts"] == {"queued": 0, "running": 0, "done": 2, "failed": 0}
    assert json.loads(study("status", tmp_path, "--json")[1]) == json.loads(out)


def test_a_changed_spec_is_another_run(planned, tmp_path):
    first = planned(spec())
    study("run", "toy.toml", "--out", tmp_path)
    second = planned(spec(steps=9))
    assert study("run", "toy.toml", "--out", tmp_path)[2] == "done     fine toy seed 0, 1 of 1\n"
    assert recorded(tmp_path) == computed((*first, *second))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus", ".5"], "--gpus asked for, which only Ray keeps account of; add --ray, or leave it out"),
        (["--ray", "--workers", "2"], "--workers 2 and --ray asked for; Ray makes as many runs at once as its nodes hold"),
        (["--only", "tunde"], "unknown condition 'tunde'; did you mean tuned?"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_one_clear_line(planned, monkeypatch, capsys, tmp_path, options, message):
    planned(*specs(1))
    assert message in refused(monkeypatch, capsys, "run", "toy.toml", "--out", tmp_path / "study", *options)
    assert not (tmp_path / "study").exists()


def test_other_folders_are_refused_in_one_line(planned, monkeypatch, capsys, tmp_path):
    assert "holds no study (study.json is not there)" in refused(monkeypatch, capsys, "status", tmp_path)
    planned(*specs(1))
    study("run", "toy.toml", "--out", tmp_path)
    planned(*specs(1), name="drift")
    assert "holds the study 'toy', not 'drift'" in refused(monkeypatch, capsys, "run", "drift", "--out", tmp_path)


def test_status_is_told_without_torch(planned, tmp_path):
    planned(*specs(1))
    study("run", "toy.toml", "--out", tmp_path)
    program = (
        "import sys; from typer.testing import CliRunner; from tunescope.cli import app; "
        "print(CliRunner().invoke(app, ['study', 'status', sys.argv[1]]).stdout, 'torch' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "study    toy: 2 done\n False False\n"
