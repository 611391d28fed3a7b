"""Two models that are there already: nothing is trained, only measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tunescope.study.row import Row
from tunescope.study.run_spec import RunSpec
from tunescope.study.work.base_model import load_base
from tunescope.study.work.measured import Subject, measure

if TYPE_CHECKING:
    from tunescope.study.work import Tell


def compared(spec: RunSpec, folder: Path, tell: Tell) -> Iterator[Row]:
    """Measure what others tuned against its base. Raises as `ts.load_model` and `ts.diff`."""
    base = load_base(spec.model, folder.parent)
    for done, model in enumerate(spec.tuned):
        tell(done, len(spec.tuned), f"measuring {model.name}")
        yield from measure(Subject.of(spec), spec, base, load_base(model, folder.parent))
