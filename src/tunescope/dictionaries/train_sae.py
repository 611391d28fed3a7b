"""`ts.train_sae`: sparse autoencoders from rows, with everything that can be wrong said before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import product
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex

import torch

from tunescope.dictionaries.architectures import ARCHITECTURES
from tunescope.dictionaries.delta_rows import ArrayRows, DeltaRows
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.sae_checkpoint import Checkpoint
from tunescope.dictionaries.sae_training import SaeSpec, Schedule, run
from tunescope.errors import InputError, NotEnoughRows, UnknownName
from tunescope.models.placement import device_here

_BATCH = 1024
_LEAST_STEPS = 2000  # by default; and every row four times
_PASSES = 4


def train_sae(
    deltas: Any,
    *,
    latents: int | Sequence[int],
    k: int | Sequence[int],
    architecture: str | Sequence[str] = "topk",
    seeds: Sequence[int] = (0, 1),
    batch_size: int | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    l1: float | None = None,
    data_seed: int = 0,
    device: str = "auto",
    checkpoint: str | Path | None = None,
    progress: Callable[[int, int, dict[str, Any]], None] | None = None,
) -> list[Dictionary]:
    """Sparse autoencoders of rows (rows, d), one for every combination of latents, k, architecture and seed, in that order, in one pass.

    deltas: an array or tensor of rows, or stored rows (`DeltaRows`). latents: how many features each has; k: how many of them may be
    active in a row ("topk"), in a row on average ("batchtopk"), or are in the end led to be ("jumprelu", "standard"). Rows are centred
    and divided by their RMS before, and the dictionaries read and write rows as they are; decoder rows have norm 1. Latents that fire
    no more are revived by an auxiliary loss. batch_size: 1,024 rows, or all where there are fewer. steps: 2,000, or as many as read
    every row four times. learning_rate: the highest; by default 5e-4 · sqrt(2^14 / latents). l1: of "standard", a fixed coefficient
    of Σ|f| / √d beside mean |x − x̂|² / d of the scaled rows, instead of one that is led to k. data_seed: the order of the rows, one for
    all, so that seeds differ by their first weights only. checkpoint: a file, from which the same call goes on after an interruption to
    the very weights it would have had. progress(done, total, figures).

    Returns dictionaries whose `metadata` has the spec, the unexplained share and active latents in the last steps, and the dead latents.

    Raises: InputError (sizes, an unknown architecture), NotEnoughRows (fewer rows than latents), ActivationError (NaN, Inf),
    OutputError (the checkpoint is of something else). Method: Gao et al. 2024, arXiv:2406.04093.
    """
    rows: DeltaRows = deltas if hasattr(deltas, "batches") else ArrayRows(deltas)
    specs = [SaeSpec(*parts, l1=l1) for parts in product(_several(latents), _several(k), _names(architecture), _several(seeds))]
    if not specs:
        raise InputError("no autoencoder asked for: latents, k, architecture and seeds each need at least one")
    for spec in specs:
        _check(spec, rows)
    size = min(_BATCH, rows.rows) if batch_size is None else batch_size
    if not 1 <= size <= rows.rows:
        raise InputError(f"batch_size {size} asked for; it must be 1 to {rows.rows:,}, the rows there are")
    taken = max(_LEAST_STEPS, -(-_PASSES * rows.rows // size)) if steps is None else steps
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise InputError(f"learning_rate {learning_rate} asked for; it must be above 0")
    if taken < 1:
        raise InputError(f"steps {taken} asked for; it must be at least 1")
    schedule = Schedule(size, taken, data_seed, learning_rate)
    kept = None
    if checkpoint is not None:
        first = next(rows.batches(size, seed=data_seed, epoch=0)).numpy().tobytes()
        what = {"specs": [asdict(spec) for spec in specs], **asdict(schedule)}
        what |= {"rows": [rows.rows, rows.width], "rms": rows.rms, "first_batch": sha256(first).hexdigest()}
        kept = Checkpoint(Path(checkpoint), what)
    return run(rows, specs, schedule, device=torch.device(device_here(device)), checkpoint=kept, progress=progress)


def _check(spec: SaeSpec, rows: DeltaRows) -> None:
    if spec.architecture not in ARCHITECTURES:
        raise UnknownName("architecture", spec.architecture, ARCHITECTURES)
    if spec.seed < 0:
        raise InputError(f"seed {spec.seed} asked for; it must be 0 or more")
    if not 1 <= spec.k <= spec.latents:
        raise InputError(f"k {spec.k} asked for with {spec.latents} latents; it must be 1 to {spec.latents}")
    if spec.l1 is not None and (spec.architecture != "standard" or not spec.l1 > 0):
        raise InputError(f"l1={spec.l1} given for '{spec.architecture}'; it is the penalty of \"standard\", and above 0")
    if rows.rows < spec.latents:
        raise NotEnoughRows(f"{spec.latents:,} latents asked of {rows.rows:,} rows; give more texts, or ask for no more latents than rows")
    if rows.rms == 0:
        raise InputError(f"all {rows.rows:,} rows are the same, so there is nothing to learn; a zero delta has no features")


def _several(value: int | Sequence[int]) -> list[int]:
    return [index(value)] if isinstance(value, SupportsIndex) else [index(each) for each in value]


def _names(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
