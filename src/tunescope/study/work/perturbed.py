"""A control: the base moved by something other than training, by a stated amount or until a distance is reached."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import InputError
from tunescope.study.row import Row
from tunescope.study.run_spec import Change, RunSpec
from tunescope.study.work.base_model import load_base
from tunescope.study.work.measured import Subject, kept, measure
from tunescope.study.work.sources import texts_of

if TYPE_CHECKING:
    from tunescope.study.work import Tell


def perturbed(spec: RunSpec, folder: Path, tell: Tell) -> Iterator[Row]:
    """Move the base and measure it. Nothing is kept: the same spec moves it the same way. Raises as `ts.perturb`, `ts.perturb_to`."""
    if spec.change is None:
        raise InputError(f"the run '{spec.condition}' is to move the base, and says not how; give its change")
    base = load_base(spec.model, folder.parent)
    tell(0, 2, "moving")
    moved, size = _moved(spec, spec.change, base, folder.parent)
    subject = Subject.of(spec)
    for name, value in size.items():
        yield subject.with_(subject="cost", measure=name, value=value)
    tell(1, 2, "measuring")
    yield from measure(subject, spec, base, moved)


def _moved(spec: RunSpec, change: Change, base: Any, runs: Path) -> tuple[Any, dict[str, float]]:
    from tunescope.models import load_model
    from tunescope.training import perturb
    from tunescope.training.perturb import AMOUNTS
    from tunescope.training.to_distance import moved_to

    like = load_model(str(kept(runs / change.like))) if change.like else None
    if change.to is None:
        amounts: dict[str, Any] = dict(change.amounts)
        return perturb(base, kind=change.kind, like=like, seed=spec.seed, **amounts), change.amounts
    texts, options = spec.measurement.texts[0], spec.measurement.options
    reading: dict[str, Any] = {key: options[key] for key in ("pooling", "max_length", "batch_size") if key in options}
    draw = moved_to(
        base, texts_of(texts), to=change.to, kind=change.kind, like=like, seed=spec.seed, prompt=texts.prompt, **reading
    )  # as it will be measured
    return draw.model, {AMOUNTS[change.kind]: draw.parameter}
