"""How far a model is from its base on given texts, by one measure at one place: what targets and matches are stated in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tunescope.activations import capture
from tunescope.activations.capture import SITES
from tunescope.errors import InputError, UnknownName
from tunescope.geometry import MEASURES, Measure
from tunescope.models import Model
from tunescope.texts import Corpus, as_corpus

Place = int | str


@dataclass(frozen=True, eq=False)
class DistanceReader:
    """The rows of `base` on the texts at one place, read once; `value(model)` reads another model there and measures it against them.

    at: a site (output, final) or the index of a layer. Both sides are read alike; by default as the base deploys itself: its prompt and
    its length.
    """

    base: Model
    measure: Measure
    at: Place
    corpus: Corpus
    reading: Mapping[str, Any]  # prompt, max_length, pooling, batch_size
    rows: Tensor  # (n, e)

    @classmethod
    def of(
        cls,
        base: Model,
        texts: Any,
        *,
        measure: str,
        at: Place = "output",
        pooling: str = "mean",
        batch_size: int = 32,
        prompt: str | None = None,
        max_length: int | None = None,
    ) -> DistanceReader:
        """Raises UnknownName (measure, site), InputError (a measure without a direction, a layer the base lacks), NotEnoughRows."""
        found, corpus = directed(measure), as_corpus(texts)
        if isinstance(at, str) and at not in SITES:
            raise UnknownName("site", at, SITES)
        found.check(len(corpus))
        reading = {
            "prompt": base.output.prompt if prompt is None else prompt,
            "max_length": base.max_length if max_length is None else max_length,
            "pooling": pooling,
            "batch_size": batch_size,
        }
        return cls(base, found, at, corpus, reading, _rows(base, corpus, at, reading))

    def value(self, model: Model) -> float:
        """The measure between the base and `model`. Raises Degenerate, ActivationError."""
        moved = _rows(model, self.corpus, self.at, self.reading)
        return self.measure.identity if moved.equal(self.rows) else self.measure(self.rows, moved)

    @property
    def where(self) -> str:
        """The place as a message calls it."""
        return f"layer {self.at}" if isinstance(self.at, int) else self.at


def directed(name: str) -> Measure:
    """The measure of that name, whose distance from an unmoved model is known to grow one way.

    Raises: UnknownName; InputError for a property of one side and for a number of directions.
    """
    known = {key: measure for key, measure in MEASURES.items() if not measure.one_sided and key != "change_rank"}
    if name in MEASURES and name not in known:
        raise InputError(f"{name} says not how far a model moved, so it cannot be a target; take {', '.join(known)}")
    if name not in known:
        raise UnknownName("measure", name, known)
    return known[name]


def parse_target(to: str | Mapping[str, float]) -> tuple[str, float]:
    """'nps=.48' or {'nps': .48} as (measure, value). Raises InputError."""
    pairs = list(to.items()) if isinstance(to, Mapping) else [tuple(part.strip() for part in str(to).split("=", 1))]
    try:
        ((name, value),) = pairs
        return str(name), float(value)
    except ValueError:
        raise InputError(f"a target of {to!r} asked for; give one measure and its value, such as nps=.48") from None


def _rows(model: Model, corpus: Corpus, at: Place, reading: Mapping[str, Any]) -> Tensor:
    places: dict[str, Any] = {"layers": [at], "sites": ()} if isinstance(at, int) else {"layers": (), "sites": (at,)}
    acts = capture(model, corpus.texts, ids=corpus.ids, **places, **reading)
    return acts.layers[at] if isinstance(at, int) else acts.sites[at]
