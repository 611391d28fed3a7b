"""Time and memory against the nearest libraries and bounds, in one table: `python benchmarks/run.py [--only a,b] [--repeats N]`.

A missed target is printed and nothing more, since a busy machine misses targets too; a wrong number is an error.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from pairing import Line, Pairs

ITEMS = ("capture", "cross_layer", "procrustes", "neighbours", "nulls_and_intervals", "whole_diff", "memory", "scale", "probe")
ITEMS += ("equal_step", "masked_lm", "trajectory", "sae", "delta_pass", "delta_store", "study")
LIBRARIES = ("tunescope", "torch", "numpy", "scipy", "scikit-learn", "transformers", "sentence-transformers", "pytorch-cka")
ROW = "{:<54}  {:<33}  {:>7}  {:>9}  {:>10}  {:>21}  {:>7}  {}"


def main() -> None:
    asked = parse()
    if asked.clock == "cpu":
        Pairs.clock = time.process_time
    print(f"{machine()}; {asked.repeats} pairs a row, {asked.clock} clock\n")
    print(ROW.format("item", "against", "threads", "ours", "peer/bound", "ratio (min–max)", "target", "met?"), flush=True)
    for name in asked.only:
        item = importlib.import_module(name)
        torch.set_num_threads(item.THREADS)
        with threadpool_limits(item.THREADS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the peers' own
            for line in item.lines(asked.repeats):
                show(line, item.THREADS)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=chosen, default=ITEMS, metavar="A,B", help=f"of {','.join(ITEMS)}")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="pairs a row (default 5)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: process time, for a machine busy with other things")
    return parser.parse_args()


def chosen(names: str) -> tuple[str, ...]:
    unknown = set(names.split(",")) - set(ITEMS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no {', '.join(sorted(unknown))}; choose from {','.join(ITEMS)}")
    return tuple(names.split(","))


def machine() -> str:
    info = Path("/proc/cpuinfo")
    cpu = platform.processor() or platform.machine()
    if info.is_file() and "model name" in (text := info.read_text()):
        cpu = text.split("model name")[1].split(":")[1].split("\n")[0].strip()
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {libraries}"


def show(line: Line, threads: int) -> None:
    cells = (line.item, line.against, threads, line.ours, line.theirs, line.ratio, line.target, "yes" if line.met else "NO")
    print(ROW.format(*cells), *([f"      {line.note}"] if line.note else []), sep="\n", flush=True)


if __name__ == "__main__":
    main()
