"""What every long command does around its work: progress with an estimate, quiet libraries, a clean Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from tunescope.comparison import Comparison

LOST = 5.0  # seconds after which an interrupt that stopped nothing was dropped on its way


@contextmanager
def progress(show: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar per stage, with time left, on stderr; where nobody can watch a bar, a line as each stage begins."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not show or not console.is_terminal:
        yield _lines() if show and os.environ.get("RANK", "0") == "0" else lambda stage, done, total: None
        return
    columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn()]
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as bars:
        tasks: dict[str, object] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield report


def _lines() -> Callable[[str, int, int], None]:
    begun = set[str]()

    def report(stage: str, done: int, total: int) -> None:
        if stage not in begun:
            begun.add(stage)
            say(f"{stage} …")

    return report


def say(line: str) -> None:
    """What is about to be done, on stderr, whoever watches."""
    typer.secho(line, err=True, dim=True)


def tell(line: str, *, label: int) -> None:
    """A line of the answer, on stdout: in a terminal wrapped between words, below the text that follows its label of so many columns."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, subsequent_indent=" " * label, break_long_words=False, break_on_hyphens=False)
    typer.echo(line)


@contextmanager
def interruptible(out: Path, *, begun: str | None = None) -> Iterator[None]:
    """Ctrl-C ends with one line that says what was left behind: nothing, or the whole result, or, where a file `begun` is in the folder,
    what --resume goes on with."""
    before = _stamp(out)
    try:
        with _heard():
            yield
    except KeyboardInterrupt:
        left = f"nothing was written to '{out}'" if _stamp(out) == before else f"the result had just been written to '{out}'"
        if begun is not None and (out / begun).is_file():
            left = f"what is done is kept in '{out}', and --resume goes on from there"
        typer.secho(f"\ntunescope: interrupted; {left}", err=True, fg=typer.colors.RED)
        sys.stderr.flush()
        os._exit(130)  # worker threads of a running forward pass would hold the exit back


@contextmanager
def _heard() -> Iterator[None]:
    """Ctrl-C raised where exceptions are dropped, in a destructor or a callback from C, is lost: it is sent again until it is heard."""
    main = threading.main_thread()
    if threading.current_thread() is not main or not hasattr(signal, "pthread_kill"):
        yield
        return
    again: list[threading.Timer] = []

    def interrupt(number: int, frame: object) -> None:
        again.append(threading.Timer(LOST, signal.pthread_kill, (main.ident, signal.SIGINT)))
        again[-1].daemon = True
        again[-1].start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        for timer in again:
            timer.cancel()


def _stamp(out: Path) -> int | None:
    """When the result in the folder was put there."""
    times = []
    for name in ("comparison.json", "weights.json", "perturbation.json", "distance.json"):
        with suppress(OSError):
            times.append((out / name).stat().st_mtime_ns)
    return max(times, default=None)


def finish(comparison: Comparison, out: Path, *, as_json: bool, figures: bool) -> None:
    """Save, then print the table (or the JSON) and where the report is."""
    import json

    from rich.console import Console

    from tunescope.report import terminal

    with Console(stderr=True).status("writing the report") if sys.stderr.isatty() and not as_json else nullcontext():
        comparison.save(out, figures=figures)
    if as_json:
        typer.echo(json.dumps(comparison.payload, ensure_ascii=False, allow_nan=False))
        return
    console = Console()
    console.print(terminal(comparison.payload))
    console.print(f"\nreport   {out / 'report.html'}\nnumbers  {out / 'comparison.json'}", highlight=False, soft_wrap=True)
