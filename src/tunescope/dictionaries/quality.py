"""How well a dictionary reconstructs held-out rows, summed document by document so that every figure has its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from tunescope.dictionaries.alignment_row import Figure
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.errors import AlignmentError, Degenerate, InputError

DEFINITIONS = {
    "r2": "1 − E|x−x̂|² / (E|x|² − |E x|²), in float64, over held-out rows: an error in the mean counts",
    "r2_centred": "1 − (E|x−x̂|² − |E(x−x̂)|²) / (E|x|² − |E x|²): the same once the mean error is removed",
    "fvu": "1 − R²: the share of the variance that is left unexplained; 1 is the mean alone, more is worse than the mean",
    "l0": "mean number of active features in a row",
    "constant_share": "|EΔ|² / E|Δ|²: how much of Δ is one constant vector",
    "density": "the share of rows a feature is active in",
    "dead_share": "the share of features active in none of the held-out rows",
}
_LEFT = 1e-3  # of the variance: what must be left without a document for a share of it to mean anything
EDGES = tuple(float(10 ** (power / 2)) for power in range(-12, 1))  # of the density histogram: two bins a factor of ten


@dataclass(frozen=True)
class Quality:
    """The figures of `DEFINITIONS`, with 95% intervals over documents (jackknife).

    density (n,) of every feature; histogram: how many features fire in each interval of `EDGES`; those that never do are not among them.
    """

    rows: int
    documents: int
    r2: Figure
    r2_centred: Figure
    fvu: Figure
    constant_share: Figure
    l0: Figure | None
    dead_share: float | None
    density: Float[Tensor, " n"] | None
    histogram: tuple[int, ...] | None


@dataclass(frozen=True, eq=False)
class QualitySums:
    """Sums over rows x and what was made of them, x̂, in each of g documents; float64, mergeable with `+`.

    e = x − x̂. fired (n,): in how many rows each feature is active, active (g,) how often any is; None where only x̂ was given. Memory
    is 2 · g · d numbers: the figures without each document need its mean vectors.
    """

    document: Int[Tensor, " g"]
    rows: Float[Tensor, " g"]
    x: Float[Tensor, "g d"]
    xx: Float[Tensor, " g"]
    e: Float[Tensor, "g d"]
    ee: Float[Tensor, " g"]
    active: Float[Tensor, " g"] | None = None
    fired: Float[Tensor, " n"] | None = None

    @classmethod
    def of(
        cls,
        x: Shaped[Tensor, "b d"],
        x_hat: Shaped[Tensor, "b d"],
        *,
        documents: Int[Tensor, " rows"],
        codes: Shaped[Tensor, "rows n"] | None = None,
    ) -> QualitySums:
        """Of one batch. documents: of which document each row is. codes: the feature activations.

        Raises: AlignmentError, where these are not of the same rows.
        """
        if x.shape != x_hat.shape or len(documents) != len(x) or (codes is not None and len(codes) != len(x)):
            raise AlignmentError(
                f"x {tuple(x.shape)}, x̂ {tuple(x_hat.shape)}, {len(documents)} documents and "
                f"{'no' if codes is None else len(codes)} codes given; all must be of the same rows"
            )
        document, place = torch.as_tensor(documents, device=x.device).unique(return_inverse=True)
        wide, error = x.double(), x.double() - x_hat.double()
        active = None if codes is None else (codes != 0).sum(1).double()

        def summed(values: Tensor) -> Tensor:
            return values.new_zeros(len(document), *values.shape[1:]).index_add_(0, place, values)

        return cls(
            document,
            summed(torch.ones_like(place, dtype=torch.float64)),
            summed(wide),
            summed(wide.square().sum(1)),
            summed(error),
            summed(error.square().sum(1)),
            None if active is None else summed(active),
            None if codes is None else (codes != 0).sum(0).double(),
        )

    @classmethod
    def of_dictionary(cls, dictionary: Dictionary, batches: Iterable[tuple[Tensor, Tensor]]) -> QualitySums:
        """Of all (rows, documents) batches, through the dictionary's own encoder."""
        return cls.merged([cls.of(x, hat, documents=documents, codes=codes) for x, documents, hat, codes in _through(dictionary, batches)])

    @classmethod
    def merged(cls, parts: Sequence[QualitySums]) -> QualitySums:
        """The sum of several, at once. Raises InputError for none."""
        if not parts:
            raise InputError("no rows given to measure a dictionary on; the held-out split is empty")
        document, place = torch.cat([part.document for part in parts]).unique(return_inverse=True)

        def summed(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            if any(value is None for value in values):
                return None
            joined = torch.cat(values)
            return joined.new_zeros(len(document), *joined.shape[1:]).index_add_(0, place, joined)

        fired = [part.fired for part in parts if part.fired is not None]
        sums = {name: summed(name) for name in ("rows", "x", "xx", "e", "ee", "active")}
        return cls(document=document, **sums, fired=torch.stack(fired).sum(0) if len(fired) == len(parts) else None)

    def __add__(self, other: QualitySums) -> QualitySums:
        return self.merged([self, other])

    @cached_property
    def _mean_squares(self) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """E|x|², |E x|², E|e|², |E e|²: over all documents, and without each (g,)."""
        rows = self.rows.sum()
        whole, without = [], []
        for squares, sums in ((self.xx, self.x), (self.ee, self.e)):
            total = sums.sum(0)
            whole += [squares.sum() / rows, total @ total / rows**2]
            left = rows - self.rows
            rest = total @ total - 2 * sums @ total + sums.square().sum(1)
            without += [(squares.sum() - squares) / left, rest / left**2]
        return tuple(value.cpu().numpy() for value in whole), tuple(value.cpu().numpy() for value in without)

    def compute(self) -> Quality:
        """All figures. Raises: Degenerate, where the rows do not vary (a zero delta has no variance to explain)."""
        density = None if self.fired is None else self.fired / self.rows.sum()
        counts = None if density is None else np.histogram(density[density > 0].clamp(EDGES[0], 1).cpu().numpy(), bins=np.array(EDGES))[0]
        r2 = self._figure(_r2)
        return Quality(
            int(self.rows.sum()),
            len(self.document),
            r2,
            self._figure(_r2_centred),
            _complement(r2),
            self._figure(lambda xx, x, ee, e: x / xx),
            None if self.active is None else self._mean(self.active),
            None if self.fired is None else float((self.fired == 0).double().mean()),
            density,
            None if counts is None else tuple(int(count) for count in counts),
        )

    @property
    def fvu(self) -> Figure:
        """The unexplained share alone. Raises Degenerate as `compute` does."""
        return _complement(self._figure(_r2))

    @property
    def fvu_without(self) -> np.ndarray:
        """(g,) the unexplained share without each document."""
        return 1 - _r2(*self._known)

    def _figure(self, figure: Any) -> Figure:
        whole = self._mean_squares[0]
        if not float(whole[0]) - float(whole[1]) > 1e-14 * float(whole[0]):
            raise Degenerate(f"all {int(self.rows.sum()):,} rows are the same, so no share of their variance can be explained")
        if len(self.document) < 2:
            return Figure(float(figure(*whole)))
        return Figure.of(float(figure(*whole)), figure(*self._known), bounds=(-math.inf, 1.0))

    @property
    def _known(self) -> tuple[np.ndarray, ...]:
        """`without`, NaN where nearly all variance is one document's: what is left without it is no yardstick for any share."""
        (xx, x, *_), without = self._mean_squares
        varies = without[0] - without[1] > _LEFT * (xx - x)
        return tuple(np.where(varies, values, math.nan) for values in without)

    def _mean(self, sums: Tensor) -> Figure:
        rows, total = self.rows, sums.sum()
        without = ((total - sums) / (rows.sum() - rows)).cpu().numpy() if len(rows) > 1 else np.empty(0)
        return Figure.of(float(total / rows.sum()), without)


def improvement(adapter: QualitySums, pretrained: QualitySums) -> Figure:
    """100 · (1 − error_adapter / error_pretrained), in percent: how much smaller the squared error is, on the same rows.

    Raises: AlignmentError (other documents), Degenerate (the pretrained dictionary leaves no error).
    """
    if not torch.equal(adapter.document, pretrained.document) or not torch.equal(adapter.rows, pretrained.rows):
        raise AlignmentError("the two errors are of different held-out rows; measure both dictionaries on the same documents")
    own, other = (sums.ee.cpu().numpy() for sums in (adapter, pretrained))
    if other.sum() == 0:
        raise Degenerate("the pretrained dictionary leaves no error at all, so there is nothing to improve on")
    value = 100 * (1 - own.sum() / other.sum())
    if len(own) < 2:
        return Figure(float(value))
    return Figure.of(float(value), 100 * (1 - (own.sum() - own) / (other.sum() - other)))


def _r2(xx: Any, x: Any, ee: Any, e: Any) -> Any:
    return 1 - ee / (xx - x)


def _r2_centred(xx: Any, x: Any, ee: Any, e: Any) -> Any:
    return 1 - (ee - e) / (xx - x)


def _complement(figure: Figure) -> Figure:
    low, high = figure.low, figure.high
    return Figure(1 - figure.value, None if high is None else 1 - high, None if low is None else 1 - low)


def _through(dictionary: Dictionary, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterable[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Encoded once where the decoder reads nothing but the codes."""
    plain = dictionary.scaling is None and dictionary.skip is None
    for x, documents in batches:
        codes = dictionary.encode(x)
        yield x, documents, dictionary.decode(codes) if plain else dictionary.reconstruct(x), codes
