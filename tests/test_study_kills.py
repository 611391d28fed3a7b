"""kill -9 of drivers, workers and Ray's nodes at random moments: the records are those of a study that nobody disturbed.

Oracle: what each run computes by itself. None lost, none doubled, and no more work repeated than since the last checkpoint.
"""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import psutil
import pytest

from toy_drivers import begin, computed, end_drivers, environment, kill, recorded, status_or_none, until
from toy_study import specs
from tunescope.study.jobs import DONE, RUNNING

RUNS, STEPS, SLEEP = 8, 20, 0.1
SIZE = ("--runs", str(RUNS), "--steps", str(STEPS), "--sleep", str(SLEEP))
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_driver_is_left():
    yield
    end_drivers()


class Disturbed:
    """A study whose processes are killed; `kills` counts them by what they were."""

    def __init__(self, out: Path, *how: str, seed: int):
        self.out, self.how, self.draw = out, how, random.Random(seed)
        self.kills: dict[str, int] = {"driver": 0, "worker": 0, "node": 0}
        self.driver: subprocess.Popen | None = None

    def working(self) -> list[int]:
        """Workers, once there are any; the driver is begun where there is none."""
        if self.driver is None or self.driver.poll() is not None:
            self.driver = begin(self.out, *self.how, *SIZE)
        return until(self._workers)

    def _workers(self) -> list[int]:
        assert self.driver is not None
        now = status_or_none(self.out)
        if now is None or self.driver.poll() is not None:
            return [0] if self.driver.poll() is not None else []
        return [each.pid for each in now.of(RUNNING) if each.pid]

    def disturb(self, node: int | None = None) -> str | None:
        """After a random while, kill one of what there is; what it was."""
        workers = self.working()
        try:
            self.driver.wait(self.draw.uniform(0.0, 0.8))
        except subprocess.TimeoutExpired:
            what = self.draw.choice(("driver", "worker") if node is None else ("driver", "worker", "node"))
            which = {"driver": self.driver.pid, "worker": self.draw.choice(workers), "node": node}[what]
            if which and kill(which):
                self.kills[what] += 1
                if what == "driver":
                    self.driver.wait()
                return what
        return None

    def finish(self) -> None:
        """Undisturbed to the end; a run that was killed too often is failed, which the next driver tries again."""
        for _ in range(10):
            if self.driver is not None and self.driver.wait(timeout=300) == 0:
                return
            self.driver = begin(self.out, *self.how, *SIZE)
        raise AssertionError("the study does not end")

    def check(self, least: int) -> None:
        given = specs(RUNS, steps=STEPS, sleep=SLEEP)
        assert sum(self.kills.values()) >= least, self.kills
        assert recorded(self.out) == computed(given)
        assert len(list((self.out / "ledger").iterdir())) == len(given)
        assert status_or_none(self.out).counts[DONE] == len(given)
        made = sum(len((self.out / "runs" / each.hash / "steps.log").read_text().split()) for each in given)
        assert made <= len(given) * STEPS + 2 * sum(self.kills.values()), "a kill costs the step at hand of the two runs at work, no more"


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_drivers_and_workers(tmp_path, seed):
    study = Disturbed(tmp_path, "processes", seed=seed)
    while sum(study.kills.values()) < 12:
        study.disturb()
    study.finish()
    study.check(12)
    assert min(study.kills["driver"], study.kills["worker"]) >= 3


def test_killed_drivers_workers_and_a_node_of_ray(tmp_path):
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from ray_nodes import Nodes

    with Nodes(environment()) as nodes:
        study = Disturbed(tmp_path, "ray", "--address", nodes.address, seed=2)
        while sum(study.kills.values()) < 12:
            if study.disturb(nodes.raylet("second")) == "node":
                nodes.stop("second")
                nodes.start("second")
        study.finish()
        study.check(12)
        assert min(study.kills.values()) >= 2


def test_killed_raylet_of_the_drivers_own_ray(tmp_path):
    """With its node the driver dies too; the same command goes on."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    study = Disturbed(tmp_path, "ray", "--address", "local", seed=3)
    while study.kills["node"] < 3:
        study.working()
        mine = psutil.Process(study.driver.pid).children(recursive=True)
        raylet = [each.pid for each in mine if each.name() == "raylet"]
        study.disturb(raylet[0] if raylet else None)
    study.finish()
    study.check(3)
