"""One run of a study: a frozen description, and the hash of it that names its folder and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tunescope.identity import spec_hash

KINDS = ("tune", "perturb", "compare", "features")
# Names and places: they say what to call a choice or where it lies, not what it is.
UNHASHED = frozenset({"name", "condition", "regime", "place"})


@dataclass(frozen=True)
class Source:
    """Texts, pairs, labelled texts or a retrieval collection. name: the plan's. place: a file, folder, "hf:…" or "python-docs".

    sha256: of what lies there, where it is local, so that changed data are another run.
    """

    name: str
    place: str
    column: str | None = None
    labels: str | None = None
    sample: int | None = None
    prompt: str | None = None
    sha256: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Pretraining:
    """A small model that the study itself makes first: a family's config with these sizes, and an objective on local text."""

    family: str  # transformers' model_type: "bert", "gpt_neox", …
    config: dict[str, Any]
    texts: Source
    objective: str
    steps: int
    batch_size: int = 32
    lr: float = 1e-3
    max_length: int = 64
    vocabulary: int = 1024
    seed: int = 0


@dataclass(frozen=True)
class Model:
    """name: the plan's. place: hub id or folder; empty where `pretrain` makes it. revision: pinned. objective: of its pretraining."""

    name: str
    place: str = ""
    revision: str | None = None
    sha256: str | None = None
    pretraining: str | None = None
    pretrain: Pretraining | None = None


@dataclass(frozen=True)
class Objective:
    """name: the plan's. objective, settings: of `ts.finetune`. texts, pairs: what it is trained on."""

    name: str
    objective: str
    settings: dict[str, Any] = field(default_factory=dict)
    texts: Source | None = None
    pairs: Source | None = None


@dataclass(frozen=True)
class Update:
    """name: the plan's. update, options: of `ts.finetune`. tau: of equal-step, a number or "paired".

    schedule: what differs from the plan's.
    """

    name: str
    update: str
    options: dict[str, Any] = field(default_factory=dict)
    tau: float | str | None = None
    schedule: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """A control: the base moved by `ts.perturb` (kind, sigma, …). like: hash of the run it is matched to. to: a distance, "nps=.48"."""

    name: str
    kind: str
    amounts: dict[str, float] = field(default_factory=dict)
    like: str | None = None
    to: str | None = None


@dataclass(frozen=True)
class Measurement:
    """What is read off a run. texts: anchor sets, the first leads. measures: of `ts.diff`. labels, retrieval, lm: outcomes.

    at: "end", or "checkpoints" for all that are kept. distances: whether the objective's gradient distance to the model's own
    pretraining is measured too. options: further arguments of `ts.diff` or `ts.features` (pooling, k, layers, …).
    """

    texts: tuple[Source, ...]
    measures: tuple[str, ...] = ("cka", "procrustes", "nps")
    labels: tuple[Source, ...] = ()
    retrieval: tuple[Source, ...] = ()
    lm: tuple[Source, ...] = ()
    at: str = "end"
    distances: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSpec:
    """One cell of a study. kind: tune (train, then measure), perturb (a control), compare (two models that are there), features.

    tuned: of compare, the model that was tuned by others; of features, the adapters. schedule: epochs or steps, batch_size, … of
    `training.run.spec.Schedule`, max_length, and checkpoints (same unit as the length).
    """

    kind: str
    condition: str
    model: Model
    measurement: Measurement
    seed: int = 0
    regime: str | None = None
    objective: Objective | None = None
    update: Update | None = None
    change: Change | None = None
    tuned: tuple[Model, ...] = ()
    schedule: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @property
    def hash(self) -> str:
        """sha256 of all that decides the run's numbers; names and places of local data are left out."""
        return spec_hash(_bare(self.describe()))

    @property
    def needs(self) -> tuple[str, ...]:
        """Hashes of the runs that must be finished before this one."""
        return (self.change.like,) if self.change is not None and self.change.like else ()


def spec_of(described: Mapping[str, Any]) -> RunSpec:
    """The run that `RunSpec.describe` told of, as JSON gives it back."""
    asked = described["measurement"]
    lists = {key: tuple(Source(**each) for each in asked[key]) for key in ("texts", "labels", "retrieval", "lm")}
    objective, update, change = (described[key] for key in ("objective", "update", "change"))
    if objective is not None:
        read = {key: None if objective[key] is None else Source(**objective[key]) for key in ("texts", "pairs")}
        objective = Objective(**{**objective, **read})
    return RunSpec(**{
        **described,
        "model": _model_of(described["model"]),
        "measurement": Measurement(**{**asked, **lists, "measures": tuple(asked["measures"])}),
        "objective": objective,
        "update": None if update is None else Update(**update),
        "change": None if change is None else Change(**change),
        "tuned": tuple(map(_model_of, described["tuned"])),
    })  # fmt: skip


def _model_of(told: Mapping[str, Any]) -> Model:
    made = told["pretrain"]
    return Model(**{**told, "pretrain": None if made is None else Pretraining(**{**made, "texts": Source(**made["texts"])})})


def _bare(described: Any) -> Any:
    """Without names, and without places whose content is hashed."""
    if isinstance(described, (list, tuple)):
        return [_bare(each) for each in described]
    if not isinstance(described, dict):
        return described
    told = described.get("sha256") is not None
    return {key: _bare(value) for key, value in described.items() if key not in UNHASHED or (key == "place" and not told)}
