"""What a study looks like in a terminal: a view that renews itself from the study's files, or lines where nobody can watch one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tunescope.cli.run import say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tunescope.study.folder import StudyFolder
    from tunescope.study.status import RunStatus, StudyStatus

FEW = 12  # runs of a state that are listed; of more, the rest is counted


@contextmanager
def watched(folder: StudyFolder, *, show: bool) -> Iterator[Callable[[str], None]]:
    """The view while runs are made, if somebody can watch; yields what takes a line of news."""
    from rich.console import Console

    if not show:
        yield lambda line: None
    elif not Console(stderr=True).is_terminal:
        yield say
    else:
        with live(folder) as announce:
            yield announce


@contextmanager
def live(folder: StudyFolder) -> Iterator[Callable[[str], None]]:
    """The view, renewed every second, on stderr; lines of news appear above it."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live(get_renderable=lambda: _view(folder), console=console, refresh_per_second=1, transient=True) as view:
        yield lambda line: view.console.print(line, style="dim", highlight=False, markup=False)


def _view(folder: StudyFolder) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from tunescope.errors import OutputError
    from tunescope.study.jobs import DONE, RUNNING
    from tunescope.study.status import status

    try:
        now = status(folder)
    except OutputError:  # it is just being made
        return Text("…")
    table = Table.grid(padding=(0, 2))
    for run in now.of(RUNNING)[:FEW]:
        bar = ProgressBar(total=run.steps or 1, completed=run.step, width=24)
        table.add_row(run.name, bar, f"{run.step} of {run.steps}" if run.steps else "", run.what, f"left {duration(run.eta_s)}")
    whole = ProgressBar(total=len(now.runs), completed=now.counts[DONE], width=24)
    table.add_row(now.study, whole, f"{now.counts[DONE]} of {len(now.runs)}", "", f"left {duration(now.eta_s)}")
    return Group(table, Text(_counts(now), style="dim"))


def shown(now: StudyStatus) -> str:
    """The state of a study in lines."""
    from tunescope.study.jobs import FAILED, QUEUED, RUNNING

    lines = [f"study    {now.study}: {_counts(now)}"]
    lines += _listed("running", [_running(run) for run in now.of(RUNNING)])
    lines += _listed("queued", [_queued(run) for run in now.of(QUEUED)])
    lines += [f"failed   {run.name}: {run.errors[-1] if run.errors else 'for an unknown reason'}" for run in now.of(FAILED)]
    if now.driver is not None or now.of(QUEUED):
        lines.append(f"driver   {now.driver or 'nobody; tunescope study run goes on with it'}")
    if now.eta_s is not None:
        lines.append(f"left     about {duration(now.eta_s)}")
    return "\n".join(lines)


def _counts(now: StudyStatus) -> str:
    return ", ".join(f"{count} {state}" for state, count in now.counts.items() if count) or "no runs"


def _listed(word: str, told: list[str]) -> list[str]:
    rest = [f"{'':<9}and {len(told) - FEW} more"] if len(told) > FEW else []
    return [f"{word:<9}{line}" for line in told[:FEW]] + rest


def _running(run: RunStatus) -> str:
    step = f", step {run.step} of {run.steps}" if run.steps else ""
    left = f", {duration(run.eta_s)} left" if run.eta_s is not None else ""
    return f"{run.name}{step}{f', {run.what}' if run.what else ''}{left} (process {run.pid} of {run.host})"


def _queued(run: RunStatus) -> str:
    reached = f", goes on near step {run.step} of {run.steps}" if run.steps else ""
    return f"{run.name}{reached}{f', after: {run.errors[-1]}' if run.errors else ''}"


def duration(seconds: float | None) -> str:
    """1:05:09, 3:20, or ? where it cannot be told."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
