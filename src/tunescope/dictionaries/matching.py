"""`ts.match_dictionaries`: which features of one dictionary another has, one to one, against chance and against another seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tunescope.dictionaries.alignment_row import AlignmentRow, above, mean_and_sd
from tunescope.dictionaries.assignment import method_of, one_to_one
from tunescope.dictionaries.chance_dictionaries import chance_directions, said
from tunescope.dictionaries.directions import directions, same_width
from tunescope.dictionaries.spectrum import Spectrum
from tunescope.errors import InputError

DRAWS = 3
SHARED_AT = 0.7
_CEILING = "the same dictionary trained from another seed"


@dataclass(frozen=True, eq=False)
class Cosines:
    """Cosines of two dictionaries: nearest in either direction, and one to one.

    nearest_a (n,): of each feature of a the largest cosine in b, at latent at_b; nearest_b (m,), at_a likewise. pairs (min(n, m), 2):
    latent of a, latent of b, closest pair first, that together have the largest sum of cosines; cosines: theirs.
    """

    nearest_a: Float[Tensor, " n"]
    at_b: Int[Tensor, " n"]
    nearest_b: Float[Tensor, " m"]
    at_a: Int[Tensor, " m"]
    pairs: Int[Tensor, "p 2"]
    cosines: Float[Tensor, " p"]

    @classmethod
    def of(cls, a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Cosines:
        """Of unit directions."""
        near, (pairs, cosines) = one_to_one(a, b)
        return cls(near.of_a[:, 0], near.at_b[:, 0], near.of_b[:, 0], near.at_a[:, 0], pairs, cosines)

    def shared(self, at: float) -> float:
        """The share of pairs at this cosine or closer."""
        return float((self.cosines >= at).double().mean())


@dataclass(frozen=True)
class Chance:
    """Means and spreads over draws, with a random dictionary in the place of b for `max_a`, of a for `max_b`.

    one_to_one, shared: in the place of whichever gives more, so that they are the same for (b, a). near_99: the cosine that a feature of a
    passes, to its nearest random one, once in a hundred. drawn: what the random directions of one_to_one are; drawn_a, drawn_b: of either.
    """

    drawn: str
    drawn_a: str
    drawn_b: str
    one_to_one: tuple[float, float]
    shared: tuple[float, float]
    max_a: tuple[float, float]
    max_b: tuple[float, float]
    near_99: float


@dataclass(frozen=True, eq=False, repr=False)
class DictionaryMatch:
    """Two dictionaries, feature by feature, with what chance and a second seed give.

    cosines of the `pairs` (latent of a, latent of b), closest first; `found` has the nearest features of each direction as well. value:
    the mean of `cosines`; shared: the share of pairs at `shared_at` or closer. ceiling: the same of a seed pair, None where none was given.
    """

    found: Cosines
    chance: Chance
    ceiling: Cosines | None
    shared_at: float
    method: str
    verdict: str

    def __repr__(self) -> str:
        top = "" if self.ceiling is None else f", ceiling={_mean(self.ceiling.cosines):.3f}"
        return f"DictionaryMatch(value={self.value:.3f}, floor={self.floor:.3f}{top}, verdict='{self.verdict}', pairs={len(self.cosines)})"

    @property
    def pairs(self) -> Int[Tensor, "p 2"]:
        return self.found.pairs

    @property
    def cosines(self) -> Float[Tensor, " p"]:
        return self.found.cosines

    @property
    def value(self) -> float:
        return float(self.found.cosines.double().mean())

    @property
    def floor(self) -> float:
        return self.chance.one_to_one[0]

    @property
    def shared(self) -> float:
        return self.found.shared(self.shared_at)

    def rows(self, sides: str = "a with b") -> tuple[AlignmentRow, ...]:
        """One-to-one cosine, share of shared pairs, and largest cosine in both directions, each with floor and ceiling."""
        top, chance, at = self.ceiling, self.chance, self.shared_at
        first, with_, last = sides.rpartition(" with ")
        first, last = (first, last) if with_ else ("a", "b")
        tops = (None,) * 4 if top is None else (_mean(top.cosines), top.shared(at), _mean(top.nearest_a), _mean(top.nearest_b))
        near_a, near_b = self.found.nearest_a, self.found.nearest_b
        parts = (
            ("one_to_one_cosine", sides, self.value, chance.one_to_one, chance.drawn, len(self.cosines), self.method),
            ("shared_share", sides, self.shared, chance.shared, chance.drawn, len(self.cosines), f"cosine {at} or closer"),
            ("max_cosine", f"each of {first} with the nearest of {last}", _mean(near_a), chance.max_a, chance.drawn_b, len(near_a), None),
            ("max_cosine", f"each of {last} with the nearest of {first}", _mean(near_b), chance.max_b, chance.drawn_a, len(near_b), None),
        )
        return tuple(
            AlignmentRow(
                name, of, value, *floor, drawn, end, None if end is None else _CEILING, n=n, note=note,
                unit="features" if name == "max_cosine" else "pairs", verdict=above(value, floor[0], sd=floor[1], ceiling=end),
            )
            for (name, of, value, floor, drawn, n, note), end in zip(parts, tops, strict=True)
        )


def match_dictionaries(
    a: Any,
    b: Any,
    *,
    activations: Any = None,
    seed_pair: tuple[Any, Any] | None = None,
    shared_at: float = SHARED_AT,
    draws: int = DRAWS,
    seed: int = 0,
) -> DictionaryMatch:
    """The features of a and b that are one another's: the one-to-one pairing of decoder rows with the largest sum of cosines.

    Cosines keep their sign, as feature activations are never negative. Dead latents count; give `decoder[alive]` to leave them out.

    Args:
        a, b: a `Dictionary` each, or decoder arrays (n, d) and (m, d).
        activations: rows (or their `Spectrum`) whose covariance the random dictionaries of the floor are drawn from; without them the
            directions are isotropic, a floor that is too low where activations crowd a few directions. A pair of them where a and b
            were trained on different rows: what stands for a is then drawn like the first, for b like the second.
        seed_pair: two trainings of one dictionary, from different seeds: the ceiling.
        shared_at: the cosine from which a pair counts as shared.
        draws: random dictionaries; seed: of them.

    Returns: pairs and cosines; floor, ceiling and verdict; `rows()` for a table.

    Raises: AlignmentError (widths differ), ActivationError (NaN or Inf), InputError (no draws, shared_at outside −1 to 1).

    Reference: Paulo and Belrose 2025, Sparse autoencoders trained on the same data learn different features
    (https://arxiv.org/abs/2501.16615): about 30% are shared between seeds of a large TopK autoencoder.
    """
    if draws < 1 or not -1 <= shared_at <= 1:
        raise InputError(f"draws {draws} and shared_at {shared_at} given; a floor needs at least 1 draw, and a cosine is −1 to 1")
    left, right = directions(a, "a"), directions(b, "b")
    same_width(left, right)
    like = _likes(activations, left.shape[1])
    found, chance = Cosines.of(left, right), _chance(left, right, *like, shared_at=shared_at, draws=draws, seed=seed)
    ceiling = None
    if seed_pair is not None:
        seeds = directions(seed_pair[0], "a seed"), directions(seed_pair[1], "a second seed")
        for each in seeds:
            same_width(left, each)
        ceiling = Cosines.of(*seeds)
    verdict = above(
        _mean(found.cosines), chance.one_to_one[0], sd=chance.one_to_one[1], ceiling=None if ceiling is None else _mean(ceiling.cosines)
    )
    return DictionaryMatch(found, chance, ceiling, shared_at, method_of(len(left), len(right)), verdict)


def _likes(activations: Any, width: int) -> tuple[Spectrum | None, Spectrum | None]:
    """What random dictionaries in the place of a and of b are drawn like. Raises InputError for another width."""
    if not isinstance(activations, tuple):
        found = activations if activations is None or isinstance(activations, Spectrum) else Spectrum.of(activations)
        activations = (found, found)
    if len(activations) != 2:
        raise InputError(f"{len(activations)} sets of activations given; give one for both dictionaries, or one each, (of_a, of_b)")
    first, second = (each if each is None or isinstance(each, Spectrum) else Spectrum.of(each) for each in activations)
    for each in (first, second):
        if each is not None and len(each.mean) != width:
            raise InputError(f"activations of width {len(each.mean)} given for dictionaries of width {width}")
    return first, second


def _chance(a: Tensor, b: Tensor, like_a: Spectrum | None, like_b: Spectrum | None, *, shared_at: float, draws: int, seed: int) -> Chance:
    """Random dictionaries of b's size set against a, and of a's against b."""
    for_b, for_a = [], []
    for draw in range(seed, seed + draws):
        for_b.append(Cosines.of(a, chance_directions(*b.shape, like=like_b, seed=draw)))
        for_a.append(Cosines.of(chance_directions(*a.shape, like=like_a, seed=draw), b))
    near = torch.cat([one.nearest_a for one in for_b[: max(1, 16_000_000 // len(a))]])
    of_b, of_a = (mean_and_sd([_mean(one.cosines) for one in all_draws]) for all_draws in (for_b, for_a))
    return Chance(
        said(like_b if of_b >= of_a else like_a),
        said(like_a),
        said(like_b),
        max(of_b, of_a),
        max(mean_and_sd([one.shared(shared_at) for one in all_draws]) for all_draws in (for_b, for_a)),
        mean_and_sd([_mean(one.nearest_a) for one in for_b]),
        mean_and_sd([_mean(one.nearest_b) for one in for_a]),
        float(near.double().quantile(0.99)),
    )


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
