"""Ray on two nodes of this machine makes the records that this process makes; what fails, dies or cannot be is told in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

import toy_study
from toy_drivers import begin, computed, end_drivers, environment, recorded, status_or_none, until
from toy_study import specs
from tunescope.errors import InputError
from tunescope.study.jobs import Resources

pytest.importorskip("ray", reason="the extra 'ray' is not installed")
from ray_nodes import Nodes


@pytest.fixture(autouse=True)
def no_driver_is_left():
    yield
    end_drivers()


@pytest.fixture(scope="module")
def nodes():
    with Nodes(environment()) as begun:
        yield begun


def test_two_nodes_make_the_records_of_one_process(tmp_path, nodes):
    driver = begin(tmp_path, "ray", "--address", nodes.address, "--sleep", "0.1")
    both = until(lambda: (now := status_or_none(tmp_path)) and len({each.pid for each in now.runs if each.state == "running"}) == 2)
    assert driver.wait(timeout=120) == 0
    assert both, "two runs at once, one a node"
    assert recorded(tmp_path) == computed(specs(4, steps=8, sleep=0.1))


def test_a_failed_run_is_reported_and_the_others_finished(tmp_path, nodes):
    program = f"""
import sys, toy_study
from toy_study import spec, work
from tunescope.study.execute import execute
from tunescope.study.on_ray import OnRay
from tunescope.study.jobs import Resources
given = (spec("always", fail="always"), spec("once", fail="once"), spec("die", fail="die once"), spec("well"))
for job in execute("toy", given, work, OnRay({nodes.address!r}, Resources(cpus=1, memory=50)), out=sys.argv[1]):
    print(job.spec.condition, job.state, *job.errors, sep="|")
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment(), capture_output=True, text=True, timeout=120)
    said = [line for line in done.stdout.splitlines() if "(raylet)" not in line]  # what Ray itself says of a process that died
    assert said == [
        "always|failed|ValueError: loss is nan at step 0|ValueError: loss is nan at step 0",
        "once|done|ValueError: loss is nan at step 0",
        "die|done|its process died (WorkerCrashedError)",
        "well|done",
    ], done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'127.0.0.1:1'", "no Ray at '127.0.0.1:1'"),
        ("'local', Resources(cpus=1, gpus=7)", "a run takes 1 cores, 7 GPUs, more than this machine has"),
    ],
    ids=["nobody there", "too much"],
)
def test_ray_that_cannot_be_is_one_clear_line(arguments, message):
    program = f"""
from tunescope.errors import InputError
from tunescope.study.jobs import Resources
from tunescope.study.on_ray import OnRay
try:
    OnRay({arguments})
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=120)
    assert message in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_without_ray_it_says_what_to_install(monkeypatch):
    from tunescope.study.on_ray import OnRay

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray is not installed; pip install 'tunescope\[ray\]'"):
        OnRay(None, Resources())


def test_the_toy_study_is_found_by_workers():
    assert toy_study.work.__module__ == "toy_study"
