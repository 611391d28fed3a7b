"""What is read off a base and a tuned model, as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.identity import spec_hash, versions
from tunescope.study.recorded import data_of, update_of
from tunescope.study.row import Row
from tunescope.study.run_spec import RunSpec, Source
from tunescope.study.work.sources import collection_of, pairs_of, texts_of

if TYPE_CHECKING:
    from tunescope.comparison import Comparison


@dataclass(frozen=True)
class Subject:
    """The row of a run without its numbers, at one of its checkpoints."""

    row: Row

    @classmethod
    def of(cls, spec: RunSpec) -> Subject:
        """Everything that the spec says of its rows."""
        return cls(
            Row(
                study="", run=spec.hash, kind=spec.kind, model=spec.model.name, subject="", measure="", value=None,
                condition=spec.condition, objective=None if spec.objective is None else spec.objective.name,
                update=update_of(spec), seed=spec.seed, data=data_of(spec), regime=spec.regime,
                versions=", ".join(f"{name} {version}" for name, version in versions().items()),
            )
        )  # fmt: skip

    def at(self, *, epoch: float | None, step: int | None) -> Subject:
        """The same at another checkpoint."""
        return Subject(replace(self.row, epoch=epoch, step=step))

    def with_(self, **numbers: Any) -> Row:
        """A row of it."""
        return replace(self.row, **numbers)


def measure(subject: Subject, spec: RunSpec, base: Any, tuned: Any, *, outcomes: bool = True) -> Iterator[Row]:
    """Distances on every text set, and the outcomes that the plan asks for. base, tuned: loaded models. Raises as `ts.diff`."""
    from tunescope.comparison import diff

    asked = spec.measurement
    for source in asked.texts:
        found = diff(base, tuned, texts_of(source), measures=asked.measures, prompt=source.prompt, **asked.options)
        yield from geometry_rows(subject, found, texts=source.name)
    if outcomes:
        for name, given in outcome_requests(asked.labels, asked.retrieval, asked.lm):
            found = diff(base, tuned, measures=("cka",), **given, **_reading(asked.options, probes="labels" in given))
            yield from outcome_rows(subject, found, task=name)


def _reading(options: Mapping[str, Any], *, probes: bool) -> dict[str, Any]:
    """How texts are read for outcomes: as for distances; how their tokens become rows only where a probe reads them."""
    names = ("max_length", "batch_size", "dtype", "device", *(("pooling", "layers") if probes else ()))
    return {name: options[name] for name in names if name in options}


def outcome_requests(
    labels: tuple[Source, ...], retrieval: tuple[Source, ...], lm: tuple[Source, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Per task its name and the arguments of `ts.diff`. Prompts of retrieval are those the base declares."""
    for source in labels:
        yield source.name, {"texts": texts_of(source), "labels": source.labels or "label", "prompt": source.prompt}
    for source in retrieval:
        yield source.name, {"texts": None, "sample": 64, "retrieval": collection_of(source)}
    for source in lm:
        yield source.name, {"texts": None, "sample": 64, "lm": {source.name: texts_of(source).texts}}


def geometry_rows(subject: Subject, found: Comparison, *, texts: str) -> Iterator[Row]:
    """Every number of a comparison."""
    identity = _identity(found)
    for record in found.records:
        numbers = {name: getattr(record, name) for name in ("value", "change", "low", "high", "null", "null_sd", "where", "layer", "depth")}
        yield subject.with_(subject="geometry", measure=record.measure, texts=texts, n=record.n, identity=identity, **numbers)


def outcome_rows(subject: Subject, found: Comparison, *, task: str) -> Iterator[Row]:
    """Both sides and the difference of every outcome: the tuned side's row carries the difference and its interval."""
    identity = _identity(found)
    for row in found.outcomes:
        place = {"layer": row["layer"]} if isinstance(row["layer"], int) else {"where": row["layer"]}
        named = row["name"] if row["kind"] == "reembedding" else task  # an old index with new queries is another task
        shared: Mapping[str, Any] = {"subject": "outcome", "measure": row["metric"], "task": named, "n": row["n"], "identity": identity}
        yield subject.with_(value=row["base"], side="base", **shared, **place)
        yield subject.with_(value=row["tuned"], side="tuned", change=row["delta"], low=row["low"], high=row["high"], **shared, **place)


def _identity(found: Comparison) -> str:
    """What was measured, the same on every machine: weights, tokenizers and texts, and how they were read; no name and no place."""
    sides = [[found.payload[side][key] for key in ("weights_sha256", "tokenizer_sha256")] for side in ("base", "tuned")]
    return spec_hash({"sides": sides, "data": {key: value for key, value in found.payload["data"].items() if key != "source"}})


def distance_rows(subject: Subject, spec: RunSpec, base: Any) -> Iterator[Row]:
    """How far the objective's gradients are from those of the base's own pretraining. Raises as `ts.objective_distance`."""
    from tunescope.comparison.objective_distances import objective_distance

    asked = spec.objective
    if not spec.measurement.distances or asked is None:
        return
    read: dict[str, Any] = {"texts": asked.texts and texts_of(asked.texts), "pairs": asked.pairs and pairs_of(asked.pairs)}
    if asked.texts is not None and asked.texts.labels and asked.objective == "classify":
        read["labels"] = asked.texts.labels
    schedule = spec.schedule | ({} if spec.update is None else spec.update.schedule)
    read |= {key: schedule[key] for key in ("max_length",) if key in schedule}  # items are read as training reads them
    settings = {asked.objective: asked.settings} if asked.settings else None
    found = objective_distance(base, asked.objective, **read, settings=settings, seed=spec.seed)
    rows = found.payload["objectives"]
    for row in [row for row in rows if not row["is_reference"]] or rows:  # the reference itself is at no distance
        for name, number in row["distances"].items():
            cell = number if isinstance(number, Mapping) else {"value": number}
            numbers = {key: cell.get(key) for key in ("low", "high", "null")}
            yield subject.with_(subject="distance", measure=name, value=cell["value"], change=cell["value"], **numbers)


def kept(folder: Path) -> Path:
    """Where a run keeps the model it ends with."""
    return folder / "model"
