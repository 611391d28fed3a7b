"""What a study will cost, reckoned before anything runs: GPU-hours, memory of the largest run, disk; with the rules of thumb it uses.

Orders of magnitude, from sizes and lengths alone. What nobody said (a model's parameters, a source's rows) leaves its runs out of the sum,
and they are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from tunescope.study import known
from tunescope.study.plan import Plan, Size
from tunescope.study.possible import local_folder, objective_parts
from tunescope.study.run_spec import Pretraining, RunSpec, Source

TFLOPS = 30.0  # sustained; an RTX 4090 or A100 in float32 with TF32 matrices
FILL = 0.5  # of the maximal length that texts take, padding included
OVERHEAD = 30.0  # seconds a run to load and to measure, beside forward passes
ROWS = {"python-docs": 1200, "python-docstrings": 1900}
RULES = (
    f"texts fill {FILL:g} of max_length",
    "a step costs 6 × parameters × tokens operations, 4 × under LoRA, twice for objectives of two views or two sides, three times for "
    "equal-step with a paired run",
    f"reading costs 2 × parameters × tokens, for base and tuned model; {OVERHEAD:g} s a run beside; dictionaries of features come on top",
    "training holds weights, gradients, two moments and the base; activations 34 bytes × batch × length × layers × width in bfloat16, 68 "
    "in float32, a sixteenth with activation checkpointing; scores over the vocabulary 8 bytes each",
    "every kept model is on disk whole, an adapter as 12 matrices a block",
)
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class RunCost:
    """seconds: of one GPU; None where the size or length of something is not known. memory, disk: bytes."""

    spec: RunSpec
    seconds: float | None
    memory: float | None
    disk: float | None


@dataclass(frozen=True)
class Estimate:
    """hours: of GPU, over the runs that can be reckoned; unknown: how many cannot. largest: the run that takes most memory."""

    hours: float
    disk: float
    memory: float | None
    largest: RunSpec | None
    unknown: int
    tflops: float

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        name = None if self.largest is None else f"{self.largest.condition} {self.largest.model.name}"
        return {
            "gpu_hours": self.hours, "disk_bytes": self.disk, "memory_bytes": self.memory, "largest": name, "unknown_runs": self.unknown,
            "tflops": self.tflops, "rules": list(RULES),
        }  # fmt: skip


def estimate(plan: Plan, specs: Iterable[RunSpec], *, tflops: float = TFLOPS) -> Estimate:
    """Reckon all runs. tflops: operations a second that are sustained, in 10¹²."""
    costs = [run_cost(plan, spec, tflops=tflops) for spec in specs]
    sized = [cost for cost in costs if cost.memory is not None]
    largest = max(sized, key=lambda cost: cost.memory or 0, default=None)
    return Estimate(
        hours=sum(cost.seconds or 0 for cost in costs) / 3600,
        disk=sum(cost.disk or 0 for cost in costs),
        memory=None if largest is None else largest.memory,
        largest=None if largest is None else largest.spec,
        unknown=sum(cost.seconds is None for cost in costs),
        tflops=tflops,
    )


def run_cost(plan: Plan, spec: RunSpec, *, tflops: float = TFLOPS) -> RunCost:
    """Of one run; see `RULES`."""
    size = _size(plan, spec)
    if size.parameters is None:
        return RunCost(spec, None, None, None)
    steps, tokens = _training(plan, spec)
    reading = _reading(plan, spec)
    if steps is None or reading is None:
        return RunCost(spec, None, _memory(spec, size), _disk(spec, size))
    share = 4 if spec.update is not None and spec.update.update.startswith("lora") else 6
    paired = 3 if spec.update is not None and spec.update.tau == "paired" else 1
    operations = size.parameters * (share * paired * steps * tokens + 2 * 2 * reading)
    return RunCost(spec, operations / (tflops * 1e12) + OVERHEAD, _memory(spec, size), _disk(spec, size))


def rows_of(plan: Plan, source: Source) -> int | None:
    """How many rows are read: its sample, what the plan says, or the lines of the file; None where it is not here."""
    known_rows = plan.rows.get(source.name) or ROWS.get(source.place)
    if known_rows is None:
        path = local_folder(source.place, plan.folder)
        if path.is_file() and path.suffix in (".txt", ".jsonl", ".csv", ".tsv"):
            with open(path, "rb") as file:
                known_rows = sum(1 for _ in file)
    if source.sample is None:
        return known_rows
    return source.sample if known_rows is None else min(source.sample, known_rows)


def _training(plan: Plan, spec: RunSpec) -> tuple[float | None, float]:
    """Steps, and tokens a step over all passes."""
    if spec.objective is None:
        return 0, 0
    schedule = spec.schedule
    batch = schedule.get("batch_size", 32) * schedule.get("accumulate", 1)
    passes = max(known.OBJECTIVES[part].passes for part in objective_parts(spec.objective.objective))
    tokens = batch * schedule.get("max_length", 128) * FILL * passes
    if "steps" in schedule:
        return schedule["steps"], tokens
    source = spec.objective.texts or spec.objective.pairs
    rows = None if source is None else rows_of(plan, source)
    return None if rows is None else schedule.get("epochs", 1) * rows / batch, tokens


def _reading(plan: Plan, spec: RunSpec) -> float | None:
    """Tokens read to measure, of one model, over all checkpoints."""
    asked = spec.measurement
    length = asked.options.get("max_length", 256) * FILL
    counts = [rows_of(plan, source) for source in (*asked.texts, *asked.labels, *asked.retrieval, *asked.lm)]
    if any(count is None for count in counts):
        return None
    points = 1 + (len(spec.schedule.get("checkpoints", ())) if asked.at == "checkpoints" else 0)
    return sum(count or 0 for count in counts) * length * points


def _memory(spec: RunSpec, size: Size) -> float:
    """Bytes: training, or reading two models where nothing is trained."""
    parameters = size.parameters or 0.0
    if spec.update is None:
        return 2 * 4 * parameters
    schedule = spec.schedule
    each = _BYTES[schedule.get("precision", "float32")]
    trains = spec.update.update
    held = each + 4 if trains.startswith("lora") else 4 * each + 4 + (each if "equal-step" in trains else 0)  # 4 of the base
    total = held * parameters
    if size.layers and size.width:
        tokens = schedule.get("batch_size", 32) * schedule.get("max_length", 128)
        activations = 17 * each * tokens * size.layers * size.width
        total += activations / (16 if schedule.get("activation_checkpointing") else 1)
        scores = {"mlm": 0.15, "span-denoise": 0.15, "causal-lm": 1.0, "causal-span": 0.15, "sft": 1.0}
        parts = objective_parts(spec.objective.objective) if spec.objective is not None else ()
        total += 8 * tokens * (size.vocabulary or 0) * max((scores.get(part, 0.0) for part in parts), default=0.0)
    return total


def _disk(spec: RunSpec, size: Size) -> float:
    """Bytes that stay: the kept models, start and end among them, the end twice."""
    if spec.update is None:
        return 0.0
    each = _BYTES[spec.schedule.get("precision", "float32")]
    whole = each * (size.parameters or 0.0)
    if spec.update.update.startswith("lora"):
        rank = spec.update.options.get("rank", 8)
        whole = 4.0 * rank * (size.width or 0) * 12 * (size.layers or 0)
    paired = 2 if spec.update.tau == "paired" else 1
    return whole * paired * (3 + len(spec.schedule.get("checkpoints", ())))


def _size(plan: Plan, spec: RunSpec) -> Size:
    """As the plan says, or reckoned from the config of a model that the study makes."""
    said = plan.sizes[spec.model.name]
    made = spec.model.pretrain
    if made is None:
        return said if spec.model.place != "package:minilm" else Size(22.7e6, 6, 384, 30522)
    own = _pretrained(made)
    return replace(own, **{key: value for key, value in vars(said).items() if value is not None})


def _pretrained(made: Pretraining) -> Size:
    """12 × width² parameters a block where its inner width is four times the width, and the embeddings."""
    width, layers = made.config.get("hidden_size", 768), made.config.get("num_hidden_layers", 12)
    inner = made.config.get("intermediate_size", 4 * width)
    return Size(layers * (4 * width**2 + 2 * width * inner) + made.vocabulary * width, layers, width, made.vocabulary)
