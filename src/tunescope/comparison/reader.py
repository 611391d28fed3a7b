"""How a comparison reads texts: one way for both sides, for further sets of texts and for every further model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunescope.activations import Activations, capture
from tunescope.comparison.findings import Progress
from tunescope.comparison.layers import value_and_change
from tunescope.comparison.side import partner
from tunescope.errors import InputError
from tunescope.geometry.measures import Measure
from tunescope.models import Model
from tunescope.ranks import ALONE, Ranks
from tunescope.texts import Corpus

Noise = dict[int | str, dict[str, float | None]]  # {layer or site: {measure: change}}

NOISE_TEXTS = 64  # texts run a second time, in other batches, to measure the noise of the arithmetic


@dataclass(frozen=True, eq=False)
class Reader:
    """Runs models over texts as the sides of one comparison are read.

    corpus: the texts of the comparison. reading: what `capture` is asked for. layers: of the base and of the tuned side, None for all;
    further models read as the base does. tuned: the tuned model, where it is one.
    """

    corpus: Corpus
    reading: Mapping[str, Any]
    layers: tuple[list[int] | None, list[int] | None]
    tuned: Model | None
    measures: Mapping[str, Measure]
    say: Progress
    ranks: Ranks = ALONE

    def read(
        self, model: Model, label: str, some: Sequence[int] | None = None, corpus: Corpus | None = None, also: Sequence[str] = ()
    ) -> Activations:
        """The rows of one model on the texts (or on some of them, or on others), and under the further poolings."""
        texts = self.corpus if corpus is None else corpus
        texts = texts if some is None else texts.rows(some)

        def report(done: int, total: int) -> None:
            self.say(f"reading texts with {label}", done, total)

        layers = self.layers[model is self.tuned]
        return capture(model, texts.texts, **self.reading, layers=layers, also=also, ids=texts.ids, progress=report, ranks=self.ranks)

    def noise(self, model: Model, acts: Activations, corpus: Corpus | None = None) -> Noise:
        """The change that a model shows against itself when its texts fall into other batches; not measured for token rows."""
        if acts.pooling == "none":
            return {}
        texts = (self.corpus if corpus is None else corpus).texts
        step = max(1, len(texts) // NOISE_TEXTS)
        keep = slice(0, step * NOISE_TEXTS, step)
        size = max(1, self.reading["batch_size"] // 2 + 1)
        other = {**self.reading, "pooling": acts.pooling, "batch_size": size, "reverse": True}
        again = capture(model, texts[keep], **other, layers=list(acts.layers))
        pairs = [(i, acts.layers[i], again.layers[i]) for i in acts.layers] + [(s, acts.sites[s], again.sites[s]) for s in acts.sites]
        cells = {where: value_and_change(first[keep], second, self.measures) for where, first, second in pairs}
        return {where: {name: cell["change"] and abs(cell["change"]) for name, cell in row.items()} for where, row in cells.items()}


def layers_of_base(layers: list[int] | None, base_depth: int, depth: int, *, name: str) -> list[int] | None:
    """`layers` count on the tuned side; the base side reads their partners. Raises InputError for one the tuned side has not."""
    if layers is None:
        return None
    if any(not 0 <= index <= depth for index in layers):
        raise InputError(f"layers {','.join(map(str, layers))} asked for; '{name}' has 0 (embeddings) to {depth}")
    return [partner(index, depth, base_depth) for index in layers]
