"""A comparison in constant memory: texts go through both models piece by piece, and only sums and a few rows stay."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tunescope.activations import Activations
from tunescope.comparison.side import Pairing, Side, pairings
from tunescope.errors import InputError
from tunescope.geometry.measures import Measure
from tunescope.geometry.rows import Rows
from tunescope.geometry.stream import Passage, PassedRows
from tunescope.models import Model
from tunescope.ranks import ALONE, Ranks
from tunescope.texts import Corpus

CHUNK = 2048  # texts whose rows are in memory at a time
KEPT = 1000  # texts whose rows stay, for the intervals

Read = Callable[[Corpus], tuple[Side, Side]]  # both sides' rows of some of the texts


@dataclass(frozen=True, eq=False)
class PassedPairing(Pairing):
    """A place whose rows went by; x and y are the few that were kept."""

    passage: Passage

    def rows(self, groups: Tensor | None = None) -> Rows:
        return PassedRows(self.passage)

    @property
    def n(self) -> int:
        return self.passage.moments.n

    def __add__(self, other: PassedPairing) -> PassedPairing:
        return self._with(self.passage + other.passage)

    def all_reduce(self) -> PassedPairing:
        """The sum over all ranks."""
        return self._with(self.passage.all_reduce())

    def _with(self, passage: Passage) -> PassedPairing:
        return replace(self, passage=passage, x=passage.x, y=passage.y)


def takes_too_much(pair: tuple[Model, Model], n: int) -> bool:
    """Whether the rows of n texts at every layer and site of both models would fill more than half of the memory that is free."""
    rows = sum((model.anatomy.n_layers + 3) * model.anatomy.width * 4 * n for model in pair)
    return rows > free_memory() / 2


def free_memory(meminfo: Path = Path("/proc/meminfo")) -> float:
    """Bytes that can be had without swapping; infinite where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(meminfo.read_text().split("MemAvailable:")[1].split()[0]) * 1024.0
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return math.inf


def streaming(measures: Mapping[str, Measure], *, asked: Iterable[str] | str | None) -> tuple[dict[str, Measure], list[str]]:
    """The measures that stream, and the names of the default ones left out because they do not.

    Raises: InputError, naming the measures that were asked for by name and need all rows at once.
    """
    left_out = [name for name, measure in measures.items() if not measure.streams]
    if asked is not None and left_out and asked != "all":
        raise InputError(
            f"--method stream cannot give {', '.join(left_out)}: all rows are needed at once; leave them out of --measures, "
            "or use --method exact"
        )
    return {name: measure for name, measure in measures.items() if measure.streams}, left_out


def stream(
    read: Read, corpus: Corpus, *, measures: Mapping[str, Measure], ranks: Ranks = ALONE, chunk: int = CHUNK, kept: int = KEPT
) -> tuple[Side, Side, list[PassedPairing]]:
    """Both sides without their rows, and every place with the sums over all texts.

    read: runs both models on some of the texts. kept: rows that stay, chosen by a hash of their texts. ranks: processes that take a
    share of the pieces each, and sum up.
    """
    n = len(corpus)
    if n < ranks.count:
        raise InputError(f"{ranks.count} processes for {n:,} texts; start no more processes than there are texts")
    chosen = set(corpus.chosen(min(kept, n)))
    change = any(measure.reads == "change" for measure in measures.values())
    chunk = min(chunk, n // ranks.count)
    share = ranks.share([range(start, min(start + chunk, n)) for start in range(0, n, chunk)])
    base, tuned, places = _sum(
        _piece(read(corpus.rows(texts)), [at for at, text in enumerate(texts) if text in chosen], change) for texts in share
    )
    if ranks.count > 1:
        return _over_ranks(base, ranks), _over_ranks(tuned, ranks), [place.all_reduce() for place in places]
    return base, tuned, places


def _piece(sides: tuple[Side, Side], keep: Sequence[int], change: bool) -> tuple[Side, Side, list[PassedPairing]]:
    rows = torch.tensor(keep, dtype=torch.int64)
    places = []
    for pairing in pairings(*sides):
        checked = Rows.of(pairing.x, pairing.y)
        passage = Passage.of(checked.x, checked.y, keep=rows, change=change)
        places.append(PassedPairing(pairing.place, passage.x, passage.y, pairing.where, passage))
    return _without_rows(sides[0]), _without_rows(sides[1]), places


def _without_rows(side: Side) -> Side:
    return replace(side, acts=replace(side.acts, layers={}, sites={}))


def _sum(pieces: Iterator[tuple[Side, Side, list[PassedPairing]]]) -> tuple[Side, Side, list[PassedPairing]]:
    base, tuned, places = next(pieces)
    for other_base, other_tuned, others in pieces:
        base, tuned = _joined(base, other_base), _joined(tuned, other_tuned)
        places = [one + other for one, other in zip(places, others, strict=True)]
    return base, tuned, places


def _joined(side: Side, other: Side) -> Side:
    one, two = side.acts, other.acts
    acts: Activations = replace(
        one,
        n=one.n + two.n,
        tokens=torch.cat([one.tokens, two.tokens]),
        truncated=one.truncated + two.truncated,
        seconds_forward=one.seconds_forward + two.seconds_forward,
    )
    return replace(side, acts=acts)


def _over_ranks(side: Side, ranks: Ranks) -> Side:
    """The counts of all ranks; tokens as their sum."""
    acts = side.acts
    n, tokens, truncated = ranks.sum(torch.tensor([acts.n, int(acts.tokens.sum()), acts.truncated])).tolist()
    return replace(side, acts=replace(acts, n=n, tokens=torch.tensor([tokens]), truncated=truncated))
