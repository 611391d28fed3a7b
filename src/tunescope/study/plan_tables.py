"""The tables of a plan file as pydantic reads them: what keys there are, of which type, and one line where a file has others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tunescope.errors import InputError, UnknownName

SCHEMA = "tunescope.plan/1"
Seed = Annotated[int, Field(ge=0)]


class Table(BaseModel):
    """A table of TOML; a key it has not is told with the nearest it has."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            for key in given:
                if key not in cls.model_fields:
                    raise UnknownName("key", key, cls.model_fields)
        return given


class SourceTable(Table):
    place: str
    column: str | None = None
    labels: str | None = None
    sample: int | None = Field(None, ge=1)
    prompt: str | None = None
    revision: str | None = None
    rows: int | None = Field(None, ge=1)


class PretrainTable(Table):
    family: str
    config: dict[str, Any]
    texts: str
    objective: str
    steps: int = Field(ge=1)
    batch_size: int = Field(32, ge=1)
    lr: float = Field(1e-3, gt=0)
    max_length: int = Field(64, ge=2)
    vocabulary: int = Field(1024, ge=261)
    seed: int = Field(0, ge=0)


class ModelTable(Table):
    place: str = ""
    revision: str | None = None
    pretraining: str | None = None
    pretrain: PretrainTable | None = None
    family: str | None = None
    parameters: float | None = Field(None, gt=0)
    layers: int | None = Field(None, ge=1)
    width: int | None = Field(None, ge=1)
    vocabulary: int | None = Field(None, ge=1)


class ObjectiveTable(Table):
    objective: str | None = None
    settings: dict[str, Any] = {}
    texts: str | None = None
    pairs: str | None = None


class UpdateTable(Table):
    update: str | None = None
    options: dict[str, Any] = {}
    tau: float | str | None = None
    schedule: dict[str, Any] = {}


class ChangeTable(Table):
    kind: str
    amounts: dict[str, float] = {}
    like: str | None = None
    to: str | None = None


class MeasureTable(Table):
    texts: list[str] | None = None
    measures: list[str] | None = None
    labels: list[str] | None = None
    retrieval: list[str] | None = None
    lm: list[str] | None = None
    at: str | None = None
    distances: bool | None = None
    options: dict[str, Any] | None = None


class RunsTable(Table):
    kind: str = "tune"
    models: list[str]
    objectives: list[str] = []
    updates: list[str] = []
    changes: list[str] = []
    tuned: list[str] = []
    corpora: list[str] = []
    views: list[str] = []
    anchors: list[list[str]] = []
    seeds: list[Seed] | None = None
    condition: str | None = None
    regime: str | None = None
    schedule: dict[str, Any] = {}
    measure: MeasureTable = MeasureTable()
    exclude: list[dict[str, Any]] = []


class SelectionTable(Table):
    measure: str
    subject: str = "geometry"
    model: str | None = None
    condition: str | None = None
    objective: str | None = None
    update: str | None = None
    data: str | None = None
    texts: str | None = None
    task: str | None = None
    side: str | None = None
    where: str | None = None
    layer: int | None = None
    at: str | float = "end"
    number: str | None = None


class WindowTable(SelectionTable):
    """A selection may be given here; what it leaves out is that of `on`."""

    least: float
    most: float
    number: str | None = "value"


class RegionTable(Table):
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    within: str | None = None


class HypothesisTable(Table):
    name: str
    says: str
    on: SelectionTable
    minus: SelectionTable | None = None
    over: str = "mean"
    supported: RegionTable
    falsified: RegionTable | None = None
    predicted: str
    window: WindowTable | None = None
    set: str | None = None


class ConditionTable(Table):
    model: str
    condition: str


class ControlledTable(Table):
    one: ConditionTable
    other: ConditionTable
    field: str


class PlanTable(Table):
    plan: str = SCHEMA  # the schema
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    about: str = ""
    seeds: list[Seed] = Field([0], min_length=1)
    sources: dict[str, SourceTable] = {}
    models: dict[str, ModelTable]
    objectives: dict[str, ObjectiveTable] = {}
    updates: dict[str, UpdateTable] = {}
    changes: dict[str, ChangeTable] = {}
    schedule: dict[str, Any] = {}
    measure: MeasureTable
    runs: list[RunsTable] = Field(min_length=1)
    hypotheses: list[HypothesisTable] = []
    controlled: list[ControlledTable] = []


def parse_tables(content: Mapping[str, Any], *, name: str) -> PlanTable:
    """The tables of a plan. name: of the file, for messages. Raises InputError: the place in the file, what is the matter there."""
    try:
        return PlanTable.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        reason = first.get("ctx", {}).get("error")
        said = str(reason) if reason is not None else _plain(first)
        where = _where(first["loc"])
        raise InputError(f"{name}{f', {where}' if where else ''}: {said}") from None


def _where(place: tuple[int | str, ...]) -> str:
    """As one writes it in the file: runs[2].models."""
    told = ""
    for part in place:
        told += f"[{part + 1}]" if isinstance(part, int) else f"{'.' if told else ''}{part}"
    return told


def _plain(error: Any) -> str:
    """pydantic's reason, in the words of a plan."""
    if error["type"] == "missing":
        return "the key is missing; add it"
    got = error.get("input")
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, got {got!r}" if isinstance(got, str | int | float | bool) else error["msg"]
