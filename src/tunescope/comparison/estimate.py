"""What a pass over the texts will cost, from the lengths of some texts and one small batch: time, memory, disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunescope.activations import Activations, capture
from tunescope.activations.batches import tokenise
from tunescope.comparison.streaming import CHUNK, KEPT, free_memory
from tunescope.errors import ActivationError
from tunescope.models import Model
from tunescope.texts import Corpus

SAMPLE = 200  # texts whose tokens are counted; the count is scaled to the rest
PROBE = 8  # texts in the batch that is timed
FLOAT = 4  # bytes of a float32
REPORT = 2_000_000  # bytes of report.html, comparison.json and records.jsonl, nearly all of it the page's scripts
COUNTS = {1: "one model", 2: "two models"}


@dataclass(frozen=True)
class Estimate:
    """What is about to be done. texts and tokens: read by each model, of all sets (sampled: the tokens are scaled up from some texts).

    seconds: of the forward passes, all models together. rows: bytes of the rows held in memory at once, of all models. disk: bytes
    written. method: exact, stream, or capture (rows go to the disk). available: bytes of memory that are free, infinite where
    nobody knows. processes: that share the texts.
    """

    texts: int
    tokens: int
    sampled: bool
    models: int
    device: str
    seconds: float
    rows: int
    disk: int
    method: str
    available: float
    processes: int = 1

    @property
    def tight(self) -> bool:
        """Whether the rows would take more than half of the memory that is free."""
        return self.method == "exact" and 2 * self.rows > self.available

    def said(self) -> str:
        """The estimate as one line."""
        tokens = f"about {_rounded(self.tokens):,}" if self.sampled else f"{self.tokens:,}"
        models = COUNTS.get(self.models, f"{self.models} models")
        rows = f"{size(self.disk)} on disk" if self.method == "capture" else f"rows {size(self.rows)} in memory"
        shared = f" in {self.processes} processes" if self.processes > 1 else ""
        line = f"{self.texts:,} texts, {tokens} tokens, {models} on {self.device}{shared}: {duration(self.seconds)}; {rows}"
        if not self.tight:
            return line
        return f"{line}, more than half of the {size(self.available)} that is free: --method stream holds few rows at a time"


def estimate(
    models: Sequence[tuple[Model, Iterable[int] | None]],
    corpora: Sequence[Corpus],
    reading: Mapping[str, Any],
    *,
    also: Sequence[str] = (),
    copies: int = 1,
    method: str = "exact",
    processes: int = 1,
) -> Estimate:
    """Time one batch of 8 texts of middling length per model, and scale by tokens.

    models: each with the layers that are read of it (None: all). corpora: the main texts, then further sets; the rows of the main set and
    of one further set are held together. reading: what `capture` is asked for. also: further poolings. copies: how many models are like
    the one given. method and processes: as in `Estimate`; a stream holds few rows at a time.

    Attention grows with the square of the length, so texts of very uneven length take longer than said. Raises what capturing raises.
    """
    texts, seconds, bytes_ = [len(corpus) for corpus in corpora], 0.0, 0.0
    kept = texts[0] + max(texts[1:], default=0)
    held = min(kept, CHUNK) + min(kept, KEPT) if method == "stream" else kept
    tokens = 0
    for model, layers in models:
        lengths, probe = _lengths(model, corpora[0], reading), dict(reading) | {"batch_size": PROBE}
        more = (_lengths(model, corpus, reading).mean() * len(corpus) for corpus in corpora[1:])
        tokens = round(float(lengths.mean() * texts[0] + sum(more)))
        chosen = _middling(corpora[0], lengths)
        asked: dict[str, Any] = {"layers": None if layers is None else list(layers), "also": also, "ids": chosen.ids}
        capture(model, chosen.texts[:1], **probe, **asked)  # the first pass of a process makes threads and caches
        acts = capture(model, chosen.texts, **probe, **asked)
        seconds += acts.seconds_forward / int(acts.tokens.sum()) * tokens
        bytes_ += _bytes_per_text(acts, float(lengths.mean())) * held
    rows = round(bytes_ * copies)
    return Estimate(
        texts=sum(texts),
        tokens=tokens,
        sampled=any(n > SAMPLE for n in texts),
        models=len(models) * copies,
        device=str(models[0][0].device),
        seconds=seconds * copies / processes,
        rows=rows,
        disk=rows if method == "capture" else REPORT,
        method=method,
        available=free_memory(),
        processes=processes,
    )


def announce(say: Callable[[str], None], *what: Any, **how: Any) -> None:
    """Say the `estimate` of these arguments. Nothing where the batch gives NaN: the pass itself meets that and names the first text."""
    with suppress(ActivationError):
        say(estimate(*what, **how).said())


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 180:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 6000 else f"about {seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes in the unit that fits, to two digits or more."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.1f} {unit}" if count < 10 and unit != "bytes" else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _lengths(model: Model, corpus: Corpus, reading: Mapping[str, Any]) -> np.ndarray:
    """Tokens of up to SAMPLE evenly spaced texts."""
    some = _sample(corpus)
    found = tokenise(
        model,
        some.texts,
        prompt=reading["prompt"],
        max_length=reading["max_length"],
        special_tokens=reading.get("special_tokens", True),
        templated=reading.get("templated", False),
        label=lambda i: f"text {some.ids[i]}",
    )
    return found.lengths


def _sample(corpus: Corpus) -> Corpus:
    return corpus.rows(np.linspace(0, len(corpus) - 1, min(SAMPLE, len(corpus))).astype(int).tolist())


def _middling(corpus: Corpus, lengths: np.ndarray) -> Corpus:
    """The sampled texts whose lengths are nearest to the mean."""
    return _sample(corpus).rows(np.argsort(abs(lengths - lengths.mean()), kind="stable")[:PROBE].tolist())


def _bytes_per_text(acts: Activations, tokens: float) -> float:
    """Bytes of the rows of one text of the mean length, at every layer and site, under every pooling."""
    total = 0.0
    for one in (acts, *acts.also.values()):
        for site, rows in [*((None, rows) for rows in one.layers.values()), *one.sites.items()]:
            share = len(rows) / acts.n if one.groups is None or site == "output" else len(rows) / int(acts.tokens.sum()) * tokens
            total += share * rows.shape[1] * FLOAT
    return total


def _rounded(count: int) -> int:
    """To two digits, as a scaled count deserves."""
    digits = max(0, len(str(count)) - 2)
    return round(count, -digits)
