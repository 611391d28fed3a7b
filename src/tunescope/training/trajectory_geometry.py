"""How far a model is from its start at every place asked for: one pass over fixed texts, and measures without intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tunescope.activations import capture
from tunescope.activations.capture import check_length, check_request
from tunescope.activations.taps import layer_name
from tunescope.errors import Degenerate, InputError
from tunescope.geometry import MEASURES, Measure, Rows, select
from tunescope.geometry.threads import threads_for
from tunescope.models import Model
from tunescope.texts import Corpus, as_corpus
from tunescope.training.trajectory_file import GEOMETRY, Row, number

TEXTS, LENGTH = 256, 64  # of the default: texts, and tokens of each; a pass costs about as much as a training step of 32 × 128 tokens


@dataclass(frozen=True)
class Reading:
    """What is read at every point: texts, measures, places, and how."""

    corpus: Corpus
    measures: Mapping[str, Measure]
    layers: tuple[int, ...] | None
    sites: tuple[str, ...]
    pooling: str
    max_length: int | None
    batch_size: int
    seed: int

    @classmethod
    def of(
        cls,
        texts: Any,
        measures: Iterable[str] | str,
        *,
        layers: Iterable[int] | None,
        sites: Iterable[str],
        pooling: str,
        max_length: int | None,
        batch_size: int,
        seed: int,
    ) -> Reading:
        """Raises what reading texts raises, UnknownName (measures), NotEnoughRows, InputError (no place, rows of tokens)."""
        corpus = as_corpus(None, sample=TEXTS, seed=seed) if texts is None else as_corpus(texts)
        names = [name.strip() for name in measures.split(",")] if isinstance(measures, str) else list(measures)
        chosen = {name: MEASURES[name] for name in select(names) if name in names or "all" in names}
        for measure in chosen.values():
            measure.check(len(corpus))
        places = None if layers is None else tuple(layers)
        if places == () and not tuple(sites):
            raise InputError("a trajectory of no layer and no site was asked for; name some, or leave layers out for all")
        if pooling == "none":
            raise InputError("pooling='none' asked for; a trajectory keeps a row a text, so take mean, cls or last")
        return cls(corpus, chosen, places, tuple(sites), pooling, max_length, batch_size, seed)

    def length(self, model: Model) -> int:
        """In tokens: as asked, else 64 or what the model takes where that is less."""
        return min(LENGTH, model.max_length) if self.max_length is None else check_length(model, self.max_length)

    def identity(self, model: Model) -> dict[str, Any]:
        """What rows of the start and of now must share."""
        layers, sites = check_request(model, self.corpus.texts, self.layers, self.sites, self.batch_size)
        places = [*map(layer_name, layers), *sites]
        read = {"pooling": self.pooling, "max_length": self.length(model), "prompt": model.output.prompt, "seed": self.seed}
        return {"texts_sha256": self.corpus.sha256, "measures": list(self.measures), "places": places, **read}

    def rows(self, model: Model) -> dict[str, Tensor]:
        """One row a text at every place, (n, d) float32, in one pass. Raises what `capture` raises."""
        read: dict[str, Any] = {"layers": self.layers, "sites": self.sites, "pooling": self.pooling, "ids": self.corpus.ids}
        acts = capture(model, self.corpus.texts, **read, max_length=self.length(model), batch_size=self.batch_size)
        return {acts.names[index]: rows for index, rows in acts.layers.items()} | acts.sites

    def measured(self, start: Mapping[str, Tensor], now: Mapping[str, Tensor], depth: int) -> list[Row]:
        """One row a place and measure: value, change and the mean of chance. depth: the number of blocks."""
        found = []
        for place in now:
            rows = Rows.of(start[place], now[place])
            with threads_for(len(rows) * min(rows.x.shape) ** 2):
                found += [self._row(place, depth, measure, _numbers(measure, rows, self.seed)) for measure in self.measures.values()]
        return found

    def unmeasured(self, places: Iterable[str], depth: int, reason: str) -> list[Row]:
        """The same rows without a value, and why."""
        return [self._row(place, depth, measure, _empty(reason)) for place in places for measure in self.measures.values()]

    def _row(self, place: str, depth: int, measure: Measure, numbers: Row) -> Row:
        layer = next((index for index in range(depth + 1) if layer_name(index) == place), None)
        at = {"where": place, "layer": layer, "depth": None if layer is None else layer / depth}
        return {"kind": GEOMETRY, **at, "measure": measure.name, **numbers, "n": len(self.corpus)}


def _numbers(measure: Measure, rows: Rows, seed: int) -> Row:
    try:
        value, change = measure.moved(rows)
        return {"value": value, "change": change, "null": number(measure.chance(rows, seed=seed).mean)}
    except Degenerate as error:
        return _empty(str(error))


def _empty(reason: str) -> Row:
    return {"value": None, "change": None, "null": None, "reason": reason}
