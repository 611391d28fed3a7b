"""A plan: the choices of a study and what is measured, read from one TOML file into plain frozen objects; nothing is run or loaded here.

A file says what there is (sources, models, objectives, updates, changes), what is measured, and which products of these are runs; see
docs/plans.md for every key. What it names must be there and go together: `read_plan` refuses the rest in one line each.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from tunescope.errors import FormatError, InputError, ModelError, UnknownName
from tunescope.study.hypotheses import Hypothesis, hypothesis_of
from tunescope.study.plan_tables import SCHEMA, MeasureTable, PlanTable, parse_tables
from tunescope.study.possible import check_plan
from tunescope.study.run_spec import Change, Measurement, Model, Objective, Pretraining, Source, Update

BUNDLED = ("depth", "drift", "layers", "lora-features", "tiny-depth", "tiny-drift", "tiny-layers", "tiny-lora-features")


@dataclass(frozen=True)
class Size:
    """What an estimate needs to know of a model; None where nobody said."""

    parameters: float | None = None
    layers: int | None = None
    width: int | None = None
    vocabulary: int | None = None


@dataclass(frozen=True)
class Block:
    """One product of choices: every model with every objective under every update rule, …, but what is excluded.

    kind: of `RunSpec`. changes: of perturb. tuned: of compare and features. corpora, views, anchors: axes too; empty for what the
    objectives and the measurement say. measure: what differs from the plan's. exclude: {"model": …, "objective": …} that are left out.
    """

    kind: str
    models: tuple[str, ...]
    objectives: tuple[str, ...] = ()
    updates: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    anchors: tuple[tuple[str, ...], ...] = ()
    seeds: tuple[int, ...] = (0,)
    condition: str | None = None
    regime: str | None = None
    schedule: Mapping[str, Any] = field(default_factory=dict)
    measure: Mapping[str, Any] = field(default_factory=dict)
    exclude: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Claim:
    """That two conditions are controlled: at every seed their specs differ in `field` and nothing else. one, other: (model, condition)."""

    one: tuple[str, str]
    other: tuple[str, str]
    field: str


@dataclass(frozen=True)
class Plan:
    """sizes, rows, families: what is said of models and sources for estimates and checks.

    text: the file as it is. origin: what the user called it. folder: that relative places are relative to.
    """

    name: str
    about: str
    sources: Mapping[str, Source]
    models: Mapping[str, Model]
    sizes: Mapping[str, Size]
    rows: Mapping[str, int]
    families: Mapping[str, str]
    objectives: Mapping[str, Objective]
    updates: Mapping[str, Update]
    changes: Mapping[str, Change]
    schedule: Mapping[str, Any]
    measurement: Measurement
    blocks: tuple[Block, ...]
    hypotheses: tuple[Hypothesis, ...] = ()
    controlled: tuple[Claim, ...] = ()
    text: str = ""
    origin: str = ""
    folder: Path = Path()

    @property
    def sha256(self) -> str:
        """Of the file's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_plan(given: str | Path) -> Plan:
    """A plan from a file, or a bundled one by its name (`BUNDLED`).

    Raises: InputError (no such file, not TOML, a key or value it cannot have, an impossible pair), UnknownName (a name the plan does not
    declare, with the nearest it does), FormatError (another schema).
    """
    text, folder = _text(given)
    return parse_plan(text, origin=str(given), folder=folder)


def parse_plan(text: str, *, origin: str = "the plan", folder: Path = Path()) -> Plan:
    """A plan from the text of its file. Raises as `read_plan`."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{origin}: not TOML: {error}") from None
    if content.get("plan", SCHEMA) != SCHEMA:
        raise FormatError(f"{origin}: schema {content['plan']!r} found, this version reads {SCHEMA!r}")
    try:
        plan = _plan(parse_tables(content, name=origin), text, origin, folder)
        check_plan(plan)
    except (InputError, ModelError) as error:
        said = str(error)
        kind = ModelError if isinstance(error, ModelError) else InputError
        raise kind(said if said.startswith(origin) else f"{origin}, {said}") from None
    return plan


def bundled_text(name: str) -> str:
    """The file of a bundled plan, to be read, copied or changed. Raises UnknownName."""
    if name not in BUNDLED:
        raise UnknownName("plan", name, BUNDLED)
    return resources.files("tunescope.study").joinpath("plans", f"{name}.toml").read_text(encoding="utf-8")


def _text(given: str | Path) -> tuple[str, Path]:
    path = Path(given)
    if str(given) in BUNDLED and not path.is_file():
        return bundled_text(str(given)), Path()
    if path.suffix != ".toml" and not path.exists():
        raise UnknownName("plan", str(given), BUNDLED)
    try:
        return path.read_text(encoding="utf-8"), path.parent
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{given}: cannot be read as a plan ({error}); give a .toml file or one of {', '.join(BUNDLED)}") from error


def _plan(tables: PlanTable, text: str, origin: str, folder: Path) -> Plan:
    sources = {name: Source(name, **each.model_dump(exclude={"rows"})) for name, each in tables.sources.items()}
    models = {name: _model(name, each, sources) for name, each in tables.models.items()}
    return Plan(
        name=tables.name,
        about=tables.about,
        sources=sources,
        models=models,
        sizes={name: Size(each.parameters, each.layers, each.width, each.vocabulary) for name, each in tables.models.items()},
        rows={name: each.rows for name, each in tables.sources.items() if each.rows is not None},
        families={name: each.family for name, each in tables.models.items() if each.family is not None},
        objectives={name: _objective(name, each, sources) for name, each in tables.objectives.items()},
        updates={
            name: Update(name, each.update or name, each.options, each.tau, each.schedule) for name, each in tables.updates.items()
        },
        changes={name: Change(name, each.kind, each.amounts, each.like, each.to) for name, each in tables.changes.items()},
        schedule=tables.schedule,
        measurement=measured(Measurement(()), _given(tables.measure), sources, where="measure"),
        blocks=tuple(_block(each, tables.seeds) for each in tables.runs),
        hypotheses=tuple(hypothesis_of(each.model_dump(exclude_unset=True)) for each in tables.hypotheses),
        controlled=tuple(
            Claim((each.one.model, each.one.condition), (each.other.model, each.other.condition), each.field) for each in tables.controlled
        ),
        text=text,
        origin=origin,
        folder=folder,
    )  # fmt: skip


def source_of(name: str, sources: Mapping[str, Source], *, where: str) -> Source:
    """The source of that name. Raises UnknownName, saying where it is asked for."""
    if name not in sources:
        raise UnknownName(f"source of {where}", name, sources)
    return sources[name]


def measured(base: Measurement, given: Mapping[str, Any], sources: Mapping[str, Source], *, where: str) -> Measurement:
    """A measurement with some of its parts given anew, sources by name. Raises UnknownName."""
    parts = dict(vars(base))
    for key, value in given.items():
        if key in ("texts", "labels", "retrieval", "lm"):
            parts[key] = tuple(source_of(name, sources, where=f"{where}.{key}") for name in value)
        else:
            parts[key] = tuple(value) if key == "measures" else value
    return Measurement(**parts)


def _given(table: MeasureTable) -> dict[str, Any]:
    return table.model_dump(exclude_none=True)


def _model(name: str, table: Any, sources: Mapping[str, Source]) -> Model:
    asked = table.pretrain
    if (asked is None) == (not table.place):
        raise InputError(f"models.{name}: give either its place, a hub id or folder, or how the study pretrains it")
    if asked is None:
        return Model(name, table.place, table.revision, pretraining=table.pretraining)
    texts = source_of(asked.texts, sources, where=f"models.{name}.pretrain.texts")
    made = Pretraining(**(asked.model_dump() | {"texts": texts}))
    return Model(name, pretraining=table.pretraining or asked.objective, pretrain=made)


def _objective(name: str, table: Any, sources: Mapping[str, Source]) -> Objective:
    read = {
        kind: source_of(given, sources, where=f"objectives.{name}.{kind}")
        for kind, given in (("texts", table.texts), ("pairs", table.pairs)) if given is not None
    }  # fmt: skip
    return Objective(name, table.objective or name, table.settings, **read)


def _block(table: Any, seeds: list[int]) -> Block:
    lists = {key: tuple(getattr(table, key)) for key in ("models", "objectives", "updates", "changes", "tuned", "corpora", "views")}
    return Block(
        table.kind,
        **lists,
        anchors=tuple(map(tuple, table.anchors)),
        seeds=tuple(seeds if table.seeds is None else table.seeds),
        condition=table.condition,
        regime=table.regime,
        schedule=table.schedule,
        measure=_given(table.measure),
        exclude=tuple(table.exclude),
    )
