"""One side of a comparison as rows: whether a model has just made them or they were read from somewhere no longer matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tunescope.activations import Activations
from tunescope.comparison.layers import Place
from tunescope.errors import AlignmentError
from tunescope.geometry.rows import Rows
from tunescope.models import Model


@dataclass(frozen=True, eq=False)
class Side:
    """Rows by layer and site, how many blocks their model has, and what says exactly which model it was.

    identity: as `Model.identity()` gives it, the hashes of weights and tokenizer included. warnings: what its loading had to say.
    """

    acts: Activations
    depth: int
    identity: dict[str, Any]
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Model, acts: Activations, identity: dict[str, Any] | None = None) -> Side:
        """The side of a model that has just been run; its identity is worked out (weights are hashed) unless it is known."""
        return cls(acts, model.anatomy.n_layers, identity or model.identity(), tuple(model.warnings))

    @property
    def name(self) -> str:
        return self.identity["name"]


@dataclass(frozen=True, eq=False)
class Pairing:
    """The rows of both sides at one place; `where` is the layer or site that the base's were read at."""

    place: Place
    x: Tensor
    y: Tensor
    where: int | str

    def rows(self, groups: Tensor | None = None) -> Rows:
        """The paired rows, checked; groups: the text of each, when they are tokens."""
        return Rows.of(self.x, self.y, groups)

    @property
    def n(self) -> int:
        """How many rows were compared."""
        return len(self.y)

    @property
    def work(self) -> float:
        """Multiply-adds of the moments of these rows."""
        return self.n * min(self.n, self.y.shape[1]) ** 2


def partner(index: int, tuned_depth: int, base_depth: int) -> int:
    """The base layer at the same relative depth as a tuned layer."""
    return index if tuned_depth == base_depth else round(index / tuned_depth * base_depth)


def pairings(base: Side, tuned: Side) -> Sequence[Pairing]:
    """Every tuned layer with the base layer at its relative depth, then every site both have."""
    found = []
    for index in tuned.acts.layers:
        own = partner(index, tuned.depth, base.depth)
        name = tuned.acts.names[index] if own == index else f"{tuned.acts.names[index]} (base {base.acts.names[own]})"
        found.append(Pairing(Place(name, index, index / tuned.depth), base.acts.layers[own], tuned.acts.layers[index], own))
    sites = [site for site in tuned.acts.sites if site in base.acts.sites]
    return found + [Pairing(Place(site), base.acts.sites[site], tuned.acts.sites[site], site) for site in sites]


def check_tokenizers(base: dict[str, Any], tuned: dict[str, Any]) -> None:
    """Raise AlignmentError unless the identities name one tokenizer, so that token rows are of the same tokens."""
    if base["tokenizer_sha256"] != tuned["tokenizer_sha256"]:
        raise AlignmentError(
            "the tokenizers of base and tuned differ, so their token rows are not the same tokens; compare pooled texts (--pooling mean)"
        )
