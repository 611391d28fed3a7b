"""Runs of a study are made once each, in order of need, retried, reported and gone on with. Oracle: what each run computes by itself."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pandas
import pytest

from toy_drivers import alive, begin, computed, end_drivers, environment, recorded, status_or_none, until
from toy_study import row, spec, specs, work
from tunescope.errors import FormatError, InputError, OutputError, UnknownName
from tunescope.study.driver_lock import driving, owner
from tunescope.study.execute import execute
from tunescope.study.folder import StudyFolder
from tunescope.study.in_process import InProcess, Processes
from tunescope.study.jobs import DONE, FAILED, QUEUED, RUNNING, Job, Resources, jobs_of, only
from tunescope.study.ledger import read_ledger
from tunescope.study.perform import Assignment, perform
from tunescope.study.status import status

ONE = Resources(cpus=1)


def run(out, given, *, executor=None, work=work, **options):
    return {job.name: job for job in execute("toy", given, work, executor or InProcess(), out=out, **options)}


@pytest.fixture(autouse=True)
def no_driver_is_left():
    yield
    end_drivers()


@pytest.mark.parametrize("executor", [InProcess(), InProcess(ONE), Processes(2, ONE)], ids=["here", "one thread", "processes"])
def test_every_run_is_made_once_and_its_rows_are_whole(tmp_path, executor):
    given = specs(3)
    jobs = run(tmp_path / "study", given, executor=executor)
    assert {job.state for job in jobs.values()} == {DONE}
    assert recorded(tmp_path / "study") == computed(given)
    read = read_ledger(tmp_path / "study" / "ledger.parquet")
    assert set(read["study"]) == {"toy"}
    assert (read["wall_s"] >= 0).all()
    assert read["peak_mb"].between(10, 10_000).all()


def test_what_is_finished_is_not_done_again(tmp_path):
    run(tmp_path, specs(2))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("ledger/*.jsonl")}

    def never(given, folder, tell):
        raise AssertionError(f"made again: {given.condition}")

    lines = []
    run(tmp_path, specs(2), work=never, announce=lines.append)
    assert lines == ["3 of 3 runs are done already"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("ledger/*.jsonl")} == before
    run(tmp_path, specs(3))  # a seed more
    assert recorded(tmp_path) == computed(specs(3))


@pytest.mark.parametrize("executor", [InProcess(), Processes(2, ONE)], ids=["here", "processes"])
def test_a_failed_run_is_tried_again_reported_and_the_others_finished(tmp_path, executor):
    always, once, well = spec("always", fail="always"), spec("once", fail="once"), spec("well")
    control = spec("control", kind="perturb", like=always.hash)
    jobs = run(tmp_path, (always, once, well, control), executor=executor, retries=2)
    assert {name.split()[0]: job.state for name, job in jobs.items()} == {"always": FAILED, "once": DONE, "well": DONE, "control": FAILED}
    assert jobs["always toy seed 0"].errors == ("ValueError: loss is nan at step 0",) * 3
    assert jobs["control toy seed 0"].errors == ("it needs 'always toy seed 0', which failed",)
    assert recorded(tmp_path) == computed((once, well))
    told = {each.name: each for each in status(StudyFolder.at(tmp_path)).of(FAILED)}
    assert {name: each.errors for name, each in told.items()} == {name: job.errors for name, job in jobs.items() if job.state == FAILED}
    assert "in work" in json.loads((tmp_path / "states" / f"{always.hash}.json").read_text())["trace"]


def test_what_failed_is_tried_again_by_the_next_driver(tmp_path):
    given = (spec("once", fail="once"),)
    assert run(tmp_path, given, retries=0)["once toy seed 0"].state == FAILED
    assert run(tmp_path, given, retries=0)["once toy seed 0"].state == DONE


def test_a_run_whose_process_died_is_begun_again_a_few_times_then_failed(tmp_path):
    given = (spec("die once", fail="die once"), spec("die", fail="die"), spec("well"))
    jobs = run(tmp_path, given, executor=Processes(2, ONE), retries=0)
    assert jobs["die once toy seed 0"].errors == ("its process died (exit status 9)",)
    assert (jobs["die toy seed 0"].state, len(jobs["die toy seed 0"].errors)) == (FAILED, 4)
    assert recorded(tmp_path) == computed((given[0], given[2]))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda given, folder, tell: [], "a run without a row"),
        (lambda given, folder, tell: [row(given, 0, float("nan"))], "value of geometry orbit is nan"),
        (lambda given, folder, tell: [row(given, 0, 1.0), row(given, 0, 2.0)], "two rows of one number"),
        (lambda given, folder, tell: [replace(row(given, 0, 1.0), run="another")], "gave a row of run another"),
        (lambda given, folder, tell: [{"value": 1}], "gave dict where a Row belongs"),
        (lambda given, folder, tell: sys.exit(3), "SystemExit: 3"),
    ],
    ids=["none", "nan", "doubled", "another run's", "no rows", "exit"],
)
def test_a_work_that_gives_what_is_no_row_fails_and_writes_nothing(tmp_path, bad, message):
    (job,) = run(tmp_path, (spec(),), work=bad, retries=0).values()
    assert job.state == FAILED
    assert message in job.errors[0]
    assert list((tmp_path / "ledger").iterdir()) == []


@pytest.mark.parametrize("executor", [InProcess(), Processes(1, ONE)], ids=["here", "processes"])
def test_an_error_that_is_no_text_ends_its_run_only(tmp_path, executor):
    given = (spec("odd", fail="surrogate"), spec("well"))
    jobs = run(tmp_path, given, executor=executor, retries=0)
    assert jobs["odd toy seed 0"].errors == ("ValueError: no file \\udcff.txt",)
    assert recorded(tmp_path) == computed(given[1:])
    for path in tmp_path.glob("states/*.json"):
        path.read_bytes().decode()


@pytest.mark.parametrize("ends", [KeyboardInterrupt, GeneratorExit])
def test_an_interrupted_driver_collects_what_is_done(tmp_path, ends):
    def interrupted(given, folder, tell):
        if given.condition == "last":
            raise ends
        return work(given, folder, tell)

    run(tmp_path, (spec("first"),))
    with pytest.raises(ends):
        run(tmp_path, (spec("first"), spec("second"), spec("last")), work=interrupted)
    assert set(read_ledger(tmp_path / "ledger.parquet")["condition"]) == {"first", "second"}
    (tmp_path / "ledger" / "other.jsonl").write_text("{}\n")  # the ledger cannot be read: of the two, the interrupt is told
    with pytest.raises(ends):
        run(tmp_path, (spec("last"),), work=interrupted)


def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write to '.*driver.json': No space left on device; .*--out"):
        run(tmp_path / "study", specs(1))
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["driver.lock"]


def test_a_file_where_the_folder_belongs_is_one_clear_line(tmp_path):
    (tmp_path / "study").write_text("")
    with pytest.raises(OutputError, match=r"cannot write to '.*study': File exists"):
        run(tmp_path / "study", specs(1))


@pytest.mark.parametrize("name", ["study.json", "states/{}.json"])
@pytest.mark.parametrize(("content", "found"), [("[1]", "not a JSON object but list"), ("{torn", "not JSON")])
def test_files_that_are_no_objects_are_refused_by_name(tmp_path, name, content, found):
    given = spec()
    run(tmp_path, (given,))
    path = tmp_path / name.format(given.hash)
    path.write_text(content)
    with pytest.raises(FormatError, match=f"{path.name}: {found}"):
        run(tmp_path, (given,))


@pytest.mark.parametrize("content", [b"{torn", b"[]", b"null", b'{"pid": 1}', b"\xff", b""])
def test_an_owner_that_cannot_be_read_is_nobody(tmp_path, content):
    run(tmp_path, (spec(),))
    (tmp_path / "driver.json").write_bytes(content)
    assert owner(StudyFolder.at(tmp_path)) is None
    run(tmp_path, (spec(),))
    assert owner(StudyFolder.at(tmp_path))["pid"] == os.getpid()


@pytest.mark.parametrize("asked", [1, 2])
def test_a_work_that_raises_leaves_the_threads_as_they_were(tmp_path, asked):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run(tmp_path, (spec(fail="always"),), executor=InProcess(Resources(cpus=asked)), retries=0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_rows_that_a_copy_cut_short_are_made_again(tmp_path):
    given = specs(4)
    run(tmp_path, given)
    torn, short, gone, _, unknown, _ = sorted((tmp_path / "ledger").iterdir())
    torn.write_bytes(torn.read_bytes()[:-20])
    short.write_bytes(b"".join(short.read_bytes().splitlines(keepends=True)[:-2]))
    gone.unlink()
    (tmp_path / "states" / unknown.with_suffix(".json").name).unlink()  # a ledger that came without its states is believed
    lines = []
    run(tmp_path, given, announce=lines.append)
    assert sum("cut short" in line for line in lines) == 2
    assert recorded(tmp_path) == computed(given)


def test_rows_that_a_disk_has_changed_are_made_again(tmp_path):
    """Of as many bytes as before, so that only the hash tells."""
    given = specs(2)
    run(tmp_path, given)
    changed, untold, _ = sorted((tmp_path / "ledger").iterdir())
    changed.write_bytes(changed.read_bytes().replace(b'"value"', b'"valve"', 1))
    state = tmp_path / "states" / f"{untold.stem}.json"
    state.write_text(json.dumps({name: value for name, value in json.loads(state.read_text()).items() if name != "sha256"}))
    lines = []
    run(tmp_path, given, announce=lines.append)
    assert [line.split()[4] for line in lines if "changed" in line] == [changed.stem[:12]]
    assert recorded(tmp_path) == computed(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: (spec("a"), replace(spec("a"), condition="b")), "'a toy seed 0' and 'b toy seed 0' are the same run"),
        (lambda: (spec("control", kind="perturb", like="f" * 64),), "needs run ffffffffffff, which is not in the plan"),
    ],
    ids=["doubled", "missing"],
)
def test_plans_that_cannot_be_run_are_refused_before_anything_runs(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "study", given())
    assert not (tmp_path / "study").exists()


def test_only_a_condition_and_what_it_needs(tmp_path):
    given = (*specs(2), spec("other"))
    jobs = run(tmp_path, given, conditions=["control"])
    assert set(jobs) == {"control toy seed 0", "tuned toy seed 0"}
    assert status(StudyFolder.at(tmp_path)).counts == {QUEUED: 2, RUNNING: 0, DONE: 2, FAILED: 0}
    with pytest.raises(UnknownName, match="unknown condition 'contro'; did you mean control?"):
        only(given, ["contro"])


def test_the_states_of_a_job():
    job = next(iter(jobs_of((spec(),)).values()))
    assert job.ended(None).state == DONE
    assert job.ended("x", retries=1).state == QUEUED
    assert job.ended("x", retries=1).ended("y", retries=1) == Job(job.run, job.spec, FAILED, ("x", "y"))
    lost = job
    for _ in range(3):
        lost = lost.ended("killed", lost=True)
        assert lost.state == QUEUED
    assert lost.ended("x", retries=1).state == QUEUED  # losses and failures are counted apart
    assert lost.ended("killed", lost=True).state == FAILED


def test_another_study_in_the_folder_is_refused(tmp_path):
    run(tmp_path, specs(1))
    with pytest.raises(OutputError, match="holds the study 'toy', not 'other'"):
        execute("other", specs(1), work, InProcess(), out=tmp_path)


def test_a_second_driver_is_refused_by_name_and_a_killed_one_is_taken_over(tmp_path):
    first = begin(tmp_path, "in-process", "--sleep", "1")
    until(lambda: status_or_none(tmp_path) and status_or_none(tmp_path).of(RUNNING))
    with pytest.raises(OutputError, match=f"process {first.pid} of .* is running the study"):
        run(tmp_path, specs(4))
    first.kill()
    first.wait()
    assert status(StudyFolder.at(tmp_path)).driver is None
    assert status(StudyFolder.at(tmp_path)).of(RUNNING) == ()
    run(tmp_path, specs(1))


def test_workers_end_with_a_driver_that_is_killed(tmp_path):
    driver = begin(tmp_path, "processes", "--sleep", "1")
    until(lambda: status_or_none(tmp_path) and len(status_or_none(tmp_path).of(RUNNING)) == 2)
    workers = [each.pid for each in status(StudyFolder.at(tmp_path)).of(RUNNING)]
    driver.kill()
    driver.wait()
    until(lambda: not any(alive(worker) for worker in workers))


def test_two_processes_never_work_in_one_folder(tmp_path):
    """A second one waits for the first, and then finds the rows."""
    given = spec(steps=4, sleep=0.1)
    folder = StudyFolder.at(tmp_path)
    folder.open("toy", jobs_of((given,)).values())
    program = (
        "import sys, toy_study; from tunescope.study.folder import StudyFolder; from tunescope.study.perform import Assignment, perform; "
        "s = toy_study.spec(steps=4, sleep=.1); print(perform(Assignment(s.hash, s, 'toy', StudyFolder.at(sys.argv[1]), toy_study.work)))"
    )
    both = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=environment(), stdout=subprocess.PIPE) for _ in range(2)]
    assert all(b"error=None" in each.communicate(timeout=60)[0] for each in both)
    assert (folder.working(given.hash) / "steps.log").read_text().split() == ["1", "2", "3", "4"]


def test_a_folder_that_a_host_does_not_see_is_one_clear_line(tmp_path):
    given = spec()
    ended = perform(Assignment(given.hash, given, "toy", StudyFolder.at(tmp_path / "elsewhere"), work))
    assert "is not there on host" in ended.error
    assert "a folder they share" in ended.error


def test_status_tells_step_and_time_left_from_files_alone(tmp_path):
    seen = []

    def watched(given, folder, tell):
        for step in range(1, 5):
            time.sleep(0.6)
            tell(step, 10, "train")
        seen.append(status(StudyFolder.at(tmp_path)))
        return [row(given, 0, 1.0)]

    run(tmp_path, (spec(), spec("next")), work=watched)
    first, second = seen
    (running,) = first.of(RUNNING)
    assert (running.step, running.steps, running.what, running.pid) == (4, 10, "train", os.getpid())
    assert running.eta_s == pytest.approx(6 * 0.6, rel=0.4)  # a busy machine sleeps longer
    assert first.driver.startswith(f"process {os.getpid()} of ")
    assert first.eta_s == pytest.approx((6 + 10) * 0.6, rel=0.4)  # the other run is taken to be as long
    assert second.eta_s == pytest.approx(6 * 0.6, rel=0.4)
    done = status(StudyFolder.at(tmp_path))
    assert (done.driver, done.eta_s, done.counts) == (None, None, {QUEUED: 0, RUNNING: 0, DONE: 2, FAILED: 0})
    assert json.loads(json.dumps(done.describe()))["counts"]["done"] == 2


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_a_study_behind_a_url(tmp_path, protocol):
    out = f"{protocol}://{tmp_path}/study"
    given = specs(3)
    run(out, given, scratch=tmp_path / "scratch")
    assert recorded(out) == computed(given)
    pandas.testing.assert_frame_equal(read_ledger(f"{out}/ledger.parquet"), read_ledger(out))
    kept = StudyFolder.at(out).place / "runs" / given[0].hash
    assert set(kept.sizes()) == {"at.json", "steps.log"}
    assert status(StudyFolder.at(out)).counts[DONE] == len(given)
    assert (tmp_path / "scratch").exists() == (protocol == "memory")


def test_what_a_run_needs_is_fetched_where_it_was_not_made(tmp_path):
    out, given = f"memory://{tmp_path}/study", specs(1)
    run(out, given[:1], scratch=tmp_path / "one host")
    run(out, given, scratch=tmp_path / "another")
    assert recorded(out) == computed(given)


def test_behind_a_url_a_driver_that_gives_no_sign_of_life_is_taken_over(tmp_path):
    folder = StudyFolder.at(f"memory://{tmp_path}/study")
    with driving(folder, beat=0.1, stale=5), pytest.raises(OutputError, match="is running the study"), driving(folder, beat=0.1, stale=5):
        pass
    with driving(folder, beat=0.1, stale=5):  # the first has left
        pass
    silent = {"host": "gone", "pid": 1, "since": time.time() - 99, "seen": time.time() - 50, "token": "x"}
    (folder.place / "driver.json").write(json.dumps(silent).encode())
    with pytest.raises(OutputError, match="process 1 of gone"), driving(folder, beat=0.1, stale=60):
        pass
    with driving(folder, beat=0.1, stale=40):
        pass


@pytest.mark.parametrize(("amounts", "message"), [({"cpus": 0}, "at least one core"), ({"gpus": -1}, "no negative amounts")])
def test_resources_that_cannot_be(amounts, message):
    with pytest.raises(InputError, match=message):
        Resources(**amounts)
    with pytest.raises(InputError, match="0 workers asked for"):
        Processes(0)
