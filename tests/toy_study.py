"""A study whose runs iterate a map instead of training: fast, deterministic, resumable; as a program, its driver."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from tunescope.study.execute import execute
from tunescope.study.in_process import InProcess, Processes
from tunescope.study.jobs import FAILED, Resources
from tunescope.study.row import Row
from tunescope.study.run_spec import Change, Measurement, Model, RunSpec, Source

TEXTS = Measurement((Source("anchors", "anchors.txt"),))


def spec(condition="fine", *, seed=0, kind="tune", like=None, **schedule) -> RunSpec:
    change = None if like is None else Change("like", "gaussian", like=like)
    schedule = {"steps": 8, "of": condition, **schedule}  # a condition's name alone makes no other run
    return RunSpec(kind, condition, Model("toy", "toy"), TEXTS, seed=seed, change=change, schedule=schedule)


def specs(count: int, **schedule) -> tuple[RunSpec, ...]:
    """`count` runs, and for every second one a control that needs it."""
    tuned = [spec("tuned", seed=seed, **schedule) for seed in range(count)]
    return (*tuned, *(spec("control", seed=each.seed, kind="perturb", like=each.hash, **schedule) for each in tuned[::2]))


def orbit(seed: float, steps: int) -> list[float]:
    """What the work computes: the logistic map from .1 + seed/100."""
    found = [0.1 + seed / 100]
    for _ in range(steps):
        found.append(3.9 * found[-1] * (1 - found[-1]))
    return found


def work(given: RunSpec, folder: Path, tell):
    """A step at a time, kept after each; a row a step. `schedule` may ask for failures."""
    checkpoint = folder / "at.json"
    asked = given.schedule
    if given.needs:
        assert json.loads((folder.parent / given.needs[0] / "at.json").read_text())["found"], "the run it needs is not finished"
    if asked.get("fail") == "always" or (asked.get("fail") == "once" and not (folder / "failed").exists()):
        (folder / "failed").touch()
        raise ValueError(f"loss is nan\nat step {given.seed}")
    if asked.get("fail") == "surrogate":
        raise ValueError("no file \udcff.txt")
    if asked.get("fail") == "die" or (asked.get("fail") == "die once" and not (folder / "failed").exists()):
        (folder / "failed").touch()
        os._exit(9)
    found = json.loads(checkpoint.read_text())["found"] if checkpoint.exists() else [0.1 + given.seed / 100]
    for step in range(len(found), asked["steps"] + 1):
        tell(step, asked["steps"], "iterate")
        time.sleep(asked.get("sleep", 0))
        with open(folder / "steps.log", "a") as log:
            log.write(f"{step}\n")
        found.append(3.9 * found[-1] * (1 - found[-1]))
        part = folder / "at.part"
        part.write_text(json.dumps({"found": found}))
        os.replace(part, checkpoint)
    return [row(given, step, value) for step, value in enumerate(found)]


def row(given: RunSpec, step: int, value: float, **more) -> Row:
    named = {"condition": given.condition, "model": given.model.name, "seed": given.seed, "kind": given.kind}
    return Row(**{"study": "", "run": given.hash, "subject": "geometry", "measure": "orbit", "value": value, "step": step, **named, **more})


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("how", choices=("in-process", "processes", "ray"))
    parser.add_argument("--address")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--sleep", type=float, default=0.0)
    asked = parser.parse_args()
    if asked.how == "ray":
        from tunescope.study.on_ray import OnRay

        executor = OnRay(asked.address, Resources(cpus=1))
    else:
        executor = InProcess() if asked.how == "in-process" else Processes(2, Resources(cpus=1))
    runs = specs(asked.runs, steps=asked.steps, sleep=asked.sleep)
    jobs = execute("toy", runs, work, executor, out=asked.out, announce=lambda line: sys.stderr.write(f"{line}\n"))
    return int(any(job.state == FAILED for job in jobs))


if __name__ == "__main__":
    import toy_study  # so that works and rows are found under one name in every process

    sys.exit(toy_study.main())
